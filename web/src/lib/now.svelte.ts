// A clock that ticks once a second, corrected to the master's: "last seen" must not depend on this device's time.

class Now {
  /** Master's time, Unix milliseconds. */
  ms = $state(Date.now());
  #skew = 0;
  #measured = false;

  constructor() {
    setInterval(() => (this.ms = Date.now() + this.#skew), 1000);
  }

  /** What the master's clock said just now. Small differences are the way the message took. */
  measure(masterMs: number): void {
    const skew = masterMs - Date.now();
    if (this.#measured && Math.abs(skew - this.#skew) < 1500) return;
    this.#measured = true;
    this.#skew = Math.abs(skew) < 1500 ? 0 : skew;
    this.ms = Date.now() + this.#skew;
  }
}

export const now = new Now();
