//! A worker in Python that knows only the simple protocol, over a real Mosquitto.

use flota_tests::simple::{SimpleWorker, ask};
use flota_tests::{Mosquitto, Node, Rest, until};
use serde_json::{Value, json};

const FIELDS: [&str; 6] = ["api_key", "grpc_endpoint", "query", "session_id", "timestamp", "worker_id"];

async fn registered(rest: &Rest, id: &str) {
    until(&format!("{id} is known"), || async {
        let answer = rest.get(&format!("/workers/{id}")).await;
        if answer.status == 200 && answer.body["simple"] == true { Ok(()) } else { Err(answer.text) }
    })
    .await;
}

fn chat(question: &str) -> Value {
    json!({"kind": "ai.chat", "payload": {"messages": [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "an earlier question"},
        {"role": "assistant", "content": "an earlier answer"},
        {"role": "user", "content": question},
    ]}})
}

async fn task(worker: &SimpleWorker) -> Value {
    let line = worker.process.printed("task ").await;
    serde_json::from_str(line.trim_start_matches("task ")).unwrap_or_else(|e| panic!("{e} in {line}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn it_is_sent_six_fields_and_its_answer_is_the_result() {
    let broker = Mosquitto::start().await;
    let master = Node::master(&broker.url()).start().await;
    let rest = master.rest();
    let worker = SimpleWorker::join(broker.port, "py-1", &[]).await;
    registered(&rest, "py-1").await;

    let job = rest.submit(chat("what is a fleet?")).await;
    let result = rest.completed(&job).await["result"].clone();
    assert_eq!(result["text"], "WHAT IS A FLEET?");
    assert_eq!(result["provider"], "simple");
    assert_eq!(result["finish"], "complete");

    let task = task(&worker).await;
    let mut names: Vec<&String> = task.as_object().map(|o| o.keys().collect()).unwrap_or_default();
    names.sort();
    assert_eq!(names, FIELDS);
    assert_eq!(task["query"], "what is a fleet?", "of several messages the last of the user's");
    assert_eq!(task["api_key"], "", "keyless is the default");
    assert_eq!(task["grpc_endpoint"], format!("127.0.0.1:{}", master.grpc_port));
    assert!(task["timestamp"].is_u64(), "{task}");
    assert!(worker.process.printed("acknowledged").await.contains("\"success\": true"));
}

#[tokio::test(flavor = "multi_thread")]
async fn it_answers_a_page_that_knows_four_events() {
    let broker = Mosquitto::start().await;
    let master = Node::master(&broker.url()).start().await;
    let _worker = SimpleWorker::join(broker.port, "py-1", &["--answer", "reverse"]).await;
    registered(&master.rest(), "py-1").await;

    let events = ask(&master.url(), "abc", "").await;
    let names: Vec<&str> = events.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["session-id", "ai-response"], "nothing is queued while a worker is free");
    assert_eq!(events[0].1.as_str().map(str::len), Some(36), "a UUID as a bare string");
    let response = &events[1].1;
    assert_eq!(response["query"], "abc");
    assert_eq!(response["response"], "cba");
    assert_eq!(response["workerId"], "py-1");
    assert!(response["processingTime"].is_number() && response["timestamp"].is_number(), "{response}");
    assert_eq!(response["finish"], "complete");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_question_waits_in_the_queue_until_a_worker_joins() {
    let broker = Mosquitto::start().await;
    let master = Node::master(&broker.url()).start().await;
    let (url, rest) = (master.url(), master.rest());
    let asked = tokio::spawn(async move { ask(&url, "late", "").await });
    until("the question is queued", || async {
        let fleet = rest.get("/fleet").await.body;
        if fleet["queue"]["depth"].as_u64() == Some(1) { Ok(()) } else { Err(fleet) }
    })
    .await;
    let _worker = SimpleWorker::join(broker.port, "py-1", &[]).await;
    let events = asked.await.expect("the question failed");
    let names: Vec<&str> = events.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["session-id", "task-queued", "ai-response"]);
    assert_eq!(events[1].1["position"], 1);
    assert_eq!(events[2].1["response"], "LATE");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_result_sent_twice_is_acknowledged_and_counts_once() {
    let broker = Mosquitto::start().await;
    let master = Node::master(&broker.url()).start().await;
    let rest = master.rest();
    let worker = SimpleWorker::join(broker.port, "py-1", &["--twice"]).await;
    registered(&rest, "py-1").await;
    let job = rest.submit(chat("one")).await;
    rest.completed(&job).await;
    until("both were acknowledged", || async {
        let log = worker.process.log();
        let acks: Vec<&str> = log.lines().filter(|line| line.starts_with("acknowledged")).collect();
        let good = acks.len() == 2 && acks.iter().all(|ack| ack.contains("\"success\": true"));
        if good && acks[1].contains("ignored") { Ok(()) } else { Err(log) }
    })
    .await;
    let tries = rest.units(&job).await[0]["attempts"].clone();
    assert_eq!(tries.as_array().map(Vec::len), Some(1), "{tries}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_begins_with_error_is_tried_again_elsewhere() {
    let broker = Mosquitto::start().await;
    let master = Node::master(&broker.url()).start().await;
    let rest = master.rest();
    let bad = SimpleWorker::join(broker.port, "py-bad", &["--answer", "error"]).await;
    registered(&rest, "py-bad").await;
    let job = rest.submit(chat("please")).await;
    bad.process.printed("acknowledged").await;
    // First ended, so that it says nothing more; at once, since the next try waits for half a second at least.
    drop(bad);
    broker.publish("flota/workers/status", br#"{"worker_id":"py-bad","status":"offline","timestamp":9000000000000}"#);
    broker.publish("flota/workers/status", br#"{"worker_id":"py-bad","status":"idle","timestamp":8999999999999}"#);
    let _good = SimpleWorker::join(broker.port, "py-good", &[]).await;
    let ended = rest.completed(&job).await;
    assert_eq!(ended["result"]["text"], "PLEASE");
    assert!(ended["failures"].as_u64() >= Some(1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trusted_one_is_sent_the_questions_own_key_under_another_topic_root() {
    let broker = Mosquitto::start().await;
    let master = Node::master(&broker.url())
        .with("FLOTA_TOPIC_ROOT", "upb")
        .with("FLOTA_SIMPLE_WORKERS", "trusted")
        .start()
        .await;
    let worker = SimpleWorker::join(broker.port, "py-1", &["--root", "upb"]).await;
    registered(&master.rest(), "py-1").await;
    let events = ask(&master.url(), "hello", "key-of-the-user").await;
    assert_eq!(events.last().map(|(_, data)| data["response"].clone()), Some(json!("HELLO")));
    assert_eq!(task(&worker).await["api_key"], "key-of-the-user");
    let log = master.log();
    assert!(log.contains("trusted"), "the start was to say that keys travel over the topics:\n{log}");
    assert!(!log.contains("key-of-the-user"), "a key stands in the log");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_lets_a_unit_time_out_gets_nothing_until_it_speaks() {
    let broker = Mosquitto::start().await;
    let master = Node::master(&broker.url()).start().await;
    let rest = master.rest();
    let silent = SimpleWorker::join(broker.port, "py-1", &["--silent"]).await;
    registered(&rest, "py-1").await;
    let mut body = chat("anyone?");
    body["timeout_ms"] = json!(1_500);
    body["max_attempts"] = json!(2);
    let job = rest.submit(body).await;
    silent.process.printed("task ").await;
    let waiting = until("the unit has timed out and waits for another worker", || async {
        let job = rest.job(&job).await;
        if job["failures"] == 1 && job["state"] == "pending" { Ok(job) } else { Err(job) }
    })
    .await;
    assert!(!waiting["waiting"].is_null(), "{waiting}");
    assert_eq!(silent.process.log().matches("task ").count(), 1);
    let _other = SimpleWorker::join(broker.port, "py-2", &[]).await;
    assert_eq!(rest.completed(&job).await["result"]["text"], "ANYONE?");
}
