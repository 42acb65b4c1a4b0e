// The icon in the browser's tab tells what the title cannot: that an answer waits, or that the master is away.

export type Mark = 'unseen' | 'away' | null;

const DOTS = { unseen: '#e0663c', away: '#a8321c' };
const PLAIN = './icon.svg';

/** Two sails on one hull, as in `public/icon.svg`, with a dot. Drawn here: a mark must not need the network that is away. */
export function iconHref(mark: Mark): string {
  if (mark === null) return PLAIN;
  const sail = '<path fill="#f6f3ec" d="M33 13v26h15C47 27 42 18 33 13zM29.500 20v19H17c1-8 5-15 12.500-19zM11 43.500h42c-2 5-6 8-11 8H22c-5 0-9-3-11-8z"/>';
  const dot = `<circle cx="50" cy="14" r="13" fill="${DOTS[mark]}" stroke="#fff" stroke-width="3"/>`;
  const svg = `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 64 64"><rect width="64" height="64" rx="15" fill="${mark === 'away' ? '#6b7376' : '#0f5f63'}"/>${sail}${dot}</svg>`;
  return `data:image/svg+xml,${encodeURIComponent(svg)}`;
}

export function showIcon(mark: Mark): void {
  const icon = document.querySelector<HTMLLinkElement>('link[rel="icon"]');
  const wanted = iconHref(mark);
  if (icon && icon.getAttribute('href') !== wanted) icon.setAttribute('href', wanted);
}
