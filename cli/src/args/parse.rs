//! Values that are typed, and what is said of those that are none.

use std::time::Duration;

use flota_proto::rest::{JobState, OnDependencyFailure};
use flota_proto::{Algorithm, Kind, Timestamp};

pub fn kind(text: &str) -> Result<Kind, String> {
    text.parse().map_err(|error: flota_proto::kinds::FieldError| error.message)
}

pub fn job_state(text: &str) -> Result<JobState, String> {
    text.parse()
}

pub fn algorithm(text: &str) -> Result<Algorithm, String> {
    Algorithm::ALL.into_iter().find(|algorithm| algorithm.as_str() == text).ok_or_else(|| {
        let known = Algorithm::ALL.map(Algorithm::as_str).join(", ");
        format!("known are {known}")
    })
}

pub fn priority(text: &str) -> Result<u8, String> {
    let digit = text.parse().ok().filter(|n: &u8| *n <= 9);
    let word = match text {
        "low" => Some(2),
        "normal" => Some(5),
        "high" => Some(8),
        _ => None,
    };
    digit.or(word).ok_or_else(|| "a priority is 0 to 9, 9 first, or low, normal, high".into())
}

pub fn name_value(text: &str) -> Result<(String, String), String> {
    let pair = text.split_once('=').filter(|(name, _)| !name.is_empty());
    pair.map(|(name, value)| (name.to_owned(), value.to_owned())).ok_or_else(|| "give NAME=VALUE".into())
}

pub fn on_dependency_failure(text: &str) -> Result<OnDependencyFailure, String> {
    match text {
        "fail" => Ok(OnDependencyFailure::Fail),
        "cancel" => Ok(OnDependencyFailure::Cancel),
        "continue" => Ok(OnDependencyFailure::Continue),
        _ => Err("there are fail, cancel and continue".into()),
    }
}

pub fn time_span(text: &str) -> Result<Duration, String> {
    let units = [("ms", 1), ("s", 1000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)];
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let factor = units.iter().find(|(unit, _)| *unit == &text[digits..]).map(|(_, factor)| *factor);
    let number: Option<u64> = text[..digits].parse().ok();
    number
        .zip(factor)
        .and_then(|(number, factor)| number.checked_mul(factor))
        .filter(|ms| *ms > 0)
        .map(Duration::from_millis)
        .ok_or_else(|| "give a number with ms, s, m, h or d, such as 90s".into())
}

pub fn point_in_time(text: &str) -> Result<Timestamp, String> {
    if let Some(span) = text.strip_prefix('+') {
        return Ok(flota_common::clock::now().after(time_span(span)?));
    }
    let hint = "give a time such as 2026-11-21T09:30:00Z, or +10m for ten minutes from now";
    Timestamp::parse_rfc3339(text).ok_or_else(|| hint.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_and_priorities_say_what_is_allowed() {
        assert_eq!(time_span("90s"), Ok(Duration::from_secs(90)));
        assert!(time_span("90").is_err() && time_span("0s").is_err() && time_span("1y").is_err());
        assert!(point_in_time("+1m").is_ok() && point_in_time("2026-11-21T09:30:00Z").is_ok());
        assert!(point_in_time("tomorrow").unwrap_err().contains("+10m"));
        assert_eq!(priority("high"), Ok(8));
        assert!(priority("10").is_err());
    }
}
