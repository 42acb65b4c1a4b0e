// Caches the shell, so that the page opens while the master is away and says so itself. Never touches /api or /socket.io.
const CACHE = 'flota-shell-1';
const MAX_ENTRIES = 80;

self.addEventListener('install', (event) => {
  event.waitUntil(caches.open(CACHE).then((cache) => cache.add(new Request('./', { cache: 'reload' }))));
  self.skipWaiting();
});

self.addEventListener('activate', (event) => {
  event.waitUntil(
    caches
      .keys()
      .then((names) => Promise.all(names.filter((n) => n.startsWith('flota-') && n !== CACHE).map((n) => caches.delete(n))))
      .then(() => self.clients.claim()),
  );
});

const scope = new URL(self.registration.scope);

/** Only the page itself and the files that belong to it. */
function isShell(url) {
  if (url.origin !== scope.origin || !url.pathname.startsWith(scope.pathname)) return false;
  const path = url.pathname.slice(scope.pathname.length);
  return path === '' || path === 'index.html' || path.startsWith('assets/') || /^(icon|manifest|boot)[\w-]*\./.test(path);
}

async function bounded(cache) {
  const keys = (await cache.keys()).filter((request) => request.url.includes('/assets/'));
  await Promise.all(keys.slice(0, Math.max(0, keys.length - MAX_ENTRIES)).map((key) => cache.delete(key)));
}

async function networkFirst(request, key) {
  const cache = await caches.open(CACHE);
  try {
    const answer = await fetch(request);
    if (answer.ok) await cache.put(key, answer.clone());
    return answer;
  } catch (error) {
    const kept = await cache.match(key);
    if (kept) return kept;
    throw error;
  }
}

/** Names in assets/ hold a hash of what is in them, so what is kept never goes stale. */
async function cacheFirst(request) {
  const cache = await caches.open(CACHE);
  const kept = await cache.match(request);
  if (kept) return kept;
  const answer = await fetch(request);
  if (answer.ok) {
    await cache.put(request, answer.clone());
    await bounded(cache);
  }
  return answer;
}

self.addEventListener('fetch', (event) => {
  const url = new URL(event.request.url);
  if (event.request.method !== 'GET' || !isShell(url)) return;
  if (event.request.mode === 'navigate') event.respondWith(networkFirst(event.request, scope.pathname));
  else if (url.pathname.includes('/assets/')) event.respondWith(cacheFirst(event.request));
  else event.respondWith(networkFirst(event.request, event.request));
});
