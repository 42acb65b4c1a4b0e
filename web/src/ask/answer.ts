// What becomes of one question: the pure reducer of its events. Knows neither sockets nor storage.
import type { AiResponse, AiUsage, Job, JobError, JobEvent, Waiting } from '../lib/types';

export type AnswerState = 'sending' | 'waiting' | 'assigned' | 'computing' | 'complete' | 'failed' | 'cancelled';

export interface Answer {
  state: AnswerState;
  jobId: string | null;
  text: string;
  /** The attempt that `text` belongs to: a higher one replaces it. */
  attempt: number;
  /** The last event that was applied; what is asked for again begins after it. */
  seq: number;
  position: number | null;
  /** Why no worker has it yet, as the master tells it. */
  waiting: Waiting | null;
  workerId: string | null;
  model: string | null;
  provider: string | null;
  finish: string | null;
  usage: AiUsage | null;
  processingMs: number | null;
  /** How many of the oldest turns the model did not see. */
  dropped: number;
  /** What the worker says beside it, in English; answers that were kept before there were any have none. */
  notes?: string[];
  error: JobError | null;
  askedAt: number;
  /** When the first text of its attempt came, in the master's time. */
  firstAt: number | null;
  endedAt: number | null;
}

export interface Turn {
  id: string;
  /** The turn that it follows on; null for the first question. */
  parent: string | null;
  query: string;
  model: string | null;
  answer: Answer;
}

export function newAnswer(now: number): Answer {
  return {
    state: 'sending',
    jobId: null,
    text: '',
    attempt: 0,
    seq: -1,
    position: null,
    waiting: null,
    workerId: null,
    model: null,
    provider: null,
    finish: null,
    usage: null,
    processingMs: null,
    dropped: 0,
    notes: [],
    error: null,
    askedAt: now,
    firstAt: null,
    endedAt: null,
  };
}

export function open(answer: Answer): boolean {
  return answer.state !== 'complete' && answer.state !== 'failed' && answer.state !== 'cancelled';
}

export function isDemo(answer: Pick<Answer, 'model' | 'provider'>): boolean {
  return answer.model === 'demo' || answer.provider === 'demo';
}

function field(data: unknown, name: string): unknown {
  return typeof data === 'object' && data !== null ? (data as Record<string, unknown>)[name] : undefined;
}

function deltaText(data: unknown): string {
  if (typeof data === 'string') return data;
  const text = field(data, 'text');
  return typeof text === 'string' ? text : '';
}

/** Applies an event to the answer; false when it changed nothing: it came twice, too late or from an older attempt. */
export function applyEvent(answer: Answer, event: JobEvent): boolean {
  if (!open(answer)) return false;
  if (event.seq !== undefined) {
    if (event.seq <= answer.seq) return false;
    answer.seq = event.seq;
  }
  if (event.attempt !== undefined && event.attempt < answer.attempt) return false;
  const worker = field(event.data, 'worker_id');
  if (typeof worker === 'string' && worker !== '') answer.workerId = worker;
  if (event.type === 'delta') return applyDelta(answer, event);
  return applyState(answer, event);
}

function applyDelta(answer: Answer, event: JobEvent): boolean {
  if (event.attempt !== undefined && event.attempt > answer.attempt) {
    answer.attempt = event.attempt;
    answer.text = '';
    answer.firstAt = null;
  }
  answer.firstAt ??= event.timestamp ?? null;
  answer.text += deltaText(event.data);
  answer.state = 'computing';
  answer.position = null;
  return true;
}

/** The end comes with the answer (`ai-response` or the job), which knows more than the event; of a stop there is no more to know. */
function applyState(answer: Answer, event: JobEvent): boolean {
  switch (event.type) {
    case 'pending':
    case 'scheduled':
    case 'blocked':
      answer.state = 'waiting';
      return true;
    case 'assigned':
    case 'computing':
      answer.state = event.type;
      answer.position = null;
      return true;
    case 'cancelled':
      answer.endedAt = event.timestamp ?? null;
      fail(answer, { code: 'cancelled', message: '' });
      return true;
    default:
      return false;
  }
}

export function applyQueued(answer: Answer, position: number): void {
  if (!open(answer) || answer.state === 'assigned' || answer.state === 'computing') return;
  answer.state = 'waiting';
  answer.position = position;
}

export function applyResponse(answer: Answer, response: AiResponse, now: number): void {
  if (!open(answer)) return;
  answer.workerId = response.workerId || answer.workerId;
  answer.model = response.model || answer.model;
  answer.provider = response.provider || answer.provider;
  answer.finish = response.finish ?? 'complete';
  answer.usage = response.usage ?? null;
  answer.processingMs = response.jobId ? (response.processingTime ?? null) : null;
  answer.dropped = response.droppedTurns ?? 0;
  answer.notes = response.notes ?? [];
  answer.position = null;
  answer.endedAt = response.timestamp ?? now;
  if (answer.finish === 'error') {
    fail(answer, response.error ?? { code: 'error', message: response.response });
  } else {
    answer.text = response.response;
    answer.state = 'complete';
  }
}

/** What has come of the text stays: half an answer is better than none. */
export function fail(answer: Answer, error: JobError): void {
  answer.error = error;
  answer.finish = 'error';
  answer.position = null;
  answer.state = error.code === 'cancelled' ? 'cancelled' : 'failed';
}

/** Takes the end from the job itself, for one that ended while nobody listened. */
export function applyJob(answer: Answer, job: Job, now: number): void {
  if (!open(answer)) return;
  const at = (time: string | null | undefined) => (time ? Date.parse(time) : NaN);
  const finished = at(job.finished_at);
  const took = finished - at(job.started_at);
  answer.workerId = job.workers?.at(-1) ?? answer.workerId;
  if (job.state === 'completed') {
    const result = (job.result ?? {}) as Record<string, unknown>;
    applyResponse(
      answer,
      {
        response: typeof result.text === 'string' ? result.text : answer.text,
        jobId: job.id,
        model: (result.model as string) ?? null,
        provider: (result.provider as string) ?? null,
        finish: (result.finish as AiResponse['finish']) ?? 'complete',
        usage: (result.usage as AiUsage) ?? null,
        droppedTurns: (result.dropped_turns as number) ?? 0,
        notes: (result.notes as string[]) ?? [],
        ...(Number.isFinite(took) ? { processingTime: took } : {}),
        ...(Number.isFinite(finished) ? { timestamp: finished } : {}),
      },
      now,
    );
  } else if (job.state === 'failed' || job.state === 'cancelled') {
    answer.endedAt = Number.isFinite(finished) ? finished : now;
    const error = job.error ?? { code: job.state, message: '' };
    const partial = field(job.result, 'text');
    if (typeof partial === 'string' && partial.length > answer.text.length) answer.text = partial;
    fail(answer, job.state === 'cancelled' ? { ...error, code: 'cancelled' } : error);
  } else {
    applyState(answer, { jobId: job.id, type: job.state });
    answer.waiting = job.waiting ?? null;
  }
}
