//! From refusals to gRPC statuses, in one place.

use tonic::Status;

use crate::handle::Refused;

/// The status that a worker gets.
pub(super) fn from_refused(refused: Refused) -> Status {
    let text = refused.to_string();
    match refused {
        Refused::NotFound(_) => Status::not_found(text),
        Refused::Conflict(..) => Status::failed_precondition(text),
        Refused::Invalid(_) => Status::invalid_argument(text),
        Refused::Busy { .. } => Status::resource_exhausted(text),
        Refused::Unavailable(_) => Status::unavailable(text),
    }
}
