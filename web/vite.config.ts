// How the page is built: relative addresses, so that it also works behind a path prefix, and a strict content policy.
import { createHash } from 'node:crypto';
import { readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { brotliCompressSync, constants, gzipSync } from 'node:zlib';
import { svelte } from '@sveltejs/vite-plugin-svelte';
import { defineConfig } from 'vitest/config';
import type { Plugin } from 'vite';

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

const PUBLIC_FILES = ['boot.js', 'icon.svg', 'icon-180.png', 'icon-192.png', 'manifest.webmanifest'];

/** The service worker knows every file of its build by name. */
function serviceWorker(): Plugin {
  return {
    name: 'service-worker',
    apply: 'build',
    generateBundle(_options, bundle) {
      const names = [...Object.keys(bundle).filter((name) => name.startsWith('assets/')), ...PUBLIC_FILES].sort();
      const read = (path: string) => readFileSync(new URL(path, import.meta.url));
      const build = createHash('sha256').update(names.join());
      for (const name of PUBLIC_FILES) build.update(read(`./public/${name}`));
      const source = read('./src/sw.js')
        .toString()
        .replace('__SHELL__.map', `${JSON.stringify(names)}.map`)
        .replace('${__BUILD__}', build.digest('hex').slice(0, 12));
      this.emitFile({ type: 'asset', fileName: 'sw.js', source });
    },
  };
}

/** The stock Socket.IO client, which the master serves beside its own page for pages that others wrote. */
function stockClient(): Plugin {
  return {
    name: 'stock-client',
    apply: 'build',
    generateBundle() {
      const path = new URL('./node_modules/socket.io-client/dist/socket.io.min.js', import.meta.url);
      const source = readFileSync(path, 'utf8').replace(/\n?\/\/# sourceMappingURL=.*\n?$/, '\n');
      this.emitFile({ type: 'asset', fileName: 'socket.io.js', source });
    },
  };
}

/** Files beside the files: the master sends a browser what it takes, and compresses nothing while it works. */
function compressed(): Plugin {
  return {
    name: 'compressed',
    apply: 'build',
    enforce: 'post',
    writeBundle({ dir = 'dist' }) {
      for (const entry of readdirSync(dir, { recursive: true, withFileTypes: true })) {
        if (!entry.isFile() || !/\.(html|js|css|svg|webmanifest)$/.test(entry.name)) continue;
        const path = join(entry.parentPath, entry.name);
        const source = readFileSync(path);
        const best = { params: { [constants.BROTLI_PARAM_SIZE_HINT]: source.length } };
        for (const [ending, bytes] of [['br', brotliCompressSync(source, best)], ['gz', gzipSync(source, { level: 9 })]] as const) {
          if (bytes.length < source.length * 0.9) writeFileSync(`${path}.${ending}`, bytes);
        }
      }
    },
  };
}

const master = process.env.FLOTA_URL ?? 'http://127.0.0.1:8888';

export default defineConfig({
  base: './',
  plugins: [svelte(), contentPolicy(), serviceWorker(), stockClient(), compressed()],
  build: { target: 'es2022', assetsInlineLimit: 0, chunkSizeWarningLimit: 200 },
  server: {
    proxy: {
      '/api': { target: master, changeOrigin: true, headers: { origin: master } },
      '/socket.io': { target: master, ws: true, changeOrigin: true, headers: { origin: master } },
    },
  },
  test: { include: ['test/**/*.test.ts'], environment: 'node' },
});
