// What was said before, as a follow-up question has to carry it. Pure.
import { isDemo, open, type Turn } from './answer';
import { timing } from './timing';
import { path, type Tree } from './tree';

export interface Message {
  role: 'user' | 'assistant';
  content: string;
}

/** Beyond this the oldest turns are left out: a prompt is paid for again with every question. */
const MAX_CHARS = 60_000;

/** Answers that never came, and those of the demo, would only mislead the model. What came before a stop or a break was read. */
export function messages(turns: Turn[]): Message[] {
  const told = turns.filter(({ answer }) => !open(answer) && answer.text !== '' && !isDemo(answer));
  const kept: Message[] = [];
  let chars = 0;
  for (const { query, answer } of told.toReversed()) {
    chars += query.length + answer.text.length;
    if (chars > MAX_CHARS) break;
    kept.unshift({ role: 'user', content: query }, { role: 'assistant', content: answer.text });
  }
  return kept;
}

/** A conversation to keep, as it is shown: questions as headings, and under each answer who gave it. */
export function asMarkdown(conversation: { title: string } & Tree): string {
  const parts = path(conversation).map(({ query, answer }) => {
    const by = [answer.workerId, answer.model, isDemo(answer) ? 'demo' : null].filter(Boolean).join(' · ');
    return `## ${query.trim()}\n\n${answer.text.trim()}\n${by ? `\n*${by}*\n` : ''}`;
  });
  return [`# ${conversation.title}\n`, ...parts].join('\n');
}

/** Everything there is of a conversation, all its branches. */
export function asJson(conversation: { id: string; title: string; updatedAt: number } & Tree): string {
  const { id, title, updatedAt, head, turns } = conversation;
  const told = turns.map(({ answer, ...turn }) => {
    const { jobId, state, text, workerId, model, provider, finish, usage, error, askedAt, endedAt } = answer;
    const times = timing(answer);
    return { ...turn, answer: { jobId, state, text, workerId, model, provider, finish, usage, error, askedAt, endedAt, ...times } };
  });
  return `${JSON.stringify({ id, title, updatedAt, head, turns: told }, null, 2)}\n`;
}

export function fileName(title: string): string {
  return title.replace(/[^\p{L}\p{N}]+/gu, '-').replace(/^-+|-+$/g, '') || 'flota';
}

export function titleOf(query: string): string {
  const line = query.trim().split('\n', 1)[0] ?? '';
  return line.length > 60 ? `${line.slice(0, 57)}…` : line;
}

const SENTENCE = /(?:[^.!?。！？\n]|[.!?。！？]+(?![\s.!?。！？]))*(?:[.!?。！？]+(?=\s)|\n)/gu;
const FENCE = /^\s*```/;

/** What of a piece of Markdown is worth saying: not the signs, not the rules of a table, not the number of a list item. */
function plain(piece: string): string {
  const text = piece
    .replace(/!?\[([^\]]*)\]\([^)]*\)/g, '$1')
    .replace(/[`*_#>~]+/g, '')
    .replaceAll('|', ' ')
    .replace(/\s+/g, ' ')
    .trim();
  return /\p{L}{2}/u.test(text) ? text : '';
}

/**
 * The sentences that are complete in `text` after `from`, for a screen reader, and where the next one begins. Code is left out:
 * nobody wants to hear it unasked.
 */
export function sentences(text: string, from: number): { said: string[]; next: number } {
  const said: string[] = [];
  let next = from;
  let inCode = (text.slice(0, from).match(/^\s*```/gm)?.length ?? 0) % 2 === 1;
  for (const match of text.slice(from).matchAll(SENTENCE)) {
    const piece = match[0];
    next = from + match.index + piece.length;
    if (FENCE.test(piece)) inCode = !inCode;
    else if (!inCode && plain(piece)) said.push(plain(piece));
  }
  return { said, next };
}
