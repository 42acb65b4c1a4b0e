// What a follow-up carries along, and what a screen reader hears.
import { describe, expect, it } from 'vitest';
import { newAnswer, type Turn } from '../src/ask/answer';
import { asJson, asMarkdown, fileName, messages, sentences, titleOf } from '../src/ask/messages';

function turn(query: string, text: string, more: Partial<Turn['answer']> = {}): Turn {
  return { id: query, parent: null, query, model: null, answer: { ...newAnswer(0), state: 'complete', text, ...more } };
}

describe('messages', () => {
  it('alternate between user and assistant, oldest first', () => {
    expect(messages([turn('a', 'A'), turn('b', 'B')]).map((message) => message.content)).toEqual(['a', 'A', 'b', 'B']);
  });
  it('leave out what never was answered, and the demo', () => {
    expect(messages([turn('a', '', { state: 'failed' }), turn('b', 'B', { provider: 'demo' })])).toEqual([]);
  });
  it('leave out the oldest when it becomes too much', () => {
    const kept = messages([turn('old', 'x'.repeat(50_000)), turn('new', 'y'.repeat(50_000))]);
    expect(kept.map((message) => message.content[0])).toEqual(['n', 'y']);
  });
});

describe('sentences', () => {
  it('are said once they are complete', () => {
    const text = 'One is here. Two is hal';
    const first = sentences(text, 0);
    expect(first.said).toEqual(['One is here.']);
    expect(sentences('One is here. Two is half. ', first.next).said).toEqual(['Two is half.']);
  });
  it('are not cut inside a number or an address', () => {
    expect(sentences('Version 3.5 of flota.example is out.\n', 0).said).toEqual(['Version 3.5 of flota.example is out.']);
  });
  it('leave out code and the signs of Markdown', () => {
    const text = '## A **title**\n```sh\nrm file. Now.\n```\n1. After it.\n|---|---|\n';
    expect(sentences(text, 0).said).toEqual(['A title', 'After it.']);
  });
});

it('a title is the first line, shortened', () => {
  expect(titleOf('  hello\nworld')).toBe('hello');
  expect(titleOf('x'.repeat(100))).toHaveLength(58);
});

describe('a conversation to keep', () => {
  const why = turn('Why?', 'Because.', { workerId: 'w', model: 'demo', provider: 'demo' });
  const conversation = { id: 'c', title: 'Why?', updatedAt: 1, turns: [why, { ...turn('How?', 'So.'), parent: 'Why?' }], head: 'Why?' };

  it('is Markdown with who answered, as far as it is shown', () => {
    expect(asMarkdown(conversation)).toBe('# Why?\n\n## Why?\n\nBecause.\n\n*w · demo · demo*\n');
  });
  it('is JSON with all branches', () => {
    const kept = JSON.parse(asJson(conversation)) as typeof conversation;
    expect(kept.turns.map(({ query }) => query)).toEqual(['Why?', 'How?']);
    expect(kept.turns[0]!.answer).toMatchObject({ text: 'Because.', workerId: 'w' });
  });
  it('has a name that a file can have', () => {
    expect(fileName('¿Qué es / esto?')).toBe('Qué-es-esto');
    expect(fileName('???')).toBe('flota');
  });
});
