// The ledger as REST gives it, and what the page makes of it. Pure.
export interface Totals {
  requests: number;
  failed: number;
  cached: number;
  input_tokens: number;
  output_tokens: number;
  thought_tokens: number;
  cost: number;
}

export interface Item extends Totals {
  day: string;
  owner: string;
  provider: string;
  model: string;
  own_key: boolean;
}

export interface Report {
  from: string;
  to: string;
  currency: string;
  items: Item[];
  totals: Totals;
  budget: { owner: string; tokens?: number | null; tokens_used: number; cost?: number | null; cost_used: number; resets_at: string };
  truncated: boolean;
}

export const GROUPS = ['model', 'owner', 'day'] as const;
export type Group = (typeof GROUPS)[number];

export interface Line extends Totals {
  name: string;
  note: string;
}

const FIELDS = ['requests', 'failed', 'cached', 'input_tokens', 'output_tokens', 'thought_tokens', 'cost'] as const;

export function tokens(totals: Totals): number {
  return totals.input_tokens + totals.output_tokens + totals.thought_tokens;
}

/** One line for each model, owner or day; the most used first, days the latest first. */
export function grouped(items: Item[], by: Group): Line[] {
  const lines = new Map<string, Line>();
  for (const item of items) {
    const name = item[by];
    const note = by === 'model' ? item.provider : '';
    const key = `${name}\n${note}`;
    const line = lines.get(key) ?? { name, note, requests: 0, failed: 0, cached: 0, input_tokens: 0, output_tokens: 0, thought_tokens: 0, cost: 0 };
    for (const field of FIELDS) line[field] += item[field];
    lines.set(key, line);
  }
  const all = [...lines.values()];
  return by === 'day' ? all.sort((a, b) => b.name.localeCompare(a.name)) : all.sort((a, b) => tokens(b) - tokens(a) || b.requests - a.requests);
}

/** Every day from the first to the last, those without use too. */
export function perDay(report: Pick<Report, 'from' | 'to' | 'items'>): { day: string; tokens: number }[] {
  const used = new Map(grouped(report.items, 'day').map((line) => [line.name, tokens(line)]));
  const days: { day: string; tokens: number }[] = [];
  const end = Date.parse(report.to);
  for (let at = Date.parse(report.from); at <= end && days.length < 400; at += 86_400_000) {
    const day = new Date(at).toISOString().slice(0, 10);
    days.push({ day, tokens: used.get(day) ?? 0 });
  }
  return days;
}

export function dayBefore(days: number, now = Date.now()): string {
  return new Date(now - days * 86_400_000).toISOString().slice(0, 10);
}
