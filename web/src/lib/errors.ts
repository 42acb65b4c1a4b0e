// Errors of jobs in the user's language: what happened and what to do, by code. Pure.
import type { Texts } from './i18n/en';
import type { JobError } from './types';

export interface ErrorText {
  what: string;
  todo: string;
  /** The master's own words, where they say more. */
  said: string;
}

/** A code that the page does not know is said in the master's words. */
export function errorText(error: JobError, t: Texts): ErrorText {
  const texts = t.failures as Record<string, string[]>;
  const known = (/this worker's API key/.test(error.message) ? texts[`worker_${error.code}`] : undefined) ?? texts[error.code];
  if (!known) return { what: error.message || t.ask.failed, todo: '', said: '' };
  return { what: known[0] ?? '', todo: known[1] ?? '', said: error.code === 'cancelled' ? '' : error.message };
}
