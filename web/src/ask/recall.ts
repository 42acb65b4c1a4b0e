// What was asked before, brought back by the arrow keys as a shell does. Pure.

export class Recall {
  #asked: string[] = [];
  #at = -1;
  #draft = '';

  /** Looking back: does this text come from here, or is there none yet? */
  follows(text: string): boolean {
    return text === '' || (this.#at >= 0 && text === this.#asked[this.#at]);
  }

  /** The question before the one that is shown; null at the first of all. */
  back(text: string, asked: () => string[]): string | null {
    if (this.#at < 0 || text !== this.#asked[this.#at]) {
      this.#asked = asked();
      this.#at = -1;
      this.#draft = text;
    }
    if (this.#at + 1 >= this.#asked.length) return null;
    this.#at += 1;
    return this.#asked[this.#at] ?? null;
  }

  /** The question after it, in the end what was there before; null where nothing was looked back for. */
  forth(text: string): string | null {
    if (this.#at < 0 || text !== this.#asked[this.#at]) return null;
    this.#at -= 1;
    return this.#at < 0 ? this.#draft : (this.#asked[this.#at] ?? null);
  }
}

/** The newest first, each once. */
export function newestFirst(queries: string[]): string[] {
  return [...new Set(queries.toReversed())];
}
