// A conversation is a tree of turns: asking again or another way starts a branch beside the old one, and nothing is lost. What is
// shown is the path to one turn, the head. Pure.
import type { Turn } from './answer';

export interface Tree {
  turns: Turn[];
  head: string | null;
}

/** From the first question to the head. */
export function path({ turns, head }: Tree): Turn[] {
  const byId = new Map(turns.map((turn) => [turn.id, turn]));
  const found: Turn[] = [];
  for (let at = head; at !== null; ) {
    const turn = byId.get(at);
    if (!turn || found.length > turns.length) break;
    found.unshift(turn);
    at = turn.parent;
  }
  return found;
}

/** The turns that answer the same thing as this one, it among them, in the order of their making. */
export function versions(turns: Turn[], turn: Turn): Turn[] {
  return turns.filter((other) => other.parent === turn.parent);
}

/** Where the newest branch through `turn` ends. */
export function leafBelow(turns: Turn[], turn: Turn): Turn {
  const next = turns.findLast((other) => other.parent === turn.id);
  return next ? leafBelow(turns, next) : turn;
}

/** What was kept before there were branches: each turn follows the one before. */
export function chained(turns: (Omit<Turn, 'parent'> & { parent?: string | null })[]): Turn[] {
  return turns.map((turn, i) => ({ ...turn, parent: turn.parent === undefined ? (turns[i - 1]?.id ?? null) : turn.parent }));
}
