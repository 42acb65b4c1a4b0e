// Asks again and again while somebody looks, never twice at once; for what the master does not push.
import { link } from './link.svelte';

export function poll(ask: () => Promise<void>, everyMs: number): () => void {
  let running = false;
  const once = async () => {
    if (running) return;
    running = true;
    await ask().finally(() => (running = false));
  };
  void once();
  const timer = setInterval(() => {
    if (!document.hidden && link.state === 'online') void once();
  }, everyMs);
  return () => clearInterval(timer);
}
