// The attempts of a job over time, a lane for each worker: where it went, what came back, what was lost. Pure.
import { parseTime } from '../lib/format';
import type { Attempt, Unit } from '../lib/types';

export interface Span {
  unit: string;
  attempt: number;
  outcome: string | null;
  from: number;
  to: number;
  /** Of those that overlap within a lane. */
  row: number;
}

export interface Lane {
  worker: string;
  rows: number;
  spans: Span[];
}

export interface Chart {
  from: number;
  to: number;
  lanes: Lane[];
  count: number;
}

/** More at once than this share the last row. */
const ROWS_MAX = 4;

/** What is running goes up to `now`. */
function spanOf(unit: Unit, attempt: Attempt, now: number): Span | null {
  const from = parseTime(attempt.started_at);
  if (from === null) return null;
  const to = parseTime(attempt.finished_at) ?? Math.max(now, from);
  return { unit: unit.unit_id.split('/').at(-1) ?? '', attempt: attempt.attempt, outcome: attempt.outcome ?? null, from, to: Math.max(from, to), row: 0 };
}

function stacked(worker: string, spans: Span[]): Lane {
  const ends: number[] = [];
  const placed = spans
    .toSorted((a, b) => a.from - b.from)
    .map((span) => {
      const free = ends.findIndex((end) => end <= span.from);
      const row = Math.min(free >= 0 ? free : ends.length, ROWS_MAX - 1);
      ends[row] = Math.max(ends[row] ?? 0, span.to);
      return { ...span, row };
    });
  return { worker, rows: Math.max(1, ends.length), spans: placed };
}

export function chart(units: Unit[], now: number): Chart | null {
  const lanes = new Map<string, Span[]>();
  for (const unit of units) {
    for (const attempt of unit.attempts ?? []) {
      const span = spanOf(unit, attempt, now);
      const worker = attempt.worker_id ?? '';
      if (span) lanes.set(worker, [...(lanes.get(worker) ?? []), span]);
    }
  }
  const spans = [...lanes.values()].flat();
  if (spans.length === 0) return null;
  return {
    from: Math.min(...spans.map((span) => span.from)),
    to: Math.max(...spans.map((span) => span.to)),
    lanes: [...lanes].map(([worker, its]) => stacked(worker, its)).sort((a, b) => a.worker.localeCompare(b.worker)),
    count: spans.length,
  };
}

/** What colour and pattern an outcome has. */
export function toneOf(outcome: string | null): 'now' | 'ok' | 'bad' | 'calm' {
  if (outcome === null) return 'now';
  if (outcome === 'completed') return 'ok';
  return outcome === 'failed' || outcome === 'timed_out' || outcome === 'lease_expired' ? 'bad' : 'calm';
}
