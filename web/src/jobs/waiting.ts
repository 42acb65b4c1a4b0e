// Why a job is not being computed yet, in words. Pure.
import type { Texts } from '../lib/i18n/en';
import type { Waiting } from '../lib/types';

export function waitingText(waiting: Waiting | null | undefined, t: Texts): string {
  if (!waiting) return '';
  const known = (t.job.reasons as Record<string, string>)[waiting.reason];
  if (!known) return waiting.detail || waiting.reason;
  return waiting.detail ? `${known} (${waiting.detail})` : known;
}
