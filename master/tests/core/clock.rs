//! The wall clock is set, both ways: what has a date keeps it, what lasts a span of time lasts as long as before.

use std::time::Duration;

use flota_master::core::{Effect, Input, Moment};
use flota_master::handle::{Heartbeat, Report, StreamId};
use flota_master::submit::{NewJob, Work};
use flota_proto::Kind;
use flota_proto::mqtt::Register;
use flota_proto::rest::{AttemptOutcome, JobState};

use crate::fleet::*;

const HOUR: i64 = 3_600_000;

impl Fleet {
    fn set_clock(&mut self, by_ms: i64) -> Vec<Effect> {
        self.now.0 = self.now.0.saturating_add_signed(by_ms);
        let mut effects = self.handle(Input::ClockSet(by_ms)).unwrap();
        effects.extend(self.after(0));
        effects
    }
}

fn fleet() -> Fleet {
    let mut fleet = Fleet::new();
    fleet.now.0 = 1_795_254_600_000;
    fleet
}

#[test]
fn a_lease_ends_after_its_time_and_not_when_the_clock_says_so() {
    for by in [HOUR, -HOUR] {
        let mut fleet = fleet();
        let (stream, _) = fleet.worker("w1");
        let task = task(&fleet.submit(echo()));
        fleet.accept(stream, &task);
        fleet.after(10_000);
        assert!(ended_as(&fleet.set_clock(by)).is_empty(), "set by {by}");
        assert!(ended_as(&fleet.after(4_999)).is_empty(), "set by {by}");
        let running = vec![(task.unit, task.attempt)];
        let beat = Report { heartbeat: Some(Heartbeat { running, ..Heartbeat::default() }), ..Report::default() };
        fleet.report(stream, beat);
        assert!(ended_as(&fleet.after(14_999)).is_empty(), "set by {by}");
        assert_eq!(ended_as(&fleet.after(1)), [AttemptOutcome::LeaseExpired], "set by {by}");
    }
}

#[test]
fn a_wait_and_a_timeout_last_as_long_as_before() {
    for by in [HOUR, -HOUR] {
        let mut fleet = fleet();
        let (stream, _) = fleet.worker("w1");
        let first = task(&fleet.submit(NewJob { timeout: Duration::from_secs(10), ..echo() }));
        fleet.break_it(stream, &first, true);
        fleet.set_clock(by);
        assert_eq!(fleet.state(first.unit.job), JobState::Scheduled, "set by {by}");
        let second = task(&fleet.after(1_000));
        fleet.accept(stream, &second);
        fleet.set_clock(by);
        assert_eq!(ended_as(&fleet.after(10_000)), [AttemptOutcome::TimedOut], "set by {by}");
    }
}

#[test]
fn a_deadline_and_a_delayed_start_are_dates() {
    let mut fleet = fleet();
    let begin = fleet.now;
    let dead = NewJob { deadline: Some(begin.after_ms(HOUR as u64)), ..echo() };
    let late = NewJob { run_at: Some(begin.after_ms(HOUR as u64)), ..echo() };
    let (dead_id, late_id) = (dead.id, late.id);
    fleet.submit(dead);
    fleet.submit(late);
    fleet.set_clock(-HOUR);
    fleet.after(HOUR as u64 + 60_000);
    assert_eq!((fleet.state(dead_id), fleet.state(late_id)), (JobState::Pending, JobState::Scheduled));
    fleet.set_clock(HOUR);
    assert_eq!((fleet.state(dead_id), fleet.state(late_id)), (JobState::Failed, JobState::Pending));
}

#[test]
fn a_simple_workers_answer_counts_however_the_clock_was_set_meanwhile() {
    for by in [HOUR, -HOUR] {
        let mut fleet = fleet();
        fleet.handle(Input::Register(Box::new(Register { protocol: None, ..register("py") }))).unwrap();
        let asked =
            task(&fleet.submit(NewJob { timeout: Duration::from_secs(100), ..job(Kind::AiChat, Work::Single) }));
        assert!(ended_as(&fleet.set_clock(by)).is_empty(), "set by {by}");
        let held = fleet.core.held_by_simple(&asked.worker).unwrap();
        assert_eq!(held.assigned_at, asked.assigned_at, "the time of the task is its name");
        assert_eq!(ended_as(&fleet.after(100_000)), [AttemptOutcome::TimedOut], "set by {by}");
    }
}

#[test]
fn an_older_process_is_older_also_after_the_clock_was_set_back() {
    let mut fleet = fleet();
    let (stream, _) = fleet.worker_as(Register { boot_id: "2".into(), ..register("w1") });
    fleet.handle(Input::Close(stream)).unwrap();
    fleet.set_clock(-HOUR);
    let open = |fleet: &mut Fleet| {
        let hello = flota_master::handle::Hello {
            worker: "w1".parse().unwrap(),
            boot_id: "1".into(),
            running: Vec::new(),
            finished: Vec::new(),
        };
        let at = Moment { now: fleet.now, entropy: 0 };
        fleet.core.handle(at, Input::Open(hello, StreamId(9)))
    };
    assert!(open(&mut fleet).is_err());
    fleet.after(15_001);
    assert!(open(&mut fleet).is_ok(), "after a lease it may follow");
}
