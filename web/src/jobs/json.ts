// JSON to be read: indented, but lists of numbers on one line, for a vector of 768 lines helps nobody. Pure.

const NUMBERS = /\[\n\s+(-?[\d.eE+-]+(?:,\n\s+-?[\d.eE+-]+)*)\n\s+\]/g;

export function readableJson(value: unknown): string {
  return (JSON.stringify(value, null, 2) ?? '').replace(NUMBERS, (_, numbers: string) => `[${numbers.replace(/\s+/g, ' ')}]`);
}
