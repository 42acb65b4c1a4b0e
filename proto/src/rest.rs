//! The shapes of REST and Socket.IO: what is submitted and what is answered.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::value::RawValue;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::kinds::{Class, Kind};
use crate::mqtt::{Capabilities, Hashrates, Load, RandomxState, WorkerState};
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

/// What to do when a job that this one waits for did not complete.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum OnDependencyFailure {
    /// Fail too.
    #[default]
    Fail,
    /// Be cancelled.
    Cancel,
    /// Run all the same.
    Continue,
}

/// What a worker must have to get the job.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Requires {
    /// At least so many cores.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cores: Option<u32>,
    /// At least so much memory, in MiB.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_mib: Option<u64>,
    /// All of these features.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub features: Vec<String>,
    /// All of these labels.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// This very worker.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub worker_id: Option<WorkerId>,
}

/// `POST /jobs`
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SubmitJob {
    /// `randomx.hash`, `randomx.search`, `ai.chat`, `ai.embed` or `echo`.
    pub kind: String,
    /// Of the kind.
    #[schema(value_type = Object)]
    pub payload: Box<RawValue>,
    /// A UUID chosen by the client; seen before with the same body it answers the existing job.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<Uuid>,
    /// A name to sort jobs by, `default` without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queue: Option<String>,
    /// A name to sort jobs by.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub project: Option<String>,
    /// 0 to 9, 9 first, or `low`, `normal`, `high`; 5 without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub priority: Option<Priority>,
    /// 1 to 100; 3 without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_attempts: Option<u32>,
    /// How long to wait between attempts, and which errors are final.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry: Option<RetryPolicy>,
    /// Bounds one attempt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
    /// Bounds the job: passed, it fails with the code `deadline`.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "rfc3339_option")]
    #[schema(value_type = Option<String>)]
    pub deadline: Option<Timestamp>,
    /// Not before.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "rfc3339_option")]
    #[schema(value_type = Option<String>)]
    pub run_at: Option<Timestamp>,
    /// What a worker must have.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requires: Option<Requires>,
    /// Jobs that must end first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub depends_on: Option<Vec<Uuid>>,
    /// `fail` without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_dependency_failure: Option<OnDependencyFailure>,
    /// Names and values to find it by.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub labels: Option<BTreeMap<String, String>>,
    /// Whether an earlier result of the same may be used; true for `randomx.*` without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cache: Option<bool>,
    /// Of `ai.chat`: the conversation that the question continues. What was said before is sent with it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub conversation_id: Option<Uuid>,
}

/// How a job is tried again; what is left out is as for every job.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RetryPolicy {
    /// The wait after the first failure, doubling with each; 1000 without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backoff_ms: Option<u64>,
    /// The longest wait; 60000 without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backoff_max_ms: Option<u64>,
    /// Error codes after which it is not tried again, although it could be.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub never: Vec<String>,
}

/// `POST /jobs/retry`: which ended jobs to start again.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RetryJobs {
    /// `failed` without it; `cancelled` is the other one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub state: Vec<JobState>,
    /// Of this kind.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// In this queue.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queue: Option<String>,
    /// Of this project.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub project: Option<String>,
    /// `NAME=VALUE`
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
    /// Whose error has this code.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
    /// Count them only.
    #[serde(default)]
    pub dry_run: bool,
    /// `next_cursor` of the answer before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cursor: Option<String>,
}

/// What `POST /jobs/retry` did.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct RetriedJobs {
    /// So many fitted the filter.
    pub matched: u64,
    /// So many were started again; 0 with `dry_run`.
    pub retried: u64,
    /// Those that were not, and why.
    pub refused: Vec<RefusedRetry>,
    /// There are more to look at: send it as `cursor`.
    pub next_cursor: Option<String>,
}

/// A job that `POST /jobs/retry` did not start again.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct RefusedRetry {
    /// Which.
    #[schema(value_type = String)]
    pub id: JobId,
    /// Why.
    pub error: Box<Problem>,
}

