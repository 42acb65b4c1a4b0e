// Text files that go along with a question: read here, and written below it as code under their names. Pure but for the reading.

export interface TextFile {
  name: string;
  text: string;
}

/** Endings that highlighting and models know by another name. */
const LANGUAGES: Record<string, string> = { rs: 'rust', py: 'python', js: 'javascript', mjs: 'javascript', ts: 'typescript', sh: 'bash', yml: 'yaml', h: 'c', hpp: 'cpp', md: 'markdown', htm: 'html', toml: 'ini', conf: 'ini' };

export function languageOf(name: string): string {
  const ending = /\.([A-Za-z0-9]{1,10})$/.exec(name)?.[1]?.toLowerCase() ?? '';
  return LANGUAGES[ending] ?? ending;
}

/** A fence that nothing in the text can close. */
export function fence(text: string): string {
  const longest = Math.max(2, ...[...text.matchAll(/`{3,}/g)].map(([run]) => run.length));
  return '`'.repeat(longest + 1);
}

export function withFiles(query: string, files: TextFile[]): string {
  const parts = files.map(({ name, text }) => {
    const mark = fence(text);
    return `${name}:\n${mark}${languageOf(name)}\n${text.replace(/\n+$/, '')}\n${mark}`;
  });
  return [query.trim(), ...parts].filter(Boolean).join('\n\n');
}

/** The text of a file; null for one that holds no text. */
export async function readText(file: File): Promise<string | null> {
  try {
    const text = new TextDecoder('utf-8', { fatal: true }).decode(await file.arrayBuffer());
    return text.includes('\0') ? null : text;
  } catch {
    return null;
  }
}
