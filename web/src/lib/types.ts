// The shapes on the wire, as REST and Socket.IO give them. What an older or newer master may leave out is optional.

export const JOB_STATES = [
  'blocked',
  'scheduled',
  'pending',
  'assigned',
  'computing',
  'completed',
  'failed',
  'cancelled',
] as const;
export type JobState = (typeof JOB_STATES)[number];

export const KINDS = ['ai.chat', 'ai.embed', 'randomx.hash', 'randomx.search', 'sha256d.hash', 'sha256d.search', 'echo'] as const;
export type Kind = (typeof KINDS)[number];

export interface JobError {
  code: string;
  message: string;
}

export interface Waiting {
  reason: string;
  detail?: string | null;
}

export interface Job {
  id: string;
  kind: string;
  state: JobState;
  queue?: string;
  project?: string | null;
  priority: number;
  owner?: string;
  labels?: Record<string, string> | null;
  payload?: unknown;
  created_at: string;
  started_at?: string | null;
  finished_at?: string | null;
  failures?: number;
  max_attempts?: number;
  progress?: { fraction?: number | null; units_total?: number | null; units_done?: number | null } | null;
  workers?: string[] | null;
  result?: unknown;
  error?: JobError | null;
  waiting?: Waiting | null;
  /** It has ended, and a worker that had a part in it was found since to send wrong results. */
  suspect?: boolean;
  /** The result is that of an earlier job. */
  cached?: boolean;
}

export interface Attempt {
  attempt: number;
  worker_id?: string | null;
  outcome?: string | null;
  error?: JobError | null;
  started_at?: string | null;
  finished_at?: string | null;
}

export interface Unit {
  unit_id: string;
  state: JobState;
  attempt?: number;
  failures?: number;
  worker_id?: string | null;
  progress?: number | null;
  /** Inputs or nonces from … to (not included). */
  range?: [number, number] | null;
  attempts?: Attempt[] | null;
  suspect?: boolean;
}

export interface Page<T> {
  items: T[];
  next_cursor?: string | null;
}

export const WORKER_STATES = ['idle', 'busy', 'paused', 'draining', 'quarantined', 'offline'] as const;
export type WorkerState = (typeof WORKER_STATES)[number];

/** Hashes a second, by the time they are averaged over. */
export type Hashrates = Record<'10s' | '60s' | '15m', number>;

export interface RandomxState {
  mode: 'idle' | 'light' | 'fast';
  key?: string | null;
  /** `huge`, `transparent` or `4k` */
  pages?: string | null;
  preparing?: string | null;
  progress?: number | null;
  datasets?: string[];
  shared?: boolean;
  threads?: number;
  hashrates?: Hashrates;
  thread_hashrates?: Hashrates[];
  held_back?: string | null;
}

export interface Worker {
  worker_id: string;
  status: WorkerState;
  language?: string | null;
  version?: string | null;
  /** Speaks the simple worker protocol. */
  simple?: boolean;
  /** Why it is set aside, or what it waits for. */
  status_detail?: string | null;
  /** Of one that is set aside; without a time only its operator lets it back in. */
  quarantine?: { reason: string; since: string; until?: string | null } | null;
  slots?: Record<string, number> | null;
  running?: number | Record<string, number> | unknown[] | null;
  kinds?: string[] | null;
  models?: string[] | null;
  capabilities?: {
    cores?: number;
    memory_mib?: number;
    features?: string[];
    hugepages?: unknown;
    gpus?: unknown[];
  } | null;
  labels?: Record<string, string> | null;
  load?: { cpu?: number | null; memory?: number | null } | null;
  hashrate?: number | null;
  /** Hashes a second by the name of the algorithm; `hashrate` is that of RandomX. */
  algorithms?: Record<string, number> | null;
  randomx?: RandomxState | null;
  connected_at?: string | null;
  last_seen_at?: string | null;
}

export interface Fleet {
  workers?: Record<string, number> | null;
  slots?: Record<string, { total: number; used: number }> | null;
  queue?: { depth: number; oldest_age_ms?: number | null } | null;
  hashrate?: number | null;
  algorithms?: Record<string, number> | null;
  hashrates?: Hashrates | null;
  jobs?: Record<string, number> | null;
}

export interface FleetHistory {
  interval_ms: number;
  points: { timestamp: string; hashrate: number }[];
}

export interface FleetTick extends Fleet {
  timestamp?: number;
  workers_list?: Worker[];
}

export interface JobEvent {
  jobId: string;
  seq?: number;
  attempt?: number;
  timestamp?: number;
  type: string;
  data?: unknown;
}

export interface AiUsage {
  input_tokens?: number;
  output_tokens?: number;
  thought_tokens?: number;
}

export interface AiResponse {
  query?: string;
  response: string;
  workerId?: string | null;
  processingTime?: number;
  timestamp?: number;
  jobId: string | null;
  model?: string | null;
  provider?: string | null;
  finish?: 'complete' | 'max_tokens' | 'blocked' | 'error';
  usage?: AiUsage | null;
  /** Oldest turns that the model did not see. */
  droppedTurns?: number;
  /** That one's own key was refused, and who answered instead. */
  notes?: string[];
  error?: JobError | null;
}

export interface LogLine {
  timestamp: number;
  source: string;
  level?: string;
  message: string;
  jobId?: string;
  workerId?: string;
  /** Lines before this one that were left out because the page was behind. */
  dropped?: number;
}

/** A job that will not change any more, unless someone replays it. */
export function ended(state: string): boolean {
  return state === 'completed' || state === 'failed' || state === 'cancelled';
}
