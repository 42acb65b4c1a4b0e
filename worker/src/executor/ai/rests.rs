//! Keys and models that are not asked for a while: those whose quota of the day is used up until midnight in California, when
//! Gemini renews it; those that were asked too much as long as the provider says.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use flota_proto::Timestamp;
use jiff::tz::TimeZone;
use secrecy::{ExposeSecret, SecretString};

use super::fault::Fault;

/// Beyond it the one that ends first is forgotten: it costs one more refused call.
const RESTS_MAX: usize = 1000;

/// Pacific time as a rule, so that no database of time zones is needed.
const PACIFIC: &str = "PST8PDT,M3.2.0,M11.1.0";

#[derive(Clone, Copy, Debug)]
struct Rest {
    end: Timestamp,
    of_the_day: bool,
}

/// Who rests until when. Keys are kept as a hash only.
#[derive(Debug, Default)]
pub struct Rests {
    hasher: RandomState,
    until: Mutex<HashMap<u64, Rest>>,
}

impl Rests {
    /// `key` and `model` rest from `now` on where `fault` says so.
    pub fn note(&self, key: Option<&SecretString>, model: &str, fault: &Fault, now: Timestamp) {
        let rest = match fault {
            Fault::QuotaDay => Rest { end: next_midnight(now), of_the_day: true },
            Fault::RateLimited(Some(after)) => Rest { end: now.after(*after), of_the_day: false },
            _ => return,
        };
        let mut until = self.until.lock().unwrap_or_else(PoisonError::into_inner);
        until.retain(|_, rest| rest.end > now);
        if until.len() >= RESTS_MAX {
            let first = until.iter().min_by_key(|(_, rest)| rest.end).map(|(name, _)| *name);
            first.map(|name| until.remove(&name));
        }
        until.insert(self.name(key, model), rest);
    }

    /// Whether `key` and `model` may be asked at `now`.
    ///
    /// # Errors
    /// What made them rest.
    pub fn admit(&self, key: Option<&SecretString>, model: &str, now: Timestamp) -> Result<(), Fault> {
        let until = self.until.lock().unwrap_or_else(PoisonError::into_inner);
        match until.get(&self.name(key, model)).filter(|rest| rest.end > now) {
            None => Ok(()),
            Some(rest) if rest.of_the_day => Err(Fault::QuotaDay),
            Some(rest) => Err(Fault::RateLimited(Some(Duration::from_millis(rest.end.since_ms(now))))),
        }
    }

    fn name(&self, key: Option<&SecretString>, model: &str) -> u64 {
        self.hasher.hash_one((key.map(ExposeSecret::expose_secret), model))
    }
}

fn next_midnight(now: Timestamp) -> Timestamp {
    const DAY_MS: u64 = 24 * 3600 * 1000;
    let midnight = || {
        let zone = TimeZone::posix(PACIFIC).ok()?;
        let here = jiff::Timestamp::from_millisecond(i64::try_from(now.0).ok()?).ok()?.to_zoned(zone);
        let ms = here.tomorrow().ok()?.start_of_day().ok()?.timestamp().as_millisecond();
        u64::try_from(ms).ok()
    };
    Timestamp(midnight().unwrap_or(now.0.saturating_add(DAY_MS)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        Timestamp(text.parse::<jiff::Timestamp>().unwrap().as_millisecond() as u64)
    }

    #[test]
    fn the_day_ends_at_midnight_in_california_in_winter_and_in_summer() {
        assert_eq!(next_midnight(at("2026-11-21T10:00:00Z")), at("2026-11-22T08:00:00Z"));
        assert_eq!(next_midnight(at("2026-11-21T07:59:59Z")), at("2026-11-21T08:00:00Z"));
        assert_eq!(next_midnight(at("2026-07-01T10:00:00Z")), at("2026-07-02T07:00:00Z"));
        assert_eq!(next_midnight(at("2026-11-01T08:30:00Z")), at("2026-11-02T08:00:00Z"));
    }

    #[test]
    fn a_rest_is_of_one_key_and_one_model_and_ends() {
        let rests = Rests::default();
        let now = at("2026-11-21T10:00:00Z");
        let key = |text: &str| SecretString::from(text.to_owned());
        rests.note(Some(&key("a")), "m", &Fault::QuotaDay, now);
        assert_eq!(rests.admit(Some(&key("a")), "m", now), Err(Fault::QuotaDay));
        assert_eq!(rests.admit(Some(&key("a")), "n", now), Ok(()));
        assert_eq!(rests.admit(Some(&key("b")), "m", now), Ok(()));
        assert_eq!(rests.admit(Some(&key("a")), "m", at("2026-11-22T08:00:00Z")), Ok(()));
        let after = Duration::from_secs(26);
        rests.note(Some(&key("b")), "m", &Fault::RateLimited(Some(after)), now);
        assert_eq!(rests.admit(Some(&key("b")), "m", now), Err(Fault::RateLimited(Some(after))));
        assert_eq!(rests.admit(Some(&key("b")), "m", now.after(after)), Ok(()));
        rests.note(Some(&key("c")), "m", &Fault::RateLimited(None), now);
        assert_eq!(rests.admit(Some(&key("c")), "m", now), Ok(()));
        for index in 0..2 * RESTS_MAX {
            rests.note(None, &index.to_string(), &Fault::QuotaDay, now);
        }
        assert!(rests.until.lock().unwrap().len() <= RESTS_MAX);
    }
}
