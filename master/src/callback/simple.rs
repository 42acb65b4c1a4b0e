//! The one call of simple workers: plaintext, no token, sent once and never again; so it is always answered, and in
//! time.

use std::time::Duration;

use flota_proto::simple::worker_callback_server::WorkerCallback;
use flota_proto::simple::{ResultAck, TaskResult};
use tonic::{Request, Response, Status};
use tracing::warn;

use super::status;
use crate::handle::{Handle, Refused};

/// Such workers wait for at most ten seconds.
const ANSWER_WITHIN: Duration = Duration::from_secs(8);

pub(super) struct Simple {
    handle: Handle,
}

impl Simple {
    pub(super) fn new(handle: Handle) -> Self {
        Self { handle }
    }
}

#[tonic::async_trait]
impl WorkerCallback for Simple {
    async fn send_result(&self, request: Request<TaskResult>) -> Result<Response<ResultAck>, Status> {
        let answered = tokio::time::timeout(ANSWER_WITHIN, self.handle.simple_result(request.into_inner())).await;
        let ack = match answered {
            Ok(Ok(message)) => ResultAck { success: true, message },
            Ok(Err(error @ (Refused::Unavailable(_) | Refused::StoreFull(_)))) => {
                return Err(status::from_refused(error));
            }
            Ok(Err(refused)) => ResultAck { success: true, message: format!("ignored: {refused}") },
            Err(_) => {
                warn!("a simple worker's answer was not stored in time");
                ResultAck { success: false, message: "the master could not store the answer in time".into() }
            }
        };
        Ok(Response::new(ack))
    }
}
