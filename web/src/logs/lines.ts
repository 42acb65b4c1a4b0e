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
