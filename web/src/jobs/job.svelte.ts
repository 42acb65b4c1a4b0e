// One job, followed live: its state, its units and attempts, its events.
import { watched } from '../ask/chat.svelte';
import { api } from '../lib/api';
import { link } from '../lib/link.svelte';
import { Paced } from '../lib/paced';
import type { Problem } from '../lib/problem';
import { ended, JOB_STATES, type Job, type JobEvent, type Page, type Unit } from '../lib/types';
import { addEvent } from './events';

const REFRESH_MS = 800;
const POLL_MS = 5000;

export class JobFollower {
  job = $state.raw<Job | null>(null);
  units = $state.raw<Unit[]>([]);
  unitsCursor = $state<string | null>(null);
  events = $state.raw<JobEvent[]>([]);
  /** The text of an answer as it grows, until the result is there. */
  text = $state('');
  problem = $state.raw<Problem | null>(null);

  #id: string;
  #lastSeq = -1;
  #textAttempt = 0;
  #paced = new Paced(() => this.load(), REFRESH_MS);

  constructor(id: string) {
    this.#id = id;
  }

  follow(): () => void {
    watched.add(this.#id);
    const stops = [
      link.on<JobEvent>('job-event', (event) => event.jobId === this.#id && this.#event(event)),
      link.onReady(() => {
        const since = this.#lastSeq >= 0 ? { lastSeq: this.#lastSeq } : {};
        link.emit('job-subscribe', { jobId: this.#id, ...since });
        this.#paced.want();
      }),
    ];
    if (link.state !== 'online') this.#paced.want();
    const timer = setInterval(() => {
      if (!document.hidden && this.job && !ended(this.job.state)) this.#paced.want();
    }, POLL_MS);
    return () => {
      clearInterval(timer);
      this.#paced.stop();
      for (const stop of stops) stop();
    };
  }

  async load(): Promise<void> {
    try {
      this.job = await api.job(this.#id);
      this.problem = null;
      this.#takeUnits(await api.units(this.#id));
      link.heard();
    } catch (error) {
      this.problem = error as Problem;
    }
  }

  async moreUnits(): Promise<void> {
    if (!this.unitsCursor) return;
    try {
      const page = await api.units(this.#id, this.unitsCursor);
      this.units = [...this.units, ...page.items];
      this.unitsCursor = page.next_cursor ?? null;
    } catch (error) {
      this.problem = error as Problem;
    }
  }

  /** The first page again; what was paged in beyond it stays. */
  #takeUnits(page: Page<Unit>): void {
    const beyond = this.units.slice(page.items.length);
    this.units = [...page.items, ...beyond];
    if (beyond.length === 0) this.unitsCursor = page.next_cursor ?? null;
  }

  async act(action: () => Promise<Job>): Promise<void> {
    try {
      this.job = { ...this.job, ...(await action()) };
      this.problem = null;
      this.#paced.want();
    } catch (error) {
      this.problem = error as Problem;
    }
  }

  #event(event: JobEvent): void {
    if (event.seq !== undefined) {
      if (event.seq <= this.#lastSeq) return;
      this.#lastSeq = event.seq;
    }
    const data = (event.data ?? {}) as { text?: string; fraction?: number };
    if (event.type === 'delta') {
      const attempt = event.attempt ?? 0;
      if (attempt < this.#textAttempt) return;
      this.text = attempt > this.#textAttempt ? (data.text ?? '') : this.text + (data.text ?? '');
      this.#textAttempt = attempt;
      return;
    }
    this.events = addEvent(this.events, event);
    if (event.type === 'progress' && this.job && typeof data.fraction === 'number') {
      this.job = { ...this.job, progress: { ...this.job.progress, fraction: data.fraction } };
    }
    if ((JOB_STATES as readonly string[]).includes(event.type)) this.#paced.want();
  }
}
