import { afterEach, beforeEach, expect, test, vi } from 'vitest';
import { Paced } from '../src/lib/paced';

beforeEach(() => void vi.useFakeTimers());
afterEach(() => void vi.useRealTimers());

test('a thousand changes are one request at a time, and the last of them is not missed', async () => {
  let asked = 0;
  let atOnce = 0;
  let most = 0;
  const paced = new Paced(async () => {
    asked += 1;
    most = Math.max(most, (atOnce += 1));
    await new Promise((resolve) => setTimeout(resolve, 300));
    atOnce -= 1;
  }, 1000);
  for (let i = 0; i < 1000; i += 1) paced.want();
  await vi.advanceTimersByTimeAsync(350);
  expect(asked).toBe(1);
  await vi.advanceTimersByTimeAsync(700);
  expect(asked).toBe(2);
  await vi.advanceTimersByTimeAsync(5000);
  expect([asked, most]).toEqual([2, 1]);
});

test('one that was stopped asks no more', async () => {
  let asked = 0;
  const paced = new Paced(async () => void (asked += 1), 1000);
  paced.want();
  await vi.advanceTimersByTimeAsync(0);
  paced.want();
  paced.stop();
  paced.want();
  await vi.advanceTimersByTimeAsync(5000);
  expect(asked).toBe(1);
});
