//! The workers and the fleet, as REST shows them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::JobState;
use crate::kinds::{Algorithm, Class, Kind};
use crate::mqtt::{Capabilities, Hashrates, Load, RandomxState, WorkerState};
use crate::time::{rfc3339, rfc3339_option};
use crate::{Timestamp, WorkerId};

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
    /// Of one that is `quarantined`: why, and until when.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quarantine: Option<Quarantine>,
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
    /// RandomX hashes a second.
    pub hashrate: f64,
    /// Hashes a second of each algorithm, by the name of its capability.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schema(value_type = std::collections::BTreeMap<String, f64>)]
    pub algorithms: BTreeMap<Algorithm, f64>,
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

/// Why a worker is set aside.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Quarantine {
    /// For people.
    pub reason: String,
    /// Since when.
    #[serde(with = "rfc3339")]
    #[schema(value_type = String)]
    pub since: Timestamp,
    /// It is let back in then; `null`: by `POST /workers/{id}/resume` only.
    #[serde(with = "rfc3339_option")]
    #[schema(value_type = Option<String>)]
    pub until: Option<Timestamp>,
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
    /// RandomX hashes a second.
    pub hashrate: f64,
    /// The same over 10 seconds, 60 seconds and 15 minutes, of the workers that are there.
    #[serde(default)]
    pub hashrates: Hashrates,
    /// Hashes a second of each algorithm, by the name of its capability.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schema(value_type = std::collections::BTreeMap<String, f64>)]
    pub algorithms: BTreeMap<Algorithm, f64>,
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
