// Why a job is not being computed yet, in words. The master says it in English; what it names (times, figures, ids) is put into the
// user's language here. Pure.
import { clock, dateTime, number } from '../lib/format';
import type { Texts } from '../lib/i18n/en';
import type { Waiting } from '../lib/types';

const TIME = /\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?(?:Z|[+-]\d\d:\d\d)/;

/** What no worker can do. */
function wants(detail: string, t: Texts): string[] {
  const [, kind, model, key, requires] = /^no worker is there that computes (\S+)(?: and serves the model (.+?))?( and can be given the key of the question)?(?: and has (\{.*\}))?$/s.exec(detail) ?? [];
  return [kind && t.job.wants.computes(kind), model && t.job.wants.serves(model), key && t.job.wants.key, requires && t.job.wants.has(requires)].filter((part) => part !== undefined);
}

/** What keeps the workers that fit from work, each with how many it keeps. */
function aside(detail: string, t: Texts, locale: string): string {
  const counts = (detail.split(': ')[1] ?? '').split(', ').map((part) => {
    const [, count, what] = /^(\d+) (.+)$/.exec(part) ?? [];
    const say = (t.job.aside as Record<string, (n: string) => string>)[what ?? ''];
    return count && say ? say(number(Number(count), locale)) : part;
  });
  return counts.join(', ') || detail;
}

function detailText({ reason, detail }: Waiting, t: Texts, locale: string): string {
  if (!detail) return '';
  const at = Date.parse(TIME.exec(detail)?.[0] ?? '');
  switch (reason) {
    case 'workers_busy': {
      const ahead = /about (\d+)/.exec(detail)?.[1];
      return ahead ? t.job.about(number(Number(ahead), locale)) : '';
    }
    case 'retry':
      return Number.isFinite(at) ? t.job.triesAgain(clock(at, locale)) : detail;
    case 'rate_limit':
      return Number.isFinite(at) ? t.job.askedAt(clock(at, locale)) : detail;
    case 'run_at':
      return Number.isFinite(at) ? t.job.startsAt(dateTime(at, locale)) : detail;
    case 'workers_set_aside':
      return aside(detail, t, locale);
    case 'no_worker':
      return '';
    case 'no_fitting_worker':
      return wants(detail, t).join(', ') || detail;
    case 'dependencies': {
      const more = /and (\d+) more$/.exec(detail)?.[1];
      const ids = detail.match(/[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}/g)?.join(', ') ?? detail;
      return more ? `${ids} (+${number(Number(more), locale)})` : ids;
    }
    default:
      return detail;
  }
}

export function waitingText(waiting: Waiting | null | undefined, t: Texts, locale: string): string {
  if (!waiting) return '';
  const known = (t.job.reasons as Record<string, string>)[waiting.reason];
  if (!known) return waiting.detail || waiting.reason;
  const detail = detailText(waiting, t, locale);
  return detail ? `${known}: ${detail}` : known;
}
