//! A core with a clock and workers, driven by hand, and what its effects say.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use flota_master::core::{Assignment, Core, Dependency, Effect, Input, Limits, Moment};
use flota_master::handle::{Hello, Refused, Report, StreamId, UnitFailure, UnitResult};
use flota_master::submit::{NewJob, Work};
use flota_proto::mqtt::{Capabilities, Register};
use flota_proto::rest::{AttemptOutcome, JobError, JobState, OnDependencyFailure, Requires};
use flota_proto::{Class, JobId, Kind, Timestamp, UnitId};

/// A core with a clock and the streams of its workers.
pub struct Fleet {
    pub core: Core,
    pub now: Timestamp,
    pub streams: u64,
}

impl Fleet {
    pub fn new() -> Self {
        Self::with(Limits::default())
    }

    pub fn with(limits: Limits) -> Self {
        Self { core: Core::new(limits), now: Timestamp(1_000_000), streams: 0 }
    }

    pub fn handle(&mut self, input: Input) -> Result<Vec<Effect>, Refused> {
        let effects = self.core.handle(Moment { now: self.now, entropy: 0 }, input);
        self.core.audit().unwrap();
        let _ = self.core.take_changes();
        effects
    }

    pub fn after(&mut self, ms: u64) -> Vec<Effect> {
        self.now = self.now.after_ms(ms);
        self.handle(Input::Tick).unwrap()
    }

    pub fn worker(&mut self, id: &str) -> (StreamId, Vec<Effect>) {
        self.worker_as(register(id))
    }

    pub fn worker_as(&mut self, register: Register) -> (StreamId, Vec<Effect>) {
        self.streams += 1;
        let stream = StreamId(self.streams);
        let (worker, boot_id) = (register.worker_id.clone(), register.boot_id.clone());
        self.handle(Input::Register(Box::new(register))).unwrap();
        let hello = Hello { worker, boot_id, running: Vec::new(), finished: Vec::new() };
        let effects = self.handle(Input::Open(hello, stream)).unwrap();
        (stream, effects)
    }

    pub fn submit(&mut self, job: NewJob) -> Vec<Effect> {
        let dependencies = job.depends_on.iter().map(|id| Dependency { id: *id, ended: None }).collect();
        self.handle(Input::Submit { job: Box::new(job), dependencies }).unwrap()
    }

    pub fn report(&mut self, stream: StreamId, report: Report) -> Vec<Effect> {
        self.handle(Input::Report(stream, Box::new(report))).unwrap()
    }

    pub fn accept(&mut self, stream: StreamId, task: &Assignment) -> Vec<Effect> {
        self.report(stream, Report { accepted: vec![(task.unit, task.attempt, true)], ..Report::default() })
    }

    pub fn finish(&mut self, stream: StreamId, task: &Assignment) -> Vec<Effect> {
        self.report(stream, result(task.unit, task.attempt, r#"{"value":1}"#))
    }

    pub fn break_it(&mut self, stream: StreamId, task: &Assignment, retryable: bool) -> Vec<Effect> {
        let error = JobError { code: "broke".into(), message: "it broke".into() };
        let (unit, attempt) = (task.unit, task.attempt);
        let failure = UnitFailure { unit, attempt, error, retryable, retry_after_ms: 0, unasked: false };
        self.report(stream, Report { failures: vec![failure], ..Report::default() })
    }

    /// Its worker did not ask anybody, as its key rests for a minute.
    pub fn break_unasked(&mut self, stream: StreamId, task: &Assignment) -> Vec<Effect> {
        let error = JobError { code: "rate_limited".into(), message: "again in 60 s".into() };
        let (unit, attempt) = (task.unit, task.attempt);
        let failure = UnitFailure { unit, attempt, error, retryable: true, retry_after_ms: 60_000, unasked: true };
        self.report(stream, Report { failures: vec![failure], ..Report::default() })
    }

    pub fn state(&self, id: JobId) -> JobState {
        self.core.job_view(id).unwrap().state
    }
}

pub fn result(unit: UnitId, attempt: u64, output: &str) -> Report {
    let output = Bytes::copy_from_slice(output.as_bytes());
    Report { results: vec![UnitResult { unit, attempt, output, elapsed_ms: 5, hashes: 0 }], ..Report::default() }
}

pub fn register(id: &str) -> Register {
    Register {
        worker_id: id.parse().unwrap(),
        language: "rust".into(),
        status: "idle".into(),
        timestamp: Timestamp(0),
        protocol: Some(1),
        boot_id: "1".into(),
        version: String::new(),
        slots: BTreeMap::from([(Class::Randomx, 1), (Class::Ai, 1), (Class::Echo, 1)]),
        prefetch: BTreeMap::new(),
        kinds: Kind::ALL.to_vec(),
        models: vec!["demo".into()],
        capabilities: Capabilities { cores: 2, memory_mib: 1000, ..Capabilities::default() },
        labels: BTreeMap::new(),
    }
}

pub fn job(kind: Kind, work: Work) -> NewJob {
    NewJob {
        id: JobId::generate(),
        fingerprint: None,
        kind,
        payload: Bytes::from_static(b"{}"),
        work,
        model: None,
        randomx_key: None,
        unit_max: None,
        queue: "default".into(),
        project: None,
        priority: 5,
        max_attempts: 3,
        timeout: Duration::from_secs(600),
        deadline: None,
        run_at: None,
        requires: Requires::default(),
        depends_on: Vec::new(),
        on_dependency_failure: OnDependencyFailure::Fail,
        labels: BTreeMap::new(),
        cache: false,
        retry: None,
        owner: "ann".into(),
        api_key: None,
        conversation: None,
        turn: None,
        tokens: (0, 0),
        texts: 0,
        cache_key: None,
        ready: None,
        shares: None,
    }
}

pub fn echo() -> NewJob {
    job(Kind::Echo, Work::Single)
}

pub fn tasks(effects: &[Effect]) -> Vec<Assignment> {
    effects
        .iter()
        .filter_map(|effect| match effect {
            Effect::Publish(assignment) => Some((**assignment).clone()),
            _ => None,
        })
        .collect()
}

pub fn task(effects: &[Effect]) -> Assignment {
    let mut tasks = tasks(effects);
    assert_eq!(tasks.len(), 1, "{effects:?}");
    tasks.remove(0)
}

pub fn acks(effects: &[Effect]) -> Vec<bool> {
    effects
        .iter()
        .filter_map(|effect| match effect {
            Effect::Ack { applied, .. } => Some(*applied),
            _ => None,
        })
        .collect()
}

pub fn ended_as(effects: &[Effect]) -> Vec<AttemptOutcome> {
    effects
        .iter()
        .filter_map(|effect| match effect {
            Effect::Attempt(outcome) => Some(*outcome),
            _ => None,
        })
        .collect()
}
