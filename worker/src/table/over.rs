//! Attempts that are over at this worker: a late or doubled message must not start them again.

use std::collections::{HashMap, VecDeque};

use flota_proto::UnitId;

/// The master's own memory of attempts decides; this only spares work that would be thrown away.
const REMEMBERED_MAX: usize = 16_384;

/// The highest attempt of each unit that is over, of the latest units.
#[derive(Default)]
pub(super) struct Over {
    attempts: HashMap<UnitId, u64>,
    order: VecDeque<UnitId>,
}

impl Over {
    /// Whether this attempt, or a later one of the unit, is over.
    pub(super) fn covers(&self, unit: UnitId, attempt: u64) -> bool {
        self.attempts.get(&unit).is_some_and(|over| *over >= attempt)
    }

    pub(super) fn note(&mut self, unit: UnitId, attempt: u64) {
        if let Some(over) = self.attempts.get_mut(&unit) {
            *over = (*over).max(attempt);
            return;
        }
        if self.order.len() >= REMEMBERED_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.attempts.remove(&oldest);
        }
        self.order.push_back(unit);
        self.attempts.insert(unit, attempt);
    }
}

#[cfg(test)]
mod tests {
    use flota_proto::JobId;

    use super::*;

    #[test]
    fn the_highest_attempt_of_a_unit_counts_and_the_oldest_unit_is_forgotten() {
        let job = JobId::generate();
        let unit = |index| UnitId { job, index };
        let mut over = Over::default();
        over.note(unit(0), 2);
        over.note(unit(0), 1);
        assert!(over.covers(unit(0), 2) && !over.covers(unit(0), 3) && !over.covers(unit(1), 1));
        for index in 1..=u32::try_from(REMEMBERED_MAX).unwrap() {
            over.note(unit(index), 1);
        }
        assert!(!over.covers(unit(0), 1) && over.covers(unit(1), 1));
        assert_eq!(over.attempts.len(), REMEMBERED_MAX);
    }
}
