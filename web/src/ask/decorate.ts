// Gives code inside lists and quotes its colours, and makes wide tables and code reachable for the keyboard.
const MAX_HIGHLIGHTED_CHARS = 40_000;

async function colour(code: HTMLElement, language: string): Promise<void> {
  const text = code.textContent ?? '';
  if (!language || text.length > MAX_HIGHLIGHTED_CHARS) return;
  const { highlight } = await import('./highlight');
  const html = highlight(text, language);
  if (html !== null && code.isConnected) code.innerHTML = html;
}

export function decorate(block: HTMLElement): void {
  for (const scrolled of block.querySelectorAll<HTMLElement>('pre, table')) scrolled.tabIndex = 0;
  for (const code of block.querySelectorAll<HTMLElement>('pre > code')) {
    void colour(code, /language-([\w+#-]+)/.exec(code.className)?.[1]?.toLowerCase() ?? '');
  }
}
