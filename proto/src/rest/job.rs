//! A job, its units and its attempts, as REST shows them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::ToSchema;

use crate::kinds::Kind;
use crate::time::{rfc3339, rfc3339_option};
use crate::{JobId, Timestamp, UnitId, WorkerId};

/// Where a job stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum JobState {
    /// Waits for other jobs.
    Blocked,
    /// Waits for a time: a delayed start or a retry.
    Scheduled,
    /// Waits for a worker.
    Pending,
    /// Published to a worker.
    Assigned,
    /// Accepted by a worker.
    Computing,
    /// Ended with a result.
    Completed,
    /// Ended: tries used up or not retryable.
    Failed,
    /// Ended by request.
    Cancelled,
}

impl JobState {
    /// Every state.
    pub const ALL: [Self; 8] = [
        Self::Blocked,
        Self::Scheduled,
        Self::Pending,
        Self::Assigned,
        Self::Computing,
        Self::Completed,
        Self::Failed,
        Self::Cancelled,
    ];

    /// Its name in JSON.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Blocked => "blocked",
            Self::Scheduled => "scheduled",
            Self::Pending => "pending",
            Self::Assigned => "assigned",
            Self::Computing => "computing",
            Self::Completed => "completed",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }

    /// Completed, failed or cancelled.
    #[must_use]
    pub const fn ended(self) -> bool {
        matches!(self, Self::Completed | Self::Failed | Self::Cancelled)
    }
}

impl std::str::FromStr for JobState {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL.into_iter().find(|state| state.as_str() == text).ok_or_else(|| {
            format!("'{text}' is no state of a job; there are {}", Self::ALL.map(Self::as_str).join(", "))
        })
    }
}

/// How far a job is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Progress {
    /// 0 to 1.
    pub fraction: f64,
    /// An estimate while units are still being cut.
    pub units_total: u64,
    /// Units that completed.
    pub units_done: u64,
}

/// Why a job or a unit failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct JobError {
    /// For programs.
    pub code: String,
    /// For people.
    pub message: String,
}

/// Why a job is not being computed yet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Waiting {
    /// `dependencies`, `run_at`, `retry`, `rate_limit`, `no_worker`, `no_fitting_worker`, `workers_set_aside` (those that fit are
    /// paused, draining, in quarantine or did not answer), `workers_busy`.
    pub reason: String,
    /// For people.
    pub detail: String,
}

/// A job as REST shows it.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Job {
    /// Its identifier.
    #[schema(value_type = String)]
    pub id: JobId,
    /// What it asks for.
    pub kind: Kind,
    /// Where it stands.
    pub state: JobState,
    /// Its queue's name.
    pub queue: String,
    /// Its project's name.
    pub project: Option<String>,
    /// 0 to 9, 9 first.
    pub priority: u8,
    /// Who submitted it.
    pub owner: String,
    /// Names and values.
    pub labels: BTreeMap<String, String>,
    /// What was submitted; absent in lists.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    pub payload: Option<Box<RawValue>>,
    /// When it was accepted.
    #[serde(with = "rfc3339")]
    #[schema(value_type = String)]
    pub created_at: Timestamp,
    /// When it was first assigned to a worker.
    #[serde(with = "rfc3339_option")]
    #[schema(value_type = Option<String>)]
    pub started_at: Option<Timestamp>,
    /// When it ended.
    #[serde(with = "rfc3339_option")]
    #[schema(value_type = Option<String>)]
    pub finished_at: Option<Timestamp>,
    /// Attempts that failed; of several units the most.
    pub failures: u32,
    /// How many may fail.
    pub max_attempts: u32,
    /// How far it is.
    pub progress: Progress,
    /// Who computes or computed it.
    #[schema(value_type = Vec<String>)]
    pub workers: Vec<WorkerId>,
    /// Of the kind; partial where the job failed or was cancelled.
    #[schema(value_type = Option<Object>)]
    pub result: Option<Box<RawValue>>,
    /// Why it failed.
    pub error: Option<JobError>,
    /// Why it is not being computed yet.
    pub waiting: Option<Waiting>,
    /// It has ended, and something in it is of a worker that was found since to have sent wrong results; absent otherwise.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub suspect: bool,
    /// The result is that of an earlier job, or of one that asked the same at the same time. Left out where it was computed.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub cached: bool,
}

/// How an attempt ended, `null` while it runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum AttemptOutcome {
    /// With its result.
    Completed,
    /// Reported as failed.
    Failed,
    /// Took longer than `timeout_ms`.
    TimedOut,
    /// Its worker was not heard of for a lease.
    LeaseExpired,
    /// Published, not accepted.
    Unanswered,
    /// Handed back or taken back.
    Returned,
    /// Not adopted after a restart of the master.
    Lost,
    /// Cancelled.
    Cancelled,
}

impl AttemptOutcome {
    /// Every outcome.
    pub const ALL: [Self; 8] = [
        Self::Completed,
        Self::Failed,
        Self::TimedOut,
        Self::LeaseExpired,
        Self::Unanswered,
        Self::Returned,
        Self::Lost,
        Self::Cancelled,
    ];

    /// Its name in JSON.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Completed => "completed",
            Self::Failed => "failed",
            Self::TimedOut => "timed_out",
            Self::LeaseExpired => "lease_expired",
            Self::Unanswered => "unanswered",
            Self::Returned => "returned",
            Self::Lost => "lost",
            Self::Cancelled => "cancelled",
        }
    }
}

/// One try of a unit.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Attempt {
    /// The fencing token.
    pub attempt: u64,
    /// Who had it.
    #[schema(value_type = String)]
    pub worker_id: WorkerId,
    /// How it ended.
    pub outcome: Option<AttemptOutcome>,
    /// Why it failed.
    pub error: Option<JobError>,
    /// When it was assigned.
    #[serde(with = "rfc3339")]
    #[schema(value_type = String)]
    pub started_at: Timestamp,
    /// When it ended.
    #[serde(with = "rfc3339_option")]
    #[schema(value_type = Option<String>)]
    pub finished_at: Option<Timestamp>,
}

/// A work unit as REST shows it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Unit {
    /// `{job_id}/{index}`.
    #[schema(value_type = String)]
    pub unit_id: UnitId,
    /// `scheduled`, `pending`, `assigned`, `computing`, `completed`, `failed` or `cancelled`.
    pub state: JobState,
    /// Its current fencing token; 0 before the first.
    pub attempt: u64,
    /// Attempts that failed.
    pub failures: u32,
    /// Who has it, or had it last.
    #[schema(value_type = Option<String>)]
    pub worker_id: Option<WorkerId>,
    /// 0 to 1.
    pub progress: f64,
    /// Inputs or nonces `[from, to)` of the job; absent where the job is one unit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub range: Option<[u64; 2]>,
    /// Oldest first.
    pub attempts: Vec<Attempt>,
    /// Its worker was found since to have sent wrong results; absent otherwise.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub suspect: bool,
}
