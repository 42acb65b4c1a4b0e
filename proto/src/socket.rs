//! Socket.IO: the names of its events and their envelopes. Envelopes are camelCase; what they carry is as in REST.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::kinds::Usage;
use crate::rest::{Fleet, JobError, JobEvent, Worker};
use crate::{JobId, Timestamp, WorkerId};

/// The session's id, a UUIDv4, first of all.
pub const SESSION_ID: &str = "session-id";
/// What opens the session again, with its id.
pub const SESSION_SECRET: &str = "session-secret";
/// [`TaskQueued`], once, only when no worker is free.
pub const TASK_QUEUED: &str = "task-queued";
/// [`AiResponse`], exactly once for each question.
pub const AI_RESPONSE: &str = "ai-response";
/// [`JobHappened`]
pub const JOB_EVENT: &str = "job-event";
/// [`FleetTick`], once a second at most.
pub const FLEET_TICK: &str = "fleet-tick";
/// [`LogEntry`], for who sent [`LOGS_SUBSCRIBE`].
pub const LOG: &str = "log";
/// `{event, error}` for what was refused and had no acknowledgement to say so.
pub const ERROR: &str = "error";
/// [`UserQuery`]
pub const USER_QUERY: &str = "user-query";
/// As `POST /jobs`, and `apiKey`.
pub const JOB_SUBMIT: &str = "job-submit";
/// [`JobCancel`]
pub const JOB_CANCEL: &str = "job-cancel";
/// [`JobSubscribe`]
pub const JOB_SUBSCRIBE: &str = "job-subscribe";
/// [`SessionResume`]
pub const SESSION_RESUME: &str = "session-resume";
/// No payload; the acknowledgement holds the recent lines: `{items}`.
pub const LOGS_SUBSCRIBE: &str = "logs-subscribe";
/// No payload.
pub const LOGS_UNSUBSCRIBE: &str = "logs-unsubscribe";

/// A question.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct UserQuery {
    /// What is asked.
    pub query: String,
    /// The user's own key; an empty one is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub api_key: Option<String>,
    /// A model that a worker announces; without it the worker's default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// The conversation that the question continues.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub conversation_id: Option<uuid::Uuid>,
    /// What opens the conversation to who is not its owner.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub conversation_secret: Option<String>,
    /// Whether an earlier answer to the same may be used; not without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cache: Option<bool>,
}

/// Ends a job.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct JobCancel {
    /// Which.
    pub job_id: JobId,
}

/// Asks for a job's events.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct JobSubscribe {
    /// Which.
    pub job_id: JobId,
    /// The last event that is known; without it from the beginning.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_seq: Option<u64>,
}

/// Takes a session over.
#[derive(Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SessionResume {
    /// As it was told.
    pub session_id: String,
    /// As it was told.
    pub secret: String,
}

/// A question waits because no worker is free.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TaskQueued {
    /// From 1.
    pub position: u64,
    /// Of the question.
    pub job_id: JobId,
}

/// How a question ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Finish {
    /// By itself.
    Complete,
    /// At the limit of tokens.
    MaxTokens,
    /// The provider refused it.
    Blocked,
    /// Without an answer.
    Error,
}

impl From<crate::kinds::Finish> for Finish {
    fn from(finish: crate::kinds::Finish) -> Self {
        match finish {
            crate::kinds::Finish::Complete => Self::Complete,
            crate::kinds::Finish::MaxTokens => Self::MaxTokens,
            crate::kinds::Finish::Blocked => Self::Blocked,
        }
    }
}

/// The answer to a question, or why there is none.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AiResponse {
    /// What was asked.
    pub query: String,
    /// The answer; where there is none, what went wrong.
    pub response: String,
    /// Who answered.
    pub worker_id: Option<WorkerId>,
    /// How long that took, in milliseconds.
    pub processing_time: u64,
    /// When it ended.
    pub timestamp: Timestamp,
    /// `null` when the question was refused.
    pub job_id: Option<JobId>,
    /// The model that answered.
    pub model: Option<String>,
    /// Who served the model.
    pub provider: Option<String>,
    /// How it ended.
    pub finish: Finish,
    /// What it used; of one that broke off as estimated.
    pub usage: Option<Usage>,
    /// How many of the oldest turns of its conversation the model did not see.
    #[serde(default, skip_serializing_if = "crate::kinds::is_zero")]
    pub dropped_turns: u32,
    /// What its owner should know beside it, in English: that their own key was refused, and who answered instead.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
    /// Only with [`Finish::Error`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<JobError>,
}

/// Something that happened to a job.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct JobHappened {
    /// Which job.
    pub job_id: JobId,
    /// What happened.
    #[serde(flatten)]
    pub event: JobEvent,
}

/// The fleet as it is now.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct FleetTick {
    /// As `GET /fleet`.
    #[serde(flatten)]
    pub fleet: Fleet,
    /// When it was so.
    pub timestamp: Timestamp,
    /// As `GET /workers`, at most [`FLEET_TICK_WORKERS_MAX`].
    #[serde(rename = "workersList")]
    pub workers_list: Box<RawValue>,
    /// The same, for pages that know it by this name.
    #[serde(rename = "workers_list")]
    pub workers_list_too: Box<RawValue>,
}

/// How many workers a tick lists.
pub const FLEET_TICK_WORKERS_MAX: usize = 500;

/// A log line.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LogEntry {
    /// When.
    pub timestamp: Timestamp,
    /// `master` or the worker id.
    pub source: String,
    /// `error`, `warn`, `info`, `debug`; simple workers send none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub level: Option<String>,
    /// What happened.
    pub message: String,
    /// Whom it concerns.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job_id: Option<JobId>,
    /// Whom it concerns.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub worker_id: Option<WorkerId>,
    /// How many lines before this one were left out because the reader was too slow.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub dropped: u64,
}

#[allow(clippy::trivially_copy_pass_by_ref)]
fn is_zero(n: &u64) -> bool {
    *n == 0
}

impl From<&crate::mqtt::LogLine> for LogEntry {
    fn from(line: &crate::mqtt::LogLine) -> Self {
        Self {
            timestamp: line.timestamp,
            source: line.source.clone(),
            level: line.level.clone(),
            message: line.message.clone(),
            job_id: line.job_id,
            worker_id: line.worker_id.clone(),
            dropped: 0,
        }
    }
}

/// Workers as a tick lists them.
///
/// # Errors
/// Those of the serializer.
pub fn workers_json(workers: &[Worker]) -> serde_json::Result<Box<RawValue>> {
    serde_json::value::to_raw_value(&workers[..workers.len().min(FLEET_TICK_WORKERS_MAX)])
}
