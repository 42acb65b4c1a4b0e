// What the page concludes from the workers' announcements. Pure.
import type { Fleet, Worker } from '../lib/types';

export const DEMO_MODEL = 'demo';

export function online(worker: Worker): boolean {
  return worker.status !== 'offline';
}

/** A worker that speaks the simple protocol: it announces no models, but answers questions with a key of its own. */
export function simple(worker: Worker): boolean {
  return worker.simple ?? (!worker.version && !worker.models?.length);
}

function serving(workers: Worker[]): Worker[] {
  return workers.filter((worker) => online(worker) && worker.status !== 'quarantined');
}

/** Models that a question can be sent to, the demo not among them. */
export function chatModels(workers: Worker[]): string[] {
  const names = new Set(serving(workers).flatMap((worker) => worker.models ?? []));
  return [...names].filter((name) => name !== DEMO_MODEL && !/embed/i.test(name)).sort();
}

export function answersQuestions(workers: Worker[]): boolean {
  return chatModels(workers).length > 0 || serving(workers).some(simple);
}

export interface SlotUse {
  name: string;
  used: number;
  total: number;
}

/** Slots by class. A worker that reports only one number of running units has it shown in its busiest class. */
export function slotUse(worker: Worker): SlotUse[] {
  const slots = Object.entries(worker.slots ?? {}).filter(([, total]) => total > 0);
  const running = worker.running;
  const byClass = running && typeof running === 'object' && !Array.isArray(running) ? running : null;
  return slots.map(([name, total]) => ({
    name,
    total,
    used: byClass ? Number(byClass[name] ?? 0) : slots.length === 1 ? runningCount(worker) : 0,
  }));
}

export function runningCount(worker: Worker): number {
  const running = worker.running;
  if (typeof running === 'number') return running;
  if (Array.isArray(running)) return running.length;
  return Object.values(running ?? {}).reduce((sum, n) => sum + Number(n), 0);
}

/** Rates of what is hashed beside RandomX, which has a figure of its own; what stands still is not shown. */
export function otherRates(algorithms: Record<string, number> | null | undefined): [name: string, perSecond: number][] {
  return Object.entries(algorithms ?? {}).filter(([name, perSecond]) => name !== 'rx/0' && perSecond > 0);
}

export interface Totals {
  online: number;
  offline: number;
  slots: SlotUse[];
  depth: number;
  oldestAgeMs: number | null;
  hashrate: number;
}

/** What the master counted, without what is offline. */
export function totals(fleet: Fleet | null, workers: Worker[] | null): Totals {
  const counts = Object.entries(fleet?.workers ?? {});
  const offline = fleet?.workers?.offline ?? workers?.filter((worker) => !online(worker)).length ?? 0;
  const counted = counts.reduce((sum, [state, n]) => (state === 'offline' ? sum : sum + n), 0);
  const here = (workers ?? []).filter(online);
  return {
    online: counts.length > 0 ? counted : here.length,
    offline,
    slots: Object.entries(fleet?.slots ?? {}).map(([name, slot]) => ({ name, ...slot })),
    depth: fleet?.queue?.depth ?? 0,
    oldestAgeMs: fleet?.queue?.oldest_age_ms ?? null,
    hashrate: fleet?.hashrate ?? here.reduce((sum, worker) => sum + (worker.hashrate ?? 0), 0),
  };
}

/** Working ones first, offline last, within that by name: rows do not jump while they are read. */
export function ordered(workers: Worker[]): Worker[] {
  return workers.toSorted((a, b) => Number(online(b)) - Number(online(a)) || a.worker_id.localeCompare(b.worker_id));
}
