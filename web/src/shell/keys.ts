// The page's own keys. Single letters can be switched off: who talks to the computer would press them by accident.
import { chat } from '../ask/chat.svelte';
import { prefs } from '../lib/prefs.svelte';
import { href, router } from '../lib/router.svelte';
import { ui } from './ui.svelte';

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

export function handleKey(event: KeyboardEvent): void {
  if (event.ctrlKey || event.metaKey || event.altKey || event.defaultPrevented) return;
  if (!prefs.shortcuts || typing(event.target) || document.querySelector('dialog[open]')) return;
  const pages = ['ask', 'jobs', 'fleet', 'logs'] as const;
  const page = pages[Number(event.key) - 1];
  let done = true;
  if (event.key === 'Escape') done = stopAnswer();
  else if (event.key === '?') ui.dialog = 'help';
  else if (event.key === '/') done = focusField();
  else if (event.key === 'n') done = pressNew();
  else if (page) router.go(href(page));
  else done = false;
  if (done) event.preventDefault();
}
