// The pure pieces below the pages.
import { describe, expect, it } from 'vitest';
import { sparkPath } from '../src/fleet/spark';
import { answersQuestions, chatModels, otherRates, slotUse, totals } from '../src/fleet/workers';
import { addEvent, eventText } from '../src/jobs/events';
import { initialValues, jobOf } from '../src/jobs/kinds';
import { timeline } from '../src/jobs/timeline';
import { readableJson } from '../src/jobs/json';
import { Problem, errorAt, normalPath } from '../src/lib/problem';
import type { Job, JobEvent, Worker } from '../src/lib/types';
import { uuidTime, uuidv7 } from '../src/lib/uuid';
import { asText, fits, parts, wordsOf } from '../src/logs/lines';

describe('problems', () => {
  it('name the field in any of the usual ways', () => {
    expect(normalPath('/payload/inputs/0')).toBe('payload.inputs.0');
    expect(normalPath('$.payload.inputs[0]')).toBe('payload.inputs.0');
    const byPath = new Problem(422, { detail: 'odd', path: 'payload.key' });
    const byList = new Problem(422, { errors: [{ pointer: '/payload/key', detail: 'odd' }] });
    const byText = new Problem(422, { detail: 'payload.key: odd' });
    for (const problem of [byPath, byList, byText]) expect(errorAt(problem.fields, 'payload.key')).toContain('odd');
  });
  it('stand at the field around them', () => {
    const problem = new Problem(422, { detail: 'not hex', path: 'payload.inputs.3' });
    expect(errorAt(problem.fields, 'payload.inputs')).toBe('4: not hex');
    expect(errorAt(problem.fields, 'payload.input')).toBeNull();
  });
  it('do not say their path twice', () => {
    const problem = new Problem(422, { detail: 'payload.inputs[0]: not hex', field: 'payload.inputs[0]' });
    expect(errorAt(problem.fields, 'payload.inputs')).toBe('1: not hex');
  });
  it('survive an answer that is no document', () => {
    expect(new Problem(502, null)).toMatchObject({ status: 502, message: '', fields: [] });
  });
});

describe('workers', () => {
  const worker = (more: Partial<Worker>): Worker => ({ worker_id: 'w', status: 'idle', version: '1', slots: { ai: 4 }, ...more });
  it('offer their models while they are there', () => {
    const workers = [worker({ models: ['b', 'demo', 'x-embedding'] }), worker({ models: ['a'] }), worker({ models: ['c'], status: 'offline' })];
    expect(chatModels(workers)).toEqual(['a', 'b']);
  });
  it('that have only the demo answer no questions', () => {
    expect(answersQuestions([worker({ models: ['demo'] })])).toBe(false);
    expect(answersQuestions([{ worker_id: 's', status: 'idle', language: 'python' }])).toBe(true);
  });
  it('tell their slots however they report what runs', () => {
    expect(slotUse(worker({ running: 3 }))).toEqual([{ name: 'ai', total: 4, used: 3 }]);
    expect(slotUse(worker({ running: { ai: 2 } }))[0]?.used).toBe(2);
  });
  it('that are offline count for nothing', () => {
    const sum = totals({ workers: { idle: 2, busy: 1, offline: 9 } }, null);
    expect(sum).toMatchObject({ online: 3, offline: 9 });
  });
});

describe('the timeline', () => {
  const job: Job = {
    id: 'j',
    kind: 'echo',
    state: 'completed',
    priority: 5,
    created_at: '2026-01-01T00:00:00Z',
    started_at: '2026-01-01T00:00:03Z',
    finished_at: '2026-01-01T00:00:10Z',
  };
  const at = (seconds: number) => Date.parse(job.created_at) + seconds * 1000;
  it('measures each stretch', () => {
    const events: JobEvent[] = [
      { jobId: 'j', type: 'assigned', timestamp: at(2) },
      { jobId: 'j', type: 'computing', timestamp: at(3) },
    ];
    expect(timeline(job, events, at(99)).map((stage) => stage.tookMs)).toEqual([2000, 1000, 7000, null]);
  });
  it('of a replayed job begins anew', () => {
    const types = ['pending', 'assigned', 'computing', 'failed', 'pending', 'assigned'];
    const events = types.map((type, i): JobEvent => ({ jobId: 'j', type, timestamp: at(i) }));
    const replayed: Job = { ...job, state: 'assigned', finished_at: null };
    expect(timeline(replayed, events, at(9)).map((stage) => stage.tookMs)).toEqual([1000, 4000, null, null]);
  });
  it('grows while the job computes', () => {
    const running: Job = { ...job, state: 'computing', finished_at: null };
    expect(timeline(running, [], at(8))[2]).toMatchObject({ status: 'now', tookMs: 5000 });
  });
  it('shows what a cancelled job never reached', () => {
    const cancelled: Job = { ...job, state: 'cancelled', started_at: null };
    expect(timeline(cancelled, [], at(99)).map((stage) => stage.status)).toEqual(['past', 'skipped', 'skipped', 'past']);
  });
});

