// Conversations in this browser's storage: one entry each, so that saving a growing answer does not write all of them.
import { local } from '../lib/storage';
import type { Turn } from './answer';
import type { Remote } from './remote';
import { chained, type Tree } from './tree';

export interface Conversation extends Tree {
  id: string;
  title: string;
  updatedAt: number;
  /** The master's copy; null where it takes none. */
  remote?: Remote | null;
}

export type Entry = Omit<Conversation, 'turns'>;

const INDEX = 'chats';
const MAX_KEPT = 200;

const key = (id: string) => `chat.${id}`;

export function index(): Entry[] {
  return (local.read<Entry[]>(INDEX) ?? []).sort((a, b) => b.updatedAt - a.updatedAt);
}

export function load(id: string): Conversation | null {
  const entry = index().find((known) => known.id === id);
  const turns = chained(local.read<Turn[]>(key(id)) ?? []);
  return entry && turns.length > 0 ? { ...entry, head: entry.head ?? turns.at(-1)!.id, turns } : null;
}

/** Whose title or text holds all the words. */
export function search(words: string, entries: Entry[]): Entry[] {
  const wanted = words.toLowerCase().split(/\s+/).filter(Boolean);
  return entries.filter((entry) => {
    const turns = local.read<Turn[]>(key(entry.id)) ?? [];
    const text = [entry.title, ...turns.flatMap((turn) => [turn.query, turn.answer.text])].join('\n').toLowerCase();
    return wanted.every((word) => text.includes(word));
  });
}

export function rename(id: string, title: string): Entry[] {
  const entries = index().map((entry) => (entry.id === id ? { ...entry, title } : entry));
  local.write(INDEX, entries);
  return entries;
}

/** Another tab may have written in between: the index is read again each time. */
export function save(conversation: Conversation): Entry[] {
  const { turns, ...entry } = conversation;
  const entries = [entry, ...index().filter((other) => other.id !== entry.id)];
  for (const old of entries.splice(MAX_KEPT)) local.remove(key(old.id));
  while (!local.write(key(entry.id), turns) && entries.length > 1) {
    const oldest = entries.pop();
    if (oldest) local.remove(key(oldest.id));
  }
  local.write(INDEX, entries);
  return entries;
}

export function remove(id: string): Entry[] {
  local.remove(key(id));
  const entries = index().filter((entry) => entry.id !== id);
  local.write(INDEX, entries);
  return entries;
}

export function clear(): void {
  for (const entry of index()) local.remove(key(entry.id));
  local.remove(INDEX);
}
