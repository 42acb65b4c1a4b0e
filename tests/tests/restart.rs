//! A crash at any moment loses nothing that was accepted and applies nothing twice.

use std::collections::BTreeSet;

use flota_tests::{Mosquitto, Node, Rest, node::workers_ready, until};
use serde_json::{Value, json};

const QUEUED: usize = 1_000;
const IN_WORK: usize = 10;

fn echo(value: usize, sleep_ms: u64) -> Value {
    json!({"kind": "echo", "payload": {"value": value, "sleep_ms": sleep_ms}})
}

async fn all_jobs(rest: &Rest, state: &str) -> Vec<Value> {
    let (mut jobs, mut cursor) = (Vec::new(), String::new());
    loop {
        let page = rest.get(&format!("/jobs?state={state}&limit=500{cursor}")).await.expect(200).body;
        jobs.extend(page["items"].as_array().cloned().unwrap_or_default());
        match page["next_cursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => return jobs,
        }
    }
}

/// The attempts of the job's one unit.
async fn attempts(rest: &Rest, job: &str) -> Vec<Value> {
    let units = rest.units(job).await;
    assert_eq!(units.len(), 1, "{units:?}");
    units[0]["attempts"].as_array().cloned().unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_fleet_completes_a_thousand_queued_and_ten_running_jobs_each_once() {
    let mut fleet = Node::up().with("FLOTA_WORKER_SLOTS", format!("echo={IN_WORK}")).start().await;
    let rest = fleet.rest();
    workers_ready(&rest, 1).await;

    let running = rest.batch((0..IN_WORK).map(|n| echo(n, 8_000)).collect()).await;
    for job in &running {
        rest.reaches(job, &["computing"]).await;
    }
    let queued = rest.batch((0..QUEUED).map(|n| echo(IN_WORK + n, 0)).collect()).await;
    for job in &running {
        assert_eq!(rest.job(job).await["state"], "computing", "the queue was to be filled while these run");
    }
    fleet.kill();
    fleet.start_again().await;

    let expected: BTreeSet<&String> = running.iter().chain(&queued).collect();
    until("every job has completed", || async {
        let done = all_jobs(&rest, "completed").await.len();
        if done == expected.len() { Ok(()) } else { Err(done) }
    })
    .await;
    let completed = all_jobs(&rest, "completed").await;
    let ids: BTreeSet<String> = completed.iter().filter_map(|job| job["id"].as_str().map(str::to_owned)).collect();
    assert_eq!(ids.iter().collect::<BTreeSet<_>>(), expected);

    for (value, job) in running.iter().chain(&queued).enumerate() {
        assert_eq!(rest.job(job).await["result"], json!({"value": value}));
        let outcomes: Vec<Value> = attempts(&rest, job).await.iter().map(|a| a["outcome"].clone()).collect();
        assert_eq!(outcomes.iter().filter(|o| *o == "completed").count(), 1, "job {value}: {outcomes:?}");
    }
    for job in &running {
        assert!(attempts(&rest, job).await.len() > 1, "a job that ran during the kill was to be tried again");
        assert_eq!(rest.job(job).await["failures"].as_u64().map(|n| n <= 1), Some(true));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_computes_on_while_the_master_is_killed_and_its_results_are_adopted() {
    let broker = Mosquitto::start().await;
    let mut master = Node::master(&broker.url()).start().await;
    let _worker = Node::worker("w1", &broker.url()).start().await;
    let rest = master.rest();
    workers_ready(&rest, 1).await;
    let epoch_before = fleet_epoch(&broker).await;

    // One ends while there is no master, one after its return.
    let short = rest.echo("short", 1_500).await;
    let long = rest.echo("long", 9_000).await;
    rest.reaches(&short, &["computing"]).await;
    rest.reaches(&long, &["computing"]).await;
    master.kill();
    let states = broker.subscribe("flota/workers/status").await;
    states.printed("\"echo\":1}").await;
    master.start_again().await;

    for (job, value) in [(&short, "short"), (&long, "long")] {
        let ended = rest.completed(job).await;
        assert_eq!(ended["result"], json!({"value": value}));
        let attempts = attempts(&rest, job).await;
        assert_eq!(attempts.len(), 1, "{value} was computed again: {attempts:?}");
        assert_eq!(attempts[0]["attempt"], 1);
        assert_eq!(attempts[0]["outcome"], "completed");
        assert_eq!(ended["failures"], 0);
    }
    assert!(fleet_epoch(&broker).await > epoch_before, "a master that takes charge has a higher epoch");
}

/// From the retained `master/status`.
async fn fleet_epoch(broker: &Mosquitto) -> u64 {
    let line = broker.subscribe("flota/master/status").await.printed("\"online\"").await;
    let (_, json) = line.split_once(' ').unwrap_or_default();
    let status: Value = serde_json::from_str(json).unwrap_or_else(|e| panic!("{e} in {line}"));
    status["epoch"].as_u64().unwrap_or_else(|| panic!("no epoch in {line}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_worker_costs_one_failure_and_the_job_goes_to_another() {
    let broker = Mosquitto::start().await;
    let master = Node::master(&broker.url()).start().await;
    let first = Node::worker("w1", &broker.url()).start().await;
    let rest = master.rest();
    workers_ready(&rest, 1).await;
    let job = rest.echo("x", 3_000).await;
    rest.reaches(&job, &["computing"]).await;
    let _second = Node::worker("w2", &broker.url()).start().await;
    workers_ready(&rest, 2).await;
    first.kill();

    let ended = rest.completed(&job).await;
    assert_eq!(ended["failures"], 1);
    let attempts = attempts(&rest, &job).await;
    assert_eq!(attempts.len(), 2, "{attempts:?}");
    assert_eq!(attempts[0]["outcome"], "lease_expired");
    assert_eq!(attempts[1]["worker_id"], "w2");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_is_killed_and_comes_back_loses_no_job() {
    let mut broker = Mosquitto::start().await;
    let master = Node::master(&broker.url()).start().await;
    let _worker = Node::worker("w1", &broker.url()).start().await;
    let rest = master.rest();
    workers_ready(&rest, 1).await;
    rest.completed(&rest.echo("before", 0).await).await;
    broker.kill();
    let jobs = rest.batch((0..200).map(|n| echo(n, 0)).collect()).await;
    broker.start_again().await;
    for job in &jobs {
        let ended = rest.completed(job).await;
        assert_eq!(ended["failures"], 0, "a broker's death is no failure of a job");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_orderly_stop_says_offline_and_loses_nothing() {
    let broker = Mosquitto::start().await;
    let mut master = Node::master(&broker.url()).start().await;
    let worker = Node::worker("w1", &broker.url()).start().await;
    let rest = master.rest();
    workers_ready(&rest, 1).await;
    let job = rest.submit(json!({"kind": "echo", "payload": {"value": 1}, "requires": {"worker_id": "w2"}})).await;
    let watch = broker.subscribe("flota/#").await;

    assert!(worker.stop().await.success(), "{}", worker.log());
    watch.printed("flota/workers/w1/state {\"worker_id\":\"w1\",\"status\":\"offline\"").await;
    assert!(master.stop().await.success(), "{}", master.log());
    watch.printed("flota/master/status {\"status\":\"offline\"").await;

    master.start_again().await;
    assert_eq!(rest.job(&job).await["state"], "pending");
}
