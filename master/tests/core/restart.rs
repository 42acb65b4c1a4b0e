//! What a master that starts again finds as it was left.

use std::time::Duration;

use flota_master::core::{Core, Dependency, Effect, Input, Limits, Moment, What, stored_view};
use flota_master::handle::{Hello, Report, StreamId, UnitFailure, UnitText};
use flota_master::submit::{NewJob, Work};
use flota_proto::mqtt::Register;
use flota_proto::rest::{JobError, JobState};
use flota_proto::{Algorithm, JobId, Kind, Timestamp, UnitId};

use crate::disk::Disk;
use crate::fleet::*;

/// A core whose batches are stored.
pub struct Master {
    pub core: Core,
    pub disk: Disk,
    now: Timestamp,
}

impl Master {
    pub fn new() -> Self {
        Self { core: Core::new(Limits::default()), disk: Disk::default(), now: Timestamp(1_000_000) }
    }

    pub fn handle(&mut self, input: Input) -> Vec<Effect> {
        let effects = self.core.handle(Moment { now: self.now, entropy: 0 }, input).unwrap();
        self.core.audit().unwrap();
        self.disk.commit(self.core.take_changes());
        self.core.forget_ended();
        effects
    }

    pub fn submit(&mut self, job: NewJob) -> Vec<Effect> {
        self.handle(Input::Submit { job: Box::new(job), dependencies: Vec::new() })
    }

    pub fn submit_after(&mut self, job: NewJob, id: JobId) -> Vec<Effect> {
        let dependencies = vec![Dependency { id, ended: None }];
        self.handle(Input::Submit { job: Box::new(job), dependencies })
    }

    fn after(&mut self, ms: u64) -> Vec<Effect> {
        self.now = self.now.after_ms(ms);
        self.handle(Input::Tick)
    }

    pub fn restart(&mut self) {
        self.core = self.disk.restore(Limits::default(), self.now);
        self.core.audit().unwrap();
    }
}

