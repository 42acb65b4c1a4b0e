// The fleet as it is now: pushed once a second, fetched where the master pushes less.
import { api } from '../lib/api';
import { link } from '../lib/link.svelte';
import { now } from '../lib/now.svelte';
import type { Fleet, FleetTick, Worker } from '../lib/types';
import { fleetRates, fromHistory, remember, type HashPoint } from './hashing';
import { answersQuestions, chatModels, totals } from './workers';

const POLL_MS = 5000;
/** Ticks that the lines of the totals reach back: two minutes. */
const TRAIL_SLOTS = 120;

export interface Point {
  used: number;
  depth: number;
  hashrate: number;
}

class FleetStore {
  fleet = $state.raw<Fleet | null>(null);
  /** Null until the master was heard. */
  workers = $state.raw<Worker[] | null>(null);
  trail = $state.raw<Point[]>([]);
  hashTrail = $state.raw<HashPoint[]>([]);
  hashrates = $derived(this.fleet?.hashrates ?? fleetRates(this.workers ?? []));
  totals = $derived(totals(this.fleet, this.workers));
  models = $derived(chatModels(this.workers ?? []));
  /** Some worker can answer a question with a real model. */
  answers = $derived(answersQuestions(this.workers ?? []));

  #workersAt = 0;
  #fleetAt = 0;

  start(): void {
    link.on<FleetTick>('fleet-tick', (tick) => this.#tick(tick));
    link.onReady(() => void this.load());
    setInterval(() => {
      if (link.state === 'online' && !document.hidden) void this.#poll();
    }, POLL_MS);
  }

  async load(): Promise<void> {
    this.#workersAt = 0;
    this.#fleetAt = 0;
    await Promise.all([this.#poll(), this.#recall()]);
  }

  /** What was before this page opened, or while it heard nothing. */
  async #recall(): Promise<void> {
    const history = await api.history().catch(() => null);
    if (!history) return;
    const past = fromHistory(history);
    const newest = past.at(-1)?.at ?? 0;
    this.hashTrail = [...past, ...this.hashTrail.filter((point) => point.at > newest)];
  }

  /** A worker as the master answered it after a command. */
  put(worker: Worker): void {
    if (!worker?.worker_id) return;
    this.workers = (this.workers ?? []).map((old) => (old.worker_id === worker.worker_id ? { ...old, ...worker } : old));
  }

  #tick(tick: FleetTick): void {
    const { timestamp, workers_list, ...fleet } = tick;
    if (timestamp) now.measure(timestamp);
    this.fleet = fleet;
    this.#fleetAt = Date.now();
    this.#remember();
    if (workers_list) {
      this.workers = workers_list;
      this.#workersAt = Date.now();
      this.hashTrail = remember(this.hashTrail, this.hashrates, timestamp ?? this.#workersAt);
    }
  }

  #remember(): void {
    const { slots, depth, hashrate } = this.totals;
    const used = slots.reduce((sum, slot) => sum + slot.used, 0);
    this.trail = [...this.trail, { used, depth, hashrate }].slice(-TRAIL_SLOTS);
  }

  async #poll(): Promise<void> {
    const late = (at: number) => Date.now() - at > POLL_MS - 500;
    try {
      if (late(this.#workersAt)) {
        this.workers = (await api.workers()).items;
        this.#workersAt = Date.now();
      }
      if (late(this.#fleetAt)) {
        this.fleet = await api.fleet();
        this.#fleetAt = Date.now();
      }
      link.heard();
    } catch {
      // The banner tells that the master is away; what was heard last stays on the page with its age.
    }
  }
}

export const fleet = new FleetStore();
