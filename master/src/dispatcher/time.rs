//! The loop's time: the wall clock's, except that it never goes back. Leases, waits and deadlines hang on it.

use std::time::Instant;

use flota_common::clock;
use flota_proto::Timestamp;

/// Reads the time.
pub(super) struct Time {
    last: Timestamp,
    read: Instant,
}

impl Time {
    /// Begins with the wall clock.
    pub(super) fn new() -> Self {
        Self { last: clock::now(), read: clock::instant() }
    }

    /// The time now.
    pub(super) fn now(&mut self) -> Timestamp {
        self.at(clock::now(), clock::instant())
    }

    /// Where the wall clock was set back, the time goes on at half its speed until the wall clock has caught up: nothing
    /// stands still, and no lease that is listed in time runs out.
    fn at(&mut self, wall: Timestamp, read: Instant) -> Timestamp {
        let passed = u64::try_from(read.saturating_duration_since(self.read).as_millis()).unwrap_or(0);
        if wall >= self.last {
            (self.last, self.read) = (wall, read);
        } else if passed >= 2 {
            (self.last, self.read) = (self.last.after_ms(passed / 2), read);
        }
        self.last
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn time_never_goes_back_and_never_stands_still() {
        let mut time = Time::new();
        let (start, begun) = (time.last, time.read);
        let mut at = |wall_ms: i64, passed_ms: u64| {
            let wall = Timestamp(start.0.saturating_add_signed(wall_ms));
            time.at(wall, begun + Duration::from_millis(passed_ms)).0.saturating_sub(start.0)
        };
        assert_eq!(at(1_000, 1_000), 1_000);
        assert_eq!(at(-3_600_000, 1_001), 1_000, "the clock is set back by an hour");
        assert_eq!(at(-3_500_000, 101_000), 51_000);
        assert_eq!(at(60_000, 101_001), 60_000, "and forward again");
    }
}
