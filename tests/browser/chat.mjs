// chat.mjs URL: what a person does with conversations: asks again and in other words, goes between the versions, names, finds, takes
// along and deletes conversations; a bad key, a used-up quota and an overloaded service look different and say what to do.
import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { answered, ask, hold, newChat, onPage, picture, until } from './lib.mjs';

const [url] = process.argv.slice(2);
const FAILURES = { bad: ['bad_key', 'bad', 'remedy-key'], quota: ['quota_day', 'warn', 'remedy-model'], gone: ['model_gone', 'bad', 'remedy-model'] };

await onPage(url, async (page, get) => {
  const text = () => get('answer-text').last().innerText();
  const download = async (id) => {
    const [file] = await Promise.all([page.waitForEvent('download'), get(id).click()]);
    return { name: file.suggestedFilename(), text: await readFile(await file.path(), 'utf8') };
  };
  const menu = async (nth) => {
    await get('recent-chat').nth(nth).hover();
    await get('chat-menu').nth(nth).click();
    await get('chat-menu-open').locator(':focus').waitFor();
  };

  await ask(get, 'first question');
  await answered(get);
  const first = await text();
  assert.match(first, /first question/);
  for (const id of ['answer-worker', 'answer-model', 'answer-time', 'answer-first', 'answer-tokens']) {
    assert.ok((await get(id).last().innerText()).trim() !== '', `${id} says nothing`);
  }

  await get('ask-again').click();
  await until('there are two versions', async () => (await get('versions').count()) === 1);
  await answered(get);
  assert.equal(await get('turn').count(), 1, 'an answer made again stands in the place of the old one');
  assert.match(await get('versions').innerText(), /2 \/ 2/);

  await get('question').hover();
  await get('ask-edit').click();
  await get('edit-input').fill('second question');
  await get('edit-send').click();
  await until('the third version is asked', async () => /3 \/ 3/.test(await get('versions').innerText()));
  await answered(get);
  assert.match(await text(), /second question/);
  await ask(get, 'and a follow-up');
  await until('there are two turns', async () => (await get('turn').count()) === 2);
  await answered(get);
  await get('version-before').click();
  assert.equal(await get('turn').count(), 1, 'the follow-up belongs to another branch');
  await get('version-next').click();
  assert.equal(await get('turn').count(), 2, 'a branch is found again as it was left');
  await page.reload();
  await until('the branch is there after a reload', async () => (await get('turn').count()) === 2);
  await picture(page, 'chat-versions');

  await newChat(get);
  await ask(get, 'another conversation');
  await answered(get);
  await menu(0);
  await get('chat-rename').click();
  await get('chat-name').fill('Of ships');
  await page.keyboard.press('Enter');
  await until('the new name is shown', async () => (await get('recent-chat').first().innerText()) === 'Of ships');
  await menu(0);
  const markdown = await download('chat-export-md');
  assert.equal(markdown.name, 'Of-ships.md');
  assert.match(markdown.text, /^# Of ships\n\n## another conversation\n/);
  await menu(1);
  const kept = JSON.parse((await download('chat-export-json')).text);
  assert.equal(kept.turns.length, 4, 'all branches are taken along');

  const { id, remote } = await page.evaluate(() => JSON.parse(localStorage.getItem('flota.chats'))[0]);
  await onPage(`${url}#/ask/${id}?secret=${remote.secret}`, async (other, there) => {
    await until('the conversation is there on another device', async () => (await there('turn').count()) === 1);
    assert.match(await there('question').innerText(), /another conversation/);
    assert.ok(!(await other.evaluate(() => location.href)).includes(remote.secret), 'the secret stays in the address');
    await ask(there, 'said on the other device');
    await until('it goes on', async () => (await there('turn').count()) === 2);
    await answered(there);
  });

  await get('open-history').click();
  await get('history-find').fill('FOLLOW-UP');
  await until('one conversation is found by what was said in it', async () => (await get('history-entry').count()) === 1);
  await get('history-find').fill('nothing like this');
  await get('history-none').waitFor();
  await get('history-close').click();

  await menu(0);
  await hold(page, get('chat-delete'), () => until('it is deleted', async () => (await get('recent-chat').count()) === 1));

  const fetched = [];
  page.on('request', (request) => fetched.push(request.url()));
  await newChat(get);
  await get('model-picker').selectOption('hostile');
  await ask(get, '<img src=x onerror="window.hit = 1"><b>bold?</b>');
  await answered(get);
  await get('code').waitFor();
  assert.match(await get('question').innerText(), /<b>bold\?<\/b>/, 'a question is text');
  assert.match(await text(), /<script>window\.hit = 2<\/script>/, 'HTML in an answer is text');
  assert.equal(await page.evaluate(() => window.hit), undefined);
  const unwanted = 'img, script, iframe, form, style, [onerror], [onclick], a[href^="javascript:"], a[href^="data:"]';
  assert.equal(await get('conversation').locator(unwanted).count(), 0);
  assert.deepEqual(fetched.filter((address) => !address.startsWith(new URL(url).origin) && !address.startsWith('ws')), [], 'an answer makes the page fetch nothing');

  for (const [model, [code, tone, remedy]] of Object.entries(FAILURES)) {
    await newChat(get);
    await get('model-picker').selectOption(model);
    await ask(get, `what does ${model} say?`);
    await answered(get, ['failed']);
    const failure = get('answer-error');
    assert.equal(await failure.getAttribute('data-code'), code);
    assert.equal(await failure.getAttribute('data-tone'), tone);
    await failure.getByTestId(remedy).waitFor();
    await picture(page, `chat-${model}`);
  }
});
