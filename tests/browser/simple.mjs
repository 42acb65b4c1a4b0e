// simple.mjs URL WORKER: a question in the page is answered by a simple worker, which the fleet shows.
import assert from 'node:assert/strict';
import { answered, ask, onPage } from './lib.mjs';

const [url, worker] = process.argv.slice(2);

await onPage(url, async (page, get) => {
  await ask(get, 'what is a fleet?');
  const answer = await answered(get);
  assert.equal((await answer.getByTestId('answer-text').innerText()).trim(), 'WHAT IS A FLEET?');
  assert.equal(await answer.getByTestId('answer-worker').innerText(), worker);
  await get('nav-fleet').click();
  await page.locator(`[data-testid=fleet-worker][data-id="${worker}"]`).waitFor();
});
