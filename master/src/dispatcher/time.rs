//! The loop's time: the wall clock's. Where the clock is set, or this process did not run for a while, it says by how much, so that
//! leases and waits last as long as they should.

use std::time::{Duration, Instant};

use flota_common::clock;
use flota_proto::Timestamp;

/// Less is no setting but the clock's way of being right.
const SET_MS: u64 = 1_000;
/// The loop turns more often. Where it did not, it was stopped, or held up by its disk, and heard nobody.
const HELD_UP: Duration = Duration::from_secs(3);
/// How often it turns when nothing happens.
pub(super) const TURN: Duration = Duration::from_secs(1);

const _: () = assert!(TURN.as_millis() * 2 < HELD_UP.as_millis());

/// Reads the time.
pub(super) struct Time {
    last: Timestamp,
    read: Instant,
    set_by_ms: i64,
}

impl Time {
    /// Begins with the wall clock.
    pub(super) fn new() -> Self {
        Self { last: clock::now(), read: clock::instant(), set_by_ms: 0 }
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

    fn at(&mut self, wall: Timestamp, read: Instant) -> Timestamp {
        let passed = read.saturating_duration_since(self.read);
        let lived = if passed > HELD_UP { Duration::ZERO } else { passed };
        let moved = i64::try_from(i128::from(wall.0) - i128::from(self.last.0)).unwrap_or(0);
        let set_by = moved.saturating_sub(i64::try_from(lived.as_millis()).unwrap_or(0));
        self.read = read;
        if set_by.unsigned_abs() > SET_MS {
            self.set_by_ms = self.set_by_ms.saturating_add(set_by);
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
}
