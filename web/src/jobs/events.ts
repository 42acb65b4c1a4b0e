// The events of a job as a list to read: bounded, and a run of progress reports is one line. Pure.
import type { JobEvent } from '../lib/types';

const MAX_KEPT = 500;

export function addEvent(events: JobEvent[], event: JobEvent): JobEvent[] {
  const last = events.at(-1);
  if (event.type === 'progress' && last?.type === 'progress' && last.attempt === event.attempt) {
    return [...events.slice(0, -1), event];
  }
  return [...events, event].slice(-MAX_KEPT);
}

/** What an event says beside its type, in a line. */
export function eventText(event: JobEvent): string {
  const data = event.data;
  if (typeof data !== 'object' || data === null) return data == null ? '' : String(data);
  const { error, fraction, note, worker_id, unit_id, reason, detail, ...rest } = data as Record<string, unknown>;
  const told = error as { code?: string; message?: string } | string | undefined;
  const parts = [
    typeof told === 'object' ? [told?.code, told?.message].filter(Boolean).join(': ') : told,
    typeof fraction === 'number' ? `${Math.round(fraction * 100)} %` : null,
    note,
    worker_id,
    typeof unit_id === 'string' ? `#${unit_id.split('/').at(-1)}` : null,
    reason,
    detail,
    ...Object.entries(rest)
      .filter(([, value]) => ['string', 'number', 'boolean'].includes(typeof value))
      .map(([name, value]) => `${name}=${String(value)}`),
  ];
  return parts.filter((part) => part !== null && part !== undefined && part !== '').join(' · ');
}
