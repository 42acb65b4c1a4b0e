// The list of jobs as the master filters it, kept fresh while it is looked at.
import { api } from '../lib/api';
import { fleet } from '../fleet/fleet.svelte';
import { link } from '../lib/link.svelte';
import type { Problem } from '../lib/problem';
import type { Job } from '../lib/types';

export const FILTERS = ['state', 'kind', 'code', 'owner', 'queue', 'project', 'label'] as const;
export type Filters = Partial<Record<(typeof FILTERS)[number], string>>;

const PAGE = 50;
const LIMIT_MAX = 500;
const REFRESH_MS = 2000;
const IDLE_REFRESH_MS = 15_000;

export class JobsList {
  items = $state.raw<Job[] | null>(null);
  cursor = $state<string | null>(null);
  problem = $state.raw<Problem | null>(null);
  loading = $state(false);

  #filters: Filters = {};
  #asked = 0;
  #loadedAt = 0;
  #counts = '';

  show(filters: Filters): void {
    this.#filters = filters;
    this.items = null;
    this.cursor = null;
    void this.refresh();
  }

  /** Follows the fleet: jobs are fetched again when their counts changed, and now and then. */
  follow(): () => void {
    const timer = setInterval(() => {
      if (document.hidden || link.state !== 'online' || this.loading) return;
      const counts = JSON.stringify(fleet.fleet?.jobs ?? null);
      const due = counts !== this.#counts || this.#busy() ? REFRESH_MS - 100 : IDLE_REFRESH_MS;
      if (Date.now() - this.#loadedAt > due) void this.refresh();
    }, REFRESH_MS / 2);
    const stop = link.onReady(() => void this.refresh());
    return () => {
      clearInterval(timer);
      stop();
    };
  }

  #busy(): boolean {
    return this.items?.some((job) => job.state === 'computing' || job.state === 'assigned') ?? false;
  }

  #query(limit: number, cursor?: string): URLSearchParams {
    const query = new URLSearchParams(Object.entries(this.#filters).filter(([, value]) => value));
    query.set('limit', String(limit));
    if (cursor) query.set('cursor', cursor);
    return query;
  }

  /** As many as are shown already, so that a long list doesn't collapse. */
  async refresh(): Promise<void> {
    const limit = Math.min(LIMIT_MAX, Math.max(PAGE, this.items?.length ?? 0));
    const keptBeyond = (this.items ?? []).slice(LIMIT_MAX);
    const cursorBeyond = this.cursor;
    await this.#load(this.#query(limit), (page, next) => {
      this.items = [...page, ...keptBeyond];
      this.cursor = keptBeyond.length > 0 ? cursorBeyond : next;
    });
  }

  async more(): Promise<void> {
    if (!this.cursor) return;
    await this.#load(this.#query(PAGE, this.cursor), (page, next) => {
      const known = new Set(this.items?.map((job) => job.id));
      this.items = [...(this.items ?? []), ...page.filter((job) => !known.has(job.id))];
      this.cursor = next;
    });
  }

  async #load(query: URLSearchParams, take: (page: Job[], next: string | null) => void): Promise<void> {
    const asked = ++this.#asked;
    this.loading = true;
    try {
      const page = await api.jobs(query);
      // An answer to an older question must not replace that to a newer one.
      if (asked !== this.#asked) return;
      take(page.items, page.next_cursor ?? null);
      this.problem = null;
      this.#loadedAt = Date.now();
      this.#counts = JSON.stringify(fleet.fleet?.jobs ?? null);
      link.heard();
    } catch (error) {
      if (asked === this.#asked) this.problem = error as Problem;
    } finally {
      if (asked === this.#asked) this.loading = false;
    }
  }
}
