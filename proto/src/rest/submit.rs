//! What is sent about jobs: new ones, those to start again, a changed priority; and what is answered to that.

use std::collections::BTreeMap;

use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::value::RawValue;
use utoipa::ToSchema;
use uuid::Uuid;

use super::{JobState, Problem};
use crate::objects;
use crate::time::rfc3339_option;
use crate::{JobId, Timestamp, WorkerId};

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
    /// `randomx.hash`, `randomx.search`, `sha256d.hash`, `sha256d.search`, `ai.chat`, `ai.embed` or `echo`.
    pub kind: String,
    /// Of the kind.
    #[schema(value_type = Object)]
    pub payload: Box<RawValue>,
    /// A UUIDv7 chosen by the client; seen before with the same body it answers the existing job.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "chosen_id")]
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
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "objects::option")]
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
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "objects::option")]
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

/// Only what orders by time may name a job, and only in one way.
fn chosen_id<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Uuid>, D::Error> {
    let Some(text) = Option::<std::borrow::Cow<'_, str>>::deserialize(deserializer)? else { return Ok(None) };
    let id = Uuid::try_parse(&text).ok().filter(|id| text.len() == UUID_CHARS && id.get_version_num() == 7);
    let wrong = || D::Error::custom("must be a UUIDv7, such as 01970000-0000-7000-8000-000000000000");
    id.map(Some).ok_or_else(wrong)
}

/// With its hyphens, and nothing around it.
const UUID_CHARS: usize = 36;

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
    /// Of this owner.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<String>,
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
