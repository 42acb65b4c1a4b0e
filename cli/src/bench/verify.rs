//! That each job completed exactly once, with its own value.

use std::ops::Range;

use flota_proto::rest::JobState;
use serde::Serialize;

/// One connection's jobs: the values `range`, each expected once.
pub struct Share {
    from: u64,
    seen: Vec<bool>,
    tally: Tally,
}

/// What was found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Tally {
    /// With their own value, the first time that it was seen.
    pub right: u64,
    /// Ended otherwise than completed.
    pub not_completed: u64,
    /// With a value that was seen before.
    pub doubled: u64,
    /// With a value that was never submitted, or none.
    pub wrong: u64,
    /// Submitted and not found.
    pub missing: u64,
}

impl Share {
    /// Nothing seen yet.
    pub fn new(range: Range<u64>) -> Self {
        let count = usize::try_from(range.end - range.start).unwrap_or_default();
        Self { from: range.start, seen: vec![false; count], tally: Tally::default() }
    }

    /// A job that was found.
    pub fn count(&mut self, state: JobState, value: Option<u64>) {
        if state != JobState::Completed {
            self.tally.not_completed += 1;
            return;
        }
        let index = value.and_then(|value| value.checked_sub(self.from)).and_then(|index| usize::try_from(index).ok());
        match index.and_then(|index| self.seen.get_mut(index)) {
            Some(seen) if !*seen => {
                *seen = true;
                self.tally.right += 1;
            }
            Some(_) => self.tally.doubled += 1,
            None => self.tally.wrong += 1,
        }
    }

    /// After the last.
    pub fn tally(self) -> Tally {
        let unseen = self.seen.iter().filter(|seen| !**seen).count() as u64;
        Tally { missing: unseen.saturating_sub(self.tally.not_completed + self.tally.wrong), ..self.tally }
    }
}

impl Tally {
    /// Of two connections.
    pub fn merge(self, other: Self) -> Self {
        Self {
            right: self.right + other.right,
            not_completed: self.not_completed + other.not_completed,
            doubled: self.doubled + other.doubled,
            wrong: self.wrong + other.wrong,
            missing: self.missing + other.missing,
        }
    }

    /// Nothing else was found.
    pub fn all_right(&self) -> bool {
        *self == Self { right: self.right, ..Self::default() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_fault_is_told_apart() {
        let mut share = Share::new(10..16);
        share.count(JobState::Completed, Some(10));
        share.count(JobState::Completed, Some(10));
        share.count(JobState::Completed, Some(16));
        share.count(JobState::Completed, Some(9));
        share.count(JobState::Completed, None);
        share.count(JobState::Failed, None);
        let tally = share.tally();
        assert_eq!(tally, Tally { right: 1, not_completed: 1, doubled: 1, wrong: 3, missing: 1 });
        assert!(!tally.all_right());
    }

    #[test]
    fn all_seen_once_is_all_right() {
        let mut share = Share::new(0..3);
        (0..3).for_each(|value| share.count(JobState::Completed, Some(value)));
        assert!(share.tally().all_right());
    }
}
