// Branches of a conversation: what is shown, what stands beside it.
import { describe, expect, it } from 'vitest';
import { newAnswer, type Turn } from '../src/ask/answer';
import { chained, leafBelow, path, versions } from '../src/ask/tree';

const turn = (id: string, parent: string | null): Turn => ({ id, parent, query: id, model: null, answer: newAnswer(0) });
const ids = (turns: Turn[]) => turns.map(({ id }) => id);

// a ─ b ─ c
//   └ b2 ─ c2
// a2
const turns = [turn('a', null), turn('b', 'a'), turn('c', 'b'), turn('b2', 'a'), turn('c2', 'b2'), turn('a2', null)];

describe('a conversation with branches', () => {
  it('shows the path to its head', () => {
    expect(ids(path({ turns, head: 'c' }))).toEqual(['a', 'b', 'c']);
    expect(ids(path({ turns, head: 'c2' }))).toEqual(['a', 'b2', 'c2']);
    expect(path({ turns, head: null })).toEqual([]);
  });
  it('knows the versions of a turn in their order', () => {
    expect(ids(versions(turns, turns[3]!))).toEqual(['b', 'b2']);
    expect(ids(versions(turns, turns[5]!))).toEqual(['a', 'a2']);
    expect(ids(versions(turns, turns[2]!))).toEqual(['c']);
  });
  it('goes to the newest end of a branch', () => {
    expect(leafBelow(turns, turns[0]!).id).toBe('c2');
    expect(leafBelow(turns, turns[1]!).id).toBe('c');
  });
  it('is not caught in a circle that a broken storage holds', () => {
    expect(path({ turns: [turn('x', 'y'), turn('y', 'x')], head: 'x' }).length).toBeLessThanOrEqual(3);
  });
  it('made of a list of old follows it', () => {
    const old = turns.slice(0, 3).map(({ parent: _, ...rest }) => rest);
    expect(ids(path({ turns: chained(old), head: 'c' }))).toEqual(['a', 'b', 'c']);
  });
});
