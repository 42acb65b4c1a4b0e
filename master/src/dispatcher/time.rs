//! The loop's time: the wall clock's. Where the clock is set, or this process did not run for a while, it says by how much, so that
//! leases and waits last as long as they should, and nothing is taken to be older than it is.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use flota_common::clock;
use flota_proto::Timestamp;

/// Less is no setting but the clock's way of being right.
const SET_MS: u64 = 1_000;
/// The loop turns more often. Where it did not, it was stopped, or held up by its disk, and heard nobody.
const HELD_UP: Duration = Duration::from_secs(3);
/// Settings of the clock that are remembered; beyond it the oldest two count as one.
const JUMPS_MAX: usize = 1_000;
/// How often it turns when nothing happens.
pub(super) const TURN: Duration = Duration::from_secs(1);

const _: () = assert!(TURN.as_millis() * 2 < HELD_UP.as_millis());

/// Reads the time.
pub(super) struct Time {
    last: Timestamp,
    read: Instant,
    set_by_ms: i64,
    /// When the clock was set, and by how much.
    jumps: VecDeque<(Instant, i64)>,
}

impl Time {
    /// Begins with the wall clock.
    pub(super) fn new() -> Self {
        Self { last: clock::now(), read: clock::instant(), set_by_ms: 0, jumps: VecDeque::new() }
    }

    /// The time now.
    pub(super) fn now(&mut self) -> Timestamp {
        self.at(clock::now(), clock::instant())
    }

    /// Whether [`Time::take_set`] has something to tell.
    pub(super) const fn is_set(&self) -> bool {
        self.set_by_ms != 0
    }

    /// By how much the time has gone on, or back, beside what the loop has lived through since the last call.
    pub(super) fn take_set(&mut self) -> Option<i64> {
        let by_ms = std::mem::take(&mut self.set_by_ms);
        (by_ms != 0).then_some(by_ms)
    }

    /// What has a date before this is older than `age_ms`, by the time that this process has lived through: a clock that is set forward
    /// makes nothing older. Of what was set longer ago than `age_ms` nothing is left to say: all from before is old by now.
    pub(super) fn ago(&self, age_ms: u64) -> Timestamp {
        let age = Duration::from_millis(age_ms);
        let lately = |(at, _): &&(Instant, i64)| self.read.saturating_duration_since(*at) <= age;
        // What has happened between two settings knows only the later one.
        let (mut ahead, mut most) = (0_i64, 0_i64);
        for (_, by_ms) in self.jumps.iter().rev().take_while(lately) {
            ahead = ahead.saturating_add(*by_ms);
            most = most.max(ahead);
        }
        Timestamp(self.last.0.saturating_sub(age_ms).saturating_sub(most.unsigned_abs()))
    }

    fn jumped(&mut self, read: Instant, by_ms: i64) {
        self.jumps.push_back((read, by_ms));
        if self.jumps.len() > JUMPS_MAX
            && let Some((_, oldest)) = self.jumps.pop_front()
            && let Some((_, next)) = self.jumps.front_mut()
        {
            *next = next.saturating_add(oldest);
        }
    }

    fn at(&mut self, wall: Timestamp, read: Instant) -> Timestamp {
        let passed = read.saturating_duration_since(self.read);
        let lived = if passed > HELD_UP { Duration::ZERO } else { passed };
        let moved = i64::try_from(i128::from(wall.0) - i128::from(self.last.0)).unwrap_or(0);
        let set_by = moved.saturating_sub(i64::try_from(lived.as_millis()).unwrap_or(0));
        self.read = read;
        if set_by.unsigned_abs() > SET_MS {
            self.set_by_ms = self.set_by_ms.saturating_add(set_by);
            self.jumped(read, set_by);
            self.last = wall;
        } else {
            // Until the clock has caught up with so little.
            self.last = self.last.max(wall);
        }
        self.last
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_clock_was_set_by_is_told_once_and_small_corrections_are_not() {
        let mut time = Time::new();
        let (start, begun) = (time.last, time.read);
        let mut at = |wall_ms: i64, passed_ms: u64| {
            let wall = Timestamp(start.0.saturating_add_signed(wall_ms));
            let now = time.at(wall, begun + Duration::from_millis(passed_ms)).0;
            (i64::try_from(now).unwrap() - i64::try_from(start.0).unwrap(), time.take_set())
        };
        assert_eq!(at(1_000, 1_000), (1_000, None));
        assert_eq!(at(500, 1_500), (1_000, None), "a little back: it stands still");
        assert_eq!(at(1_200, 2_200), (1_200, None));
        assert_eq!(at(-3_600_000, 2_300), (-3_600_000, Some(-3_601_300)), "an hour back");
        assert_eq!(at(-3_599_000, 3_300), (-3_599_000, None));
        assert_eq!(at(4_300, 4_300), (4_300, Some(3_602_300)), "and forward again");
        assert_eq!(at(24_300, 24_300), (24_300, Some(20_000)), "the process was stopped for 20 s");
        assert_eq!(at(3_625_300, 25_300), (3_625_300, Some(3_600_000)), "the machine slept for an hour");
        assert_eq!(at(3_626_300, 26_300), (3_626_300, None));
    }

    #[test]
    fn a_clock_that_is_set_forward_makes_nothing_older() {
        const SECOND: u64 = 1_000;
        const YEAR: u64 = 365 * 86_400_000;
        let mut time = Time::new();
        let (start, begun) = (time.last, time.read);
        // What is older than 100 s after `passed` on a clock that is `ahead`, in seconds after the start by the right clock.
        let mut old = |ahead: u64, passed: u64| {
            for second in (time.read.duration_since(begun).as_secs() + 1)..=passed {
                time.at(start.after_ms(ahead + second * SECOND), begun + Duration::from_secs(second));
            }
            let from = start.after_ms(ahead).0;
            i64::try_from(time.ago(100 * SECOND).0).unwrap() - i64::try_from(from).unwrap()
        };
        assert_eq!(old(0, 150), 50_000);
        let jump = i64::try_from(YEAR).unwrap();
        assert_eq!(old(YEAR, 151) + jump, 51_000, "as if it had not been set");
        assert_eq!(old(YEAR, 251) + jump, 151_000);
        assert_eq!(old(YEAR, 252), 152_000, "all from before is old now");
        assert_eq!(old(0, 253), 153_000, "it was set right again");
        assert_eq!(old(YEAR, 254) + jump, 154_000, "what happened meanwhile has dates of then");
    }

    #[test]
    fn a_clock_that_is_set_again_and_again_is_remembered_within_bounds() {
        let mut time = Time::new();
        let (start, begun) = (time.last, time.read);
        for index in 1..=2 * JUMPS_MAX as u64 {
            time.at(start.after_ms(index * 60_000), begun + Duration::from_millis(index));
        }
        assert_eq!(time.jumps.len(), JUMPS_MAX);
        let lived = 2 * JUMPS_MAX as u64;
        assert_eq!(time.ago(lived).0, start.0, "nothing is as old as this process, whatever the clock says");
    }
}
