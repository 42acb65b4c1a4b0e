// Hash rates of the fleet: over 10 s, 60 s and 15 min, without those who are gone, and as a line over the last quarter of an hour. Pure.
import type { FleetHistory, Hashrates, Worker } from '../lib/types';
import { online } from './workers';

export const WINDOWS = ['10s', '60s', '15m'] as const;
export type Window = (typeof WINDOWS)[number];

/** As far back as the line reaches. */
export const SPAN_MS = 15 * 60_000;

export interface HashPoint extends Hashrates {
  at: number;
}

/** A worker that tells only one figure counts with it in all three. */
export function fleetRates(workers: Worker[]): Hashrates {
  const sum = (window: Window) =>
    workers.filter(online).reduce((total, worker) => total + (worker.randomx?.hashrates?.[window] ?? worker.hashrate ?? 0), 0);
  return { '10s': sum('10s'), '60s': sum('60s'), '15m': sum('15m') };
}

/** What the master kept: a figure over 10 s every 10 s. The longer averages follow from them. */
export function fromHistory({ interval_ms, points }: FleetHistory): HashPoint[] {
  const mean = (end: number, span: number) => {
    const some = points.slice(Math.max(0, end + 1 - Math.round(span / interval_ms)), end + 1);
    return some.reduce((sum, point) => sum + point.hashrate, 0) / some.length;
  };
  return points.map((point, i) => ({ at: Date.parse(point.timestamp), '10s': point.hashrate, '60s': mean(i, 60_000), '15m': mean(i, SPAN_MS) }));
}

export function remember(trail: HashPoint[], rates: Hashrates, at: number): HashPoint[] {
  const kept = trail.filter((point) => point.at > at - SPAN_MS && point.at <= at);
  return [...kept, { ...rates, at }];
}

/** The end of the scale: the next 1, 2 or 5 of a power of ten. */
export function scaleEnd(max: number): number {
  if (!(max > 0)) return 1;
  const power = 10 ** Math.floor(Math.log10(max));
  return [1, 2, 5, 10].map((step) => step * power).find((end) => end >= max) ?? 10 * power;
}

/** An SVG path of one window's figures in a box of `width` by `height`, the newest at the right. */
export function line(trail: HashPoint[], window: Window, now: number, end: number, width: number, height: number): string {
  const points = trail.map((point) => {
    const x = width * (1 - (now - point.at) / SPAN_MS);
    const y = height * (1 - Math.min(1, point[window] / end));
    return `${x.toFixed(1)} ${y.toFixed(1)}`;
  });
  return points.length < 2 ? '' : `M${points.join('L')}`;
}
