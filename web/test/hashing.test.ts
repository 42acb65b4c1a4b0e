// Hash rates of a fleet and the line they make.
import { expect, it } from 'vitest';
import { fleetRates, fromHistory, line, remember, scaleEnd, SPAN_MS } from '../src/fleet/hashing';
import type { Worker } from '../src/lib/types';

const rates = (n: number) => ({ '10s': n, '60s': 2 * n, '15m': 3 * n });
const worker = (status: Worker['status'], n: number): Worker => ({ worker_id: status, status, randomx: { mode: 'fast', hashrates: rates(n) } });

it('those who are gone do not count', () => {
  expect(fleetRates([worker('busy', 10), worker('offline', 99), { worker_id: 'old', status: 'idle', hashrate: 5 }])).toEqual({ '10s': 15, '60s': 25, '15m': 35 });
});

it('what is older than the line reaches is forgotten', () => {
  const trail = remember([{ ...rates(1), at: 0 }, { ...rates(2), at: SPAN_MS / 2 }], rates(3), SPAN_MS + 1);
  expect(trail.map(({ at }) => at)).toEqual([SPAN_MS / 2, SPAN_MS + 1]);
});

it('the scale ends at a round figure', () => {
  expect([0, 0.3, 1, 1.1, 480, 2400, 9001].map(scaleEnd)).toEqual([1, 0.5, 1, 2, 500, 5000, 10_000]);
});

it('the newest stands at the right, the greatest at the top', () => {
  const trail = [{ ...rates(0), at: 0 }, { ...rates(10), at: SPAN_MS }];
  expect(line(trail, '10s', SPAN_MS, 10, 100, 50)).toBe('M0.0 50.0L100.0 0.0');
  expect(line(trail.slice(1), '10s', SPAN_MS, 10, 100, 50)).toBe('');
});

it('the averages of the past follow from its points', () => {
  const points = Array.from({ length: 12 }, (_, i) => ({ timestamp: new Date(i * 10_000).toISOString(), hashrate: i }));
  const past = fromHistory({ interval_ms: 10_000, points });
  expect(past.at(-1)).toEqual({ at: 110_000, '10s': 11, '60s': 8.5, '15m': 5.5 });
});
