// The audit of a job as REST gives it, and the bar that shows it. Pure.
export type Range = [from: number, to: number];

export interface Audit {
  state: string;
  range: Range;
  exact: boolean;
  covered: number;
  missing: number;
  repeated: number;
  /** Of workers that were found to send wrong results. */
  suspect?: number;
  gaps: Range[];
  overlaps: Range[];
  workers: { worker_id: string; units: number; computed: number; suspect?: number }[];
}

export interface Band {
  x: number;
  width: number;
}

/** A range as a part of a bar of `width`; what is too narrow to be seen is made as wide as can be seen. */
export function bands(ranges: Range[], [from, to]: Range, width: number): Band[] {
  const all = Math.max(1, to - from);
  return ranges.map(([start, end]) => {
    const wide = Math.max(2, ((end - start) / all) * width);
    return { x: Math.min(((start - from) / all) * width, width - wide), width: wide };
  });
}

/** Good: all of it once. Open: more is to come. Bad: it has ended with something missing or twice. */
export function verdict({ exact, missing, repeated, state }: Pick<Audit, 'exact' | 'missing' | 'repeated' | 'state'>): 'exact' | 'open' | 'stopped' | 'missing' | 'repeated' {
  if (exact) return 'exact';
  if (repeated > 0) return 'repeated';
  if (state === 'cancelled' || state === 'failed') return 'stopped';
  return state === 'completed' && missing > 0 ? 'missing' : 'open';
}
