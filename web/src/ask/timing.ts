// What an answer took, from the master's own times: they hold over a reload and where this device's clock is wrong. Pure.
import { uuidTime } from '../lib/uuid';
import type { Answer } from './answer';

export interface Timing {
  /** From the question to the first text. */
  firstMs: number | null;
  /** From the question to the end, the wait in the queue included. */
  totalMs: number | null;
  perSecond: number | null;
}

/** Shorter than this, a rate is noise. */
const RATE_FROM_MS = 150;

function since(from: number | null, to: number | null): number | null {
  return from === null || to === null || to < from ? null : to - from;
}

export function timing(answer: Pick<Answer, 'jobId' | 'firstAt' | 'endedAt' | 'processingMs' | 'usage'>): Timing {
  const asked = answer.jobId === null ? null : uuidTime(answer.jobId);
  const totalMs = since(asked, answer.endedAt) ?? answer.processingMs;
  const writing = since(answer.firstAt, answer.endedAt);
  const tokens = answer.usage?.output_tokens ?? 0;
  const perSecond = writing !== null && writing >= RATE_FROM_MS && tokens > 1 ? (tokens * 1000) / writing : null;
  return { firstMs: since(asked, answer.firstAt), totalMs, perSecond };
}
