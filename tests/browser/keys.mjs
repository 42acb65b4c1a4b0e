// keys.mjs URL: without a mouse: the palette goes anywhere, lists are walked through row by row, the arrows bring back what was asked.
// And what stands in the address or is dropped: filters by error and owner, text files that go along with a question.
import assert from 'node:assert/strict';
import { answered, ask, onPage, picture, until } from './lib.mjs';

const url = process.argv[2].replace(/\/$/, '');
const hash = (page) => page.evaluate(() => location.hash);

await onPage(url, async (page, get) => {
  const submit = (job) =>
    page.evaluate((body) => fetch('api/v1/jobs', { method: 'POST', headers: { 'content-type': 'application/json' }, body }).then((answer) => answer.json()), JSON.stringify(job));
  const first = await submit({ kind: 'echo', payload: { value: 1 } });
  const second = await submit({ kind: 'echo', payload: { value: 2 } });
  const failed = await submit({ kind: 'echo', payload: { value: 3, fail: { times: 2, retryable: true } }, max_attempts: 2, retry: { backoff_ms: 1 } });

  const ready = await page.evaluate(() => {
    const { port1, port2 } = new MessageChannel();
    const next = new Promise((resolve) => (port1.onmessage = () => resolve(document.activeElement.dataset.testid)));
    document.body.dispatchEvent(new KeyboardEvent('keydown', { key: 'k', ctrlKey: true, bubbles: true, cancelable: true }));
    port2.postMessage(null);
    return next;
  });
  assert.equal(ready, 'palette-input', 'the very next key is for the palette, though nobody has opened it before');
  await page.keyboard.type('failed jobs');
  await page.keyboard.press('Enter');
  await until('the palette went to the failed jobs', async () => (await hash(page)) === '#/jobs/failed');
  await page.keyboard.press('Control+k');
  await page.keyboard.type(`see ${second.id}`);
  await page.keyboard.press('Enter');
  await get('job-view').and(page.locator(`[data-id="${second.id}"]`)).waitFor();
  await page.keyboard.press('Control+k');
  await page.keyboard.type('nothing is called like this');
  await get('palette-none').waitFor();
  await page.keyboard.press('Escape');
  await get('palette').waitFor({ state: 'detached' });

  await page.keyboard.press('2');
  await until('three jobs are listed', async () => (await get('job-row').count()) === 3);
  const focused = () => page.evaluate(() => document.activeElement.closest('[data-id]')?.dataset.id);
  await page.keyboard.press('j');
  assert.equal(await focused(), failed.id);
  await page.keyboard.press('ArrowDown');
  await page.keyboard.press('j');
  assert.equal(await focused(), first.id);
  await page.keyboard.press('k');
  assert.equal(await focused(), second.id);
  await page.keyboard.press('Enter');
  await get('job-view').and(page.locator(`[data-id="${second.id}"]`)).waitFor();

  await page.goto(`${url}#/jobs/${failed.id}`);
  await get('attempt-chart').waitFor();
  assert.equal(await get('attempt-chart').locator('rect').count(), 2, 'every attempt has a bar');
  await picture(page, 'attempts');
  const code = await get('job-error-code').innerText();
  await get('job-error-code').click();
  await until('only what failed so is listed', async () => (await get('job-row').count()) === 1);
  assert.equal(await get('filter-code').inputValue(), code);
  await page.goto(`${url}#/jobs?owner=nobody`);
  await get('filters-clear').waitFor();

  await page.goto(`${url}#/ask/new`);
  await get('model-picker').selectOption('demo');
  await ask(get, 'What was first?');
  await answered(get);
  await get('ask-input').focus();
  await page.keyboard.press('ArrowUp');
  assert.equal(await get('ask-input').inputValue(), 'What was first?');
  await page.keyboard.press('ArrowDown');
  assert.equal(await get('ask-input').inputValue(), '');

  await get('file-input').setInputFiles([
    { name: 'notes.txt', mimeType: 'text/plain', buffer: Buffer.from('keep a ``` fence\n') },
    { name: 'picture.png', mimeType: 'image/png', buffer: Buffer.from([0x89, 0x50, 0xff, 0]) },
  ]);
  await get('file-problem').waitFor();
  await page.evaluate(() => {
    const dropped = new DataTransfer();
    dropped.items.add(new File(['fn main() {}\n'.repeat(80)], 'main.rs'));
    window.dispatchEvent(new DragEvent('drop', { dataTransfer: dropped, cancelable: true }));
  });
  await until('both texts go along', async () => (await get('file').count()) === 2);
  await picture(page, 'files');
  await ask(get, 'What is in these?');
  await answered(get);
  assert.equal(await get('file').count(), 0);
  const question = await get('question').last().innerText();
  assert.match(question, /What is in these\?\n\nnotes\.txt:\n````txt\nkeep a ``` fence\n````\n\nmain\.rs:\n```rust\nfn main/);
  const height = async () => (await get('question').last().boundingBox()).height;
  const folded = await height();
  await get('question-whole').click();
  assert.ok((await height()) > folded, 'a long question is shown whole when that is asked for');
  assert.match(await page.title(), /^What was first\?/);
});
