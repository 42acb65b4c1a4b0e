// Keeps a scrolling list at its end while it grows, but only as long as its reader is there.

const NEAR_PX = 72;

export class Stick {
  atEnd = $state(true);
  #node: HTMLElement | null = null;

  /** Action for the scrolling element; its first child is what grows. */
  container = (node: HTMLElement): { destroy(): void } => {
    this.#node = node;
    // Only who scrolls up leaves the end: what came in between, however much, must not look like that.
    let top = node.scrollTop;
    const scrolled = () => {
      if (node.scrollHeight - node.scrollTop - node.clientHeight < NEAR_PX) this.atEnd = true;
      else if (node.scrollTop < top - 1) this.atEnd = false;
      top = node.scrollTop;
    };
    const grown = new ResizeObserver(() => {
      // Not away from under somebody who writes in it.
      const writing = node.contains(document.activeElement?.closest('form') ?? null);
      if (this.atEnd && !writing) this.toEnd();
    });
    node.addEventListener('scroll', scrolled, { passive: true });
    grown.observe(node);
    if (node.firstElementChild) grown.observe(node.firstElementChild);
    return {
      destroy: () => {
        node.removeEventListener('scroll', scrolled);
        grown.disconnect();
      },
    };
  };

  /** Adds above what is seen without moving it. */
  async keeping(add: () => Promise<void>): Promise<void> {
    const node = this.#node;
    const below = node ? node.scrollHeight - node.scrollTop : 0;
    await add();
    node?.scrollTo({ top: node.scrollHeight - below });
  }

  toStart(): void {
    this.atEnd = false;
    requestAnimationFrame(() => this.#node?.scrollTo({ top: 0 }));
  }

  toEnd(): void {
    this.atEnd = true;
    requestAnimationFrame(() => this.#node?.scrollTo({ top: this.#node.scrollHeight }));
  }
}
