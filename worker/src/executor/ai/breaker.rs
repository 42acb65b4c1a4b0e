//! Circuit breakers: a provider's model that failed several times in a row is left alone for a while, then tried by one
//! question, so that the others don't wait for what will not come.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::fault::Fault;

/// So many failures in a row open it.
pub const FAILURES: u32 = 5;
/// How long it stays open.
pub const OPEN_FOR: Duration = Duration::from_secs(15);
/// Beyond it the one that was heard of longest ago is forgotten.
const CIRCUITS_MAX: usize = 1000;

#[derive(Debug)]
struct Circuit {
    failures: u32,
    open_until: Instant,
    heard_of: Instant,
}

/// Of each provider and model one.
#[derive(Debug, Default)]
pub struct Breakers(Mutex<HashMap<(&'static str, String), Circuit>>);

impl Breakers {
    /// Whether `model` may be asked at `now`.
    ///
    /// # Errors
    /// [`Fault::Resting`] while it is left alone. Once the time is up, one question gets through.
    pub fn admit(&self, provider: &'static str, model: &str, now: Instant) -> Result<(), Fault> {
        let mut circuits = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(circuit) = circuits.get_mut(&(provider, model.to_owned())) else { return Ok(()) };
        if circuit.failures < FAILURES {
            return Ok(());
        }
        if circuit.open_until > now {
            return Err(Fault::Resting(circuit.open_until.saturating_duration_since(now)));
        }
        circuit.open_until = now + OPEN_FOR;
        Ok(())
    }

    /// What came of asking: only what says that the service is not well counts.
    pub fn note<T>(&self, provider: &'static str, model: &str, result: &Result<T, Fault>, now: Instant) {
        let failed = match result {
            Err(Fault::Busy(_) | Fault::Unreachable(_) | Fault::Interrupted(_)) => true,
            // The attempt's time may have been short.
            Err(Fault::Cancelled | Fault::TimedOut | Fault::KeyRests(_) | Fault::Resting(_)) => return,
            Ok(_) | Err(_) => false,
        };
        let mut circuits = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let name = (provider, model.to_owned());
        if !failed {
            circuits.remove(&name);
            return;
        }
        if circuits.len() >= CIRCUITS_MAX && !circuits.contains_key(&name) {
            let oldest = circuits.iter().min_by_key(|(_, circuit)| circuit.heard_of).map(|(name, _)| name.clone());
            oldest.map(|name| circuits.remove(&name));
        }
        let circuit = circuits.entry(name).or_insert(Circuit { failures: 0, open_until: now, heard_of: now });
        circuit.failures = circuit.failures.saturating_add(1);
        circuit.heard_of = now;
        if circuit.failures >= FAILURES {
            circuit.open_until = now + OPEN_FOR;
        }
    }
}

#[cfg(test)]
mod tests {
    use flota_common::clock;

    use super::*;

    fn failed() -> Result<(), Fault> {
        Err(Fault::Busy(503))
    }

    #[test]
    fn it_opens_after_failures_in_a_row_and_closes_after_one_that_went_well() {
        let breakers = Breakers::default();
        let start = clock::instant();
        for _ in 1..FAILURES {
            breakers.note("gemini", "m", &failed(), start);
        }
        breakers.note("gemini", "m", &Ok(()), start);
        for _ in 0..FAILURES {
            assert_eq!(breakers.admit("gemini", "m", start), Ok(()));
            breakers.note("gemini", "m", &failed(), start);
        }
        assert_eq!(breakers.admit("gemini", "m", start), Err(Fault::Resting(OPEN_FOR)));
        assert_eq!(breakers.admit("gemini", "other", start), Ok(()));
        assert_eq!(breakers.admit("local", "m", start), Ok(()));
        let later = start + OPEN_FOR;
        assert_eq!(breakers.admit("gemini", "m", later), Ok(()), "one question tries it");
        assert!(breakers.admit("gemini", "m", later).is_err(), "and only one");
        breakers.note("gemini", "m", &Ok(()), later);
        assert_eq!(breakers.admit("gemini", "m", later), Ok(()));
    }

    #[test]
    fn what_says_nothing_about_the_service_does_not_count() {
        let breakers = Breakers::default();
        let now = clock::instant();
        for fault in [Fault::BadKey, Fault::ModelGone, Fault::RateLimited(None), Fault::Empty, Fault::Cancelled] {
            for _ in 0..2 * FAILURES {
                breakers.note("gemini", "m", &Err::<(), _>(fault.clone()), now);
            }
            assert_eq!(breakers.admit("gemini", "m", now), Ok(()), "{fault:?}");
        }
        for index in 0..2 * CIRCUITS_MAX {
            breakers.note("gemini", &index.to_string(), &failed(), now);
        }
        assert!(breakers.0.lock().unwrap().len() <= CIRCUITS_MAX);
    }
}
