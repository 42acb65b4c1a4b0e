//! Keys and models that are not asked for a while: those whose quota of the day is used up until midnight in California, when
//! Gemini renews it; those that were asked too much as long as the provider says.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use flota_proto::Timestamp;
use jiff::tz::TimeZone;
use secrecy::{ExposeSecret, SecretString};

use super::fault::Fault;

/// Beyond it the one that ends first is forgotten: it costs one more refused call.
const RESTS_MAX: usize = 1000;

/// Pacific time as a rule, so that no database of time zones is needed.
const PACIFIC: &str = "PST8PDT,M3.2.0,M11.1.0";

/// It lasts a span of time, whatever becomes of the clock.
#[derive(Clone, Copy, Debug)]
struct Rest {
    end: Instant,
    /// Where it ends with the day, when that is: on a machine that slept meanwhile the span is not over yet.
    midnight: Option<Timestamp>,
}

impl Rest {
    fn lasts(&self, now: Instant, today: Timestamp) -> bool {
        self.end > now && self.midnight.is_none_or(|midnight| midnight > today)
    }
}

/// Who rests until when. Keys are kept as a hash only.
#[derive(Debug, Default)]
pub struct Rests {
    hasher: RandomState,
    until: Mutex<HashMap<u64, Rest>>,
}

impl Rests {
    /// `key` and `model` rest from `now` on, by the clock `today`, where `fault` says so.
    pub fn note(&self, key: Option<&SecretString>, model: &str, fault: &Fault, now: Instant, today: Timestamp) {
        let (span, midnight) = match fault {
            Fault::QuotaDay => {
                let midnight = next_midnight(today);
                (Duration::from_millis(midnight.since_ms(today)), Some(midnight))
            }
            Fault::RateLimited(Some(after)) => (*after, None),
            _ => return,
        };
        let Some(end) = now.checked_add(span) else { return };
        let rest = Rest { end, midnight };
        let mut until = self.until.lock().unwrap_or_else(PoisonError::into_inner);
        until.retain(|_, rest| rest.lasts(now, today));
        if until.len() >= RESTS_MAX {
            let first = until.iter().min_by_key(|(_, rest)| rest.end).map(|(name, _)| *name);
            first.map(|name| until.remove(&name));
        }
        until.insert(self.name(key, model), rest);
    }

    /// Whether `key` and `model` may be asked at `now`, by the clock `today`.
    ///
    /// # Errors
    /// What made them rest.
    pub fn admit(&self, key: Option<&SecretString>, model: &str, now: Instant, today: Timestamp) -> Result<(), Fault> {
        let until = self.until.lock().unwrap_or_else(PoisonError::into_inner);
        match until.get(&self.name(key, model)).filter(|rest| rest.lasts(now, today)) {
            None => Ok(()),
            Some(rest) if rest.midnight.is_some() => Err(Fault::QuotaDay),
            Some(rest) => Err(Fault::KeyRests(rest.end.saturating_duration_since(now))),
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
    use flota_common::clock;

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

    fn key(text: &str) -> SecretString {
        SecretString::from(text.to_owned())
    }

    #[test]
    fn a_rest_is_of_one_key_and_one_model_and_ends() {
        let rests = Rests::default();
        let (now, today) = (clock::instant(), at("2026-11-21T10:00:00Z"));
        rests.note(Some(&key("a")), "m", &Fault::QuotaDay, now, today);
        assert_eq!(rests.admit(Some(&key("a")), "m", now, today), Err(Fault::QuotaDay));
        assert_eq!(rests.admit(Some(&key("a")), "n", now, today), Ok(()));
        assert_eq!(rests.admit(Some(&key("b")), "m", now, today), Ok(()));
        let after = Duration::from_secs(26);
        rests.note(Some(&key("b")), "m", &Fault::RateLimited(Some(after)), now, today);
        assert_eq!(rests.admit(Some(&key("b")), "m", now, today), Err(Fault::KeyRests(after)));
        assert_eq!(rests.admit(Some(&key("b")), "m", now + after, today), Ok(()));
        rests.note(Some(&key("c")), "m", &Fault::RateLimited(None), now, today);
        assert_eq!(rests.admit(Some(&key("c")), "m", now, today), Ok(()));
        rests.note(Some(&key("c")), "m", &Fault::RateLimited(Some(Duration::MAX)), now, today);
        for index in 0..2 * RESTS_MAX {
            rests.note(None, &index.to_string(), &Fault::QuotaDay, now, today);
        }
        assert!(rests.until.lock().unwrap().len() <= RESTS_MAX);
    }

    #[test]
    fn a_rest_lasts_as_long_as_before_when_the_clock_is_set() {
        const HOUR: Duration = Duration::from_secs(3600);
        let rests = Rests::default();
        let (now, today) = (clock::instant(), at("2026-11-21T10:00:00Z"));
        let (yesterday, tomorrow) = (at("2026-11-20T10:00:00Z"), at("2026-11-22T08:00:00Z"));
        rests.note(None, "minute", &Fault::RateLimited(Some(HOUR)), now, today);
        rests.note(None, "day", &Fault::QuotaDay, now, today);
        for clock in [yesterday, tomorrow] {
            assert!(rests.admit(None, "minute", now, clock).is_err());
            assert_eq!(rests.admit(None, "minute", now + HOUR, clock), Ok(()));
        }
        assert_eq!(rests.admit(None, "day", now + 21 * HOUR, yesterday), Err(Fault::QuotaDay));
        assert_eq!(rests.admit(None, "day", now + 22 * HOUR, yesterday), Ok(()), "the day is over");
        assert_eq!(rests.admit(None, "day", now + HOUR, tomorrow), Ok(()), "the machine slept until the next day");
    }
}
