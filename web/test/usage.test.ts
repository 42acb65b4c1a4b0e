// What the page makes of the ledger.
import { expect, it } from 'vitest';
import { money } from '../src/lib/format';
import { grouped, perDay, tokens, type Item } from '../src/usage/report';

const item = (day: string, model: string, owner: string, n: number): Item => ({
  day, model, owner, provider: 'gemini', own_key: false, requests: 1, failed: 0, cached: 0, input_tokens: n, output_tokens: n, thought_tokens: n, cost: n / 10,
});
const items = [item('2026-11-20', 'a', 'ann', 1), item('2026-11-21', 'b', 'bob', 5), item('2026-11-21', 'a', 'bob', 2)];

it('lines are added up, the most used first, the latest day first', () => {
  expect(grouped(items, 'model').map((line) => [line.name, tokens(line), line.requests])).toEqual([['b', 15, 1], ['a', 9, 2]]);
  expect(grouped(items, 'owner').map((line) => line.name)).toEqual(['bob', 'ann']);
  expect(grouped(items, 'day').map((line) => line.name)).toEqual(['2026-11-21', '2026-11-20']);
});

it('days without use are there too', () => {
  expect(perDay({ from: '2026-11-19', to: '2026-11-21', items })).toEqual([
    { day: '2026-11-19', tokens: 0 },
    { day: '2026-11-20', tokens: 3 },
    { day: '2026-11-21', tokens: 21 },
  ]);
});

it('small sums are not shown as nothing', () => {
  expect(money(0.000011, 'USD', 'en')).toBe('$0.000011');
  expect(money(2.5, 'USD', 'en')).toBe('$2.50');
  expect(money(1, 'credits', 'en')).toBe('1 credits');
});
