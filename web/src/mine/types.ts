// Work sources as REST gives them.
export type SourceState = 'stopped' | 'connecting' | 'mining' | 'failing';

export interface Source {
  id: string;
  source: 'monerod' | 'stratum';
  state: SourceState;
  detail: string;
  config: { url?: string; wallet_address?: string; pools?: { url: string; user: string }[] };
  priority: number;
  created_at: string;
  connected_to?: string | null;
  work?: {
    job_id?: string | null;
    height?: number | null;
    seed_hash: string;
    next_seed_hash?: string | null;
    difficulty: number;
    since: string;
  } | null;
  counters: {
    found: number;
    accepted: number;
    rejected: number;
    stale: number;
    invalid: number;
    reasons: Record<string, number>;
    blocks: number;
    orphaned: number;
    hashes: number;
    wasted_hashes: number;
  };
  hashrate: number;
  effort: number;
  expected_seconds?: number | null;
  last_accepted_at?: string | null;
  blocks: { height: number; hash: string; state: 'submitted' | 'confirmed' | 'orphaned'; worker_id?: string | null; found_at: string }[];
  guests: number;
}