/// `PATCH /jobs/{id}`
#[derive(Clone, Copy, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PatchJob {
    /// 0 to 9, 9 first, or `low`, `normal`, `high`.
    pub priority: Priority,
}

/// What became of one job of `POST /jobs/batch`.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(untagged)]
pub enum Submitted {
    /// It is in the store.
    Accepted {
        /// Its identifier.
        #[schema(value_type = String)]
        id: JobId,
    },
    /// It is not; the others may be.
    Refused {
        /// Why.
        error: Box<Problem>,
    },
}

/// A priority: 0 to 9, 9 first; the words `low`, `normal`, `high` mean 2, 5, 8.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, ToSchema)]
#[serde(transparent)]
pub struct Priority(pub u8);

impl Default for Priority {
    fn default() -> Self {
        Self(5)
    }
}

impl<'de> Deserialize<'de> for Priority {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl serde::de::Visitor<'_> for Visitor {
            type Value = Priority;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a priority: 0 to 9, low, normal or high")
            }
            fn visit_u64<E: serde::de::Error>(self, number: u64) -> Result<Priority, E> {
                u8::try_from(number)
                    .ok()
                    .filter(|n| *n <= 9)
                    .map(Priority)
                    .ok_or_else(|| E::custom(format!("{number} is no priority: 0 to 9, low, normal or high")))
            }
            fn visit_i64<E: serde::de::Error>(self, number: i64) -> Result<Priority, E> {
                Err(E::custom(format!("{number} is no priority: 0 to 9, low, normal or high")))
            }
            fn visit_str<E: serde::de::Error>(self, word: &str) -> Result<Priority, E> {
                match word {
                    "low" => Ok(Priority(2)),
                    "normal" => Ok(Priority(5)),
                    "high" => Ok(Priority(8)),
                    _ => Err(E::custom(format!("'{word}' is no priority: 0 to 9, low, normal or high"))),
                }
            }
        }
        deserializer.deserialize_any(Visitor)
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
    /// `dependencies`, `run_at`, `retry`, `rate_limit`, `no_worker`, `no_fitting_worker`, `workers_busy`.
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
}

/// A worker as REST shows it.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Worker {
    /// Who.
    #[schema(value_type = String)]
    pub worker_id: WorkerId,
    /// What it is written in.
    pub language: String,
    /// Of the program.
    pub version: String,
    /// Speaks the simple worker protocol.
    pub simple: bool,
    /// Of which process.
    pub boot_id: String,
    /// What it does.
    pub status: WorkerState,
    /// Why it is set aside or what it waits for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status_detail: Option<String>,
    /// How many units of a class run at once.
    pub slots: BTreeMap<Class, u32>,
    /// How many may wait beyond them.
    pub prefetch: BTreeMap<Class, u32>,
    /// How many units of a class it has now.
    pub running: BTreeMap<Class, u32>,
    /// What it can compute.
    pub kinds: Vec<Kind>,
    /// Models that it serves.
    pub models: Vec<String>,
    /// What its machine offers.
    pub capabilities: Capabilities,
    /// What its operator says of it.
    pub labels: BTreeMap<String, String>,
    /// How busy its machine is.
    pub load: Load,
    /// Hashes a second.
    pub hashrate: f64,
    /// How it stands with RandomX.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub randomx: Option<RandomxState>,
    /// Since when its stream is up.
    #[serde(with = "rfc3339_option")]
    #[schema(value_type = Option<String>)]
    pub connected_at: Option<Timestamp>,
    /// When it was last heard of.
    #[serde(with = "rfc3339")]
    #[schema(value_type = String)]
    pub last_seen_at: Timestamp,
}

/// Slots of a class in the whole fleet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Slots {
    /// Of workers that are there.
    pub total: u64,
    /// Taken.
    pub used: u64,
}

