// What was said before, as a follow-up question has to carry it. Pure.
import { isDemo, type Turn } from './answer';

export interface Message {
  role: 'user' | 'assistant';
  content: string;
}

/** Beyond this the oldest turns are left out: a prompt is paid for again with every question. */
const MAX_CHARS = 60_000;

/** Answers that never came, and those of the demo, would only mislead the model. */
export function messages(turns: Turn[]): Message[] {
  const told = turns.filter(({ answer }) => answer.state === 'complete' && answer.text !== '' && !isDemo(answer));
  const kept: Message[] = [];
  let chars = 0;
  for (const { query, answer } of told.toReversed()) {
    chars += query.length + answer.text.length;
    if (chars > MAX_CHARS) break;
    kept.unshift({ role: 'user', content: query }, { role: 'assistant', content: answer.text });
  }
  return kept;
}

/** A conversation to keep: questions as headings, and under each answer who gave it. */
export function asMarkdown(turns: Turn[]): string {
  const parts = turns.map(({ query, answer }) => {
    const by = [answer.workerId, answer.model, isDemo(answer) ? 'demo' : null].filter(Boolean).join(' · ');
    return `## ${query.trim()}\n\n${answer.text.trim()}\n${by ? `\n*${by}*\n` : ''}`;
  });
  return parts.join('\n');
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
