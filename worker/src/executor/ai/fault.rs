//! What can go wrong with an AI provider, and what follows from it: the table of `guide/gemini.md`.

use std::time::Duration;

use super::super::Failure;

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The key is wrong.
    BadKey,
    /// 403: refused, which says nothing about the key.
    Forbidden,
    /// 400 `FAILED_PRECONDITION`: the account or the place is not served.
    Precondition,
    /// 402.
    PaymentRequired,
    /// 404: there is no such model (any more).
    ModelGone,
    /// Any other 4xx, or a redirect.
    BadRequest(u16),
    /// 429 for now; how long it asks to wait.
    RateLimited(Option<Duration>),
    /// Nobody was asked: the key was told to wait before; for how long still.
    KeyRests(Duration),
    /// 429 until the next day.
    QuotaDay,
    /// 408 and 5xx.
    Busy(u16),
    /// No connection; why.
    Unreachable(String),
    /// The attempt's time is up.
    TimedOut,
    /// The stream ended without its end; how.
    Interrupted(&'static str),
    /// The model stopped for a reason that is no answer; its word.
    Stopped(String),
    /// An end without any text.
    Empty,
    /// Not what the protocol says; what.
    Unreadable(&'static str),
    /// It failed too often to be asked now; for how long still.
    Resting(Duration),
    /// The attempt was cancelled.
    Cancelled,
}

impl Fault {
    /// The fault that a status means where the body says nothing better.
    pub fn of_status(status: u16) -> Self {
        match status {
            401 => Self::BadKey,
            402 => Self::PaymentRequired,
            403 => Self::Forbidden,
            404 => Self::ModelGone,
            408 | 500.. => Self::Busy(status),
            429 => Self::RateLimited(None),
            _ => Self::BadRequest(status),
        }
    }

    /// For programs.
    pub fn code(&self) -> &'static str {
        match self {
            Self::BadKey => "bad_key",
            Self::Forbidden => "forbidden",
            Self::Precondition => "not_available",
            Self::PaymentRequired => "payment_required",
            Self::ModelGone => "model_gone",
            Self::BadRequest(_) => "bad_request",
            Self::RateLimited(_) | Self::KeyRests(_) => "rate_limited",
            Self::QuotaDay => "quota_day",
            Self::Busy(408 | 504) => "provider_timeout",
            Self::Busy(503 | 529) => "overloaded",
            Self::Busy(_) => "provider_error",
            Self::Unreachable(_) => "unreachable",
            Self::TimedOut => "timeout",
            Self::Interrupted(_) => "interrupted",
            Self::Stopped(_) => "stopped",
            Self::Empty => "empty",
            Self::Unreadable(_) => "bad_answer",
            Self::Resting(_) => "resting",
            Self::Cancelled => "cancelled",
        }
    }

    /// Whether another attempt can help.
    pub fn retryable(&self) -> bool {
        match self {
            Self::RateLimited(_)
            | Self::KeyRests(_)
            | Self::Resting(_)
            | Self::Busy(_)
            | Self::Unreachable(_)
            | Self::TimedOut
            | Self::Interrupted(_)
            | Self::Stopped(_)
            | Self::Empty
            | Self::Unreadable(_) => true,
            Self::BadKey
            | Self::Forbidden
            | Self::Precondition
            | Self::PaymentRequired
            | Self::ModelGone
            | Self::BadRequest(_)
            | Self::QuotaDay
            | Self::Cancelled => false,
        }
    }

    /// Whether the next provider or model is asked at once.
    pub fn next(&self) -> bool {
        match self {
            Self::BadKey
            | Self::ModelGone
            | Self::QuotaDay
            | Self::Resting(_)
            | Self::Busy(_)
            | Self::Unreachable(_)
            | Self::Interrupted(_) => true,
            Self::Forbidden
            | Self::Precondition
            | Self::PaymentRequired
            | Self::BadRequest(_)
            | Self::RateLimited(_)
            | Self::KeyRests(_)
            | Self::TimedOut
            | Self::Stopped(_)
            | Self::Empty
            | Self::Unreadable(_)
            | Self::Cancelled => false,
        }
    }

    /// How long the provider asks to wait.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::RateLimited(after) => *after,
            Self::KeyRests(left) | Self::Resting(left) => Some(*left),
            _ => None,
        }
    }

    /// What was wrong at `place` and what to do, for people.
    pub fn message(&self, place: &Place<'_>) -> String {
        let Place { provider, model, key } = place;
        match self {
            Self::BadKey => format!("{provider} refuses {key}: correct it, or make a new one where you got it"),
            Self::Forbidden => {
                format!("{provider} forbids this use of {model} to {key} (403): see what its account may do")
            }
            Self::Precondition => {
                format!("{provider} doesn't serve {key} (failed precondition): its country, its billing or its terms")
            }
            Self::PaymentRequired => format!("{provider} wants {key} to be paid for first (402)"),
            Self::ModelGone => format!("{provider} has no model '{model}' (any more): choose another one"),
            Self::BadRequest(status) => format!("{provider} refused the request for '{model}' with status {status}"),
            Self::RateLimited(Some(after)) | Self::KeyRests(after) => {
                format!("{provider} lets {key} ask '{model}' again in {} s", after.as_secs_f64().ceil())
            }
            Self::RateLimited(None) => format!("{provider} was asked too much with {key}: wait a while"),
            Self::QuotaDay => format!(
                "{provider}'s quota a day of {key} for '{model}' is used up until midnight in California: use another \
                 key or model"
            ),
            Self::Busy(status) => format!("{provider} can't answer at the moment (status {status})"),
            Self::Unreachable(why) => format!("{provider} can't be reached: {why}"),
            Self::TimedOut => format!("{provider} did not answer within the attempt's time"),
            Self::Interrupted(how) => format!("the answer of {provider} broke off: {how}"),
            Self::Stopped(reason) => format!("'{model}' stopped without an answer, for the reason {reason}"),
            Self::Empty => format!("'{model}' ended without any text"),
            Self::Unreadable(what) => format!("{provider} answered something else than its protocol says: {what}"),
            Self::Resting(left) => format!(
                "{provider} failed with '{model}' several times in a row: it is asked again in {} s",
                left.as_secs_f64().ceil()
            ),
            Self::Cancelled => "the attempt was cancelled".to_owned(),
        }
    }

    /// The failure of an attempt whose user has seen no text yet.
    pub fn failure(&self, place: &Place<'_>) -> Failure {
        Failure {
            code: self.code().to_owned(),
            message: self.message(place),
            retryable: self.retryable(),
            retry_after: self.retry_after(),
            unasked: matches!(self, Self::KeyRests(_)),
        }
    }

    /// The failure of an attempt whose user has seen a part of the answer: it is kept, not begun again.
    pub fn failure_after_text(&self, place: &Place<'_>) -> Failure {
        if *self == Self::Cancelled {
            return Failure::cancelled();
        }
        Failure::permanent("interrupted", format!("{}; the part that came is kept", self.message(place)))
    }
}

/// Where something went wrong, in words.
#[derive(Clone, Copy, Debug)]
pub struct Place<'a> {
    /// `Gemini`
    pub provider: &'a str,
    /// The model that was asked.
    pub model: &'a str,
    /// `your API key`
    pub key: &'a str,
}

/// A word of the provider's, if it looks like one: other text could hold anything.
pub fn word(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    if !text.is_empty() && text.len() <= 64 && text.chars().all(plain) { text.to_owned() } else { "unknown".to_owned() }
}
