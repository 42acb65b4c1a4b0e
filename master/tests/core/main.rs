//! Ring 1: the core's rules, one sentence each, with integer time.
#![allow(clippy::unwrap_used)]

mod ai;
mod algorithms;
mod bounds;
mod clock;
#[allow(dead_code)]
#[path = "../simulation/disk.rs"]
mod disk;
mod fleet;
mod mined;
mod restart;
mod retries;
mod trust;
mod workers;

use std::collections::BTreeMap;
use std::time::Duration;

use flota_master::core::{Assignment, Effect, Input};
use flota_master::handle::{Heartbeat, Hello, JobFilter, Refused, Report, StreamId, WorkerControl};
use flota_master::submit::{NewJob, Work};
use flota_proto::mqtt::{Capabilities, Register, WorkerState, WorkerStatus};
use flota_proto::rest::{AttemptOutcome, JobState, OnDependencyFailure, Requires};
use flota_proto::{Algorithm, Class, Kind, WorkerId};
use secrecy::SecretString;

use fleet::*;

#[test]
fn a_job_goes_to_a_free_worker_at_once_and_completes() {
    let mut fleet = Fleet::new();
    let (stream, _) = fleet.worker("w1");
    let job = echo();
    let id = job.id;
    let task = task(&fleet.submit(job));
    assert_eq!((task.attempt, fleet.state(id)), (1, JobState::Assigned));
    fleet.accept(stream, &task);
    assert_eq!(fleet.state(id), JobState::Computing);
    let effects = fleet.finish(stream, &task);
    assert_eq!(acks(&effects), [true]);
    assert_eq!(fleet.state(id), JobState::Completed);
}

#[test]
fn a_result_that_is_repeated_changes_nothing() {
    let mut fleet = Fleet::new();
    let (stream, _) = fleet.worker("w1");
    let task = task(&fleet.submit(echo()));
    assert_eq!(acks(&fleet.finish(stream, &task)), [true]);
    fleet.core.forget_ended();
    assert_eq!(acks(&fleet.finish(stream, &task)), [false]);
}

#[test]
fn an_expired_lease_rejects_a_late_heartbeat_and_a_late_result() {
    let mut fleet = Fleet::new();
    let (first, _) = fleet.worker("w1");
    let job = echo();
    let id = job.id;
    let old = task(&fleet.submit(job));
    fleet.accept(first, &old);
    let (second, _) = fleet.worker("w2");
    let new = task(&fleet.after(15_001));
    assert_eq!((new.attempt, new.worker.as_str()), (2, "w2"));
    let running = vec![(old.unit, old.attempt)];
    let beat = Report { heartbeat: Some(Heartbeat { running, ..Heartbeat::default() }), ..Report::default() };
    let effects = fleet.report(first, beat);
    assert!(effects.iter().any(|effect| matches!(effect, Effect::Cancel(stream, _, 1) if *stream == first)));
    assert_eq!(acks(&fleet.finish(first, &old)), [false]);
    assert_eq!(acks(&fleet.finish(second, &new)), [true]);
    assert_eq!(fleet.state(id), JobState::Completed);
}

#[test]
fn a_heartbeat_keeps_a_lease_and_only_those_that_it_lists() {
    let mut fleet = Fleet::new();
    let (stream, _) = fleet.worker_as(Register { slots: BTreeMap::from([(Class::Echo, 2)]), ..register("w1") });
    let (kept, lost) = (task(&fleet.submit(echo())), task(&fleet.submit(echo())));
    fleet.accept(stream, &kept);
    fleet.accept(stream, &lost);
    let mut outcomes = Vec::new();
    for _ in 0..4 {
        let running = vec![(kept.unit, kept.attempt)];
        let beat = Report { heartbeat: Some(Heartbeat { running, ..Heartbeat::default() }), ..Report::default() };
        fleet.report(stream, beat);
        outcomes.extend(ended_as(&fleet.after(5_000)));
    }
    assert_eq!(outcomes, [AttemptOutcome::LeaseExpired]);
    assert_eq!(fleet.state(kept.unit.job), JobState::Computing);
}

