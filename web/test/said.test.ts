// What master and workers say in English is said in Spanish where it is known, and as it was said where not.
import { expect, it } from 'vitest';
import { en } from '../src/lib/i18n/en';
import { es } from '../src/lib/i18n/es';
import { problemText, translated } from '../src/lib/i18n/said';
import { errorAt, Problem } from '../src/lib/problem';
import { waitingText } from '../src/jobs/waiting';

it('English stays as it was said', () => {
  expect(translated('is empty', en)).toBe('is empty');
  expect(problemText({ code: 'job_ended', message: 'job 1 has ended: it is failed' }, en)).toBe('job 1 has ended: it is failed');
});

it('a refusal is said by its code, one of a field by its sentence', () => {
  expect(problemText({ code: 'job_ended', message: 'job 1 has ended: it is failed' }, es)).toBe('El trabajo ya terminó.');
  expect(problemText({ code: 'invalid_field', message: 'max_attempts: must be 1 to 1000' }, es)).toBe('max_attempts: debe estar entre 1 y 1000');
  const problem = new Problem(422, { code: 'invalid_field', detail: 'payload.inputs.2: hex needs an even number of digits, this has 3', field: 'payload.inputs.2' });
  expect(errorAt(problem.fields, 'payload.inputs', (text) => translated(text, es))).toBe('3: las cifras hexadecimales van de dos en dos, aquí hay 3');
});

it('what a sentence holds is translated with it', () => {
  expect(translated('3 faults in a row, the last: it died while it computed', es)).toBe('3 fallos seguidos, el último: se cayó mientras calculaba');
  expect(translated('other programs use 60 % of the processors', es)).toBe('otros programas usan el 60 % de los procesadores');
  expect(translated("Gemini refuses this worker's API key: correct it, or make a new one where you got it", es)).toBe(
    'Gemini rechaza la clave de API de este trabajador: corrígela, o crea una nueva donde la obtuviste',
  );
  expect(translated("the origin 'http://a.example' is not allowed: name it in FLOTA_ALLOWED_ORIGINS", es)).toBe('no se acepta el origen «http://a.example»: nómbralo en FLOTA_ALLOWED_ORIGINS');
  expect(translated("Gemini can't be reached: no route; asking the local AI for 'qwen3:4b'", es)).toBe(
    'no se puede llegar a Gemini: no route; se le preguntó a la IA local con el modelo «qwen3:4b»',
  );
  expect(translated('no connection: refused', es)).toBe('no hay conexión: refused');
});

it('what is not known stays as it was said', () => {
  expect(translated('something new', es)).toBe('something new');
  expect(problemText({ code: 'brand_new', message: 'something new' }, es)).toBe('something new');
});

it('a job that no worker fits says in both languages what is wanted', () => {
  const detail = 'no worker is there that computes ai.chat and serves the model a and b and has {"gpu":true}';
  expect(waitingText({ reason: 'no_fitting_worker', detail }, es, 'es')).toBe('Ningún trabajador cumple lo que pide: calcular ai.chat, ofrecer el modelo a and b, tener {"gpu":true}');
  expect(waitingText({ reason: 'no_fitting_worker', detail: 'no worker is there that computes echo' }, en, 'en')).toBe('No worker fits what it requires: to compute echo');
  const keyed = 'no worker is there that computes ai.chat and can be given the key of the question';
  expect(waitingText({ reason: 'no_fitting_worker', detail: keyed }, es, 'es')).toBe('Ningún trabajador cumple lo que pide: calcular ai.chat, poder recibir la clave de la pregunta');
  const aside = 'all workers that fit are set aside: 2 paused, 1 in quarantine';
  expect(waitingText({ reason: 'workers_set_aside', detail: aside }, es, 'es')).toBe('Todos los trabajadores adecuados están apartados: 2 en pausa, 1 en cuarentena');
  expect(waitingText({ reason: 'workers_set_aside', detail: aside }, en, 'en')).toBe('All workers that fit are set aside: 2 paused, 1 in quarantine');
  expect(waitingText({ reason: 'no_fitting_worker', detail: 'said anew' }, en, 'en')).toBe('No worker fits what it requires: said anew');
});
