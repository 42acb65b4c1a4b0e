//! How hard the threads may work: how many, what share of the time, at what priority, on which processors.

use std::thread;
use std::time::Duration;

use flota_common::clock;
use flota_randomx::thread as own_thread;

/// A resting thread looks so often whether to stop.
const NAP: Duration = Duration::from_millis(20);

/// How hard the threads of this worker may work.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manners {
    /// How many hash.
    pub threads: usize,
    /// Share of the time that each works, 1 to 100.
    pub percent: u8,
    /// 0 to 19: others with a lower one go first.
    pub nice: u8,
    /// The processors that they are bound to, in turn; empty: none.
    pub cpus: Vec<usize>,
}

impl Manners {
    /// The same, out of the way of those that have something more urgent to do.
    #[must_use]
    pub fn lowered(&self) -> Self {
        Self { nice: (self.nice + 10).min(19), ..self.clone() }
    }

    /// The calling thread, the one with number `index`, takes on priority and place. Where the system refuses, it goes on as it is.
    pub fn take_on(&self, index: usize) {
        if self.nice > 0 {
            own_thread::lower_priority(self.nice);
        }
        if !self.cpus.is_empty() {
            own_thread::bind(self.cpus[index % self.cpus.len()]);
        }
    }

    /// How long to rest after so much work.
    #[must_use]
    pub fn rest_after(&self, worked: Duration) -> Duration {
        let percent = u32::from(self.percent.clamp(1, 100));
        worked * (100 - percent) / percent
    }

    /// The calling thread rests after so much work, until `ended` at most.
    pub fn rest(&self, worked: Duration, ended: impl Fn() -> bool) {
        let until = clock::instant() + self.rest_after(worked);
        while !ended()
            && let left = until.saturating_duration_since(clock::instant())
            && !left.is_zero()
        {
            thread::sleep(left.min(NAP));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rest_and_work_share_the_time_as_told() {
        let rest = |percent| {
            let manners = Manners { threads: 1, percent, nice: 0, cpus: Vec::new() };
            manners.rest_after(Duration::from_millis(50)).as_millis()
        };
        assert_eq!((rest(100), rest(50), rest(25), rest(0)), (0, 50, 150, 4950));
    }
}
