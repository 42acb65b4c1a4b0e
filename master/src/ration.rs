//! Says the same kind of thing at most so often: what comes from outside may come in floods.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use flota_common::clock;

/// How often one kind of warning may be said.
const EVERY: Duration = Duration::from_secs(1);

/// Lets through one call a second and counts the others.
#[derive(Debug, Default)]
pub(crate) struct Ration {
    state: Mutex<(Option<Instant>, u64)>,
}

impl Ration {
    /// `Some(n)` when it may be said now, after `n` that were not; `None` when not.
    pub(crate) fn allow(&self) -> Option<u64> {
        let now = clock::instant();
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.0.is_some_and(|last| now.duration_since(last) < EVERY) {
            state.1 += 1;
            return None;
        }
        state.0 = Some(now);
        Some(std::mem::take(&mut state.1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_said_once_and_counted() {
        let ration = Ration::default();
        assert_eq!(ration.allow(), Some(0));
        assert!((0..1000).all(|_| ration.allow().is_none()));
        let earlier = clock::instant().checked_sub(EVERY).expect("the clock has run for a second");
        ration.state.lock().expect("unpoisoned").0 = Some(earlier);
        assert_eq!(ration.allow(), Some(1000));
    }
}
