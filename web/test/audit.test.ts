// What the page makes of an audit.
import { expect, it } from 'vitest';
import { bands, verdict } from '../src/jobs/audit';

it('a verdict is bad only where nothing more is to come', () => {
  const audit = { exact: false, missing: 5, repeated: 0, state: 'computing' };
  expect(verdict(audit)).toBe('open');
  expect(verdict({ ...audit, state: 'completed' })).toBe('missing');
  expect(verdict({ ...audit, state: 'cancelled' })).toBe('stopped');
  expect(verdict({ ...audit, repeated: 1 })).toBe('repeated');
  expect(verdict({ ...audit, exact: true, missing: 0 })).toBe('exact');
});

it('even one nonce of four thousand million can be seen, and within the bar', () => {
  expect(bands([[0, 2 ** 31]], [0, 2 ** 32], 100)).toEqual([{ x: 0, width: 50 }]);
  expect(bands([[2 ** 32 - 1, 2 ** 32]], [0, 2 ** 32], 100)).toEqual([{ x: 98, width: 2 }]);
});
