//! The JSON payloads on MQTT. Receivers ignore fields that they don't know.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::value::RawValue;

use crate::kinds::{Algorithm, Class, Kind};
use crate::rest::JobState;
use crate::{Timestamp, UnitId, WorkerId};

/// Whether the master is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Presence {
    /// It takes work.
    Online,
    /// It has gone.
    Offline,
}

/// `{root}/master/status`, retained and last will.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct MasterStatus {
    /// Whether it is there.
    pub status: Presence,
    /// Plain `host:port` of the gRPC listener as workers reach it.
    pub grpc_endpoint: String,
    /// The page.
    pub web_url: String,
    /// Of the program.
    pub version: String,
    /// Grows whenever a master takes charge.
    pub epoch: u64,
    /// New with every process.
    pub boot_id: String,
    /// When it was said.
    pub timestamp: Timestamp,
}

/// What a worker's machine offers.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(default)]
pub struct Capabilities {
    /// Logical cores that it may use.
    pub cores: u32,
    /// Memory that it may use, in MiB.
    pub memory_mib: u64,
    /// CPU features such as `aes`, `avx2`; algorithms such as `rx/0`.
    pub features: Vec<String>,
    /// Whether huge pages can be had.
    pub hugepages: bool,
    /// Graphics cards.
    pub gpus: Vec<String>,
}

/// `{root}/workers/register`. Without `protocol` it is a simple worker's.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Register {
    /// Who.
    pub worker_id: WorkerId,
    /// What it is written in.
    #[serde(default)]
    pub language: String,
    /// `idle`.
    #[serde(default)]
    pub status: String,
    /// When it was said.
    #[serde(default)]
    pub timestamp: Timestamp,
    /// The version of the Report stream; absent for simple workers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protocol: Option<u32>,
    /// A UUIDv7 made at the start of the process.
    #[serde(default)]
    pub boot_id: String,
    /// Of the program.
    #[serde(default)]
    pub version: String,
    /// How many units of a class run at once; classes that this build does not know are left out.
    #[serde(default, deserialize_with = "known_classes")]
    pub slots: BTreeMap<Class, u32>,
    /// How many units of a class may wait at the worker beyond its slots.
    #[serde(default, deserialize_with = "known_classes")]
    pub prefetch: BTreeMap<Class, u32>,
    /// What it can compute; kinds that this build does not know are left out.
    #[serde(default, deserialize_with = "known_kinds")]
    pub kinds: Vec<Kind>,
    /// Models that it serves without a key of the user's; `demo` is the built-in stand-in.
    #[serde(default)]
    pub models: Vec<String>,
    /// What its machine offers.
    #[serde(default)]
    pub capabilities: Capabilities,
    /// What its operator says of it.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
}

/// A newer worker may offer more than an older master knows.
fn known_kinds<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Kind>, D::Error> {
    let offered = Vec::<String>::deserialize(deserializer)?;
    Ok(offered.iter().filter_map(|kind| kind.parse().ok()).collect())
}

fn known_classes<'de, D: Deserializer<'de>>(deserializer: D) -> Result<BTreeMap<Class, u32>, D::Error> {
    let offered = BTreeMap::<String, u32>::deserialize(deserializer)?;
    let known = |name: &str| Class::ALL.into_iter().find(|class| class.as_str() == name);
    Ok(offered.into_iter().filter_map(|(name, count)| Some((known(&name)?, count))).collect())
}

fn known_algorithms<'de, D: Deserializer<'de>>(deserializer: D) -> Result<BTreeMap<Algorithm, f64>, D::Error> {
    let said = BTreeMap::<String, f64>::deserialize(deserializer)?;
    let known = |name: &str| Algorithm::ALL.into_iter().find(|algorithm| algorithm.as_str() == name);
    Ok(said.into_iter().filter_map(|(name, rate)| Some((known(&name)?, rate))).collect())
}

/// What a worker does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum WorkerState {
    /// Nothing runs.
    Idle,
    /// Something runs.
    Busy,
    /// Handed back what ran; takes nothing.
    Paused,
    /// Finishes what runs; takes nothing new.
    Draining,
    /// Set aside by the master.
    Quarantined,
    /// Gone.
    Offline,
}