/// What waits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct QueueDepth {
    /// Pending units and jobs.
    pub depth: u64,
    /// Of the one that has waited longest.
    pub oldest_age_ms: u64,
}

/// `GET /fleet`
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Fleet {
    /// Workers by state.
    pub workers: BTreeMap<WorkerState, u64>,
    /// Slots by class.
    pub slots: BTreeMap<Class, Slots>,
    /// What waits.
    pub queue: QueueDepth,
    /// Hashes a second.
    pub hashrate: f64,
    /// The same over 10 seconds, 60 seconds and 15 minutes, of the workers that are there.
    #[serde(default)]
    pub hashrates: Hashrates,
    /// Jobs by state.
    pub jobs: BTreeMap<JobState, u64>,
}

/// The fleet as it was at one time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct FleetPoint {
    /// When.
    #[serde(with = "rfc3339")]
    #[schema(value_type = String)]
    pub timestamp: Timestamp,
    /// Hashes a second, over 10 seconds.
    pub hashrate: f64,
    /// Jobs that wait for a worker.
    pub waiting: u64,
    /// Jobs that are assigned or computed.
    pub running: u64,
    /// Workers that are there.
    pub workers: u64,
}

/// `GET /fleet/history`
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct FleetHistory {
    /// The time between two points.
    pub interval_ms: u64,
    /// The last hour, oldest first.
    pub points: Vec<FleetPoint>,
}

/// A model that the fleet serves.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ModelInfo {
    /// What a question names.
    pub model: String,
    /// `model`, `class` (`small`, `large`), `embedding` or `demo`.
    pub kind: String,
    /// How many workers that are there serve it.
    pub workers: u64,
}

/// `GET /usage`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct UsageReport {
    /// The first day, UTC.
    pub from: String,
    /// The last day, UTC.
    pub to: String,
    /// What `cost` is counted in.
    pub currency: String,
    /// By day, owner, provider and model, latest day first.
    pub items: Vec<UsageItem>,
    /// Of all items.
    pub totals: UsageTotals,
    /// What one owner may use today.
    pub budget: UsageBudget,
    /// There are more items than are told: ask for fewer days, or one owner.
    pub truncated: bool,
}

/// One line of the ledger.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct UsageItem {
    /// Such as `2026-11-21`, UTC.
    pub day: String,
    /// Who asked.
    pub owner: String,
    /// Who served it; empty where nobody answered.
    pub provider: String,
    /// Which model answered, else the one that was asked for.
    pub model: String,
    /// The questions brought a key of their own, so they don't count against the owner's budget.
    pub own_key: bool,
    /// How much.
    #[serde(flatten)]
    pub totals: UsageTotals,
}

/// What was used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct UsageTotals {
    /// Questions that were answered.
    pub requests: u64,
    /// Questions that failed or were stopped; of those that broke off the tokens are estimated.
    pub failed: u64,
    /// Questions that an earlier answer served.
    pub cached: u64,
    /// Tokens of the questions.
    pub input_tokens: u64,
    /// Tokens of the answers.
    pub output_tokens: u64,
    /// Tokens of thinking.
    pub thought_tokens: u64,
    /// Money, by the prices that are set.
    pub cost: f64,
}

/// What an owner may use today, and has.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct UsageBudget {
    /// Whose.
    pub owner: String,
    /// Tokens a day; `null` for no limit.
    pub tokens: Option<u64>,
    /// Of them used.
    pub tokens_used: u64,
    /// Money a day; `null` for no limit.
    pub cost: Option<f64>,
    /// Of it used.
    pub cost_used: f64,
    /// When it is new.
    #[serde(with = "rfc3339")]
    #[schema(value_type = String)]
    pub resets_at: Timestamp,
}

/// `GET /jobs/{id}/audit`: whether everything was computed exactly once, and by whom. Nonces of a `randomx.search`, inputs of a
/// `randomx.hash`; all ranges are half-open.
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
}

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
