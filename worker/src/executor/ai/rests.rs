//! Keys and models whose quota of the day is used up: they rest until midnight in California, when Gemini renews it.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Mutex, PoisonError};

use flota_proto::Timestamp;
use jiff::tz::TimeZone;
use secrecy::{ExposeSecret, SecretString};

/// Beyond it the one that ends first is forgotten: it costs one more refused call.
const RESTS_MAX: usize = 1000;

/// Pacific time as a rule, so that no database of time zones is needed.
const PACIFIC: &str = "PST8PDT,M3.2.0,M11.1.0";

/// Who rests until when. Keys are kept as a hash only.
#[derive(Debug, Default)]
pub struct Rests {
    hasher: RandomState,
    until: Mutex<HashMap<u64, Timestamp>>,
}

impl Rests {
    /// `key` and `model` rest from `now` to the next midnight.
    pub fn begin(&self, key: Option<&SecretString>, model: &str, now: Timestamp) {
        let mut until = self.until.lock().unwrap_or_else(PoisonError::into_inner);
        until.retain(|_, end| *end > now);
        if until.len() >= RESTS_MAX {
            let first = until.iter().min_by_key(|(_, end)| **end).map(|(name, _)| *name);
            first.map(|name| until.remove(&name));
        }
        until.insert(self.name(key, model), next_midnight(now));
    }

    /// Whether `key` and `model` rest at `now`.
    pub fn rests(&self, key: Option<&SecretString>, model: &str, now: Timestamp) -> bool {
        let until = self.until.lock().unwrap_or_else(PoisonError::into_inner);
        until.get(&self.name(key, model)).is_some_and(|end| *end > now)
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
        rests.begin(Some(&key("a")), "m", now);
        assert!(rests.rests(Some(&key("a")), "m", now));
        assert!(!rests.rests(Some(&key("a")), "n", now));
        assert!(!rests.rests(Some(&key("b")), "m", now));
        assert!(!rests.rests(Some(&key("a")), "m", at("2026-11-22T08:00:00Z")));
        for index in 0..2 * RESTS_MAX {
            rests.begin(None, &index.to_string(), now);
        }
        assert!(rests.until.lock().unwrap().len() <= RESTS_MAX);
    }
}