impl WorkerState {
    /// Every state.
    pub const ALL: [Self; 6] = [Self::Idle, Self::Busy, Self::Paused, Self::Draining, Self::Quarantined, Self::Offline];

    /// Its name in JSON.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::Busy => "busy",
            Self::Paused => "paused",
            Self::Draining => "draining",
            Self::Quarantined => "quarantined",
            Self::Offline => "offline",
        }
    }
}

/// How busy a machine is, each 0 to 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(default)]
pub struct Load {
    /// Of all cores.
    pub cpu: f64,
    /// Of all memory.
    pub memory: f64,
}

/// Hashes a second, averaged over the time since work began where that is shorter.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(default)]
pub struct Hashrates {
    /// Over 10 seconds.
    #[serde(rename = "10s")]
    pub seconds_10: f64,
    /// Over 60 seconds.
    #[serde(rename = "60s")]
    pub seconds_60: f64,
    /// Over 15 minutes.
    #[serde(rename = "15m")]
    pub minutes_15: f64,
}

impl std::ops::AddAssign for Hashrates {
    fn add_assign(&mut self, other: Self) {
        self.seconds_10 += other.seconds_10;
        self.seconds_60 += other.seconds_60;
        self.minutes_15 += other.minutes_15;
    }
}

/// How a worker computes RandomX.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum HashMode {
    /// It holds neither cache nor dataset.
    #[default]
    Idle,
    /// From a cache of 256 MiB.
    Light,
    /// From a dataset of 2080 MiB.
    Fast,
}

/// How a worker stands with RandomX.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(default)]
pub struct RandomxState {
    /// What it computes with now, or did last.
    pub mode: HashMode,
    /// For which key, hex.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// On what its memory lies: `huge`, `transparent` or `4k`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pages: Option<String>,
    /// For which key a dataset is being made, hex.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub preparing: Option<String>,
    /// How far that is, 0 to 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub progress: Option<f64>,
    /// Keys whose datasets are ready, hex.
    pub datasets: Vec<String>,
    /// Whether the dataset lies in memory that other workers of this host share.
    pub shared: bool,
    /// How many threads hash.
    pub threads: u32,
    /// Of all threads.
    pub hashrates: Hashrates,
    /// Of each thread.
    pub thread_hashrates: Vec<Hashrates>,
    /// Why it holds back (load, temperature, battery, the hour …), for people.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub held_back: Option<String>,
}

/// `{root}/workers/status` and, retained, `{root}/workers/{worker_id}/state`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct WorkerStatus {
    /// Who.
    pub worker_id: WorkerId,
    /// What it does.
    pub status: WorkerState,
    /// When it was said.
    #[serde(default)]
    pub timestamp: Timestamp,
    /// Of which process; simple workers send none.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub boot_id: String,
    /// How many units of a class run at once.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty", deserialize_with = "known_classes")]
    pub slots: BTreeMap<Class, u32>,
    /// How many units of a class run now.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty", deserialize_with = "known_classes")]
    pub running: BTreeMap<Class, u32>,
    /// RandomX hashes a second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hashrate: Option<f64>,
    /// Hashes a second of each algorithm, by the name of its capability; those that this build does not know are left out.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty", deserialize_with = "known_algorithms")]
    pub algorithms: BTreeMap<Algorithm, f64>,
    /// How busy the machine is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub load: Option<Load>,
    /// How it stands with RandomX.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub randomx: Option<Box<RandomxState>>,
}

/// One unit in a [`Tasks`] message.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Task {
    /// Which unit.
    pub unit_id: UnitId,
    /// Of which job.
    pub job_id: crate::JobId,
    /// The fencing token.
    pub attempt: u64,
    /// What to compute.
    pub kind: Kind,
    /// How long the lease lasts without a heartbeat.
    pub lease_ms: u64,
    /// How long this attempt may take once it has started; 0: without bound.
    #[serde(default)]
    pub timeout_ms: u64,
    /// How many attempts of this unit have failed (an `echo` fails on purpose by it).
    #[serde(default)]
    pub failures: u32,
    /// The user's own key waits to be leased by `LeaseCredential`.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub credential: bool,
    /// Only that key may be used: the fleet has nothing set aside for it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub own_key_only: bool,
    /// The payload of the kind, narrowed to this unit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub payload: Option<Box<RawValue>>,
    /// The payload is to be had by `FetchUnit`.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub payload_by_reference: bool,
}

