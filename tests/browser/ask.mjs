// ask.mjs URL ANSWER WORKER: a question's answer streams, survives a reload in the middle, and is whole at the end; a second one is
// stopped in the middle and keeps what came. The stand-in holds after 20 and after 40 words, until this has said 'begun' and
// 'reloaded'.
import assert from 'node:assert/strict';
import { answered, ask, onPage, picture, until } from './lib.mjs';

const [url, expected, worker] = process.argv.slice(2);
const words = expected.split(' ');

await onPage(url, async (page, get) => {
  await ask(get, 'How do ships keep together?');
  const text = () => get('answer-text').last().innerText().catch(() => '');
  const growing = () => get('answer').last().getAttribute('data-state');

  await until('the beginning of the answer is shown', async () => (await text()).startsWith(words.slice(0, 4).join(' ')));
  assert.equal(await growing(), 'computing', 'the answer was to be shown while it grows');
  console.log('begun');
  const half = words.slice(0, 40).join(' ');
  await until('more of it', async () => (await text()).trim() === half);
  await picture(page, 'ask-streaming');

  await page.reload();
  await until('what had come is there after the reload', async () => (await text()).trim() === half);
  assert.equal(await growing(), 'computing', 'the reload was to be in the middle');
  console.log('reloaded');
  const answer = await answered(get);
  assert.equal((await text()).trim(), expected);
  assert.equal(await get('turn').count(), 1);
  assert.equal(await answer.getByTestId('answer-worker').innerText(), worker);
  assert.match(await answer.getByTestId('answer-time').innerText(), /\d/);
  await picture(page, 'ask-answered');

  await ask(get, 'And now without end, please');
  await until('the second answer begins', async () => (await get('turn').count()) === 2 && (await text()).includes('never'));
  await get('ask-stop').click();
  await answered(get, ['cancelled']);
  assert.match(await text(), /^This never/, 'what came was to stay');
  await picture(page, 'ask-stopped');
});
