//! The one place where the dispatcher's refusals become HTTP statuses.

use axum::http::StatusCode;

use super::problem::Failure;
use crate::handle::Refused;

impl From<Refused> for Failure {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::NotFound(_) => Self::new(StatusCode::NOT_FOUND, "not_found", refused.to_string()),
            Refused::Conflict(code, detail) => Self::new(StatusCode::CONFLICT, code, detail),
            Refused::Invalid(error) => Self::invalid(&error),
            Refused::Busy { detail, retry_after_seconds } => {
                Self::new(StatusCode::TOO_MANY_REQUESTS, "busy", detail).retry_after(retry_after_seconds)
            }
            Refused::BudgetSpent { detail, retry_after_seconds } => {
                Self::new(StatusCode::TOO_MANY_REQUESTS, "budget_spent", detail).retry_after(retry_after_seconds)
            }
            Refused::Unavailable(detail) => {
                Self::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", detail).retry_after(1)
            }
            Refused::StoreFull(detail) => {
                Self::new(StatusCode::SERVICE_UNAVAILABLE, "store_full", detail).retry_after(10)
            }
        }
    }
}
