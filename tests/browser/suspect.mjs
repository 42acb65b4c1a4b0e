// suspect.mjs URL JOB: a job with a part by a worker that was caught lying since is marked in the list, and its view says what that
// means; it is submitted again from there.
import assert from 'node:assert/strict';
import { onPage, picture } from './lib.mjs';

const [url, id] = process.argv.slice(2);

await onPage(`${url}#/jobs`, async (page, get) => {
  const view = (job) => get('job-view').and(page.locator(job));
  const row = get('job-row').and(page.locator(`[data-id="${id}"]`));
  await row.getByTestId('job-suspect-mark').waitFor();
  await picture(page, 'suspect-list');
  await row.getByTestId('job-link').click();
  await view(`[data-id="${id}"]`).getByTestId('job-suspect').waitFor();
  await picture(page, 'suspect-note');
  assert.match(await get('job-suspect').innerText(), /has sent wrong results since.*submit the job again/is);
  await get('unit-suspect').waitFor();
  await get('audit-toggle').click();
  assert.equal(await get('audit-suspect').innerText(), '2');
  await picture(page, 'suspect-job');
  await get('suspect-again').click();
  const again = view(`:not([data-id="${id}"])`);
  await again.waitFor();
  await again.getByTestId('timeline').waitFor();
  assert.equal(await get('job-suspect').count(), 0);
});
