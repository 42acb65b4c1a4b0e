// Lets a text that comes in gusts appear at an even pace: a little of what is there each frame, more the farther it is behind.

/** The share of what is missing that a frame shows: behind by a gust, it is there after a third of a second. */
const SHARE = 0.12;
const FRAME_MS = 33;

export class Smooth {
  #shown = $state(0);
  #last = 0;

  /** As much of `text` as is to be seen now; all of it once it does not grow any more. */
  of(text: string, growing: boolean): string {
    if (!growing || this.#shown >= text.length) return text;
    return text.slice(0, whole(text, this.#shown));
  }

  /** Runs while the text grows; returns its end. What is there at the beginning is shown at once. */
  follow(length: () => number): () => void {
    this.#shown = length();
    if (matchMedia('(prefers-reduced-motion: reduce)').matches) {
      this.#shown = Infinity;
      return () => undefined;
    }
    let frame = 0;
    const step = (now: number) => {
      frame = requestAnimationFrame(step);
      if (now - this.#last < FRAME_MS) return;
      this.#last = now;
      const behind = length() - this.#shown;
      if (behind < 0) this.#shown = length();
      else if (behind > 0) this.#shown += Math.max(1, Math.ceil(behind * SHARE));
    };
    frame = requestAnimationFrame(step);
    return () => cancelAnimationFrame(frame);
  }
}

/** Never between the two halves of a character. */
function whole(text: string, at: number): number {
  const code = text.charCodeAt(at);
  return code >= 0xdc00 && code <= 0xdfff ? at + 1 : at;
}
