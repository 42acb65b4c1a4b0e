// The fields of each job kind, and how they become what is sent. Pure.
import type { Kind } from '../lib/types';

export type FieldType = 'line' | 'text' | 'number' | 'lines' | 'json' | 'choice';

export interface Field {
  /** Key of its label in the texts, and name in the form. */
  name: string;
  type: FieldType;
  /** Where its value stands in the job: what the server's errors name. */
  path: string;
  initial: string;
  choices?: string[];
  hint?: 'keyHint' | 'targetHint';
}

const key: Field = { name: 'key', type: 'line', path: 'payload.key', initial: '666c6f7461', hint: 'keyHint' };
const model: Field = { name: 'model', type: 'line', path: 'payload.model', initial: '' };

const inputs: Field = { name: 'inputs', type: 'lines', path: 'payload.inputs', initial: '686f6c61\n666c6f7461' };
const range: Field[] = [
  { name: 'blob', type: 'text', path: 'payload.blob', initial: '00'.repeat(76) },
  { name: 'nonce_offset', type: 'number', path: 'payload.nonce_offset', initial: '39' },
  { name: 'nonce_start', type: 'number', path: 'payload.nonce_start', initial: '0' },
  { name: 'nonce_end', type: 'number', path: 'payload.nonce_end', initial: '4096' },
  { name: 'target', type: 'text', path: 'payload.target', initial: `${'ff'.repeat(30)}ff00`, hint: 'targetHint' },
  { name: 'find', type: 'choice', path: 'payload.find', initial: 'first', choices: ['first', 'all'] },
];

export const FIELDS: Record<Kind, Field[]> = {
  'ai.chat': [
    { name: 'prompt', type: 'text', path: 'payload.messages', initial: '' },
    // Objections to messages stand at the question.
    { name: 'system', type: 'line', path: 'payload.messages.system', initial: '' },
    model,
    { name: 'temperature', type: 'number', path: 'payload.temperature', initial: '' },
    { name: 'max_output_tokens', type: 'number', path: 'payload.max_output_tokens', initial: '' },
  ],
  'ai.embed': [{ name: 'texts', type: 'lines', path: 'payload.texts', initial: '' }, model],
  'randomx.hash': [key, inputs],
  'randomx.search': [key, ...range],
  'sha256d.hash': [inputs],
  'sha256d.search': range,
  echo: [
    { name: 'value', type: 'json', path: 'payload.value', initial: 'hola' },
    { name: 'sleep_ms', type: 'number', path: 'payload.sleep_ms', initial: '' },
  ],
};

export const OPTIONS: Field[] = [
  { name: 'priority', type: 'number', path: 'priority', initial: '5' },
  { name: 'max_attempts', type: 'number', path: 'max_attempts', initial: '' },
  { name: 'queue', type: 'line', path: 'queue', initial: '' },
  { name: 'project', type: 'line', path: 'project', initial: '' },
  { name: 'labels', type: 'lines', path: 'labels', initial: '' },
];

export type Values = Record<string, string>;

export function initialValues(kind: Kind): Values {
  return Object.fromEntries([...FIELDS[kind], ...OPTIONS].map((field) => [field.name, field.initial]));
}

function linesOf(text: string): string[] {
  return text
    .split('\n')
    .map((line) => line.trim())
    .filter((line) => line !== '');
}

function jsonOrText(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return text;
  }
}

/** What was typed, as it is sent; undefined for an empty field that may be left out. A bad number goes as it is: the master says why. */
function valueOf(field: Field, text: string): unknown {
  const trimmed = text.trim();
  switch (field.type) {
    case 'lines':
      return linesOf(text);
    case 'json':
      return jsonOrText(text);
    case 'number':
      return trimmed === '' ? undefined : Number.isFinite(Number(trimmed)) ? Number(trimmed) : trimmed;
    default:
      return trimmed === '' && field.name !== 'key' ? undefined : trimmed;
  }
}

function labelsOf(text: string): Record<string, string> {
  const pairs = linesOf(text).map((line): [string, string] => {
    const at = line.indexOf('=');
    return at < 0 ? [line, ''] : [line.slice(0, at).trim(), line.slice(at + 1).trim()];
  });
  return Object.fromEntries(pairs);
}

function chatPayload(values: Values, payload: Record<string, unknown>): Record<string, unknown> {
  const { prompt, system, ...rest } = payload;
  const messages = [
    ...(system ? [{ role: 'system', content: system }] : []),
    { role: 'user', content: (prompt as string | undefined) ?? values.prompt ?? '' },
  ];
  return { messages, ...rest };
}

export function jobOf(kind: Kind, values: Values): Record<string, unknown> {
  const entries = (fields: Field[]) =>
    fields
      .map((field) => [field.name, valueOf(field, values[field.name] ?? '')] as const)
      .filter(([, value]) => value !== undefined);
  const payload: Record<string, unknown> = Object.fromEntries(entries(FIELDS[kind]));
  const { labels: _, ...options } = Object.fromEntries(entries(OPTIONS));
  const labels = labelsOf(values.labels ?? '');
  return {
    kind,
    payload: kind === 'ai.chat' ? chatPayload(values, payload) : payload,
    ...options,
    ...(Object.keys(labels).length > 0 ? { labels } : {}),
  };
}
