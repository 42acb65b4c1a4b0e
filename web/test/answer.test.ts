// What becomes of one question, event by event.
import { describe, expect, it } from 'vitest';
import { applyEvent, applyJob, applyQueued, applyResponse, isDemo, newAnswer, open } from '../src/ask/answer';
import type { AiResponse, Job, JobEvent } from '../src/lib/types';

let seq = 0;
const event = (type: string, data: unknown = {}, attempt = 1): JobEvent => ({ jobId: 'j', seq: (seq += 1), attempt, timestamp: 1, type, data });

const response: AiResponse = {
  query: 'q',
  response: 'the whole text',
  workerId: 'w2',
  processingTime: 1200,
  timestamp: 5000,
  jobId: 'j',
  model: 'm',
  provider: 'gemini',
  finish: 'complete',
  usage: { input_tokens: 3, output_tokens: 9, thought_tokens: 0 },
};

describe('an answer', () => {
  it('grows by its deltas and ends with the whole text', () => {
    const answer = newAnswer(0);
    applyEvent(answer, event('pending'));
    expect(answer.state).toBe('waiting');
    applyEvent(answer, event('assigned', { worker_id: 'w1' }));
    applyEvent(answer, event('computing'));
    applyEvent(answer, event('delta', { text: 'the ' }));
    applyEvent(answer, event('delta', { text: 'who' }));
    expect(answer).toMatchObject({ state: 'computing', text: 'the who', workerId: 'w1' });
    applyResponse(answer, response, 0);
    expect(answer).toMatchObject({ state: 'complete', text: 'the whole text', workerId: 'w2', model: 'm', processingMs: 1200, endedAt: 5000 });
    expect(open(answer)).toBe(false);
  });

  it('keeps what was said beside it, from the answer and from the job', () => {
    const notes = ['Gemini refuses your API key; asking the local AI'];
    const [told, looked] = [newAnswer(0), newAnswer(0)];
    applyResponse(told, { ...response, notes }, 0);
    const result = { text: 'x', provider: 'local', finish: 'complete', notes };
    applyJob(looked, { id: 'j', kind: 'ai.chat', state: 'completed', priority: 5, created_at: '', result }, 0);
    expect([told.notes, looked.notes]).toEqual([notes, notes]);
  });

  it('ignores an event that comes twice', () => {
    const answer = newAnswer(0);
    const delta = event('delta', { text: 'a' });
    expect(applyEvent(answer, delta)).toBe(true);
    expect(applyEvent(answer, delta)).toBe(false);
    expect(answer.text).toBe('a');
  });

  it('begins anew with a higher attempt and ignores a lower one', () => {
    const answer = newAnswer(0);
    applyEvent(answer, event('delta', { text: 'first try' }, 1));
    applyEvent(answer, event('delta', { text: 'second' }, 2));
    applyEvent(answer, event('delta', { text: ' late' }, 1));
    expect(answer.text).toBe('second');
  });

  it('shows its place in the queue until a worker takes it', () => {
    const answer = newAnswer(0);
    applyQueued(answer, 3);
    expect(answer).toMatchObject({ state: 'waiting', position: 3 });
    applyEvent(answer, event('assigned'));
    expect(answer.position).toBeNull();
    applyQueued(answer, 9);
    expect(answer.position).toBeNull();
  });

  it('keeps what came of the text when it fails or is stopped', () => {
    const answer = newAnswer(0);
    applyEvent(answer, event('delta', { text: 'half' }));
    applyResponse(answer, { ...response, finish: 'error', response: 'stopped', error: { code: 'cancelled', message: 'stopped' } }, 0);
    expect(answer).toMatchObject({ state: 'cancelled', text: 'half' });
  });

  it('changes no more once it ended', () => {
    const answer = newAnswer(0);
    applyResponse(answer, response, 0);
    applyEvent(answer, event('delta', { text: '!' }));
    applyResponse(answer, { ...response, response: 'other' }, 0);
    expect(answer.text).toBe('the whole text');
  });

  it('takes its end from the job when the answer itself was missed', () => {
    const job = {
      id: 'j',
      kind: 'ai.chat',
      state: 'completed',
      priority: 5,
      created_at: '2026-01-01T00:00:00Z',
      started_at: '2026-01-01T00:00:01Z',
      finished_at: '2026-01-01T00:00:03.500Z',
      workers: ['w1', 'w7'],
      result: { text: 'done', model: 'demo', provider: 'demo', finish: 'complete', usage: { input_tokens: 1, output_tokens: 2 } },
    } satisfies Job;
    const answer = newAnswer(0);
    applyJob(answer, job, 0);
    expect(answer).toMatchObject({ state: 'complete', text: 'done', workerId: 'w7', processingMs: 2500 });
    expect(isDemo(answer)).toBe(true);
  });

  it('keeps the part that came, where it was stopped while nobody listened', () => {
    const answer = newAnswer(0);
    applyJob(answer, { id: 'j', kind: 'ai.chat', state: 'cancelled', priority: 5, created_at: '', result: { text: 'a part', partial: true } }, 0);
    expect(answer).toMatchObject({ state: 'cancelled', text: 'a part' });
  });

  it('says why its job failed', () => {
    const answer = newAnswer(0);
    const job: Job = { id: 'j', kind: 'ai.chat', state: 'failed', priority: 5, created_at: '', error: { code: 'deadline', message: 'too late' } };
    applyJob(answer, job, 77);
    expect(answer).toMatchObject({ state: 'failed', error: { code: 'deadline' }, endedAt: 77 });
  });
});
