// The log lines that reached this page; followed only while they are looked at.
import { link } from '../lib/link.svelte';
import { prefs } from '../lib/prefs.svelte';
import type { LogLine } from '../lib/types';
import { MAX_KEPT, type Line } from './lines';

const FLUSH_MS = 120;

class Logs {
  lines = $state.raw<Line[]>([]);
  /** While paused, lines wait here; the page stands still under its reader. */
  held = $state(0);
  paused = $state(false);
  /** True once the master answered nothing to the wish for its logs. */
  unsupported = $state(false);

  #count = 0;
  #waiting: Line[] = [];
  #flushing: ReturnType<typeof setTimeout> | null = null;

  follow(): () => void {
    const stopLines = link.on<LogLine>('log', (line) => this.#add([line]));
    const stopReady = link.onReady(() => void this.#subscribe());
    return () => {
      stopLines();
      stopReady();
      link.emit('logs-unsubscribe', {});
    };
  }

  setPaused(paused: boolean): void {
    this.paused = paused;
    if (!paused) this.#flush();
  }

  clear(): void {
    this.#waiting = [];
    this.lines = [];
    this.held = 0;
  }

  async #subscribe(): Promise<void> {
    const ack = await link.request<{ items?: LogLine[] }>('logs-subscribe', {});
    this.unsupported = !Array.isArray(ack?.items) && this.lines.length === 0;
    const newest = Math.max(this.lines.at(-1)?.timestamp ?? 0, 0);
    // After a reconnect the recent lines overlap with what is here.
    this.#add((ack?.items ?? []).filter((line) => line.timestamp > newest));
  }

  #add(lines: LogLine[]): void {
    for (const line of lines) {
      if (line.dropped) this.#waiting.push(this.#gap(line, line.dropped));
      this.#waiting.push({ ...line, n: (this.#count += 1) });
    }
    if (this.#waiting.length > MAX_KEPT) this.#waiting.splice(0, this.#waiting.length - MAX_KEPT);
    this.#flushing ??= setTimeout(() => this.#flush(), FLUSH_MS);
  }

  #gap({ timestamp }: LogLine, dropped: number): Line {
    return { timestamp, source: 'flota', level: 'warn', message: prefs.t.logs.dropped(dropped), n: (this.#count += 1) };
  }

  #flush(): void {
    this.#flushing = null;
    if (this.paused) {
      this.held = this.#waiting.length;
      return;
    }
    this.held = 0;
    if (this.#waiting.length === 0) return;
    this.lines = [...this.lines, ...this.#waiting].slice(-MAX_KEPT);
    this.#waiting = [];
  }
}

export const logs = new Logs();
