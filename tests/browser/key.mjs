// key.mjs URL KEY: without any key the page says where to get one and offers the demo, plainly labelled; a key that is entered is
// used and never shown.
import assert from 'node:assert/strict';
import { answered, ask, newChat, onPage, picture } from './lib.mjs';

const [url, key] = process.argv.slice(2);

await onPage(url, async (page, get) => {
  await get('key-offer').waitFor();
  assert.match(await get('key-link').getAttribute('href'), /^https:\/\//);
  await picture(page, 'key-offer');
  await get('demo-use').click();
  await ask(get, 'Are you real?');
  let answer = await answered(get);
  await answer.getByTestId('demo-label').waitFor();
  await picture(page, 'demo');

  await newChat(get);
  await get('api-key-toggle').click();
  await get('api-key-input').last().fill(key);
  await get('api-key-save').last().click();
  // The demo was chosen above; the master's choice is the real one now.
  await page.evaluate(() => localStorage.clear());
  await page.reload();
  await ask(get, 'With my own key?');
  answer = await answered(get);
  assert.equal(await answer.getByTestId('demo-label').count(), 0);
  assert.ok(!(await page.content()).includes(key), 'the key stands in the page');
  assert.ok(!(await page.evaluate(() => JSON.stringify({ ...localStorage }))).includes(key), 'the key is kept beyond the tab');
});
