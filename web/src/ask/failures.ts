// What a failure looks like and what can be done about it: a bad key, a used-up quota and an overloaded service are three things. Pure.
import type { IconName } from '../ui/Icon.svelte';

export type Remedy = 'key' | 'model' | 'again' | 'demo';

export interface Look {
  icon: IconName;
  /** `bad`: somebody has to mend something. `warn`: a limit was reached. `calm`: it passes. */
  tone: 'bad' | 'warn' | 'calm';
  remedies: Remedy[];
}

const KEY: Look = { icon: 'key', tone: 'bad', remedies: ['key', 'again'] };
const ACCOUNT: Look = { icon: 'block', tone: 'bad', remedies: ['key', 'model'] };
const QUOTA: Look = { icon: 'gauge', tone: 'warn', remedies: ['key', 'model'] };
const SOON: Look = { icon: 'clock', tone: 'warn', remedies: ['again'] };
const BUSY: Look = { icon: 'wave', tone: 'calm', remedies: ['again', 'model'] };
const MODEL: Look = { icon: 'spark', tone: 'bad', remedies: ['model', 'again'] };
const AGAIN: Look = { icon: 'warn', tone: 'bad', remedies: ['again'] };
const NOBODY: Look = { icon: 'key', tone: 'bad', remedies: ['key', 'demo'] };

const LOOKS: Record<string, Look> = {
  bad_key: KEY,
  invalid_key: KEY,
  credential_lost: AGAIN,
  forbidden: ACCOUNT,
  not_available: ACCOUNT,
  payment_required: ACCOUNT,
  quota_day: QUOTA,
  rate_limited: SOON,
  busy: SOON,
  rate_limit: SOON,
  budget_spent: { icon: 'coins', tone: 'warn', remedies: ['key'] },
  model_not_served: MODEL,
  overloaded: BUSY,
  provider_error: BUSY,
  provider_timeout: BUSY,
  unreachable: BUSY,
  resting: BUSY,
  model_gone: MODEL,
  bad_request: MODEL,
  no_api_key: NOBODY,
  no_provider: NOBODY,
};

export function lookOf(code: string): Look {
  return LOOKS[code] ?? AGAIN;
}
