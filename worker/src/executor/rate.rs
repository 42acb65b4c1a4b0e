//! Hashes a second over 10 s, 60 s and 15 min, of each thread and of all. The master sizes units by the shortest.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use flota_common::clock;
use flota_proto::mqtt::Hashrates;

const SHORT: Duration = Duration::from_secs(10);
const MIDDLE: Duration = Duration::from_secs(60);
const LONG: Duration = Duration::from_secs(15 * 60);
/// Samples closer together are added up: bounds the memory.
const FINE: Duration = Duration::from_millis(100);
const COARSE: Duration = Duration::from_secs(5);
/// A rate over less than this would be noise.
const LEAST: Duration = Duration::from_secs(1);

/// The rates of all threads that hash.
#[derive(Debug, Default)]
pub struct Rates(Mutex<Meters>);

#[derive(Debug, Default)]
struct Meters {
    threads: Vec<Meter>,
    /// Time in which nobody could hash, because caches were made.
    excluded: Series<Duration>,
    /// When the first work began.
    since: Option<Instant>,
}

#[derive(Debug, Default)]
struct Meter(Series<u64>);

/// Amounts by time, fine for the last ten seconds and coarse for the last fifteen minutes.
#[derive(Debug)]
struct Series<T> {
    fine: VecDeque<(Instant, T)>,
    coarse: VecDeque<(Instant, T)>,
}

impl<T> Default for Series<T> {
    fn default() -> Self {
        Self { fine: VecDeque::new(), coarse: VecDeque::new() }
    }
}

impl<T: Copy + std::ops::AddAssign + std::iter::Sum<T>> Series<T> {
    fn add(&mut self, now: Instant, amount: T) {
        for (samples, grain, window) in [(&mut self.fine, FINE, SHORT), (&mut self.coarse, COARSE, LONG)] {
            while samples.front().is_some_and(|(at, _)| now.saturating_duration_since(*at) >= window) {
                samples.pop_front();
            }
            match samples.back_mut() {
                Some((at, sum)) if now.saturating_duration_since(*at) < grain => *sum += amount,
                _ => samples.push_back((now, amount)),
            }
        }
    }

    fn within(&self, now: Instant, window: Duration) -> T {
        let samples = if window <= SHORT { &self.fine } else { &self.coarse };
        samples.iter().rev().take_while(|(at, _)| now.saturating_duration_since(*at) < window).map(|(_, n)| *n).sum()
    }
}

impl Rates {
    fn lock(&self) -> MutexGuard<'_, Meters> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Work begins: what follows is measured from here if nothing was computed for a while.
    pub fn begin(&self, now: Instant) {
        let mut meters = self.lock();
        let quiet = meters.threads.iter().all(|meter| meter.0.within(now, LONG) == 0);
        if quiet {
            meters.since = Some(now);
        }
    }

    /// Thread `index` of a unit computed `hashes` more.
    pub fn add(&self, now: Instant, index: usize, hashes: u64) {
        let mut meters = self.lock();
        if meters.threads.len() <= index {
            meters.threads.resize_with(index + 1, Meter::default);
        }
        meters.threads[index].0.add(now, hashes);
    }

    /// For `span`, which ends now, nobody could hash.
    pub fn exclude(&self, now: Instant, span: Duration) {
        self.lock().excluded.add(now, span);
    }

    /// Hashes a second over the last ten seconds.
    pub fn now(&self) -> f64 {
        self.all(clock::instant()).seconds_10
    }

    /// Of all threads.
    pub fn all(&self, now: Instant) -> Hashrates {
        let meters = self.lock();
        meters.rates(now, |window| meters.threads.iter().map(|meter| meter.0.within(now, window)).sum())
    }

    /// Of each thread.
    pub fn each(&self, now: Instant) -> Vec<Hashrates> {
        let meters = self.lock();
        meters.threads.iter().map(|meter| meters.rates(now, |window| meter.0.within(now, window))).collect()
    }
}

impl Meters {
    fn rates(&self, now: Instant, hashes: impl Fn(Duration) -> u64) -> Hashrates {
        let rate = |window: Duration| {
            let worked = self.since.map_or(window, |since| now.saturating_duration_since(since)).min(window);
            let worked = worked.saturating_sub(self.excluded.within(now, window)).max(LEAST);
            hashes(window) as f64 / worked.as_secs_f64()
        };
        Hashrates { seconds_10: rate(SHORT), seconds_60: rate(MIDDLE), minutes_15: rate(LONG) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> impl Fn(Instant) -> Instant {
        move |start| start + Duration::from_millis(ms)
    }

    #[test]
    fn a_rate_is_over_its_window_or_since_work_began() {
        let start = clock::instant();
        let rates = Rates::default();
        assert_eq!(rates.all(start), Hashrates::default());
        rates.begin(start);
        for tenth in 1..=20 {
            rates.add(at(tenth * 100)(start), 0, 4);
            rates.add(at(tenth * 100)(start), 1, 2);
        }
        let now = rates.all(at(2000)(start));
        assert_eq!((now.seconds_10, now.seconds_60, now.minutes_15), (60.0, 60.0, 60.0));
        assert_eq!(rates.each(at(2000)(start)).iter().map(|each| each.seconds_10).collect::<Vec<_>>(), [40.0, 20.0]);
        let later = rates.all(at(30_000)(start));
        assert_eq!((later.seconds_10, later.seconds_60, later.minutes_15), (0.0, 4.0, 4.0));
        assert_eq!(rates.all(at(120_000)(start)).minutes_15, 1.0);
        rates.begin(at(1_000_000)(start));
        rates.add(at(1_002_000)(start), 0, 80);
        assert_eq!(rates.all(at(1_002_000)(start)).minutes_15, 40.0);
    }

    #[test]
    fn the_making_of_a_cache_does_not_count() {
        let start = clock::instant();
        let rates = Rates::default();
        rates.begin(start);
        rates.add(at(2000)(start), 0, 100);
        rates.exclude(at(4000)(start), Duration::from_secs(2));
        rates.add(at(4001)(start), 0, 100);
        assert_eq!(rates.all(at(6000)(start)).seconds_10, 50.0);
    }
}
