// REST calls to the master. Every failure leaves here as a `Problem`; one without an answer has status 0.
import type { Audit } from '../jobs/audit';
import type { Replayed } from '../jobs/replay';
import type { Report } from '../usage/report';
import type { Source } from '../mine/types';
import { auth } from './auth.svelte';
import { Problem } from './problem';
import type { Fleet, FleetHistory, Job, Page, Unit, Worker } from './types';

const TIMEOUT_MS = 15_000;

/** Relative to the page, so that a path prefix in front of the master is kept. */
export function apiUrl(path: string): URL {
  return new URL(`api/v1/${path}`, document.baseURI);
}

interface Options {
  method?: string;
  body?: unknown;
  headers?: Record<string, string>;
}

function retryAfter(response: Response): number | null {
  const seconds = Number(response.headers.get('retry-after'));
  return Number.isFinite(seconds) && seconds > 0 ? seconds : null;
}

async function send(path: string, options: Options): Promise<Response> {
  const headers = new Headers({ accept: 'application/json', ...options.headers });
  if (auth.token) headers.set('authorization', `Bearer ${auth.token}`);
  if (options.body !== undefined) headers.set('content-type', 'application/json');
  try {
    return await fetch(apiUrl(path), {
      method: options.method ?? 'GET',
      headers,
      signal: AbortSignal.timeout(TIMEOUT_MS),
      ...(options.body === undefined ? {} : { body: JSON.stringify(options.body) }),
    });
  } catch {
    throw new Problem(0, { code: 'unreachable' });
  }
}

export async function call<T>(path: string, options: Options = {}): Promise<T> {
  const response = await send(path, options);
  const body: unknown = await response.json().catch(() => null);
  if (response.status === 401) auth.refused();
  if (!response.ok) throw new Problem(response.status, body, retryAfter(response));
  if (body === null && response.status !== 204) throw new Problem(response.status, { detail: 'The answer was not JSON.' });
  return body as T;
}

const id = encodeURIComponent;

export const api = {
  fleet: () => call<Fleet>('fleet'),
  history: () => call<FleetHistory>('fleet/history'),
  workers: () => call<Page<Worker>>('workers?limit=500'),
  worker: (worker: string, action: 'drain' | 'pause' | 'resume') =>
    call<Worker>(`workers/${id(worker)}/${action}`, { method: 'POST' }),
  jobs: (query: URLSearchParams) => call<Page<Job>>(`jobs?${query}`),
  job: (job: string) => call<Job>(`jobs/${id(job)}`),
  units: (job: string, cursor?: string) =>
    call<Page<Unit>>(`jobs/${id(job)}/units${cursor ? `?cursor=${id(cursor)}` : ''}`),
  audit: (job: string) => call<Audit>(`jobs/${id(job)}/audit?limit=1`),
  submit: (body: unknown, idempotencyKey: string) =>
    call<Job>('jobs', { method: 'POST', body, headers: submitHeaders(idempotencyKey) }),
  cancel: (job: string) => call<Job>(`jobs/${id(job)}/cancel`, { method: 'POST' }),
  retry: (job: string) => call<Job>(`jobs/${id(job)}/retry`, { method: 'POST' }),
  usage: (from: string, owner: string | null) => call<Report>(`usage?from=${from}`, owner ? { headers: { 'x-flota-owner': owner } } : {}),
  sources: () => call<{ items: Source[] }>('sources'),
  createSource: (body: unknown) => call<Source>('sources', { method: 'POST', body }),
  startSource: (source: string) => call<Source>(`sources/${id(source)}/start`, { method: 'POST' }),
  stopSource: (source: string) => call<Source>(`sources/${id(source)}/stop`, { method: 'POST' }),
  removeSource: (source: string) => call<void>(`sources/${id(source)}`, { method: 'DELETE' }),
  retryMany: (body: unknown) => call<Replayed & { next_cursor?: string | null }>('jobs/retry', { method: 'POST', body }),
  priority: (job: string, priority: number) =>
    call<Job>(`jobs/${id(job)}`, { method: 'PATCH', body: { priority } }),
};

function submitHeaders(idempotencyKey: string): Record<string, string> {
  return {
    'idempotency-key': idempotencyKey,
    ...(auth.apiKey ? { 'x-flota-api-key': auth.apiKey } : {}),
  };
}
