// tour.mjs URL: a job is submitted by the form and followed to its end; fleet and logs show it; no request fails. On a desk's and on a
// phone's size.
import assert from 'node:assert/strict';
import { onPage, picture, until } from './lib.mjs';

const [url] = process.argv.slice(2);

for (const phone of [false, true]) {
  const size = phone ? 'phone' : 'desk';
  await onPage(
    url,
    async (page, get, errors) => {
      page.on('response', (answer) => answer.status() >= 400 && errors.push(`${answer.status()} ${answer.url()}`));
      await get('nav-jobs').click();
      await get('jobs-submit').click();
      await get('submit-kind').selectOption('echo');
      await get('submit-as-json').click();
      await get('submit-raw').fill(JSON.stringify({ kind: 'echo', payload: { value: 'by the form', sleep_ms: 300 } }));
      await get('submit-go').click();
      await get('job-view').waitFor();
      await until('the job has completed', async () => (await get('stage-done').getAttribute('data-status')) === 'past');
      await page.getByText('by the form').first().waitFor();
      await get('unit-row').first().waitFor();
      await picture(page, `job-${size}`);
      const id = await get('job-view').getAttribute('data-id');

      await get('nav-jobs').click();
      await page.locator(`[data-testid=job-row][data-id="${id}"]`).waitFor();
      await picture(page, `jobs-${size}`);
      await get('nav-fleet').click();
      await get('fleet-worker').first().waitFor();
      await until('one worker is counted', async () => (await get('total-online').innerText()) === '1');
      await picture(page, `fleet-${size}`);
      await get('nav-logs').click();
      await get('log-line').first().waitFor();
      await picture(page, `logs-${size}`);
      const overflow = await page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);
      assert.ok(overflow <= 0, `the page is ${overflow} px wider than the screen`);
    },
    { phone },
  );
}