#[test]
fn an_unanswered_dispatch_costs_no_failure_and_its_worker_gets_nothing_for_a_while() {
    let mut fleet = Fleet::new();
    fleet.worker("w1");
    let job = NewJob { max_attempts: 1, ..echo() };
    let id = job.id;
    fleet.submit(job);
    let effects = fleet.after(5_001);
    assert_eq!(ended_as(&effects), [AttemptOutcome::Unanswered]);
    assert!(tasks(&effects).is_empty());
    assert_eq!((fleet.state(id), fleet.core.job_view(id).unwrap().failures), (JobState::Pending, 0));
    assert_eq!(task(&fleet.after(10_001)).attempt, 2);
}

#[test]
fn failures_wait_longer_each_time_until_the_tries_are_used_up() {
    let mut fleet = Fleet::new();
    let (stream, _) = fleet.worker("w1");
    let job = echo();
    let id = job.id;
    let mut current = task(&fleet.submit(job));
    for wait_ms in [1_000, 2_000] {
        fleet.break_it(stream, &current, true);
        assert_eq!(fleet.state(id), JobState::Scheduled);
        let waiting = fleet.core.job_view(id).unwrap().waiting.unwrap();
        assert_eq!(waiting.reason, "retry");
        current = task(&fleet.after(wait_ms));
    }
    fleet.break_it(stream, &current, true);
    let view = fleet.core.job_view(id).unwrap();
    assert_eq!((view.state, view.failures, view.error.unwrap().code.as_str()), (JobState::Failed, 3, "broke"));
}

#[test]
fn a_failure_that_no_retry_can_mend_ends_the_job_at_once() {
    let mut fleet = Fleet::new();
    let (stream, _) = fleet.worker("w1");
    let job = echo();
    let id = job.id;
    let task = task(&fleet.submit(job));
    fleet.break_it(stream, &task, false);
    assert_eq!(fleet.state(id), JobState::Failed);
}

#[test]
fn a_higher_priority_goes_first_and_owners_take_turns() {
    let mut fleet = Fleet::new();
    let mut names = BTreeMap::new();
    for (name, owner, priority) in
        [("a1", "ann", 5), ("a2", "ann", 5), ("a3", "ann", 5), ("b1", "bob", 5), ("top", "ann", 9)]
    {
        let job = NewJob { owner: owner.into(), priority, ..echo() };
        names.insert(job.id, name);
        fleet.submit(job);
    }
    let (stream, effects) = fleet.worker("w1");
    let mut order = Vec::new();
    let mut next = tasks(&effects).pop();
    while let Some(task) = next {
        order.push(names[&task.unit.job]);
        next = tasks(&fleet.finish(stream, &task)).pop();
    }
    assert_eq!(order, ["top", "a1", "b1", "a2", "a3"]);
}

#[test]
fn a_job_that_no_worker_fits_waits_and_says_why_while_others_pass() {
    let mut fleet = Fleet::new();
    fleet.worker("w1");
    let picky = NewJob { requires: Requires { cores: Some(64), ..Requires::default() }, priority: 9, ..echo() };
    let id = picky.id;
    fleet.submit(picky);
    assert_eq!(fleet.core.job_view(id).unwrap().waiting.unwrap().reason, "no_fitting_worker");
    assert_eq!(tasks(&fleet.submit(echo())).len(), 1);
    let strong = Register { capabilities: Capabilities { cores: 64, ..Capabilities::default() }, ..register("w2") };
    let (_, effects) = fleet.worker_as(strong);
    assert_eq!(task(&effects).unit.job, id);
}

#[test]
fn a_delayed_job_starts_at_its_time() {
    let mut fleet = Fleet::new();
    fleet.worker("w1");
    let job = NewJob { run_at: Some(fleet.now.after_ms(5_000)), ..echo() };
    let id = job.id;
    assert!(tasks(&fleet.submit(job)).is_empty());
    assert_eq!(fleet.state(id), JobState::Scheduled);
    assert!(tasks(&fleet.after(4_999)).is_empty());
    assert_eq!(task(&fleet.after(1)).unit.job, id);
}

#[test]
fn a_job_past_its_deadline_fails_wherever_it_stands() {
    let mut fleet = Fleet::new();
    let (stream, _) = fleet.worker("w1");
    let job = NewJob { deadline: Some(fleet.now.after_ms(3_000)), ..echo() };
    let id = job.id;
    let task = task(&fleet.submit(job));
    fleet.accept(stream, &task);
    let effects = fleet.after(3_000);
    assert_eq!(fleet.core.job_view(id).unwrap().error.unwrap().code, "deadline");
    assert!(effects.iter().any(|effect| matches!(effect, Effect::Cancel(..))));
}

