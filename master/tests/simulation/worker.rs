//! A worker as the master sees it: takes units, works for a while, reports until it is acknowledged, and dies.

use std::collections::BTreeMap;

use flota_master::handle::{Heartbeat, Hello, Report, StreamId, UnitFailure, UnitResult};
use flota_proto::kinds::{ChatResult, Finish, SearchResult, Usage};
use flota_proto::mqtt::{Capabilities, Load, Register};
use flota_proto::rest::JobError;
use flota_proto::{Class, Kind, Timestamp, UnitId, WorkerId};

/// How the hash of an invented find begins.
pub const LIE: &str = "11ee";

/// An attempt at a worker.
#[derive(Clone, Debug)]
pub struct Held {
    pub kind: Kind,
    pub part: Option<(u64, u64)>,
    pub done_at: Timestamp,
    pub fails: bool,
    pub finds: Option<u64>,
    /// What it finds is invented.
    pub lies: bool,
    /// Pieces of text that it has sent.
    pub texts: u64,
}

pub struct SimWorker {
    pub id: WorkerId,
    pub boot: u64,
    pub stream: Option<StreamId>,
    pub hung: bool,
    /// Takes thirty times as long.
    pub slow: bool,
    /// The operator wants that it takes nothing.
    pub resting: bool,
    pub held: BTreeMap<(UnitId, u64), Held>,
    /// Finished and not acknowledged.
    pub finished: BTreeMap<(UnitId, u64), Held>,
    pub cores: u32,
}

impl SimWorker {
    pub fn new(index: usize, cores: u32) -> Self {
        Self {
            id: format!("w{index}").parse().expect("an id"),
            boot: 1,
            stream: None,
            hung: false,
            slow: false,
            resting: false,
            held: BTreeMap::new(),
            finished: BTreeMap::new(),
            cores,
        }
    }

    pub fn boot_id(&self) -> String {
        format!("{:08}", self.boot)
    }

    pub fn register(&self) -> Register {
        Register {
            worker_id: self.id.clone(),
            language: "rust".into(),
            status: "idle".into(),
            timestamp: Timestamp(0),
            protocol: Some(1),
            boot_id: self.boot_id(),
            version: "0".into(),
            slots: BTreeMap::from([(Class::Randomx, 1), (Class::Ai, 2), (Class::Echo, 3)]),
            prefetch: BTreeMap::from([(Class::Randomx, 1), (Class::Echo, 2)]),
            kinds: Kind::ALL.to_vec(),
            models: vec!["m".into()],
            capabilities: Capabilities { cores: self.cores, memory_mib: 1000, ..Capabilities::default() },
            labels: BTreeMap::new(),
        }
    }

    pub fn hello(&self) -> Hello {
        Hello {
            worker: self.id.clone(),
            boot_id: self.boot_id(),
            running: self.held.keys().copied().collect(),
            finished: self.finished.keys().copied().collect(),
        }
    }

    pub fn heartbeat(&self) -> Report {
        let running = self.held.keys().chain(self.finished.keys()).copied().collect();
        let heartbeat = Heartbeat {
            running,
            load: Load::default(),
            hashrate: 10.0,
            warm_keys: vec!["00".into()],
            ..Heartbeat::default()
        };
        Report { heartbeat: Some(heartbeat), ..Report::default() }
    }

    /// What is finished and not acknowledged, as a report.
    pub fn results(&self) -> Report {
        let mut report = Report::default();
        for ((unit, attempt), held) in &self.finished {
            let (unit, attempt) = (*unit, *attempt);
            if held.fails {
                let error = JobError { code: "broke".into(), message: "it broke".into() };
                report.failures.push(UnitFailure {
                    unit,
                    attempt,
                    error,
                    retryable: true,
                    retry_after_ms: 0,
                    unasked: false,
                });
            } else {
                let output = output(unit, held).into();
                report.results.push(UnitResult { unit, attempt, output, elapsed_ms: 1000, hashes: 10 });
            }
        }
        report
    }

    /// Its process ends: what it computed is gone, and what it had finished unless that is on its disk.
    pub fn die(&mut self, keeps_finished: bool) {
        self.boot += 1;
        self.stream = None;
        self.hung = false;
        self.resting = false;
        self.held.clear();
        if !keeps_finished {
            self.finished.clear();
        }
    }

    pub fn finish_due(&mut self, now: Timestamp) {
        let due: Vec<_> = self.held.iter().filter(|(_, held)| held.done_at <= now).map(|(key, _)| *key).collect();
        for key in due {
            if let Some(held) = self.held.remove(&key) {
                self.finished.insert(key, held);
            }
        }
    }
}

/// The right output of an attempt.
pub fn output(unit: UnitId, held: &Held) -> Vec<u8> {
    let json = match (held.kind, held.part) {
        (Kind::Search(_), Some((from, to))) => {
            let found = held.finds.map(|nonce| flota_proto::kinds::Found {
                nonce,
                hash: (if held.lies { [0x11, 0xee] } else { [0, 0] }).repeat(16).into(),
            });
            serde_json::to_value(SearchResult {
                found: found.into_iter().collect(),
                hashes_computed: to - from,
                covered: vec![[from, to]],
                proof: Vec::new().into(),
            })
        }
        (Kind::Hash(_), Some((from, to))) => {
            let hashes: Vec<String> = (from..to).map(|input| format!("{input:064x}")).collect();
            Ok(serde_json::json!({"hashes": hashes, "mode": "light"}))
        }
        (Kind::AiChat, _) => serde_json::to_value(ChatResult {
            text: unit.job.to_string(),
            model: "m".into(),
            provider: "sim".into(),
            finish: Finish::Complete,
            finish_reason: None,
            dropped_turns: 0,
            notes: Vec::new(),
            usage: Usage::default(),
        }),
        _ => Ok(serde_json::json!({"value": unit.job.to_string()})),
    };
    serde_json::to_vec(&json.expect("json")).expect("json")
}
