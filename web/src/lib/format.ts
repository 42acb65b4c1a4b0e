// Numbers, times and sizes as people of a locale read them. Pure: the clock is an argument.

/** Making a formatter costs far more than using it, and lists use the same few every second. */
function cached<T>(make: (locale: string, options: object) => T): (locale: string, options: object) => T {
  const made = new Map<string, T>();
  return (locale, options) => {
    const key = locale + JSON.stringify(options);
    let found = made.get(key);
    if (found === undefined) made.set(key, (found = make(locale, options)));
    return found;
  };
}

const numberFormat = cached((locale, options) => new Intl.NumberFormat(locale, options));
const timeFormat = cached((locale, options) => new Intl.DateTimeFormat(locale, options));
const agoFormat = cached((locale, options) => new Intl.RelativeTimeFormat(locale, options));

export function number(value: number, locale: string, digits = 0): string {
  return numberFormat(locale, { maximumFractionDigits: digits }).format(value);
}

export function percent(fraction: number, locale: string): string {
  return numberFormat(locale, { style: 'percent', maximumFractionDigits: 0 }).format(fraction);
}

/** 850 ms · 3.2 s · 4 min 10 s · 2 h 5 min · 3 d 4 h */
export function duration(ms: number, locale: string): string {
  if (!Number.isFinite(ms) || ms < 0) ms = 0;
  if (ms < 1000) return `${number(Math.round(ms), locale)} ms`;
  const seconds = ms / 1000;
  if (seconds < 10) return `${number(seconds, locale, 1)} s`;
  if (seconds < 60) return `${number(Math.floor(seconds), locale)} s`;
  const minutes = Math.floor(seconds / 60);
  if (minutes < 60) return pair(minutes, 'min', Math.floor(seconds % 60), 's', locale);
  const hours = Math.floor(minutes / 60);
  if (hours < 24) return pair(hours, 'h', minutes % 60, 'min', locale);
  return pair(Math.floor(hours / 24), 'd', hours % 24, 'h', locale);
}

function pair(big: number, bigName: string, small: number, smallName: string, locale: string): string {
  const head = `${number(big, locale)} ${bigName}`;
  return small > 0 ? `${head} ${number(small, locale)} ${smallName}` : head;
}

const STEPS: [limit: number, size: number, name: Intl.RelativeTimeFormatUnit][] = [
  [60_000, 1000, 'second'],
  [3_600_000, 60_000, 'minute'],
  [86_400_000, 3_600_000, 'hour'],
  [Infinity, 86_400_000, 'day'],
];

/** "3 minutes ago", "now"; what lies in the future by a little (clocks differ) counts as now. */
export function ago(then: number, now: number, locale: string): string {
  const age = Math.max(0, now - then);
  const format = agoFormat(locale, { numeric: 'auto', style: 'short' });
  if (age < 2000) return format.format(0, 'second');
  for (const [limit, size, name] of STEPS) {
    if (age < limit) return format.format(-Math.floor(age / size), name);
  }
  return '';
}

export function clock(timestamp: number, locale: string, withMillis = false): string {
  return timeFormat(locale, {
    hour: '2-digit',
    minute: '2-digit',
    second: '2-digit',
    hour12: false,
    ...(withMillis ? { fractionalSecondDigits: 3 as const } : {}),
  }).format(timestamp);
}

export function dateTime(timestamp: number, locale: string): string {
  return timeFormat(locale, { dateStyle: 'medium', timeStyle: 'medium' }).format(timestamp);
}

/** A day of the ledger, which is one of UTC: 21 Nov 2026 */
export function day(text: string, locale: string): string {
  const at = Date.parse(text);
  return Number.isFinite(at) ? timeFormat(locale, { dateStyle: 'medium', timeZone: 'UTC' }).format(at) : text;
}

/** 950 H/s · 12.4 kH/s · 3.1 MH/s */
export function hashrate(perSecond: number, locale: string): string {
  const names = ['H/s', 'kH/s', 'MH/s', 'GH/s'];
  let value = perSecond;
  let step = 0;
  while (value >= 1000 && step < names.length - 1) {
    value /= 1000;
    step += 1;
  }
  return `${number(value, locale, value < 100 ? 1 : 0)} ${names[step]}`;
}

/** In powers of two, as memory is made: 512 MiB · 15.6 GiB */
export function memory(mib: number, locale: string): string {
  return mib >= 1024 ? `${number(mib / 1024, locale, 1)} GiB` : `${number(mib, locale)} MiB`;
}

/** Small sums keep the digits that make them something: 0.000011 USD. */
export function money(value: number, currency: string, locale: string): string {
  const digits = value > 0 && value < 0.01 ? 6 : 2;
  try {
    return numberFormat(locale, { style: 'currency', currency, minimumFractionDigits: 2, maximumFractionDigits: digits }).format(value);
  } catch {
    return `${number(value, locale, digits)} ${currency}`;
  }
}

/** A load between 0 and 1; workers that report percent are understood too. */
export function fraction(value: number | null | undefined): number | null {
  if (value == null || !Number.isFinite(value)) return null;
  return Math.min(1, Math.max(0, value > 1.5 ? value / 100 : value));
}

/** Enough of an id to tell it from its neighbours: the end of a UUIDv7 is its random part. */
export function shortId(id: string): string {
  return id.length > 14 ? `…${id.slice(-8)}` : id;
}

export function parseTime(value: string | number | null | undefined): number | null {
  if (value == null) return null;
  const time = typeof value === 'number' ? value : Date.parse(value);
  return Number.isFinite(time) ? time : null;
}
