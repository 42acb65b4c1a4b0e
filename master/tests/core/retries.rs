//! What a job's own retry policy changes, and what stops a unit that kills its workers.

use flota_master::core::{Input, Limits, Moment};
use flota_master::handle::{Hello, StreamId};
use flota_master::submit::NewJob;
use flota_proto::Timestamp;
use flota_proto::mqtt::Register;
use flota_proto::rest::{AttemptOutcome, JobState, RetryPolicy};

use crate::disk::Disk;
use crate::fleet::*;

fn with_policy(policy: RetryPolicy) -> NewJob {
    NewJob { retry: Some(policy), ..echo() }
}

#[test]
fn an_error_that_the_policy_calls_final_is_not_tried_again() {
    let mut fleet = Fleet::new();
    let (stream, _) = fleet.worker("w1");
    for (never, state) in [("broke", JobState::Failed), ("another", JobState::Scheduled)] {
        let job = with_policy(RetryPolicy { never: vec![never.into()], ..RetryPolicy::default() });
        let id = job.id;
        let task = task(&fleet.submit(job));
        fleet.break_it(stream, &task, true);
        assert_eq!(fleet.state(id), state);
    }
}

#[test]
fn an_attempt_that_asked_nobody_is_no_try() {
    let mut fleet = Fleet::new();
    let (stream, _) = fleet.worker("w1");
    let job = NewJob { max_attempts: 2, ..echo() };
    let id = job.id;
    let mut current = task(&fleet.submit(job));
    for _ in 0..5 {
        fleet.break_unasked(stream, &current);
        assert_eq!((fleet.state(id), fleet.core.job_view(id).unwrap().failures), (JobState::Scheduled, 0));
        assert!(fleet.after(59_000).is_empty(), "it waits as long as the key rests");
        current = task(&fleet.after(1_000));
    }
    fleet.break_it(stream, &current, true);
    let last = task(&fleet.after(2_000));
    fleet.break_it(stream, &last, true);
    assert_eq!(fleet.state(id), JobState::Failed);
    let hurried = with_policy(RetryPolicy { never: vec!["rate_limited".into()], ..RetryPolicy::default() });
    let id = hurried.id;
    let only = task(&fleet.submit(hurried));
    fleet.break_unasked(stream, &only);
    assert_eq!(fleet.state(id), JobState::Failed, "its policy calls that final");
}

#[test]
fn a_policy_holds_after_a_restart_of_the_master() {
    let (now, mut disk) = (Timestamp(1_000_000), Disk::default());
    let mut core = flota_master::core::Core::new(Limits::default());
    let job = with_policy(RetryPolicy { backoff_ms: Some(10), backoff_max_ms: Some(20), never: vec!["x".into()] });
    let id = job.id;
    core.handle(Moment { now, entropy: 0 }, Input::Submit { job: Box::new(job), dependencies: Vec::new() }).unwrap();
    disk.commit(core.take_changes());

    let mut fleet = Fleet { core: disk.restore(Limits::default(), now), ..Fleet::new() };
    let (stream, effects) = fleet.worker("w1");
    let first = task(&effects);
    fleet.break_it(stream, &first, true);
    assert_eq!(fleet.state(id), JobState::Scheduled);
    assert_eq!(task(&fleet.after(11)).attempt, 2);
}

#[test]
fn a_unit_that_kills_its_worker_is_stopped_after_its_attempts_and_says_so() {
    let mut fleet = Fleet::new();
    let job = echo();
    let id = job.id;
    let (mut stream, _) = fleet.worker("w0");
    let mut current = task(&fleet.submit(job));
    let mut outcomes = Vec::new();
    for boot in 1..=3 {
        fleet.accept(stream, &current);
        // The process is gone; it begins again under its name with another boot id.
        let restarted = Register { boot_id: format!("boot {boot}"), ..register("w0") };
        stream = StreamId(100 + boot);
        fleet.handle(Input::Register(Box::new(restarted.clone()))).unwrap();
        let (worker, boot_id) = (restarted.worker_id, restarted.boot_id);
        let mut effects = fleet
            .handle(Input::Open(Hello { worker, boot_id, running: Vec::new(), finished: Vec::new() }, stream))
            .unwrap();
        if tasks(&effects).is_empty() {
            effects.extend(fleet.after(61_000));
        }
        outcomes.extend(ended_as(&effects));
        match tasks(&effects).pop() {
            Some(next) => current = next,
            None => break,
        }
    }
    let view = fleet.core.job_view(id).unwrap();
    assert_eq!((view.state, view.failures), (JobState::Failed, 3), "{outcomes:?}");
    assert_eq!(outcomes, [AttemptOutcome::LeaseExpired; 3]);
    let error = view.error.unwrap();
    assert_eq!(error.code, "worker_died");
    assert!(error.message.contains("w0 died") && error.message.contains("3 attempts"), "{}", error.message);
}
