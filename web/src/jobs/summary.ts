// A job in half a line, from its payload where it is there. Pure.
import { number } from '../lib/format';
import type { Job } from '../lib/types';

const MAX = 140;

function short(text: string): string {
  const line = text.replace(/\s+/g, ' ').trim();
  return line.length > MAX ? `${line.slice(0, MAX)}…` : line;
}

export function summary(job: Pick<Job, 'kind' | 'payload' | 'labels' | 'queue' | 'project'>, locale: string): string {
  const payload = (job.payload ?? {}) as Record<string, unknown>;
  const said = payloadSummary(job.kind, payload, locale);
  if (said) return said;
  const labels = Object.entries(job.labels ?? {}).map(([name, value]) => `${name}=${value}`);
  return [job.project, job.queue === 'default' ? null : job.queue, ...labels].filter(Boolean).join(' · ');
}

function payloadSummary(kind: string, payload: Record<string, unknown>, locale: string): string {
  const list = (name: string) => (Array.isArray(payload[name]) ? (payload[name] as unknown[]) : []);
  switch (kind) {
    case 'ai.chat': {
      const last = list('messages').at(-1) as { content?: unknown } | undefined;
      return typeof last?.content === 'string' ? short(last.content) : '';
    }
    case 'ai.embed':
      return list('texts').length > 0 ? `${list('texts').length} × ${short(String(list('texts')[0]))}` : '';
    case 'randomx.hash':
    case 'sha256d.hash':
      return list('inputs').length > 0 ? `${number(list('inputs').length, locale)} × ${kind === 'randomx.hash' ? 'RandomX' : 'sha256d'}` : '';
    case 'randomx.search':
    case 'sha256d.search':
      return payload.nonce_end === undefined ? '' : `${number(Number(payload.nonce_start), locale)} … ${number(Number(payload.nonce_end), locale)}`;
    case 'echo':
      return payload.value === undefined ? '' : short(JSON.stringify(payload.value));
    default:
      return '';
  }
}
