//! What an error body of the Gemini API means.

use std::time::Duration;

use super::super::fault::Fault;
use super::wire::{ErrorBody, ErrorStatus};

/// A delay beyond it is a quota of another kind.
const RETRY_DELAY_MAX: Duration = Duration::from_secs(24 * 3600);

/// The fault of a call that was answered with `status` and `body`.
pub fn fault(status: u16, body: &[u8]) -> Fault {
    classify(status, parse(body).unwrap_or_default())
}

/// The fault of a stream that carried `body` instead of a frame.
pub fn in_stream(body: &[u8]) -> Fault {
    match parse(body) {
        Some(error) if error.code >= 400 => classify(error.code, error),
        _ => Fault::Interrupted("it carried an error without a code"),
    }
}

fn parse(body: &[u8]) -> Option<ErrorStatus> {
    // Calls that don't stream by SSE answer with a list. It is tried first: serde would read a list as a struct's fields.
    let list = serde_json::from_slice::<Vec<ErrorBody>>(body).ok().and_then(|list| list.into_iter().next());
    list.or_else(|| serde_json::from_slice::<ErrorBody>(body).ok()).map(|body| body.error)
}

fn classify(status: u16, error: ErrorStatus) -> Fault {
    let bad_key = error.details.iter().any(|detail| detail.reason.as_deref() == Some("API_KEY_INVALID"));
    match status {
        400 if bad_key => Fault::BadKey,
        400 if error.status == "FAILED_PRECONDITION" => Fault::Precondition,
        429 => too_many(&error),
        _ => Fault::of_status(status),
    }
}

fn too_many(error: &ErrorStatus) -> Fault {
    let mut quotas = error.details.iter().flat_map(|detail| &detail.violations).filter_map(|v| v.quota_id.as_deref());
    if quotas.any(|quota| quota.contains("PerDay")) {
        return Fault::QuotaDay;
    }
    Fault::RateLimited(error.details.iter().find_map(|detail| delay(detail.retry_delay.as_deref()?)))
}

/// `26s`, `38.2s`
fn delay(text: &str) -> Option<Duration> {
    let seconds = text.strip_suffix('s')?.parse::<f64>().ok()?;
    Duration::try_from_secs_f64(seconds).ok().map(|delay| delay.min(RETRY_DELAY_MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_are_seconds_with_or_without_a_fraction() {
        assert_eq!(delay("26s"), Some(Duration::from_secs(26)));
        assert_eq!(delay("38.2s"), Some(Duration::from_millis(38_200)));
        for bad in ["", "s", "26", "-1s", "NaNs", "1e400s", "soon"] {
            assert_eq!(delay(bad), None, "{bad}");
        }
        assert_eq!(delay("999999999s"), Some(RETRY_DELAY_MAX));
    }

    #[test]
    fn a_body_that_is_no_error_leaves_the_status() {
        for body in ["", "<html>", "[]", "{}", "{\"error\":\"x\"}"] {
            assert_eq!(fault(503, body.as_bytes()), Fault::Busy(503), "{body}");
            assert!(matches!(in_stream(body.as_bytes()), Fault::Interrupted(_)), "{body}");
        }
        assert_eq!(fault(200, b"[{\"error\":{\"code\":400}}]"), Fault::BadRequest(200));
        assert_eq!(in_stream(b"[{\"error\":{\"code\":503}}]"), Fault::Busy(503));
    }
}
