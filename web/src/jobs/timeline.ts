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

/** When each stage was first entered since the job was submitted, or replayed. */
function entered(job: Job, events: JobEvent[]): Partial<Record<StageName, number>> {
  let times: Partial<Record<StageName, number>> = {};
  for (const event of events) {
    if (!event.timestamp || event.type === 'delta' || event.type === 'progress') continue;
    const stage = stageOf(event.type);
    if (times.done !== undefined && stage !== 'done') times = { queued: event.timestamp };
    times[stage] ??= event.timestamp;
  }
  times.queued ??= parseTime(job.created_at) ?? undefined;
  times.assigned ??= parseTime(job.started_at) ?? undefined;
  if (stageOf(job.state) === 'computing' || job.state === 'completed') times.computing ??= times.assigned;
  if (ended(job.state)) times.done ??= parseTime(job.finished_at) ?? undefined;
  else delete times.done;
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
