// What the palette finds for what was typed. Pure.

export interface Entry {
  /** Of its group, unique among all. */
  id: string;
  group: string;
  text: string;
  /** Found by too, though not shown. */
  also?: string;
}

/** As people search: without accents and capitals. */
export function plain(text: string): string {
  return text
    .normalize('NFD')
    .replace(/\p{M}+/gu, '')
    .toLowerCase();
}

/** How well an entry fits all the words; null where one is missing. Beginnings count more than middles. */
export function score(entry: Pick<Entry, 'text' | 'also'>, words: string[]): number | null {
  const text = plain(`${entry.text} ${entry.also ?? ''}`);
  let sum = 0;
  for (const word of words) {
    const at = text.indexOf(word);
    if (at < 0) return null;
    const begins = at === 0 || new RegExp(`(?<![\\p{L}\\p{N}])${word.replace(/[.*+?^${}()|[\]\\]/g, '\\$&')}`, 'u').test(text);
    sum += at === 0 ? 3 : begins ? 2 : 1;
  }
  return sum;
}

/** The best first, in the order of their groups where they are as good; so many at most. */
export function find<T extends Entry>(entries: T[], query: string, most: number): T[] {
  const words = plain(query).split(/\s+/).filter(Boolean);
  if (words.length === 0) return entries.slice(0, most);
  const scored = entries.flatMap((entry) => {
    const points = score(entry, words);
    return points === null ? [] : [{ entry, points }];
  });
  return scored
    .sort((a, b) => b.points - a.points)
    .slice(0, most)
    .map(({ entry }) => entry);
}

export function jobIdIn(query: string): string | null {
  return /[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}/i.exec(query)?.[0].toLowerCase() ?? null;
}
