// The way of a job in four stretches: queued, assigned, computing, done. From its events, or its times where they are missing.
// Pure.
import { parseTime } from '../lib/format';
import { ended, type Job, type JobEvent } from '../lib/types';

export type StageName = 'queued' | 'assigned' | 'computing' | 'done';

export interface Stage {
  name: StageName;
  /** `ahead`: not reached; `now`: here; `past`: behind; `skipped`: the job ended without it. */
  status: 'ahead' | 'now' | 'past' | 'skipped';
  at: number | null;
  tookMs: number | null;
}

const NAMES: StageName[] = ['queued', 'assigned', 'computing', 'done'];

function stageOf(state: string): StageName {
  if (ended(state)) return 'done';
  return state === 'assigned' || state === 'computing' ? state : 'queued';
}

/** The last time each stage was entered: a job that was retried shows its latest way. */
function entered(job: Job, events: JobEvent[]): Partial<Record<StageName, number>> {
  const times: Partial<Record<StageName, number>> = {};
  const started = parseTime(job.started_at);
  const finished = parseTime(job.finished_at);
  times.queued = parseTime(job.created_at) ?? 0;
  if (started !== null) times.computing = started;
  if (finished !== null) times.done = finished;
  for (const event of events) {
    if (!event.timestamp || event.type === 'delta' || event.type === 'progress') continue;
    const stage = stageOf(event.type);
    if (stage === 'queued' || (stage === 'done' && !ended(job.state))) continue;
    times[stage] = stage === 'computing' && times.computing ? times.computing : event.timestamp;
  }
  return times;
}

export function timeline(job: Job, events: JobEvent[], now: number): Stage[] {
  const times = entered(job, events);
  const here = NAMES.indexOf(stageOf(job.state));
  return NAMES.map((name, i) => {
    const at = times[name] ?? null;
    const next = NAMES.slice(i + 1).find((later) => times[later] !== undefined);
    const end = next ? times[next] : undefined;
    const status = i > here ? 'ahead' : i === here ? 'now' : at === null ? 'skipped' : 'past';
    const until = end ?? (status === 'now' && name !== 'done' ? now : null);
    const tookMs = at === null || until === null || status === 'ahead' ? null : Math.max(0, until - at);
    return { name, status: status === 'now' && name === 'done' ? 'past' : status, at: status === 'ahead' ? null : at, tookMs };
  });
}