#[test]
fn the_progress_of_what_ended_early_is_the_part_that_is_done_live_and_from_the_store() {
    let covered = |from, to| format!(r#"{{"found":[],"hashes_computed":{},"covered":[[{from},{to}]]}}"#, to - from);
    let hashed =
        |from, to| format!(r#"{{"hashes":["{}"],"mode":"light"}}"#, vec!["00".repeat(32); to - from].join("\",\""));
    let search = job(Kind::Search(Algorithm::Sha256d), Work::Range { start: 1_000, end: 1 << 32, first: false });
    let hash = job(Kind::Hash(Algorithm::Randomx), Work::List(1_000_000));
    for (job, length) in [(search, (1_u64 << 32) - 1_000), (hash, 1_000_000)] {
        for fails in [false, true] {
            let mut master = Master::new();
            let stream = StreamId(1);
            let register = register("w1");
            let hello =
                Hello { worker: register.worker_id.clone(), boot_id: "1".into(), running: vec![], finished: vec![] };
            master.handle(Input::Register(Box::new(register)));
            master.handle(Input::Open(hello, stream));
            let job = NewJob { max_attempts: 1, ..job.clone() };
            let id = job.id;
            let (mut unit, mut done) = (task(&master.submit(job)), 0);
            for _ in 0..3 {
                let (from, to) = unit.part.unwrap();
                let output = match unit.kind {
                    Kind::Search(_) => covered(from, to),
                    _ => hashed(from as usize, to as usize),
                };
                done += to - from;
                let mut report = result(unit.unit, unit.attempt, &output);
                (report.results[0].hashes, report.results[0].elapsed_ms) = (to - from, 100);
                unit = task(&master.handle(Input::Report(stream, Box::new(report))));
            }
            let before = master.core.job_view(id).unwrap().progress;
            if fails {
                let error = JobError { code: "broke".into(), message: String::new() };
                let (unit, attempt) = (unit.unit, unit.attempt);
                let failure = UnitFailure { unit, attempt, error, retryable: false, retry_after_ms: 0, unasked: false };
                let report = Report { failures: vec![failure], ..Report::default() };
                master.core.handle(Moment { now: master.now, entropy: 0 }, Input::Report(stream, Box::new(report)))
            } else {
                master.core.handle(Moment { now: master.now, entropy: 0 }, Input::Cancel(id))
            }
            .unwrap();
            let live = master.core.job_view(id).unwrap();
            assert_eq!(live.state, if fails { JobState::Failed } else { JobState::Cancelled });
            master.disk.commit(master.core.take_changes());
            let stored = master.disk.job(id).unwrap();
            let stored = stored_view(&stored.head, &stored.row);
            let part = done as f64 / length as f64;
            for progress in [before, live.progress, stored.progress] {
                assert!((progress.fraction - part).abs() < 1e-12, "{progress:?}, {part}");
                assert_eq!((progress.units_done, progress.units_total), (3, before.units_total), "{progress:?}");
            }
        }
    }
}

#[test]
fn a_deadline_that_a_retry_lifted_does_not_come_back() {
    let mut master = Master::new();
    let job = NewJob { deadline: Some(master.now.after_ms(1_000)), ..echo() };
    let id = job.id;
    master.submit(job);
    master.after(1_000);
    let stored = master.disk.job(id).unwrap();
    assert_eq!(stored.row.state, JobState::Failed);
    master.handle(Input::Retry(Box::new(stored)));
    master.restart();
    master.after(1_000);
    assert_eq!(master.disk.job(id).unwrap().row.state, JobState::Pending);
}

#[test]
fn a_simple_worker_that_let_a_question_time_out_is_not_asked_again() {
    let mut master = Master::new();
    master.handle(Input::Register(Box::new(Register { protocol: None, ..register("py") })));
    let question = || NewJob { timeout: Duration::from_secs(20), ..job(Kind::AiChat, Work::Single) };
    assert_eq!(tasks(&master.submit(question())).len(), 1);
    master.after(20_000);
    master.restart();
    assert!(tasks(&master.submit(question())).is_empty());
}

#[test]
fn a_number_of_an_event_that_was_told_is_never_told_again_however_often_masters_restart() {
    let mut master = Master::new();
    let worker = || register("w1");
    let mut told = Vec::new();
    let id = {
        let job = echo();
        let id = job.id;
        master.handle(Input::Register(Box::new(worker())));
        master.handle(Input::Open(hello(Vec::new()), StreamId(1)));
        told.extend(events(&master.submit(job)));
        id
    };
    let unit = UnitId { job: id, index: 0 };
    for stream in 2..5 {
        master.restart();
        master.handle(Input::Register(Box::new(worker())));
        told.extend(events(&master.handle(Input::Open(hello(vec![(unit, 1)]), StreamId(stream)))));
        let deltas = vec![UnitText { unit, attempt: 1, seq: stream, again: false, text: "text".into() }];
        let report = Report { accepted: vec![(unit, 1, true)], deltas, ..Report::default() };
        told.extend(events(&master.handle(Input::Report(StreamId(stream), Box::new(report)))));
    }
    assert!(told.len() > 6 && told.is_sorted_by(|a, b| a < b), "{told:?}");
}

#[test]
fn text_that_an_earlier_master_may_have_told_is_not_told_again() {
    let mut master = Master::new();
    master.handle(Input::Register(Box::new(register("w1"))));
    master.handle(Input::Open(hello(Vec::new()), StreamId(1)));
    let job = echo();
    let unit = UnitId { job: job.id, index: 0 };
    master.submit(job);
    master.restart();
    master.handle(Input::Open(hello(vec![(unit, 1)]), StreamId(2)));
    let text = |(seq, again): (u64, bool)| UnitText { unit, attempt: 1, seq, again, text: seq.to_string() };
    let deltas = [(0, true), (1, true), (2, false), (1, true), (2, true), (3, true)].map(text).into();
    let told = master.handle(Input::Report(StreamId(2), Box::new(Report { deltas, ..Report::default() })));
    let text = |effect: &Effect| match effect {
        Effect::Event { event, .. } => match &event.what {
            What::Delta { text } => Some(text.clone()),
            What::State { .. } | What::Progress { .. } => None,
        },
        _ => None,
    };
    assert_eq!(told.iter().filter_map(text).collect::<String>(), "23");
}

#[test]
fn after_a_restore_no_attempt_has_a_number_that_was_given_before() {
    let mut master = Master::new();
    master.handle(Input::Register(Box::new(register("w1"))));
    master.handle(Input::Open(hello(Vec::new()), StreamId(1)));
    let job = echo();
    let unit = UnitId { job: job.id, index: 0 };
    assert_eq!(tasks(&master.submit(job))[0].attempt, 1);
    master.restart();
    master.core.number_attempts_above(1_000);
    let lost = master.after(15_000);
    assert_eq!(ended_as(&lost), [flota_proto::rest::AttemptOutcome::Lost]);
    master.handle(Input::Register(Box::new(register("w1"))));
    let again = tasks(&master.handle(Input::Open(hello(Vec::new()), StreamId(2))));
    assert_eq!((again[0].unit, again[0].attempt), (unit, 1_001));
}

fn hello(running: Vec<(UnitId, u64)>) -> Hello {
    Hello { worker: "w1".parse().unwrap(), boot_id: "1".into(), running, finished: Vec::new() }
}

fn events(effects: &[Effect]) -> Vec<u64> {
    let seq = |effect: &Effect| match effect {
        Effect::Event { event, .. } => Some(event.seq),
        _ => None,
    };
    effects.iter().filter_map(seq).collect()
}
