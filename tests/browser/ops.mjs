// ops.mjs URL: failed jobs are listed with the error of every try, one is replayed alone and the others together after a count; a
// source of mining work is refused at the field that is wrong; a worker shows how it hashes, and the fleet its rate.
import assert from 'node:assert/strict';
import { hold, onPage, picture, until } from './lib.mjs';

const url = process.argv[2].replace(/\/$/, '');

/** The job is in the list of failed ones with so many tries: it was started again, and has failed again as it was asked to. */
async function tried(get, { id }, times) {
  await until(`job ${id} has ${times} tries`, async () => {
    const units = await fetch(`${url}/api/v1/jobs/${id}/units`).then((answer) => answer.json());
    return units.items[0].state === 'failed' && units.items[0].attempts.length === times;
  });
  await get('failed-row').and(get('failed-jobs').locator(`[data-id="${id}"]`)).waitFor();
}

for (const phone of [false, true]) {
  const size = phone ? 'phone' : 'desk';
  await onPage(
    url,
    async (page, get) => {
      const submit = (job) =>
        page.evaluate((body) => fetch('api/v1/jobs', { method: 'POST', headers: { 'content-type': 'application/json' }, body }).then((answer) => answer.json()), JSON.stringify(job));
      const failing = (value) => ({ kind: 'echo', payload: { value, fail: { times: 2, retryable: true } }, max_attempts: 2, retry: { backoff_ms: 1 }, project: size });
      const jobs = [];
      for (const value of ['a', 'b', 'c']) jobs.push(await submit(failing(value)));

      await page.goto(`${url}#/jobs/failed?project=${size}`);
      await until('three failed jobs are shown', async () => (await get('failed-row').count()) === 3);
      const row = page.locator(`[data-testid=failed-row][data-id="${jobs[0].id}"]`);
      await row.getByTestId('failed-attempts').click();
      await until('both tries are shown', async () => (await row.getByTestId('attempt-row').count()) === 2);
      assert.equal(await row.getByTestId('attempt-error').count(), 2);
      await picture(page, `failed-${size}`);
      await row.getByTestId('failed-replay').click();
      await tried(get, jobs[0], 4);
      // Whether the list saw it go is a matter of chance: then its tries are folded again.
      await until('the new tries are shown as well', async () => {
        const folded = await row.locator('details:not([open])').count();
        if (folded > 0) await row.getByTestId('failed-attempts').click();
        return (await row.getByTestId('attempt-row').count()) === 4;
      });
      assert.ok(await row.getByTestId('failed-replay').isEnabled(), 'what failed again can be replayed again');

      await get('replay-all').click();
      await get('replay-count').waitFor();
      assert.equal(await get('replay-count').getAttribute('data-count'), '3');
      await hold(page, get('replay-go'), () => get('replay-done').waitFor());
      await get('replay-end').click();
      await tried(get, jobs[0], 6);
      await tried(get, jobs[1], 4);
      await tried(get, jobs[2], 4);

      await page.goto(`${url}#/fleet/mining`);
      await get('source-add').click();
      await get('source-url').fill('http://127.0.0.1:9');
      await get('source-wallet').fill('4NotAnAddress');
      await get('source-create').click();
      await until('the wrong field is marked', async () => (await get('source-wallet').getAttribute('aria-invalid')) === 'true');
      assert.equal(await get('source-url').getAttribute('aria-invalid'), 'false');
      await picture(page, `source-${size}`);

      await submit({ kind: 'randomx.hash', payload: { key: '666c6f7461', inputs: ['00', '01', '02', '03'] }, cache: false });
      await page.goto(`${url}#/fleet`);
      await get('worker-hash').waitFor();
      await until('the mode is shown', async () => ['light', 'fast'].includes(await get('worker-hash').getAttribute('data-mode')));
      const overflow = await page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);
      assert.ok(overflow <= 0, `the page is ${overflow} px wider than the screen`);
      await picture(page, `hash-${size}`);
    },
    { phone },
  );
}
