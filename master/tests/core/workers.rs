//! Workers that restart, hand back, fall silent or are two.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use flota_master::core::{Asked, Input, Moment};
use flota_master::handle::{Hello, Report, StreamId, UnitText};
use flota_master::submit::{NewJob, Work};
use flota_proto::mqtt::{Register, WorkerState, WorkerStatus};
use flota_proto::rest::AttemptOutcome;
use flota_proto::{Class, Kind, Timestamp, WorkerId};

use crate::fleet::*;

fn boot(id: &str, boot_id: &str) -> Register {
    Register { boot_id: boot_id.into(), ..register(id) }
}

fn hello(id: &str, boot_id: &str) -> Hello {
    Hello { worker: id.parse().unwrap(), boot_id: boot_id.into(), running: Vec::new(), finished: Vec::new() }
}

#[test]
fn what_was_published_to_an_earlier_process_goes_to_its_successor_at_once() {
    let mut fleet = Fleet::new();
    let (old, _) = fleet.worker("w1");
    let first = task(&fleet.submit(echo()));
    fleet.handle(Input::Close(old)).unwrap();
    fleet.handle(Input::Register(Box::new(boot("w1", "2")))).unwrap();
    let effects = fleet.handle(Input::Open(hello("w1", "2"), StreamId(9))).unwrap();
    assert_eq!(ended_as(&effects), [AttemptOutcome::Returned]);
    let again = task(&effects);
    assert_eq!((again.unit, again.attempt, again.failures), (first.unit, 2, 0));
}

#[test]
fn a_process_with_an_older_boot_id_may_follow_one_that_is_gone() {
    // A machine without a clock of its own starts in the past.
    let mut fleet = Fleet::new();
    let (old, _) = fleet.worker_as(boot("w1", "7"));
    fleet.handle(Input::Close(old)).unwrap();
    assert!(fleet.handle(Input::Open(hello("w1", "3"), StreamId(9))).is_err(), "it may still be there");
    fleet.after(15_001);
    fleet.handle(Input::Register(Box::new(boot("w1", "3")))).unwrap();
    fleet.handle(Input::Open(hello("w1", "3"), StreamId(10))).unwrap();
    assert_eq!(tasks(&fleet.submit(echo())).len(), 1);
}

#[test]
fn a_simple_registration_does_not_take_over_a_connected_worker() {
    let mut fleet = Fleet::new();
    let (stream, _) = fleet.worker("w1");
    fleet.handle(Input::Register(Box::new(Register { protocol: None, ..register("w1") }))).unwrap();
    let task = task(&fleet.submit(echo()));
    assert_eq!(acks(&fleet.finish(stream, &task)), [true]);
}

#[test]
fn a_worker_that_hands_a_unit_back_is_left_alone_for_a_moment() {
    let mut fleet = Fleet::new();
    let (stream, _) = fleet.worker("w1");
    let first = task(&fleet.submit(echo()));
    let returned = Report { returned: vec![(first.unit, 1)], ..Report::default() };
    assert!(tasks(&fleet.report(stream, returned)).is_empty(), "it would hand it back again and again");
    assert_eq!(task(&fleet.after(1_000)).attempt, 2);
}

#[test]
fn a_question_waits_for_the_worker_that_serves_a_model_also_while_it_is_left_alone() {
    let mut fleet = Fleet::new();
    let (keyed, _) = fleet.worker_as(Register { models: vec!["gemini".into()], ..register("keyed") });
    let first = task(&fleet.submit(job(Kind::AiChat, Work::Single)));
    fleet.worker("keyless");
    fleet.after(5_001);
    assert!(tasks(&fleet.submit(job(Kind::AiChat, Work::Single))).is_empty(), "the keyless one is not asked");
    fleet.handle(Input::Close(keyed)).unwrap();
    assert_eq!(first.worker.as_str(), "keyed");
}

#[test]
fn a_question_that_no_worker_serves_any_more_goes_to_whoever_says_so() {
    let mut fleet = Fleet::new();
    let (keyed, _) = fleet.worker_as(Register { models: vec!["gemini".into()], ..register("keyed") });
    fleet.worker("keyless");
    let model = NewJob { model: Some("none such".into()), ..job(Kind::AiChat, Work::Single) };
    fleet.submit(model);
    fleet.submit(job(Kind::AiChat, Work::Single));
    let waits = fleet.submit(job(Kind::AiChat, Work::Single));
    assert!(tasks(&waits).is_empty());
    let effects = fleet.handle(Input::Close(keyed)).unwrap();
    assert_eq!(task(&effects).worker.as_str(), "keyless");
}

fn simple(fleet: &mut Fleet) -> WorkerId {
    fleet.handle(Input::Register(Box::new(Register { protocol: None, ..register("py") }))).unwrap();
    "py".parse().unwrap()
}

fn question() -> NewJob {
    NewJob { timeout: Duration::from_secs(20), ..job(Kind::AiChat, Work::Single) }
}

#[test]
fn a_simple_worker_whose_question_was_cancelled_is_busy_until_it_has_answered() {
    let mut fleet = Fleet::new();
    let worker = simple(&mut fleet);
    let first = task(&fleet.submit(question()));
    fleet.handle(Input::Cancel(first.unit.job)).unwrap();
    assert!(tasks(&fleet.submit(question())).is_empty());
    let Asked { unit, attempt, wanted, .. } = fleet.core.held_by_simple(&worker).unwrap();
    assert_eq!((unit, attempt, wanted), (first.unit, 1, false));
    let answer = Ok(Bytes::from_static(b"{}"));
    let effects = fleet.handle(Input::SimpleAnswer { worker, unit, attempt, answer }).unwrap();
    assert_eq!(tasks(&effects).len(), 1, "free again");
}

