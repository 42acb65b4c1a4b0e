import { expect, test } from 'vitest';
import { find, jobIdIn, score } from '../src/shell/palette';

const entry = (text: string, also = '') => ({ id: text, group: 'g', text, also });

test('all words must fit, in any order, without accents and capitals', () => {
  expect(score(entry('Enviar un trabajo: echo'), ['trab', 'envi'])).not.toBeNull();
  expect(score(entry('Minería'), ['mineria'])).not.toBeNull();
  expect(score(entry('Jobs', 'trabajos'), ['traba'])).not.toBeNull();
  expect(score(entry('Jobs'), ['jobs', 'failed'])).toBeNull();
  expect(score(entry('What is (a|b)*?'), ['(a|b)*'])).not.toBeNull();
});

test('beginnings come before middles, and nothing typed shows the first', () => {
  const entries = ['Prefer ask', 'multitask', 'Ask'].map((text) => entry(text));
  expect(find(entries, 'ask', 9).map(({ text }) => text)).toEqual(['Ask', 'Prefer ask', 'multitask']);
  expect(find(entries, ' ', 2)).toHaveLength(2);
  expect(find(entries, 'nothing', 9)).toEqual([]);
});

test('the id of a job is found in what was pasted', () => {
  expect(jobIdIn('job=01890F3C-6c6a-7000-8000-000000000001,')).toBe('01890f3c-6c6a-7000-8000-000000000001');
  expect(jobIdIn('01890f3c')).toBeNull();
});
