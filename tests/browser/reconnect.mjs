// reconnect.mjs URL: says 'ready' once connected; the test then kills the fleet, and starts it again after the banner was seen
// ('banner' is printed). The page recovers by itself.
import assert from 'node:assert/strict';
import { onPage, picture, until } from './lib.mjs';

const [url] = process.argv.slice(2);

await onPage(url, async (page, get) => {
  await until('the page is connected', async () => (await get('session').getAttribute('data-session')) !== null);
  console.log('ready');
  await get('banner').waitFor();
  await get('banner-age').waitFor();
  assert.match(await get('banner-age').innerText(), /\d/);
  await picture(page, 'banner');
  console.log('banner');
  await get('banner').waitFor({ state: 'hidden' });
  await get('nav-fleet').click();
  await until('the worker is back', async () => ['idle', 'busy'].includes(await get('fleet-worker').first().getAttribute('data-status')));
});
