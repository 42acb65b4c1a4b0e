// What an answer took, from the master's times.
import { expect, it } from 'vitest';
import { applyEvent, newAnswer } from '../src/ask/answer';
import { errorText } from '../src/lib/errors';
import { timing } from '../src/ask/timing';
import { en } from '../src/lib/i18n/en';
import { es } from '../src/lib/i18n/es';
import { waitingText } from '../src/jobs/waiting';
import { uuidv7 } from '../src/lib/uuid';

const ASKED = 1_700_000_000_000;
const jobId = uuidv7(ASKED);

it('counts from the question, and the rate from the first text', () => {
  const answer = { jobId, firstAt: ASKED + 400, endedAt: ASKED + 2400, processingMs: 2000, usage: { output_tokens: 90 } };
  expect(timing(answer)).toEqual({ firstMs: 400, totalMs: 2400, perSecond: 45 });
});

it('claims nothing that it does not know', () => {
  expect(timing({ jobId, firstAt: null, endedAt: null, processingMs: null, usage: null })).toEqual({ firstMs: null, totalMs: null, perSecond: null });
  expect(timing({ jobId: 'own-id', firstAt: 5, endedAt: 9, processingMs: 7, usage: null }).totalMs).toBe(7);
  expect(timing({ jobId, firstAt: ASKED + 1, endedAt: ASKED + 3, processingMs: 2, usage: { output_tokens: 60 } }).perSecond).toBeNull();
});

it('the first text is that of the attempt whose text is shown', () => {
  const answer = newAnswer(0);
  applyEvent(answer, { jobId, seq: 1, attempt: 1, timestamp: 100, type: 'delta', data: { text: 'a' } });
  applyEvent(answer, { jobId, seq: 2, attempt: 1, timestamp: 200, type: 'delta', data: { text: 'b' } });
  expect(answer.firstAt).toBe(100);
  applyEvent(answer, { jobId, seq: 3, attempt: 2, timestamp: 300, type: 'delta', data: { text: 'c' } });
  expect(answer).toMatchObject({ firstAt: 300, text: 'c' });
});

it('an error is said in the language of the page', () => {
  expect(errorText({ code: 'cancelled', message: 'the job was cancelled' }, es)).toMatchObject({ what: 'Se detuvo.', said: '' });
  expect(errorText({ code: 'bad_key', message: 'Gemini refuses' }, en)).toMatchObject({ said: 'Gemini refuses' });
  expect(errorText({ code: 'bad_key', message: "Gemini refuses this worker's API key" }, en).what).toMatch(/of this worker/);
  expect(errorText({ code: 'invalid_field', message: "model: nobody serves 'x'" }, en).what).toMatch(/serves this model/);
  expect(errorText({ code: 'new_code', message: 'as the master says' }, es).what).toBe('as the master says');
});

it('every known error says what to do, in both languages', () => {
  for (const texts of [...Object.values(en.failures), ...Object.values(es.failures)]) expect(texts).toHaveLength(2);
});

it('why a job waits is said in the language of the page', () => {
  const busy = { reason: 'workers_busy', detail: 'all workers are busy; about 1200 units of its priority or above wait' };
  expect(waitingText(busy, es, 'es')).toBe('Todos los trabajadores adecuados están ocupados: unas 1200 unidades van antes');
  expect(waitingText({ reason: 'no_worker', detail: 'no worker is there: start one' }, es, 'es')).toBe('No hay trabajadores conectados');
  expect(waitingText({ reason: 'retry', detail: 'tries again at 2026-01-02T03:04:05.123Z after: x' }, en, 'en')).toMatch(/^It waits for its next try: the next try is at \d\d:04:05$/);
});
