import { expect, test } from 'vitest';
import { fence, languageOf, readText, withFiles } from '../src/ask/files';
import { newestFirst, Recall } from '../src/ask/recall';

test('a file stands below the question as code that its own fences cannot close', () => {
  expect(withFiles(' why? ', [{ name: 'main.rs', text: 'fn main() {}\n\n' }])).toBe('why?\n\nmain.rs:\n```rust\nfn main() {}\n```');
  expect(fence('a\n````\nb')).toBe('`````');
  expect(withFiles('', [{ name: 'README', text: '```x```' }])).toBe('README:\n````\n```x```\n````');
  expect(languageOf('archive.tar.gz')).toBe('gz');
});

test('what is no text is told from what is', async () => {
  expect(await readText(new File(['año'], 'a.txt'))).toBe('año');
  expect(await readText(new File([new Uint8Array([0x89, 0x50, 0xff])], 'a.png'))).toBeNull();
  expect(await readText(new File(['a\0b'], 'a.bin'))).toBeNull();
});

test('arrows go back through what was asked and return to what was being written', () => {
  const recall = new Recall();
  const asked = () => newestFirst(['one', 'two', 'one', 'three']);
  expect(recall.follows('half a thought')).toBe(false);
  expect(recall.back('', asked)).toBe('three');
  expect(recall.back('three', asked)).toBe('one');
  expect(recall.back('one', asked)).toBe('two');
  expect(recall.back('two', asked)).toBeNull();
  expect(recall.follows('two')).toBe(true);
  expect(recall.forth('two')).toBe('one');
  expect(recall.forth('one')).toBe('three');
  expect(recall.forth('three')).toBe('');
  expect(recall.forth('')).toBeNull();
});
