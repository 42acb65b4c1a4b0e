// Figures and times as both languages read them.
import { describe, expect, it } from 'vitest';
import { ago, duration, fraction, hashrate, memory, shortId } from '../src/lib/format';

describe('duration', () => {
  it.each([
    [0, '0 ms'],
    [850, '850 ms'],
    [3240, '3.2 s'],
    [59_900, '59 s'],
    [60_000, '1 min'],
    [250_000, '4 min 10 s'],
    [7_500_000, '2 h 5 min'],
    [273_600_000, '3 d 4 h'],
    [-5, '0 ms'],
  ])('%d ms is %s', (ms, text) => expect(duration(ms, 'en')).toBe(text));

  it('uses the comma in Spanish', () => expect(duration(3240, 'es')).toBe('3,2 s'));
});

it('ago counts from the clock it is given', () => {
  const now = 1_800_000_000_000;
  expect(ago(now + 500, now, 'en')).toBe('now');
  expect(ago(now - 90_000, now, 'en')).toBe('1 min. ago');
  expect(ago(now - 7_200_000, now, 'es')).toBe('hace 2 h');
});

it('hash rates grow with their unit', () => {
  expect(hashrate(950, 'en')).toBe('950 H/s');
  expect(hashrate(12_430, 'en')).toBe('12.4 kH/s');
  expect(hashrate(3_100_000, 'en')).toBe('3.1 MH/s');
});

it('loads are understood as fractions and as percent', () => {
  expect(fraction(0.25)).toBe(0.25);
  expect(fraction(80)).toBe(0.8);
  expect(fraction(null)).toBeNull();
});

it('memory is given in what it fills', () => {
  expect(memory(512, 'en')).toBe('512 MiB');
  expect(memory(65_536, 'en')).toBe('64 GiB');
  expect(memory(1536, 'es')).toBe('1,5 GiB');
});

it('a short id keeps the random end', () => {
  expect(shortId('01a1fd93-6184-708e-89be-ce09aa674d2d')).toBe('…aa674d2d');
});
