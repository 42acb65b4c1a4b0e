// The master's copy of a conversation: what lets it go on elsewhere. The master keeps one line of turns, this browser all branches, so
// the copy follows the branch that is asked in as far as it can; where it can't, the question carries what was said before itself.
import { call } from '../lib/api';
import type { AiUsage, JobError, Page } from '../lib/types';
import { newAnswer, type Turn } from './answer';
import type { Conversation } from './history';

export interface Remote {
  secret: string;
  /** The turns that the master has, in order. */
  turns: string[];
}

/** As the master gives it. */
export interface Message {
  index: number;
  role: 'user' | 'assistant';
  content: string;
  job_id: string;
  created_at: string;
  answer: {
    finish: string;
    model?: string | null;
    provider?: string | null;
    worker_id?: string | null;
    usage?: AiUsage | null;
    error?: JobError | null;
    dropped_turns?: number;
    notes?: string[];
    started_at?: string | null;
    finished_at?: string | null;
  } | null;
}

const at = (id: string) => `conversations/${encodeURIComponent(id)}`;
const key = (secret: string) => ({ 'x-flota-conversation-secret': secret });

/** How many of the master's turns are `path`; null where the master lacks some of it. */
export function agreed(path: string[], remote: string[]): number | null {
  return path.every((id, i) => remote[i] === id) ? path.length : null;
}

/** Makes the master's copy say what stands before the next question; null where it cannot. */
export async function prepare(conversation: Conversation, path: string[], owner: string | null): Promise<Remote | null> {
  const known = conversation.remote;
  if (known === null) return null;
  if (known === undefined) return path.length > 0 ? null : begin(conversation, owner);
  const length = agreed(path, known.turns);
  if (length === null) return null;
  if (length === known.turns.length) return known;
  try {
    await call(`${at(conversation.id)}/messages?from=${2 * length}`, { method: 'DELETE', headers: key(known.secret) });
  } catch {
    return null;
  }
  return { ...known, turns: known.turns.slice(0, length) };
}

async function begin({ id, title }: Conversation, owner: string | null): Promise<Remote | null> {
  try {
    const headers: Record<string, string> = owner ? { 'x-flota-owner': owner } : {};
    const made = await call<{ secret?: string }>('conversations', { method: 'POST', body: { id, title }, headers });
    return made.secret ? { secret: made.secret, turns: [] } : null;
  } catch {
    return null;
  }
}

export function rename(conversation: { id: string; remote?: Remote | null }, title: string): void {
  if (!conversation.remote) return;
  const options = { method: 'PATCH', body: { title }, headers: key(conversation.remote.secret) };
  void call(at(conversation.id), options).catch(() => undefined);
}

export function remove(conversation: { id: string; remote?: Remote | null }): void {
  if (!conversation.remote) return;
  void call(at(conversation.id), { method: 'DELETE', headers: key(conversation.remote.secret) }).catch(() => undefined);
}

/** A conversation of another device, by its id and its secret. */
export async function open(id: string, secret: string): Promise<Conversation> {
  const headers = key(secret);
  const { title, updated_at } = await call<{ title: string; updated_at: string }>(at(id), { headers });
  const items: Message[] = [];
  let cursor: string | null = '';
  while (cursor !== null) {
    const page: Page<Message> = await call(`${at(id)}/messages?limit=500${cursor ? `&cursor=${cursor}` : ''}`, { headers });
    items.push(...page.items);
    cursor = page.next_cursor ?? null;
  }
  const turns = turnsOf(items);
  return { id, title, updatedAt: Date.parse(updated_at), turns, head: turns.at(-1)?.id ?? null, remote: { secret, turns: turns.map((turn) => turn.id) } };
}

export function turnsOf(items: Message[]): Turn[] {
  const turns: Turn[] = [];
  for (const item of items) {
    if (item.role === 'user') {
      const answer = { ...newAnswer(Date.parse(item.created_at)), state: 'waiting' as const, jobId: item.job_id };
      turns.push({ id: item.job_id, parent: turns.at(-1)?.id ?? null, query: item.content, model: null, answer });
    } else if (item.answer && turns.length > 0) {
      Object.assign(turns.at(-1)!.answer, answered(item));
    }
  }
  return turns;
}

function answered({ content, answer }: Message): Partial<Turn['answer']> {
  const time = (text: string | null | undefined) => (text ? Date.parse(text) : null);
  const { finish, error, model, provider, worker_id, usage, dropped_turns, notes, started_at, finished_at } = answer!;
  const [started, finished] = [time(started_at), time(finished_at)];
  return {
    state: finish !== 'error' ? 'complete' : error?.code === 'cancelled' ? 'cancelled' : 'failed',
    text: content,
    finish,
    error: error ?? null,
    model: model ?? null,
    provider: provider ?? null,
    workerId: worker_id ?? null,
    usage: usage ?? null,
    dropped: dropped_turns ?? 0,
    notes: notes ?? [],
    processingMs: started !== null && finished !== null ? finished - started : null,
    endedAt: finished,
  };
}
