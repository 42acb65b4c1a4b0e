//! The errors of the Gemini API, with bodies as it sends them.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// One way to be refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Trouble {
    /// 400 with the reason `API_KEY_INVALID`.
    BadKey,
    /// 400 `FAILED_PRECONDITION`: the country is not served, billing is off, …
    Precondition,
    /// 429 of a quota a minute, with the delay (`26s`) where it says one.
    PerMinute(Option<String>),
    /// 429 of a quota a day.
    PerDay,
    /// Any other status, with the body that is usual for it.
    Status(u16),
}

const TYPE: &str = "type.googleapis.com/google.rpc.";

impl Trouble {
    /// The status and the body.
    #[must_use]
    pub fn answer(&self) -> (u16, Value) {
        match self {
            Self::BadKey => error(
                400,
                "INVALID_ARGUMENT",
                "API key not valid. Please pass a valid API key.",
                vec![
                    json!({"@type": format!("{TYPE}ErrorInfo"), "reason": "API_KEY_INVALID", "domain": "googleapis.com"}),
                ],
            ),
            Self::Precondition => {
                error(400, "FAILED_PRECONDITION", "User location is not supported for the API use.", vec![])
            }
            Self::PerMinute(delay) => {
                let mut details = vec![quota("GenerateRequestsPerMinutePerProjectPerModel-FreeTier")];
                details.extend(
                    delay.as_ref().map(|delay| json!({"@type": format!("{TYPE}RetryInfo"), "retryDelay": delay})),
                );
                error(429, "RESOURCE_EXHAUSTED", "You exceeded your current quota.", details)
            }
            Self::PerDay => {
                let retry = json!({"@type": format!("{TYPE}RetryInfo"), "retryDelay": "9s"});
                let quotas = quota("GenerateRequestsPerDayPerProjectPerModel-FreeTier");
                error(429, "RESOURCE_EXHAUSTED", "You exceeded your current quota.", vec![quotas, retry])
            }
            Self::Status(code) => error(*code, status_word(*code), "stand-in error", vec![]),
        }
    }
}

fn status_word(code: u16) -> &'static str {
    match code {
        400 => "INVALID_ARGUMENT",
        401 => "UNAUTHENTICATED",
        403 => "PERMISSION_DENIED",
        404 => "NOT_FOUND",
        408 | 504 => "DEADLINE_EXCEEDED",
        429 => "RESOURCE_EXHAUSTED",
        499 => "CANCELLED",
        500 => "INTERNAL",
        503 => "UNAVAILABLE",
        _ => "UNKNOWN",
    }
}

fn quota(id: &str) -> Value {
    json!({"@type": format!("{TYPE}QuotaFailure"), "violations": [{"quotaId": id, "quotaValue": "15"}]})
}

/// A 400 that says what was wrong with the request.
pub fn invalid(message: &str) -> (u16, Value) {
    error(400, "INVALID_ARGUMENT", message, vec![])
}

pub fn error(code: u16, status: &str, message: &str, details: Vec<Value>) -> (u16, Value) {
    let mut body = json!({"code": code, "message": message, "status": status});
    if !details.is_empty() {
        body["details"] = Value::Array(details);
    }
    (code, json!({ "error": body }))
}
