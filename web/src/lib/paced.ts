// Asks when something changed: never twice at once, never sooner than `gapMs` after it began the last time, and once more for all that
// changed meanwhile. Without it every event of a busy job would be a request, until the browser has no room for more. Pure but for the clock.

export class Paced {
  #ask: () => Promise<void>;
  #gapMs: number;
  #begunAt = -Infinity;
  #running = false;
  #again = false;
  #timer: ReturnType<typeof setTimeout> | null = null;
  #stopped = false;

  constructor(ask: () => Promise<void>, gapMs: number) {
    this.#ask = ask;
    this.#gapMs = gapMs;
  }

  /** Something changed. */
  want(): void {
    if (this.#stopped || this.#timer) return;
    if (this.#running) {
      this.#again = true;
      return;
    }
    const waitMs = this.#begunAt + this.#gapMs - Date.now();
    if (waitMs <= 0) void this.#run();
    else this.#timer = setTimeout(() => void this.#run(), waitMs);
  }

  stop(): void {
    this.#stopped = true;
    if (this.#timer) clearTimeout(this.#timer);
  }

  async #run(): Promise<void> {
    this.#timer = null;
    this.#running = true;
    this.#again = false;
    this.#begunAt = Date.now();
    await this.#ask().finally(() => (this.#running = false));
    if (this.#again) this.want();
  }
}
