//! Whether everything of a job was computed exactly once, as REST shows it.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::JobState;
use crate::kinds::Kind;
use crate::{JobId, UnitId, WorkerId};

/// `GET /jobs/{id}/audit`: whether everything was computed exactly once, and by whom. Nonces of a search, inputs of a hash job; all
/// ranges are half-open.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Audit {
    /// Which job.
    #[schema(value_type = String)]
    pub job_id: JobId,
    /// What it asked for.
    pub kind: Kind,
    /// Where it stands; while it runs, what is missing is still to come.
    pub state: JobState,
    /// What was to be computed.
    pub range: [u64; 2],
    /// Nothing is missing and nothing was computed twice.
    pub exact: bool,
    /// How many were computed.
    pub covered: u64,
    /// How many were not.
    pub missing: u64,
    /// How many were computed more than once by units that counted.
    pub repeated: u64,
    /// How many are of workers that were found to have sent wrong results when the job had ended.
    #[serde(default)]
    pub suspect: u64,
    /// What is missing, the first 1,000 ranges.
    pub gaps: Vec<[u64; 2]>,
    /// What was computed more than once, the first 1,000 ranges.
    pub overlaps: Vec<[u64; 2]>,
    /// Who computed how much.
    pub workers: Vec<AuditWorker>,
    /// The units that completed, by index: a page of them.
    pub units: Vec<AuditPiece>,
    /// Where they go on; `null` at the end.
    pub next_cursor: Option<String>,
}

/// What one worker did for a job.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AuditWorker {
    /// Who.
    #[schema(value_type = String)]
    pub worker_id: WorkerId,
    /// Units that it completed.
    pub units: u64,
    /// Nonces or inputs in them.
    pub computed: u64,
    /// Of these, how many are suspect: see [`Audit::suspect`].
    #[serde(default)]
    pub suspect: u64,
}

/// A completed unit of a job.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AuditPiece {
    /// `{job_id}/{index}`.
    #[schema(value_type = String)]
    pub unit_id: UnitId,
    /// What it was to compute.
    pub range: [u64; 2],
    /// What it computed.
    pub covered: Vec<[u64; 2]>,
    /// By whom.
    #[schema(value_type = Option<String>)]
    pub worker_id: Option<WorkerId>,
    /// In which attempt.
    pub attempt: u64,
    /// Its worker was found since to have sent wrong results; absent otherwise.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub suspect: bool,
}
