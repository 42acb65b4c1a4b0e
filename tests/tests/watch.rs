//! `mosquitto_sub` is how people watch: what it shows, on the embedded broker and on Mosquitto.

use flota_tests::{Mosquitto, Node, Process, node::workers_ready};
use serde_json::Value;

fn json_of(line: &str) -> Value {
    let (_, json) = line.split_once(' ').unwrap_or_default();
    serde_json::from_str(json).unwrap_or_else(|e| panic!("{e} in {line}"))
}

async fn check(fleet: &Node, workers: &Process, logs: &Process, jobs: &Process) {
    let rest = fleet.rest();
    let job = rest.echo("watched", 1_500).await;
    let busy = json_of(&workers.printed("\"busy\"").await);
    assert!(busy["worker_id"].is_string() && busy["timestamp"].is_u64() && busy["running"].is_object(), "{busy}");
    rest.completed(&job).await;
    let idle = json_of(&workers.printed("\"idle\"").await);
    assert!(idle["load"]["cpu"].is_number() && idle["slots"].is_object(), "{idle}");

    let line = json_of(&logs.printed(&job).await);
    assert!(line["source"].is_string() && line["message"].is_string() && line["timestamp"].is_u64(), "{line}");
    assert!(!logs.log().contains("watched"), "a payload stands in the logs");

    let status = json_of(&jobs.printed("completed").await);
    let mine = status["jobs"].as_array().and_then(|all| all.iter().find(|j| j["job_id"] == job.as_str())).cloned();
    assert_eq!(mine.map(|j| j["state"].clone()), Some(Value::from("completed")), "{status}");
    assert_eq!(status["dropped"], 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn logs_and_states_can_be_watched_at_the_embedded_broker() {
    let fleet = Node::up().start().await;
    workers_ready(&fleet.rest(), 1).await;
    let workers = fleet.subscribe("flota/workers/status").await;
    let logs = fleet.subscribe("flota/logs").await;
    let jobs = fleet.subscribe("flota/jobs/status").await;
    check(&fleet, &workers, &logs, &jobs).await;
    let printed = fleet.log();
    assert!(printed.contains("mosquitto_sub") && printed.contains(&fleet.mqtt_port.to_string()), "{printed}");
    let master = fleet.subscribe("flota/master/status").await;
    let status = json_of(&master.printed("online").await);
    assert_eq!(status["grpc_endpoint"], format!("127.0.0.1:{}", fleet.grpc_port));
}

#[tokio::test(flavor = "multi_thread")]
async fn logs_and_states_can_be_watched_at_mosquitto() {
    let broker = Mosquitto::start().await;
    let master = Node::master(&broker.url()).start().await;
    let worker = Node::worker("w1", &broker.url()).start().await;
    workers_ready(&master.rest(), 1).await;
    let workers = broker.subscribe("flota/workers/status").await;
    let logs = broker.subscribe("flota/logs").await;
    let jobs = broker.subscribe("flota/jobs/status").await;
    check(&master, &workers, &logs, &jobs).await;

    let state = broker.subscribe("flota/workers/w1/state").await;
    assert_eq!(json_of(&state.printed("\"w1\"").await)["worker_id"], "w1", "the latest state is retained");
    worker.kill();
    state.printed("\"offline\"").await;
}
