//! From refusals to gRPC statuses, in one place.

use tonic::Status;

use crate::handle::Refused;

/// The status that a worker gets.
pub(super) fn from_refused(refused: Refused) -> Status {
    let text = refused.to_string();
    match refused {
        // Of its own, because the worker must tell it from a conflict that a later try can get past.
        Refused::Conflict("superseded", _) => Status::already_exists(text),
        Refused::NotFound(_) => Status::not_found(text),
        Refused::Conflict(..) => Status::failed_precondition(text),
        Refused::Invalid(_) => Status::invalid_argument(text),
        Refused::Busy { .. } | Refused::BudgetSpent { .. } => Status::resource_exhausted(text),
        Refused::Unavailable(_) | Refused::StoreFull(_) => Status::unavailable(text),
    }
}
