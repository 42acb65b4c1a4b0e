// Caches the shell, so that the page opens while the master is away and says so itself. Never touches /api or /socket.io.
// The build puts the names of the shell's files in; each build has a cache of its own.
/* global __SHELL__, __BUILD__ */
const CACHE = `flota-shell-${__BUILD__}`;
const scope = new URL(self.registration.scope);
const shell = new Set(__SHELL__.map((name) => new URL(name, scope).href));

self.addEventListener('install', (event) => {
  event.waitUntil(caches.open(CACHE).then((cache) => cache.addAll([scope.href, ...shell])));
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

/** The newest page while the master is there; a file of an older build is fetched as if there were no cache. */
async function page(request) {
  const cache = await caches.open(CACHE);
  try {
    return await fetch(request);
  } catch (error) {
    const kept = await cache.match(scope.href);
    if (kept) return kept;
    throw error;
  }
}

async function file(request) {
  const cache = await caches.open(CACHE);
  return (await cache.match(request)) ?? fetch(request);
}

self.addEventListener('fetch', (event) => {
  const { request } = event;
  const url = new URL(request.url);
  url.hash = '';
  url.search = '';
  if (request.method !== 'GET') return;
  if (request.mode === 'navigate' && url.href === scope.href) event.respondWith(page(request));
  else if (shell.has(url.href)) event.respondWith(file(request));
});
