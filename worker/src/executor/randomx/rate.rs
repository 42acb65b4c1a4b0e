//! Hashes a second over the last ten seconds. The master sizes units by it.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

const WINDOW: Duration = Duration::from_secs(10);
/// Samples closer together are added up: bounds the memory.
const GRAIN: Duration = Duration::from_millis(100);

/// Counts hashes by time.
#[derive(Debug, Default)]
pub struct Rate(Mutex<Window>);

#[derive(Debug, Default)]
struct Window {
    /// When the present stretch of work began.
    since: Option<Instant>,
    samples: VecDeque<(Instant, u64)>,
}

impl Rate {
    /// Work begins: what follows is measured from here if nothing was computed for a while.
    pub fn begin(&self, now: Instant) {
        let mut window = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        window.forget(now);
        if window.samples.is_empty() {
            window.since = Some(now);
        }
    }

    /// `hashes` more were computed.
    pub fn add(&self, now: Instant, hashes: u64) {
        let mut window = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        window.forget(now);
        match window.samples.back_mut() {
            Some((at, count)) if now.saturating_duration_since(*at) < GRAIN => *count += hashes,
            _ => window.samples.push_back((now, hashes)),
        }
    }

    /// Hashes a second over the last ten, or since work began if that is less.
    pub fn per_second(&self, now: Instant) -> f64 {
        let mut window = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        window.forget(now);
        let hashes: u64 = window.samples.iter().map(|(_, count)| count).sum();
        let worked = window.since.map_or(WINDOW, |since| now.saturating_duration_since(since));
        hashes as f64 / worked.clamp(Duration::from_secs(1), WINDOW).as_secs_f64()
    }
}

impl Window {
    fn forget(&mut self, now: Instant) {
        while self.samples.front().is_some_and(|(at, _)| now.saturating_duration_since(*at) >= WINDOW) {
            self.samples.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use flota_common::clock;

    #[test]
    fn the_rate_is_over_the_last_ten_seconds_or_since_work_began() {
        let start = clock::instant();
        let at = |ms: u64| start + Duration::from_millis(ms);
        let rate = Rate::default();
        assert_eq!(rate.per_second(start), 0.0);
        rate.begin(start);
        for tenth in 1..=20 {
            rate.add(at(tenth * 100), 4);
        }
        assert_eq!(rate.per_second(at(2000)), 40.0);
        assert_eq!(rate.per_second(at(10_000)), 8.0);
        assert_eq!(rate.per_second(at(60_000)), 0.0);
        rate.begin(at(60_000));
        rate.add(at(62_000), 80);
        assert_eq!(rate.per_second(at(62_000)), 40.0);
    }
}