#[test]
fn a_simple_worker_that_never_answers_a_cancelled_question_gets_nothing_until_it_speaks() {
    let mut fleet = Fleet::new();
    simple(&mut fleet);
    let first = task(&fleet.submit(question()));
    fleet.handle(Input::Cancel(first.unit.job)).unwrap();
    fleet.submit(question());
    assert!(tasks(&fleet.after(20_000)).is_empty());
    assert!(tasks(&fleet.after(60_000)).is_empty());
    let effects = fleet.handle(Input::Register(Box::new(Register { protocol: None, ..register("py") }))).unwrap();
    assert_eq!(tasks(&effects).len(), 1);
}

/// How many questions it is given once it has said this of itself.
fn says(fleet: &mut Fleet, status: WorkerState, timestamp: u64) -> usize {
    let json = serde_json::json!({"worker_id": "py", "status": status, "timestamp": timestamp});
    let status: WorkerStatus = serde_json::from_value(json).unwrap();
    tasks(&fleet.handle(Input::Status(status)).unwrap()).len()
}

#[test]
fn what_a_simple_worker_said_before_it_left_does_not_bring_it_back() {
    let mut fleet = Fleet::new();
    simple(&mut fleet);
    says(&mut fleet, WorkerState::Offline, 2_000);
    fleet.submit(question());
    assert_eq!(says(&mut fleet, WorkerState::Busy, 1_500), 0);
    assert_eq!(says(&mut fleet, WorkerState::Idle, 2_000), 0);
    assert_eq!(says(&mut fleet, WorkerState::Idle, 2_001), 1, "said after");
}

#[test]
fn a_simple_worker_comes_back_whatever_its_clock_says() {
    let gone = || {
        let mut fleet = Fleet::new();
        simple(&mut fleet);
        says(&mut fleet, WorkerState::Offline, 9_000);
        fleet.submit(question());
        fleet
    };
    let mut fleet = gone();
    let again = Register { protocol: None, timestamp: Timestamp(5), ..register("py") };
    let effects = fleet.handle(Input::Register(Box::new(again))).unwrap();
    assert_eq!(tasks(&effects).len(), 1, "it connected again, with a clock that is behind");
    assert_eq!(says(&mut gone(), WorkerState::Idle, 0), 1, "it does not say when");
    let mut fleet = gone();
    fleet.after(60_000);
    assert_eq!(says(&mut fleet, WorkerState::Idle, 5), 1, "nothing is so late: its clock was set back");
    let mut fleet = gone();
    assert_eq!(says(&mut fleet, WorkerState::Offline, 5), 0, "a last will bears the time of connecting");
    assert_eq!(says(&mut fleet, WorkerState::Idle, 6), 1);
}

#[test]
fn one_batch_assigns_so_much_that_the_loop_is_not_held_up() {
    let mut fleet = Fleet::new();
    for _ in 0..12_000 {
        fleet.core.handle(at(&fleet), Input::Submit { job: Box::new(echo()), dependencies: Vec::new() }).unwrap();
    }
    let greedy = Register { slots: BTreeMap::from([(Class::Echo, u32::MAX)]), ..register("w1") };
    let (_, effects) = fleet.worker_as(greedy);
    assert!((1..=5_000).contains(&tasks(&effects).len()));
    assert_eq!(fleet.core.next_deadline(), Some(flota_proto::Timestamp(0)), "there is more to do at once");
    let mut assigned = tasks(&effects).len();
    for _ in 0..10 {
        assigned += tasks(&fleet.after(1)).len();
    }
    assert!((4_000..12_000).contains(&assigned), "no worker takes it all, whatever it says of itself: {assigned}");
}

fn at(fleet: &Fleet) -> Moment {
    Moment { now: fleet.now, entropy: 0 }
}

#[test]
fn text_for_late_watchers_is_bounded() {
    let mut fleet = Fleet::new();
    let (stream, _) = fleet.worker("w1");
    let first = task(&fleet.submit(echo()));
    for seq in 0..20 {
        let text = "x".repeat(500_000);
        let deltas = vec![UnitText { unit: first.unit, attempt: 1, seq, again: false, text }];
        fleet.report(stream, Report { deltas, ..Report::default() });
    }
    let events = fleet.core.events(first.unit.job, None).unwrap();
    let bytes: usize = events.iter().map(|event| event.data.to_string().len()).sum();
    assert!((500_000..5_000_000).contains(&bytes), "{bytes}");
}

#[test]
fn text_that_is_sent_again_is_told_once_and_what_was_lost_is_told() {
    let mut fleet = Fleet::new();
    let (stream, _) = fleet.worker("w1");
    let task = task(&fleet.submit(echo()));
    // 2 is lost with its stream; on the next one all comes again.
    for (seq, again) in [(0, false), (1, false), (0, true), (1, true), (2, true), (3, false), (2, true)] {
        let deltas = vec![UnitText { unit: task.unit, attempt: 1, seq, again, text: seq.to_string() }];
        fleet.report(stream, Report { deltas, ..Report::default() });
    }
    let events = fleet.core.events(task.unit.job, None).unwrap();
    let told: String = events.iter().filter_map(|event| event.data["text"].as_str()).collect();
    assert_eq!(told, "0123");
}
