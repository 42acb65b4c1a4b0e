import { expect, test } from 'vitest';
import { chart, toneOf } from '../src/jobs/spans';
import type { Attempt, Unit } from '../src/lib/types';

const at = (ms: number) => new Date(1_000_000 + ms).toISOString();
const attempt = (n: number, worker: string, from: number, to: number | null, outcome: string | null): Attempt => ({ attempt: n, worker_id: worker, outcome, started_at: at(from), finished_at: to === null ? null : at(to) });
const unit = (index: number, attempts: Attempt[]): Unit => ({ unit_id: `job/${index}`, state: 'computing', attempts });

test('each worker has a lane, and what overlaps in it stands in rows', () => {
  const units = [unit(0, [attempt(1, 'b', 0, 100, 'lease_expired'), attempt(2, 'a', 120, 200, 'completed')]), unit(1, [attempt(1, 'b', 50, null, null)])];
  const drawn = chart(units, 1_000_000 + 400)!;
  expect(drawn.lanes.map(({ worker, rows }) => [worker, rows])).toEqual([['a', 1], ['b', 2]]);
  expect(drawn.count).toBe(3);
  expect([drawn.from, drawn.to]).toEqual([1_000_000, 1_000_400]);
  expect(drawn.lanes[1]!.spans.map(({ row, unit: of }) => [of, row])).toEqual([['0', 0], ['1', 1]]);
});

test('nothing was tried yet', () => {
  expect(chart([unit(0, [])], 0)).toBeNull();
});

test('an outcome has a tone', () => {
  expect([null, 'completed', 'timed_out', 'returned'].map(toneOf)).toEqual(['now', 'ok', 'bad', 'calm']);
});
