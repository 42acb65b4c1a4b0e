// Errors of jobs in the user's language: what happened and what to do, by code. Pure.
import type { Texts } from './i18n/en';
import { translated } from './i18n/said';
import type { JobError } from './types';

export interface ErrorText {
  what: string;
  todo: string;
  /** The master's own words, where they say more. */
  said: string;
}

/** The code that says what it is about: a question with a model that nobody serves is refused as a wrong field. */
export function codeOf({ code, message }: JobError): string {
  return code === 'invalid_field' && /^(payload\.)?model\b/.test(message) ? 'model_not_served' : code;
}

/** A code that the page does not know is said in the master's words. */
export function errorText(error: JobError, t: Texts): ErrorText {
  const texts = t.failures as Record<string, string[]>;
  const known = (/this worker's API key/.test(error.message) ? texts[`worker_${error.code}`] : undefined) ?? texts[codeOf(error)];
  if (!known) return { what: translated(error.message, t) || t.ask.failed, todo: '', said: '' };
  return { what: known[0] ?? '', todo: known[1] ?? '', said: error.code === 'cancelled' ? '' : translated(error.message, t) };
}
