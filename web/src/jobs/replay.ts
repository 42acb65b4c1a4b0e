// Starts failed jobs again by filter, a call for each ten thousand; or only counts them.
import { api } from '../lib/api';
import type { Problem } from '../lib/problem';

export interface ReplayFilter {
  kind?: string;
  queue?: string;
  project?: string;
  label?: string;
  code?: string;
  owner?: string;
}

export interface Replayed {
  matched: number;
  retried: number;
  refused: { id: string; error: Partial<Problem> & { detail?: string } }[];
}

export async function replay(filter: ReplayFilter, countOnly: boolean, onstep: (sofar: Replayed) => void): Promise<Replayed> {
  const total: Replayed = { matched: 0, retried: 0, refused: [] };
  let cursor: string | null = null;
  do {
    const step: Replayed & { next_cursor?: string | null } = await api.retryMany({ ...filter, dry_run: countOnly, ...(cursor ? { cursor } : {}) });
    total.matched += step.matched;
    total.retried += step.retried;
    total.refused.push(...step.refused);
    onstep({ ...total });
    cursor = step.next_cursor ?? null;
  } while (cursor !== null);
  return total;
}
