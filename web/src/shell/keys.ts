// The page's own keys. Single letters can be switched off: who talks to the computer would press them by accident.
import { chat } from '../ask/chat.svelte';
import { prefs } from '../lib/prefs.svelte';
import { href, router } from '../lib/router.svelte';
import { ui } from './ui.svelte';

/** There Ctrl-K deletes to the end of the line. */
export const MAC = /mac|iphone|ipad/i.test(navigator.platform);

function typing(target: EventTarget | null): boolean {
  return target instanceof HTMLElement && (target.isContentEditable || /^(INPUT|TEXTAREA|SELECT)$/.test(target.tagName));
}

/** The field that `/` goes to is marked by its page. */
function focusField(): boolean {
  const field = document.querySelector<HTMLElement>('[data-slash]');
  field?.focus();
  return field !== null;
}

function stopAnswer(): boolean {
  const answering = router.route.page === 'ask' && chat.answering;
  if (answering) chat.stop();
  return answering;
}

function pressNew(): boolean {
  const button = document.querySelector<HTMLElement>('[data-new]');
  button?.click();
  return button !== null;
}

/** From row to row of a list; the first press goes to its first row. */
function moveRow(step: 1 | -1, begin: boolean): boolean {
  const rows = [...document.querySelectorAll<HTMLElement>('[data-row]')];
  const at = rows.findIndex((row) => row === document.activeElement);
  if (at < 0 && !begin) return false;
  const next = rows[at < 0 ? 0 : Math.min(rows.length - 1, Math.max(0, at + step))];
  next?.focus();
  next?.scrollIntoView({ block: 'nearest' });
  return next !== undefined;
}

function togglePalette(event: KeyboardEvent): void {
  if (ui.dialog !== 'palette' && document.querySelector('dialog[open]')) return;
  event.preventDefault();
  ui.dialog = ui.dialog === 'palette' ? null : 'palette';
}

export function handleKey(event: KeyboardEvent): void {
  if (event.defaultPrevented || event.altKey) return;
  if (event.ctrlKey || event.metaKey) {
    const chord = MAC ? event.metaKey : event.ctrlKey;
    if (chord && event.key.toLowerCase() === 'k' && !event.shiftKey) togglePalette(event);
    return;
  }
  if (typing(event.target) || document.querySelector('dialog[open]')) return;
  if (ui.dialog) {
    // On its way: letters are not for the page below any more.
    if (event.key === 'Escape') ui.dialog = null;
    return;
  }
  if (event.key === 'ArrowDown' || event.key === 'ArrowUp') {
    if (moveRow(event.key === 'ArrowDown' ? 1 : -1, false)) event.preventDefault();
    return;
  }
  if (!prefs.shortcuts) return;
  const pages = ['ask', 'jobs', 'fleet', 'logs'] as const;
  const page = pages[Number(event.key) - 1];
  let done = true;
  if (event.key === 'Escape') done = stopAnswer();
  else if (event.key === '?') ui.dialog = 'help';
  else if (event.key === '/') done = focusField();
  else if (event.key === 'n') done = pressNew();
  else if (event.key === 'j') done = moveRow(1, true);
  else if (event.key === 'k') done = moveRow(-1, true);
  else if (page) router.go(href(page));
  else done = false;
  if (done) event.preventDefault();
}