#[test]
fn an_attempt_that_takes_too_long_is_a_failure() {
    let mut fleet = Fleet::new();
    let (stream, _) = fleet.worker("w1");
    let job = NewJob { timeout: Duration::from_millis(800), max_attempts: 1, ..echo() };
    let id = job.id;
    let task = task(&fleet.submit(job));
    fleet.accept(stream, &task);
    assert_eq!(fleet.core.next_deadline(), Some(fleet.now.after_ms(800)));
    assert_eq!(ended_as(&fleet.after(800)), [AttemptOutcome::TimedOut]);
    assert_eq!(fleet.core.job_view(id).unwrap().error.unwrap().code, "timeout");
}

#[test]
fn dependents_start_when_what_they_wait_for_completes() {
    let mut fleet = Fleet::new();
    let (stream, _) = fleet.worker("w1");
    let first = echo();
    let second = NewJob { depends_on: vec![first.id], ..echo() };
    let id = second.id;
    let task_one = task(&fleet.submit(first));
    fleet.submit(second);
    assert_eq!(fleet.state(id), JobState::Blocked);
    assert_eq!(task(&fleet.finish(stream, &task_one)).unit.job, id);
}

#[test]
fn dependents_of_a_failed_job_follow_their_policy() {
    for (policy, expected) in [
        (OnDependencyFailure::Fail, JobState::Failed),
        (OnDependencyFailure::Cancel, JobState::Cancelled),
        (OnDependencyFailure::Continue, JobState::Pending),
    ] {
        let mut fleet = Fleet::new();
        let first = echo();
        let first_id = first.id;
        let second = NewJob { depends_on: vec![first.id], on_dependency_failure: policy, ..echo() };
        let second_id = second.id;
        let third = NewJob { depends_on: vec![second.id], ..echo() };
        let third_id = third.id;
        for job in [first, second, third] {
            fleet.submit(job);
        }
        fleet.handle(Input::Cancel(first_id)).unwrap();
        assert_eq!(fleet.state(second_id), expected);
        let chained = if expected == JobState::Pending { JobState::Blocked } else { JobState::Failed };
        assert_eq!(fleet.state(third_id), chained, "the chain follows");
    }
}

#[test]
fn a_cancelled_job_stops_at_its_worker_and_cannot_be_cancelled_again() {
    let mut fleet = Fleet::new();
    let (stream, _) = fleet.worker("w1");
    let job = echo();
    let id = job.id;
    let task = task(&fleet.submit(job));
    fleet.accept(stream, &task);
    let effects = fleet.handle(Input::Cancel(id)).unwrap();
    assert!(effects.iter().any(|effect| matches!(effect, Effect::Cancel(s, u, 1) if (*s, *u) == (stream, task.unit))));
    assert!(matches!(fleet.handle(Input::Cancel(id)), Err(Refused::Conflict("job_ended", _))));
    assert_eq!(acks(&fleet.finish(stream, &task)), [false]);
}

