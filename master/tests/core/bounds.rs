//! What the core refuses so that it stays bounded.

use bytes::Bytes;
use flota_master::core::{Effect, Input, Limits, Moment};
use flota_master::handle::{Hello, Refused, Report, StreamId, UnitResult};
use flota_master::submit::{NewJob, Work};
use flota_proto::mqtt::Register;
use flota_proto::rest::JobState;
use flota_proto::{Algorithm, HexBytes, Kind};

use crate::fleet::*;

fn submit(fleet: &mut Fleet, job: NewJob) -> Result<Vec<Effect>, Refused> {
    fleet.handle(Input::Submit { job: Box::new(job), dependencies: Vec::new() })
}

fn owned(owner: &str) -> NewJob {
    NewJob { owner: owner.into(), ..echo() }
}

#[test]
fn an_owner_at_its_bound_is_refused_until_a_job_of_its_own_ends_and_others_are_not() {
    let mut fleet = Fleet::with(Limits { owner_jobs_max: 2, ..Limits::default() });
    let first = owned("ann");
    let id = first.id;
    submit(&mut fleet, first).unwrap();
    submit(&mut fleet, owned("ann")).unwrap();
    assert!(matches!(submit(&mut fleet, owned("ann")), Err(Refused::Busy { retry_after_seconds: 1.., .. })));
    assert!(fleet.core.check_room("bob", 2).is_ok() && fleet.core.check_room("bob", 3).is_err());
    submit(&mut fleet, owned("bob")).unwrap();
    fleet.handle(Input::Cancel(id)).unwrap();
    fleet.core.forget_ended();
    submit(&mut fleet, owned("ann")).unwrap();
    fleet.core.audit().unwrap();
}

#[test]
fn a_full_queue_refuses_everybody() {
    let mut fleet = Fleet::with(Limits { live_jobs_max: 1, ..Limits::default() });
    submit(&mut fleet, owned("ann")).unwrap();
    let refused = submit(&mut fleet, owned("bob")).unwrap_err();
    assert!(refused.to_string().contains("FLOTA_JOBS_MAX"), "{refused}");
}

#[test]
fn a_payload_beyond_the_bound_is_refused_with_its_path() {
    let mut fleet = Fleet::with(Limits { payload_bytes_max: 100, ..Limits::default() });
    let large = NewJob { payload: Bytes::from(vec![b' '; 101]), ..echo() };
    match submit(&mut fleet, large) {
        Err(Refused::Invalid(error)) => assert_eq!(error.path, "payload"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_result_beyond_the_bound_fails_its_job_and_is_not_tried_again() {
    let mut fleet = Fleet::with(Limits { result_bytes_max: 1_000, ..Limits::default() });
    let (stream, _) = fleet.worker("w1");
    let job = echo();
    let id = job.id;
    let task = task(&fleet.submit(job));
    let output = Bytes::from(format!(r#"{{"value":"{}"}}"#, "x".repeat(1_000)));
    let result = UnitResult { unit: task.unit, attempt: task.attempt, output, elapsed_ms: 1, hashes: 0 };
    fleet.report(stream, Report { results: vec![result], ..Report::default() });
    let view = fleet.core.job_view(id).unwrap();
    assert_eq!((view.state, view.error.unwrap().code.as_str()), (JobState::Failed, "result_too_large"));
}

#[test]
fn a_search_that_finds_too_much_ends_with_what_it_found() {
    let mut fleet = Fleet::with(Limits { result_bytes_max: 10_000, ..Limits::default() });
    let (stream, _) = fleet.worker("w1");
    let work = Work::Range { start: 0, end: 1_000_000, first: false };
    let job = NewJob { kind: Kind::Search(Algorithm::Randomx), work, ..echo() };
    let id = job.id;
    let mut effects = fleet.submit(job);
    for _ in 0..200 {
        let Some(task) = tasks(&effects).first().cloned() else { break };
        let (from, to) = task.part.unwrap();
        let found: Vec<_> =
            (from..to).map(|nonce| flota_proto::kinds::Found { nonce, hash: HexBytes(vec![0; 32]) }).collect();
        let result = flota_proto::kinds::SearchResult {
            found,
            hashes_computed: to - from,
            covered: vec![[from, to]],
            proof: Vec::new().into(),
        };
        let output = serde_json::to_vec(&result).unwrap().into();
        let result = UnitResult { unit: task.unit, attempt: task.attempt, output, elapsed_ms: 1, hashes: to - from };
        effects = fleet.report(stream, Report { results: vec![result], ..Report::default() });
    }
    let view = fleet.core.job_view(id).unwrap();
    assert_eq!((view.state, view.error.unwrap().code.as_str()), (JobState::Failed, "result_too_large"));
    assert!(view.result.is_some(), "what was computed stays");
}

fn simple(id: &str) -> Register {
    Register { protocol: None, ..register(id) }
}

fn come(fleet: &mut Fleet, register: Register) -> Result<Vec<Effect>, Refused> {
    fleet.handle(Input::Register(Box::new(register)))
}

#[test]
fn beyond_the_bound_a_worker_is_turned_away_until_another_is_gone() {
    let mut fleet = Fleet::with(Limits { workers_max: 3, ..Limits::default() });
    let (stream, _) = fleet.worker("w1");
    for id in ["s1", "s2"] {
        come(&mut fleet, simple(id)).unwrap();
    }
    assert!(matches!(come(&mut fleet, simple("s3")), Err(Refused::Busy { .. })));
    let hello = |id: &str| Hello {
        worker: id.parse().unwrap(),
        boot_id: "1".into(),
        running: Vec::new(),
        finished: Vec::new(),
    };
    assert!(matches!(fleet.handle(Input::Open(hello("w2"), StreamId(9))), Err(Refused::Busy { .. })));
    come(&mut fleet, simple("s1")).expect("one that is known may come again");

    fleet.handle(Input::Close(stream)).unwrap();
    fleet.after(1_000);
    fleet.handle(Input::Open(hello("w2"), StreamId(9))).unwrap();
    let known = |fleet: &Fleet| -> Vec<String> {
        fleet.core.workers_view().iter().map(|worker| worker.worker_id.to_string()).collect()
    };
    assert_eq!(known(&fleet), ["s1", "s2", "w2"], "the one that was gone made room");
    fleet.core.audit().unwrap();
}

#[test]
fn a_simple_worker_that_has_said_nothing_for_long_makes_room_and_is_forgotten_on_disk_too() {
    let mut fleet = Fleet::with(Limits { workers_max: 2, ..Limits::default() });
    let come = |fleet: &mut Fleet, id: &str| {
        let came = fleet.core.handle(Moment { now: fleet.now, entropy: 0 }, Input::Register(Box::new(simple(id))));
        came.map(|_| fleet.core.take_changes())
    };
    come(&mut fleet, "s1").unwrap();
    fleet.after(1_000);
    come(&mut fleet, "s2").unwrap();
    fleet.after(59 * 60_000);
    assert!(come(&mut fleet, "s3").is_err(), "silence is not death");
    fleet.after(60_000);
    let changes = come(&mut fleet, "s3").unwrap();
    assert_eq!(changes.forgotten, ["s1".parse().unwrap()]);
    assert_eq!(changes.workers.iter().map(|row| row.id.as_str()).collect::<Vec<_>>(), ["s3"]);
    fleet.core.audit().unwrap();
}
