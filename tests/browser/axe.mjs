// axe.mjs URL desk|phone: axe-core finds nothing to object to, on any page and dialog, in both languages and themes. The stand-in
// answers the questions: the model `bad` with a refused key, every other with Markdown.
import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { answered, ask, onPage, picture } from './lib.mjs';

const [url, size] = process.argv.slice(2);
const axe = await readFile(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8');
const ALL = { type: 'tag', values: ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'wcag22aa', 'best-practice'] };
/** What another theme can change. */
const COLOURS = { type: 'rule', values: ['color-contrast', 'link-in-text-block'] };
let looked = 0;

/** What moves has come to rest; what moves for ever has none. */
function settled() {
  const moving = document.getAnimations().filter((animation) => Number.isFinite(animation.effect?.getComputedTiming().endTime));
  return Promise.all(moving.map((animation) => animation.finished.catch(() => null))).then(() => null);
}

/** Everything that axe objects to on what is shown now, in both themes. */
async function objections(page, name) {
  // Not through a script element: the page's content policy stays as it is.
  if (!(await page.evaluate(() => 'axe' in window))) await page.evaluate(axe);
  const found = [];
  for (const [theme, rules] of [['dark', COLOURS], ['light', ALL]]) {
    await page.evaluate((theme) => (document.documentElement.dataset.theme = theme), theme);
    await page.evaluate(settled);
    const { violations, passes } = await page.evaluate((runOnly) => window.axe.run(document, { runOnly }), rules);
    assert.ok(passes.length > 0, `${name}: axe has looked at nothing`);
    looked += 1;
    await picture(page, `axe-${name}-${theme}`);
    for (const { id, help, nodes } of violations) {
      found.push(`${name}-${theme}: ${id} (${help})\n${nodes.map((node) => `    ${node.html}\n    ${node.failureSummary}`).join('\n')}`);
    }
  }
  return found;
}

async function tour(page, get, name) {
  const found = [];
  const look = async (what) => found.push(...(await objections(page, `${name}-${what}`)));
  const dialog = async (opener, id, whole = id) => {
    await get(opener).first().click();
    await get(whole).first().waitFor();
    await look(id);
    await get(`${id}-close`).click();
    await get(id).waitFor({ state: 'detached' });
  };
  await look('ask-empty');
  await ask(get, 'How do ships keep together?');
  await answered(get);
  await get('code').locator('.hljs-keyword').first().waitFor();
  await look('ask-answered');
  await get('ask-again').click();
  await get('versions').waitFor();
  await answered(get);
  await look('ask-versions');
  await get('question').last().hover();
  await get('ask-edit').last().click();
  await get('edit-input').waitFor();
  await look('ask-editing');
  await get('edit-cancel').click();
  await get('model-picker').selectOption('bad');
  await ask(get, 'And with a bad key?');
  await answered(get, ['failed']);
  await get('remedy-key').click();
  await get('api-key-input').waitFor();
  await look('ask-failed');
  await get('model-picker').selectOption('');
  await dialog('open-history', 'history', 'history-entry');
  await page.goto(`${url}#/jobs`);
  await get('job-row').first().waitFor();
  await look('jobs');
  await get('job-link').first().click();
  await get('unit-row').first().waitFor();
  await look('job-failed');
  await page.goto(`${url}#/jobs/failed`);
  await get('failed-row').first().waitFor();
  await get('failed-attempts').first().click();
  await get('attempt-row').first().waitFor();
  await look('failed');
  await dialog('replay-all', 'replay', 'replay-count');
  await page.goto(`${url}#/jobs/new`);
  await get('submit-kind').waitFor();
  await look('submit');
  await page.goto(`${url}#/fleet`);
  await get('fleet-worker').first().waitFor();
  await get('worker-details').first().click();
  await look('fleet');
  await page.goto(`${url}#/fleet/mining`);
  await get('source-add').click();
  await get('source-form').waitFor();
  await look('mining');
  await page.goto(`${url}#/fleet/usage`);
  await get('usage-table').waitFor();
  await look('usage');
  await page.goto(`${url}#/logs`);
  await get('log-line').first().waitFor();
  await look('logs');
  await page.keyboard.press('?');
  await get('help').waitFor();
  await look('help');
  await get('help-close').click();
  await page.keyboard.press('Control+k');
  await get('palette').waitFor();
  await look('palette');
  await get('palette-close').click();
  await page.goto(`${url}#/ask`);
  await dialog(name.includes('phone') ? 'open-settings-phone' : 'open-settings', 'settings');
  return found;
}

const found = [];
for (const locale of ['en', 'es']) {
  await onPage(
    url,
    async (page, get) => {
      await page.evaluate((locale) => localStorage.setItem('flota.prefs', JSON.stringify({ theme: 'light', locale })), locale);
      await page.reload();
      found.push(...(await tour(page, get, `${size}-${locale}`)));
    },
    { phone: size === 'phone' },
  );
}
assert.deepEqual(found, [], found.join('\n'));
assert.equal(looked, 2 * 2 * 18);