fn searched(task: &Assignment, found: &str) -> Report {
    let (from, to) = task.part.unwrap();
    let output = format!(r#"{{"found":[{found}],"hashes_computed":{},"covered":[[{from},{to}]]}}"#, to - from);
    result(task.unit, task.attempt, &output)
}

#[test]
fn a_search_is_cut_as_workers_come_and_covers_its_range_exactly() {
    let mut fleet = Fleet::new();
    let (one, _) = fleet.worker("w1");
    let (two, _) = fleet.worker("w2");
    let job = job(Kind::Search(Algorithm::Randomx), Work::Range { start: 7, end: 1_007, first: false });
    let id = job.id;
    let mut open = tasks(&fleet.submit(job));
    assert_eq!(open.len(), 2, "both workers have something to do");
    while let Some(task) = open.pop() {
        let stream = if task.worker.as_str() == "w1" { one } else { two };
        open.extend(tasks(&fleet.report(stream, searched(&task, ""))));
    }
    let view = fleet.core.job_view(id).unwrap();
    let result: serde_json::Value = serde_json::from_str(view.result.unwrap().get()).unwrap();
    assert_eq!(result["covered"], serde_json::json!([[7, 1_007]]));
    assert_eq!(result["hashes_computed"], 1_000);
    assert!(view.progress.units_total > 2);
}

#[test]
fn the_first_find_stops_all_units() {
    let mut fleet = Fleet::new();
    let (one, _) = fleet.worker("w1");
    let (two, _) = fleet.worker("w2");
    let job = job(Kind::Search(Algorithm::Randomx), Work::Range { start: 0, end: 1 << 32, first: true });
    let id = job.id;
    let open = tasks(&fleet.submit(job));
    let (winner, other) = (&open[0], &open[1]);
    let (from, _) = winner.part.unwrap();
    let found = format!(r#"{{"nonce":{from},"hash":"{}"}}"#, "00".repeat(32));
    let stream = if winner.worker.as_str() == "w1" { one } else { two };
    let effects = fleet.report(stream, searched(winner, &found));
    assert_eq!(fleet.state(id), JobState::Completed);
    assert!(effects.iter().any(|effect| matches!(effect, Effect::Cancel(_, unit, _) if *unit == other.unit)));
}

#[test]
fn a_result_that_does_not_answer_its_unit_is_a_failure() {
    let mut fleet = Fleet::new();
    let (stream, _) = fleet.worker("w1");
    let job = NewJob {
        max_attempts: 1,
        ..job(Kind::Search(Algorithm::Randomx), Work::Range { start: 0, end: 10, first: false })
    };
    let id = job.id;
    let task = task(&fleet.submit(job));
    let short = r#"{"found":[],"hashes_computed":1,"covered":[[0,1]]}"#;
    fleet.report(stream, result(task.unit, task.attempt, short));
    assert_eq!(fleet.core.job_view(id).unwrap().error.unwrap().code, "bad_result");
}

#[test]
fn a_job_that_failed_can_be_retried_and_keeps_what_was_computed() {
    let mut fleet = Fleet::new();
    let (stream, _) = fleet.worker("w1");
    let search = job(Kind::Search(Algorithm::Randomx), Work::Range { start: 0, end: 1_000, first: false });
    let id = search.id;
    let first = task(&fleet.submit(search));
    let second = task(&fleet.report(stream, searched(&first, "")));
    fleet.break_it(stream, &second, false);
    let view = fleet.core.job_view(id).unwrap();
    assert_eq!(view.state, JobState::Failed);
    let kept: serde_json::Value = serde_json::from_str(view.result.unwrap().get()).unwrap();
    assert_eq!(kept["covered"], serde_json::json!([[0, first.part.unwrap().1]]));
}

#[test]
fn a_drained_worker_gets_nothing_new_and_a_resumed_one_does() {
    let mut fleet = Fleet::new();
    fleet.worker("w1");
    let id: WorkerId = "w1".parse().unwrap();
    fleet.handle(Input::Control(id.clone(), WorkerControl::Drain)).unwrap();
    assert!(tasks(&fleet.submit(echo())).is_empty());
    assert_eq!(fleet.core.worker_view(&id).unwrap().status, WorkerState::Draining);
    let effects = fleet.handle(Input::Control(id, WorkerControl::Resume)).unwrap();
    assert_eq!(tasks(&effects).len(), 1);
}

#[test]
fn a_unit_handed_back_costs_no_failure() {
    let mut fleet = Fleet::new();
    let (stream, _) = fleet.worker("w1");
    let job = NewJob { max_attempts: 1, ..echo() };
    let first = task(&fleet.submit(job));
    fleet.accept(stream, &first);
    fleet.worker("w2");
    let returned = Report { returned: vec![(first.unit, 1)], ..Report::default() };
    let again = task(&fleet.report(stream, returned));
    assert_eq!((again.worker.as_str(), again.attempt, again.failures), ("w2", 2, 0));
}

#[test]
fn a_prefetched_unit_goes_to_a_worker_that_becomes_idle() {
    let mut fleet = Fleet::new();
    let prefetch = BTreeMap::from([(Class::Randomx, 1)]);
    let (one, _) = fleet.worker_as(Register { prefetch, ..register("w1") });
    let list = || job(Kind::Hash(Algorithm::Randomx), Work::List(1));
    let (first, second) = (task(&fleet.submit(list())), task(&fleet.submit(list())));
    fleet.accept(one, &first);
    fleet.report(one, Report { accepted: vec![(second.unit, 1, false)], ..Report::default() });
    let (_, effects) = fleet.worker("w2");
    let moved = task(&effects);
    assert_eq!((moved.unit, moved.attempt, moved.worker.as_str()), (second.unit, 2, "w2"));
    assert!(effects.iter().any(|effect| matches!(effect, Effect::TakeBack(stream, _, 1) if *stream == one)));
}

#[test]
fn of_two_processes_with_one_id_the_newest_wins() {
    let mut fleet = Fleet::new();
    let (old, _) = fleet.worker("w1");
    let newer = Register { boot_id: "2".into(), ..register("w1") };
    let effects = fleet.handle(Input::Register(Box::new(newer))).unwrap();
    assert!(effects.iter().any(|effect| matches!(effect, Effect::Goodbye(s, "superseded") if *s == old)));
    let hello = Hello { worker: "w1".parse().unwrap(), boot_id: "1".into(), running: vec![], finished: vec![] };
    assert!(matches!(fleet.handle(Input::Open(hello, StreamId(99))), Err(Refused::Conflict("superseded", _))));
}

#[test]
fn a_worker_whose_process_and_stream_are_gone_is_not_waited_for() {
    let mut fleet = Fleet::new();
    let (stream, _) = fleet.worker("w1");
    let task_one = task(&fleet.submit(echo()));
    fleet.accept(stream, &task_one);
    fleet.worker("w2");
    fleet.handle(Input::Close(stream)).unwrap();
    let will = WorkerStatus {
        worker_id: "w1".parse().unwrap(),
        status: WorkerState::Offline,
        timestamp: fleet.now,
        boot_id: "1".into(),
        slots: BTreeMap::new(),
        running: BTreeMap::new(),
        hashrate: None,
        algorithms: std::collections::BTreeMap::new(),
        randomx: None,
        load: None,
    };
    let effects = fleet.handle(Input::Status(will)).unwrap();
    assert_eq!(task(&effects).worker.as_str(), "w2");
}

#[test]
fn what_waits_says_that_those_who_fit_are_set_aside() {
    let mut fleet = Fleet::new();
    for id in ["w1", "w2"] {
        fleet.worker(id);
    }
    let waiting = |fleet: &Fleet, id| fleet.core.job_view(id).unwrap().waiting.unwrap();
    let control = |fleet: &mut Fleet, id: &str, control| {
        fleet.handle(Input::Control(id.parse().unwrap(), control)).unwrap();
    };
    control(&mut fleet, "w1", WorkerControl::Pause);
    control(&mut fleet, "w2", WorkerControl::Drain);
    let job = echo();
    let id = job.id;
    fleet.submit(job);
    let said = waiting(&fleet, id);
    assert_eq!(said.reason, "workers_set_aside");
    assert_eq!(said.detail, "all workers that fit are set aside: 1 paused, 1 draining");
    control(&mut fleet, "w2", WorkerControl::Resume);
    assert_eq!(fleet.state(id), JobState::Assigned);
    let second = echo();
    let id = second.id;
    fleet.submit(second);
    assert_eq!(waiting(&fleet, id).reason, "workers_busy");
    // It never accepts, and so is left alone for a while.
    fleet.after(5_001);
    assert_eq!(waiting(&fleet, id).detail, "all workers that fit are set aside: 1 paused, 1 not answering");
}

#[test]
fn a_question_with_a_key_says_that_nobody_there_can_be_given_it() {
    let mut fleet = Fleet::new();
    fleet.handle(Input::Register(Box::new(Register { protocol: None, ..register("py") }))).unwrap();
    let question = NewJob { api_key: Some(SecretString::from("k")), ..job(Kind::AiChat, Work::Single) };
    let id = question.id;
    fleet.submit(question);
    let waiting = fleet.core.job_view(id).unwrap().waiting.unwrap();
    assert_eq!(waiting.reason, "no_fitting_worker");
    assert_eq!(waiting.detail, "no worker is there that computes ai.chat and can be given the key of the question");
}

#[test]
fn a_simple_worker_gets_one_question_at_a_time_and_nothing_after_it_let_one_time_out() {
    let mut fleet = Fleet::new();
    let simple = Register { protocol: None, ..register("py") };
    fleet.handle(Input::Register(Box::new(simple.clone()))).unwrap();
    let question = || NewJob { timeout: Duration::from_secs(20), ..job(Kind::AiChat, Work::Single) };
    let first = task(&fleet.submit(question()));
    assert!(first.simple);
    assert!(tasks(&fleet.submit(question())).is_empty());
    let effects = fleet.after(20_000);
    assert_eq!(ended_as(&effects), [AttemptOutcome::TimedOut]);
    assert!(tasks(&effects).is_empty());
    // It speaks again.
    let effects = fleet.handle(Input::Register(Box::new(simple))).unwrap();
    assert_eq!(tasks(&effects).len(), 1);
}

#[test]
fn a_question_prefers_workers_that_serve_a_model_and_waits_for_them() {
    let mut fleet = Fleet::new();
    fleet.worker("keyless");
    let (_, _) = fleet.worker_as(Register { models: vec!["gemini".into(), "demo".into()], ..register("keyed") });
    let first = task(&fleet.submit(job(Kind::AiChat, Work::Single)));
    assert_eq!(first.worker.as_str(), "keyed");
    assert!(tasks(&fleet.submit(job(Kind::AiChat, Work::Single))).is_empty(), "the keyless one is not asked");
    let demo = NewJob { model: Some("demo".into()), ..job(Kind::AiChat, Work::Single) };
    assert_eq!(task(&fleet.submit(demo)).worker.as_str(), "keyless");
}

#[test]
fn a_list_of_live_jobs_is_filtered_and_newest_first() {
    let mut fleet = Fleet::new();
    let (one, two) = (echo(), NewJob { queue: "other".into(), ..echo() });
    let ids = (one.id, two.id);
    fleet.submit(one);
    fleet.submit(two);
    let filter = JobFilter { states: vec![JobState::Pending], limit: 10, ..JobFilter::default() };
    let (jobs, next) = fleet.core.list(&filter, u64::MAX);
    assert_eq!((jobs.iter().map(|job| job.id).collect::<Vec<_>>(), next), (vec![ids.1, ids.0], None));
    let filter = JobFilter { queue: Some("other".into()), ..filter };
    assert_eq!(fleet.core.list(&filter, u64::MAX).0.len(), 1);
}

#[test]
fn the_core_holds_no_io_async_or_clock() {
    let forbidden = ["tokio", "async ", ".await", "std::fs", "std::net", "SystemTime", "Instant", "rand::", "println!"];
    let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/src/core");
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        let text = std::fs::read_to_string(&path).unwrap();
        let code = text.lines().filter(|line| !line.trim_start().starts_with("//"));
        for (number, line) in code.enumerate() {
            for word in forbidden {
                assert!(!line.contains(word), "{}:{} has '{word}': {line}", path.display(), number + 1);
            }
        }
    }
}

#[test]
fn a_retried_job_waits_again_for_what_it_waited_for_and_is_at_work_or_at_work_again() {
    let mut master = restart::Master::new();
    let (first, second) = (NewJob { max_attempts: 1, ..echo() }, echo());
    let (first_id, second_id) = (first.id, second.id);
    master.submit(first);
    let depends = NewJob { depends_on: vec![first_id], ..second };
    master.submit_after(depends, first_id);
    let stored = |master: &restart::Master, id| Box::new(master.disk.job(id).unwrap());

    // Cancelled while it waits, and retried while what it waits for is still there.
    master.handle(Input::Cancel(second_id));
    let retry = stored(&master, second_id);
    master.handle(Input::Retry(retry));
    assert_eq!(master.core.job_view(second_id).unwrap().state, JobState::Blocked);

    // Failed with what it waits for, and both retried.
    master.handle(Input::Cancel(first_id));
    assert_eq!(master.disk.job(second_id).unwrap().row.state, JobState::Failed);
    for id in [first_id, second_id] {
        let retry = stored(&master, id);
        master.handle(Input::Retry(retry));
    }
    assert_eq!(master.core.job_view(second_id).unwrap().state, JobState::Blocked);
    master.restart();
    assert_eq!(master.core.job_view(second_id).unwrap().state, JobState::Blocked);

    // Retried without it: who does so wants it to run.
    master.handle(Input::Cancel(first_id));
    let retry = stored(&master, second_id);
    master.handle(Input::Retry(retry));
    assert_eq!(master.core.job_view(second_id).unwrap().state, JobState::Pending);
}