describe('events', () => {
  it('of progress fold into one line', () => {
    const progress = (fraction: number): JobEvent => ({ jobId: 'j', type: 'progress', attempt: 1, data: { fraction } });
    const events = [progress(0.1), progress(0.2)].reduce(addEvent, [] as JobEvent[]);
    expect(events).toHaveLength(1);
    expect(eventText(events[0]!)).toBe('20 %');
  });
});

describe('a submitted job', () => {
  it('has its lists, numbers and labels', () => {
    const values = { ...initialValues('randomx.hash'), inputs: 'aa\n\n bb ', labels: 'a=b\nc = d', priority: '8' };
    expect(jobOf('randomx.hash', values)).toEqual({
      kind: 'randomx.hash',
      payload: { key: '666c6f7461', inputs: ['aa', 'bb'] },
      priority: 8,
      labels: { a: 'b', c: 'd' },
    });
  });
  it('of a question has messages', () => {
    const job = jobOf('ai.chat', { prompt: 'hi', system: 'be brief', model: 'demo' });
    expect(job.payload).toEqual({
      messages: [
        { role: 'system', content: 'be brief' },
        { role: 'user', content: 'hi' },
      ],
      model: 'demo',
    });
  });
  it('of echo gives JSON back as JSON and text as text', () => {
    expect(jobOf('echo', { value: '{"a":1}' }).payload).toEqual({ value: { a: 1 } });
    expect(jobOf('echo', { value: 'hola' }).payload).toEqual({ value: 'hola' });
  });
});

it('a UUIDv7 knows when it was made', () => {
  const id = uuidv7(1_800_000_000_123);
  expect(id).toMatch(/^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/);
  expect(uuidTime(id)).toBe(1_800_000_000_123);
  expect(uuidTime('f47ac10b-58cc-4372-a567-0e02b2c3d479')).toBeNull();
});

it('log lines are found by every word, from the level up', () => {
  const line = { timestamp: 0, source: 'lab', level: 'WARN', message: 'late store', jobId: 'j1' };
  expect(fits(line, 'info', wordsOf('STORE lab'))).toBe(true);
  expect(fits(line, 'error', [])).toBe(false);
  expect(fits(line, 'info', ['nothing'])).toBe(false);
  expect(asText([line])).toBe('1970-01-01T00:00:00.000Z WARN  lab late store job=j1');
});

describe('a spark line', () => {
  it('ends at the right, and its highest value near the top', () => {
    expect(sparkPath([0, 5, 10])).toBe('M0.0 29.0L50.0 15.0L100.0 1.0');
  });
  it('is not drawn while nothing changes', () => expect(sparkPath([3, 3])).toBe(''));
});

it('lists of numbers stand on one line, text stays as it is', () => {
  expect(readableJson({ v: [[1, -2.5e-7], []], s: '[\n1\n]' })).toBe('{\n  "v": [\n    [1, -2.5e-7],\n    []\n  ],\n  "s": "[\\n1\\n]"\n}');
});

it('what is looked for in a log line is marked, whatever it is made of', () => {
  expect(parts('Job a+b is done', ['a+b', 'JOB'])).toEqual([{ text: 'Job', hit: true }, { text: ' ', hit: false }, { text: 'a+b', hit: true }, { text: ' is done', hit: false }]);
  expect(parts('x', [])).toEqual([{ text: 'x', hit: false }]);
});

it('only algorithms that hash beside RandomX have a line of their own', () => {
  expect(otherRates({ 'rx/0': 5, sha256d: 1e6, other: 0 })).toEqual([['sha256d', 1e6]]);
  expect(otherRates(undefined)).toEqual([]);
});
