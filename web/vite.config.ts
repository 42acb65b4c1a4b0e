// How the page is built: relative addresses, so that it also works behind a path prefix, and a strict content policy.
import { svelte } from '@sveltejs/vite-plugin-svelte';
import { defineConfig } from 'vitest/config';
import type { Plugin } from 'vite';

declare const process: { env: Record<string, string | undefined> };

const POLICY = [
  "default-src 'self'",
  "img-src 'self' data:",
  "object-src 'none'",
  "base-uri 'none'",
  "form-action 'none'",
].join('; ');

/** Only in the build: the dev server injects inline styles and scripts. */
function contentPolicy(): Plugin {
  return {
    name: 'content-policy',
    apply: 'build',
    transformIndexHtml: () => [
      { tag: 'meta', injectTo: 'head-prepend', attrs: { 'http-equiv': 'Content-Security-Policy', content: POLICY } },
    ],
  };
}

const master = process.env.FLOTA_URL ?? 'http://127.0.0.1:8888';

export default defineConfig({
  base: './',
  plugins: [svelte(), contentPolicy()],
  build: { target: 'es2022', assetsInlineLimit: 0, chunkSizeWarningLimit: 200 },
  server: {
    proxy: {
      '/api': { target: master, changeOrigin: true },
      '/socket.io': { target: master, ws: true, changeOrigin: true },
    },
  },
  test: { include: ['test/**/*.test.ts'], environment: 'node' },
});
