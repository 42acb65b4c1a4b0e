// Which log lines are kept and shown. Pure.
import type { LogLine } from '../lib/types';

export const LEVELS = ['error', 'warn', 'info', 'debug', 'trace'] as const;
export type Level = (typeof LEVELS)[number];

export const MAX_KEPT = 3000;

export interface Line extends LogLine {
  n: number;
}

/** Simple workers send no level: what they say is information. */
export function levelOf(line: LogLine): Level {
  const level = (line.level ?? 'info').toLowerCase();
  if (level === 'warning') return 'warn';
  return LEVELS.find((known) => known === level) ?? 'info';
}

export function fits(line: LogLine, least: Level, words: string[]): boolean {
  if (LEVELS.indexOf(levelOf(line)) > LEVELS.indexOf(least)) return false;
  if (words.length === 0) return true;
  const text = `${line.source} ${line.message} ${line.jobId ?? ''} ${line.workerId ?? ''}`.toLowerCase();
  return words.every((word) => text.includes(word));
}

export function wordsOf(query: string): string[] {
  return query.toLowerCase().split(/\s+/).filter(Boolean);
}

export interface Part {
  text: string;
  /** One of the words that were looked for. */
  hit: boolean;
}

/** A text in parts, so that what was looked for can be marked. */
export function parts(text: string, words: string[]): Part[] {
  if (words.length === 0) return [{ text, hit: false }];
  const pattern = new RegExp(`(${words.map((word) => word.replace(/[.*+?^${}()|[\]\\]/g, '\\$&')).join('|')})`, 'gi');
  return text
    .split(pattern)
    .map((part, i) => ({ text: part, hit: i % 2 === 1 }))
    .filter((part) => part.text !== '');
}

/** A message around the id of its job, which is shown as a link; null where the id does not stand in it. */
export function around(line: LogLine): [before: string, after: string] | null {
  const at = line.jobId ? line.message.indexOf(line.jobId) : -1;
  return at < 0 || !line.jobId ? null : [line.message.slice(0, at), line.message.slice(at + line.jobId.length)];
}

export function asText(lines: LogLine[]): string {
  return lines
    .map((line) => {
      const ids = [line.jobId ? `job=${line.jobId}` : '', line.workerId ? `worker=${line.workerId}` : ''].filter(Boolean).join(' ');
      return [new Date(line.timestamp).toISOString(), levelOf(line).toUpperCase().padEnd(5), line.source, line.message, ids]
        .join(' ')
        .trimEnd();
    })
    .join('\n');
}
