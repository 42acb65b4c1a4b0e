// A headless Chromium on the page, and what every scenario needs of it.
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { chromium } from 'playwright-core';

export const DEADLINE_MS = 60_000;
/** How many times slower than on this machine the page is to be: what passes only on a fast one shows. */
const SLOWDOWN = Number(process.env.FLOTA_BROWSER_SLOWDOWN ?? 1);
const LATENCY_MS = 25;

const FLAGS = [
  '--no-sandbox',
  '--disable-gpu',
  '--disable-quic',
  '--no-first-run',
  '--disable-background-networking',
  '--disable-component-update',
  '--disable-sync',
];
const DESK = { width: 1280, height: 860 };
const PHONE = { width: 390, height: 844 };

/** Opens `url`, gives the page to `scenario`, and fails with what the browser complained about. */
export async function onPage(url, scenario, { phone = false } = {}) {
  const profile = await mkdtemp(join(tmpdir(), 'flota-browser-'));
  const context = await chromium.launchPersistentContext(profile, {
    executablePath: process.env.FLOTA_CHROMIUM ?? '/usr/bin/chromium',
    args: FLAGS,
    locale: 'en-US',
    viewport: phone ? PHONE : DESK,
    hasTouch: phone,
    isMobile: phone,
  });
  const page = context.pages()[0] ?? (await context.newPage());
  page.setDefaultTimeout(DEADLINE_MS);
  const errors = [];
  page.on('pageerror', (error) => errors.push(String(error)));
  if (SLOWDOWN > 1) await slow(await context.newCDPSession(page));
  try {
    await page.goto(url);
    await scenario(page, (id) => page.getByTestId(id), errors);
    if (errors.length > 0) throw new Error(`the page had errors:\n${errors.join('\n')}`);
  } catch (error) {
    if (process.env.FLOTA_SCREENSHOTS) {
      await page.screenshot({ path: join(process.env.FLOTA_SCREENSHOTS, `failed-${process.pid}.png`) }).catch(() => null);
    }
    console.error(`what the page showed last:\n${await page.locator('body').innerText().catch(() => '(nothing)')}`);
    throw error;
  } finally {
    await context.close();
    await rm(profile, { recursive: true, force: true });
  }
}

/** The processor, and every request: of modules that are loaded when they are wanted, too. */
async function slow(session) {
  await session.send('Emulation.setCPUThrottlingRate', { rate: SLOWDOWN });
  await session.send('Network.emulateNetworkConditions', { offline: false, latency: SLOWDOWN * LATENCY_MS, downloadThroughput: -1, uploadThroughput: -1 });
}

/** Polls `probe` until it answers something true. */
export async function until(what, probe, deadline = DEADLINE_MS) {
  const end = performance.now() + deadline;
  for (;;) {
    const value = await probe();
    if (value) return value;
    if (performance.now() > end) throw new Error(`${what}: not within ${deadline} ms`);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

/** Types a question and sends it. */
export async function ask(get, question) {
  await get('ask-input').fill(question);
  await get('ask-send').click();
}

/** The last answer, once it is in one of `states`. */
export async function answered(get, states = ['complete']) {
  const last = get('answer').last();
  await until(`the answer is ${states.join(' or ')}`, async () => states.includes(await last.getAttribute('data-state')));
  return last;
}

/** An empty conversation. The address changes first, and the page a moment later: what is typed before that goes on with the old one. */
export async function newChat(get) {
  await get('new-chat').click();
  await until('the new conversation is empty', async () => (await get('turn').count()) === 0);
}

/** Holds a button down until `done`. What opens may still move to its place: `hover` waits until it stands still. */
export async function hold(page, button, done) {
  await button.hover();
  await page.mouse.down();
  await done();
  await page.mouse.up();
}

/** A picture for a person to look at, where FLOTA_SCREENSHOTS names a directory. */
export async function picture(page, name) {
  const directory = process.env.FLOTA_SCREENSHOTS;
  if (directory) await page.screenshot({ path: join(directory, `${name}.png`) });
}
