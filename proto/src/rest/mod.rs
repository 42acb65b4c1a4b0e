//! The shapes of REST and Socket.IO: what is submitted and what is answered. Here: what all of it shares.

mod audit;
mod fleet;
mod job;
mod submit;
mod usage;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::Timestamp;

pub use audit::{Audit, AuditPiece, AuditWorker};
pub use fleet::{Fleet, FleetHistory, FleetPoint, ModelInfo, Quarantine, QueueDepth, Slots, Worker};
pub use job::{Attempt, AttemptOutcome, Job, JobError, JobState, Progress, Unit, Waiting};
pub use submit::{
    OnDependencyFailure, PatchJob, Priority, RefusedRetry, Requires, RetriedJobs, RetryJobs, RetryPolicy, SubmitJob,
    Submitted,
};
pub use usage::{UsageBudget, UsageItem, UsageReport, UsageTotals};

/// A page of a list.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Page<T> {
    /// What there is.
    pub items: Vec<T>,
    /// Where it goes on; `null` at the end.
    pub next_cursor: Option<String>,
}

/// What happened to a job, as data of SSE and Socket.IO.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct JobEvent {
    /// Grows within a job.
    pub seq: u64,
    /// The try that it belongs to; 0 before the first.
    pub attempt: u64,
    /// Unix milliseconds.
    #[schema(value_type = u64)]
    pub timestamp: Timestamp,
    /// A job state, `progress` or `delta`.
    pub r#type: String,
    /// Of the type.
    #[schema(value_type = Object)]
    pub data: serde_json::Value,
}

/// RFC 9457 problem details.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Problem {
    /// A stable URI of the kind of problem.
    pub r#type: String,
    /// What it is called.
    pub title: String,
    /// The HTTP status.
    pub status: u16,
    /// What was wrong, where, and what to do.
    pub detail: String,
    /// For programs.
    pub code: String,
    /// To find it in the log.
    pub trace_id: String,
    /// The path of the wrong field.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub field: Option<String>,
}
