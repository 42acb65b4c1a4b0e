//! A whole worker against a real Mosquitto and a master that its test plays.
#![allow(clippy::unwrap_used)]

mod support;

use std::sync::Arc;

use flota_common::clock;
use flota_proto::mqtt::{Command, Control, Register, WorkerState, WorkerStatus};
use flota_proto::{Class, Kind, UnitId};
use flota_worker::executor::{Executor, echo::Echo};
use flota_worker::{StartError, Stopped, Worker};
use support::*;

const REGISTER: &str = "flota/workers/register";
const STATUS: &str = "flota/workers/status";
const STATE: &str = "flota/workers/w-1/state";

fn control(id: &str, epoch: u64, command: Command) -> Control {
    let now = clock::now().0;
    Control {
        command_id: id.into(),
        epoch,
        issued_at_ms: now,
        expires_at_ms: now + 60_000,
        command,
        args: serde_json::Value::Null,
    }
}

async fn status(fleet: &mut Fleet, topic: &str, wanted: WorkerState) -> WorkerStatus {
    let wait = async {
        loop {
            let status: WorkerStatus = fleet.message(topic).await;
            if status.status == wanted {
                return status;
            }
        }
    };
    within(wanted.as_str(), wait).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_registers_computes_what_it_is_sent_and_says_goodbye() {
    let mut fleet = Fleet::start().await;
    fleet.say_master(3, "boot");
    let worker = fleet.worker().await;
    let register: Register = fleet.message(REGISTER).await;
    assert_eq!((register.worker_id.as_str(), register.protocol, register.status.as_str()), ("w-1", Some(1), "idle"));
    assert_eq!((register.kinds, register.slots), (vec![Kind::Echo], [(Class::Echo, 256)].into()));
    assert!(register.capabilities.cores > 0 && register.capabilities.memory_mib > 0);
    let idle = status(&mut fleet, STATUS, WorkerState::Idle).await;
    assert_eq!(idle.boot_id, register.boot_id);
    let hello = fleet.report("hello", |report| report.hello.is_some()).await.hello.unwrap();
    assert_eq!((hello.worker_id.as_str(), hello.boot_id), ("w-1", register.boot_id));
    let line = fleet.welcomed().await;
    assert_eq!((line.source.as_str(), line.level.as_deref()), ("w-1", Some("info")));

    // What a replaced master says is ignored.
    fleet.send(2, vec![echo("\"old\"")]);
    fleet.send(3, vec![echo("1"), echo("{\"a\":[1.50]}")]);
    let mut results = fleet.report("results", |report| !report.results.is_empty()).await.results;
    // No order is promised.
    results.sort_by_key(|result| result.output.len());
    let outputs: Vec<_> = results.iter().map(|result| std::str::from_utf8(&result.output).unwrap()).collect();
    assert_eq!(outputs, [r#"{"value":1}"#, r#"{"value":{"a":[1.50]}}"#]);

    worker.shutdown().await;
    for topic in [STATUS, STATE] {
        status(&mut fleet, topic, WorkerState::Offline).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn it_registers_again_with_a_new_master_after_its_own_death_message_and_with_a_new_connection() {
    let mut fleet = Fleet::start().await;
    fleet.say_master(3, "one");
    let worker = fleet.worker().await;
    let register: Register = fleet.message(REGISTER).await;
    // Register for the connection and for the master may be two.
    status(&mut fleet, STATE, WorkerState::Idle).await;
    fleet.report("hello", |report| report.hello.is_some()).await;
    let registered = async |fleet: &mut Fleet, what: &str| {
        let again: Register = fleet.message(REGISTER).await;
        assert_eq!(again.boot_id, register.boot_id, "{what}");
    };
    registered(&mut fleet, "the first master").await;
    fleet.say_master(3, "two");
    registered(&mut fleet, "a new process").await;
    fleet.say_master(4, "two");
    registered(&mut fleet, "a higher epoch").await;
    // Neither says anything new, so the next registration is that after the death message.
    fleet.say_master(4, "two");
    fleet.say_master(3, "three");
    let death = serde_json::json!({"worker_id": "w-1", "status": "offline", "boot_id": register.boot_id});
    fleet.publish(STATE, &death, true);
    status(&mut fleet, STATE, WorkerState::Offline).await;
    registered(&mut fleet, "its own death").await;
    status(&mut fleet, STATE, WorkerState::Idle).await;

    // The watcher may come back after the worker: only what is retained is sure to reach it.
    fleet.restart_broker().await;
    status(&mut fleet, STATE, WorkerState::Idle).await;
    fleet.say_master(5, "four");
    registered(&mut fleet, "a new master at a new broker").await;
    worker.hurry();
    worker.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_are_carried_out_once_and_acknowledged_unless_old_or_expired() {
    let mut fleet = Fleet::start().await;
    fleet.say_master(3, "one");
    let worker = fleet.worker().await;
    fleet.welcomed().await;
    let expired = Control { expires_at_ms: 1, ..control("expired", 3, Command::Stop) };
    for command in [
        expired,
        control("old", 2, Command::Stop),
        control("pause", 3, Command::Pause),
        control("other", 3, Command::Other("dance".into())),
        control("resume", 3, Command::Resume),
        control("pause", 3, Command::Pause),
    ] {
        fleet.control(&command);
    }
    let mut done = Vec::new();
    while done.len() < 4 {
        done.extend(fleet.report("done", |report| !report.done.is_empty()).await.done);
    }
    let ids: Vec<_> = done.iter().map(|done| (done.command_id.as_str(), done.outcome == "done")).collect();
    assert_eq!(ids, [("pause", true), ("other", false), ("resume", true), ("pause", true)]);
    fleet.send(3, vec![echo("1")]);
    assert_eq!(fleet.report("a result", |report| !report.results.is_empty()).await.results.len(), 1);

    fleet.control(&control("stop", 3, Command::Stop));
    assert_eq!(within("told to stop", worker.stopped()).await, Stopped::Told);
    worker.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_not_acknowledged_is_reported_by_the_next_process() {
    let mut fleet = Fleet::start().await;
    fleet.say_master(3, "one");
    fleet.acknowledge(false);
    let worker = fleet.worker().await;
    fleet.report("hello", |report| report.hello.is_some()).await;
    let task = echo("1");
    let unit: UnitId = task.unit_id;
    fleet.send(3, vec![task]);
    let first = fleet.report("a result", |report| !report.results.is_empty()).await.results;
    worker.hurry();
    worker.shutdown().await;
    drop(worker);

    fleet.acknowledge(true);
    let worker = fleet.worker().await;
    let hello = fleet.report("hello", |report| report.hello.is_some()).await.hello.unwrap();
    assert_eq!(hello.finished.iter().map(|attempt| attempt.unit_id.clone()).collect::<Vec<_>>(), [unit.to_string()]);
    let second = fleet.report("the result again", |report| !report.results.is_empty()).await.results;
    assert_eq!(first, second);
    worker.shutdown().await;
    drop(worker);

    let worker = fleet.worker().await;
    let hello = fleet.report("hello", |report| report.hello.is_some()).await.hello.unwrap();
    assert!(hello.finished.is_empty(), "what was acknowledged is forgotten");
    worker.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_can_never_work_does_not_start() {
    let fleet = Fleet::start().await;
    let echo = || -> Vec<Arc<dyn Executor>> { vec![Arc::new(Echo)] };
    let mut config = fleet.config();
    config.topic_root = "a/#".into();
    assert!(matches!(Worker::start(config, echo()).await, Err(StartError::TopicRoot(_))));
    let mut config = fleet.config();
    config.slots = [(Class::Echo, 0)].into();
    assert!(matches!(Worker::start(config, echo()).await, Err(StartError::NoSlots)));
    let mut config = fleet.config();
    config.mqtt_url = "http://x".into();
    assert!(matches!(Worker::start(config, echo()).await, Err(StartError::Mqtt(_))));
    let worker = fleet.worker().await;
    assert!(matches!(Worker::start(fleet.config(), echo()).await, Err(StartError::Spool(_))));
    worker.shutdown().await;
}