/// `{root}/workers/{worker_id}/tasks` to full workers, at most 256 KiB.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Tasks {
    /// For whom.
    pub worker_id: WorkerId,
    /// Plain `host:port` to report to.
    pub grpc_endpoint: String,
    /// Of the master that says it; one lower than seen before is ignored.
    pub epoch: u64,
    /// When it was said.
    pub timestamp: Timestamp,
    /// What to do.
    pub units: Vec<Task>,
}

/// `{root}/workers/{worker_id}/tasks` to simple workers: all six fields always present.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SimpleTask {
    /// For whom.
    pub worker_id: WorkerId,
    /// A random UUID made for this dispatch.
    pub session_id: String,
    /// The question.
    pub query: String,
    /// Empty unless the operator trusts the broker.
    pub api_key: String,
    /// Plain `host:port` to answer to.
    pub grpc_endpoint: String,
    /// Comes back as `query_timestamp`.
    pub timestamp: Timestamp,
}

/// What a worker can be told to do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Command {
    /// Finish what runs, take nothing new.
    Drain,
    /// Take work again.
    Resume,
    /// Also hand back what runs.
    Pause,
    /// End the process in order.
    Stop,
    /// Change settings.
    Config,
    /// Make the RandomX dataset of `args.key` (hex), so that it is ready when work with that key comes.
    Prepare,
    /// One that this build does not know.
    #[serde(untagged)]
    Other(String),
}

/// `{root}/workers/{worker_id}/control` and `{root}/control`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Control {
    /// Comes back in `Done`.
    pub command_id: String,
    /// Of the master that says it.
    pub epoch: u64,
    /// When it was said.
    pub issued_at_ms: u64,
    /// When it is no longer to be carried out.
    pub expires_at_ms: u64,
    /// What to do.
    pub command: Command,
    /// Of the command.
    #[serde(default)]
    pub args: serde_json::Value,
}

/// One job in a [`JobsStatus`] message.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct JobStatus {
    /// Which.
    pub job_id: crate::JobId,
    /// What it asks for.
    pub kind: Kind,
    /// Where it stands.
    pub state: JobState,
    /// Who has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub worker_id: Option<WorkerId>,
    /// Which try.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attempt: Option<u64>,
    /// 0 to 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub progress: Option<f64>,
}

/// `{root}/jobs/status`: the latest state of each job that changed.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct JobsStatus {
    /// When it was said.
    pub timestamp: Timestamp,
    /// How many changed jobs did not fit.
    pub dropped: u64,
    /// Those that did.
    pub jobs: Vec<JobStatus>,
}

/// `{root}/logs`: for people who watch.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct LogLine {
    /// When.
    #[serde(default)]
    pub timestamp: Timestamp,
    /// `master` or the worker id.
    #[serde(default)]
    pub source: String,
    /// `error`, `warn`, `info`, `debug`; simple workers send none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub level: Option<String>,
    /// What happened.
    #[serde(default)]
    pub message: String,
    /// Whom it concerns.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job_id: Option<crate::JobId>,
    /// Whom it concerns.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub worker_id: Option<WorkerId>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_newer_workers_offers_are_taken_as_far_as_they_are_known() {
        let text = r#"{"worker_id":"w","protocol":1,"kinds":["echo","quantum.fold"],"slots":{"echo":2,"qpu":9},
            "prefetch":{"qpu":1},"news":true}"#;
        let register: Register = serde_json::from_str(text).expect("it is taken");
        assert_eq!((register.kinds, register.slots), (vec![Kind::Echo], BTreeMap::from([(Class::Echo, 2)])));
        assert!(register.prefetch.is_empty());
    }
}
