// Both languages say everything, and nothing was left untranslated by accident.
import { expect, it } from 'vitest';
import { en } from '../src/lib/i18n/en';
import { es } from '../src/lib/i18n/es';

function leaves(value: unknown, path = ''): [string, unknown][] {
  if (typeof value !== 'object' || value === null) return [[path, value]];
  return Object.entries(value).flatMap(([key, inner]) => leaves(inner, path ? `${path}.${key}` : key));
}

it('Spanish has the keys of English, and of the same sort', () => {
  const sort = (texts: unknown) => leaves(texts).map(([path, value]) => `${path}:${typeof value}`);
  expect(sort(es)).toEqual(sort(en));
});

it('no text is empty', () => {
  for (const [path, value] of [...leaves(en), ...leaves(es)]) {
    const text = typeof value === 'function' ? String(value(1, 2)) : value;
    expect(text, path).toBeTruthy();
  }
});

it('plurals follow the number', () => {
  expect(en.pulse.online(1)).toBe('1 worker');
  expect(es.pulse.online(3)).toBe('3 trabajadores');
});
