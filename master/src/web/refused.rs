//! The one place where the dispatcher's refusals become HTTP statuses.

use axum::http::StatusCode;

use super::problem::Failure;
use crate::handle::Refused;

/// The code of a [`Refused::Conflict`] that means "the same key with another body": the contract wants 422 for it.
pub const IDEMPOTENCY_KEY_REUSED: &str = "idempotency_key_reused";

impl From<Refused> for Failure {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::NotFound(_) => Self::new(StatusCode::NOT_FOUND, "not_found", refused.to_string()),
            Refused::Conflict(IDEMPOTENCY_KEY_REUSED, detail) => {
                Self::new(StatusCode::UNPROCESSABLE_ENTITY, IDEMPOTENCY_KEY_REUSED, detail).at("Idempotency-Key")
            }
            Refused::Conflict(code, detail) => Self::new(StatusCode::CONFLICT, code, detail),
            Refused::Invalid(error) => Self::invalid(&error),
            Refused::Busy { detail, retry_after_seconds } => {
                Self::new(StatusCode::TOO_MANY_REQUESTS, "busy", detail).retry_after(retry_after_seconds)
            }
            Refused::Unavailable(detail) => {
                Self::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", detail).retry_after(1)
            }
        }
    }
}
