// score.mjs REPORT PAGE LEAST: says what Lighthouse's report gives a page for accessibility, and fails below LEAST, with the reasons.
import { readFileSync } from 'node:fs';

const [report, page, least] = process.argv.slice(2);
const { categories, audits } = JSON.parse(readFileSync(report, 'utf8'));
const { score } = categories.accessibility;
console.log(`${page}: ${score}`);
if (!(score >= Number(least))) {
  for (const { id, score: part, title } of Object.values(audits)) if (part === 0) console.log(`  ${id}: ${title}`);
  process.exit(1);
}
