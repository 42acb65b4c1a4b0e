// Gives the code blocks of an answer their bar with language and copy button, and their colours.
import { copy } from '../lib/clipboard';

const MAX_HIGHLIGHTED_CHARS = 40_000;

function copyButton(code: HTMLElement, labels: { copy: string; copied: string }): HTMLButtonElement {
  const button = document.createElement('button');
  button.type = 'button';
  button.className = 'code-copy';
  button.dataset.testid = 'code-copy';
  button.textContent = labels.copy;
  button.addEventListener('click', () => {
    void copy(code.textContent ?? '').then((done) => {
      if (done) button.textContent = labels.copied;
      setTimeout(() => (button.textContent = labels.copy), 1600);
    });
  });
  return button;
}

async function colour(code: HTMLElement, language: string): Promise<void> {
  const text = code.textContent ?? '';
  if (!language || text.length > MAX_HIGHLIGHTED_CHARS) return;
  const { highlight } = await import('./highlight');
  const html = highlight(text, language);
  if (html !== null && code.isConnected) code.innerHTML = html;
}

export function decorate(block: HTMLElement, labels: { copy: string; copied: string; code: string }): void {
  for (const code of block.querySelectorAll<HTMLElement>('pre > code')) {
    const pre = code.parentElement!;
    if (pre.parentElement?.classList.contains('code')) continue;
    const language = /language-([\w+#-]+)/.exec(code.className)?.[1]?.toLowerCase() ?? '';
    const frame = document.createElement('div');
    const bar = document.createElement('div');
    const name = document.createElement('span');
    frame.className = 'code';
    bar.className = 'code-bar';
    name.textContent = language || labels.code;
    bar.append(name, copyButton(code, labels));
    pre.replaceWith(frame);
    pre.tabIndex = 0;
    frame.append(bar, pre);
    void colour(code, language);
  }
}
