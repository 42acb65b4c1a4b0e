//! Bad input over REST: exact status, the path of the wrong field, and the fleet goes on.

use flota_tests::{Answer, Node, node::workers_ready};
use reqwest::Method;
use serde_json::{Value, json};

fn problem(answer: &Answer, status: u16, field: Option<&str>, says: &str) {
    assert_eq!(answer.status, status, "{}", answer.text);
    assert_eq!(answer.header("content-type"), "application/problem+json", "{}", answer.text);
    for name in ["type", "title", "detail", "code", "trace_id"] {
        assert!(answer.body[name].as_str().is_some_and(|text| !text.is_empty()), "no {name} in {}", answer.text);
    }
    assert_eq!(answer.body["status"], status);
    if let Some(field) = field {
        assert_eq!(answer.body["field"], field, "{}", answer.text);
    }
    let detail = answer.body["detail"].as_str().unwrap_or_default();
    assert!(detail.contains(says), "'{says}' is not in '{detail}'");
}

fn search(change: impl FnOnce(&mut Value)) -> Value {
    let mut payload = json!({"key": "00", "blob": "00".repeat(43), "nonce_offset": 39, "nonce_start": 0,
        "nonce_end": 10, "target": "ff".repeat(32), "find": "all"});
    change(&mut payload);
    json!({"kind": "randomx.search", "payload": payload})
}

fn sha256d(change: impl FnOnce(&mut Value)) -> Value {
    let mut job = search(|payload| drop(payload.as_object_mut().map(|payload| payload.remove("key"))));
    change(&mut job["payload"]);
    job["kind"] = json!("sha256d.search");
    job
}

fn hash(key: &str, inputs: Value) -> Value {
    json!({"kind": "randomx.hash", "payload": {"key": key, "inputs": inputs}})
}

fn echo(name: &str, value: Value) -> Value {
    let mut job = json!({"kind": "echo", "payload": {"value": 1}});
    job[name] = value;
    job
}

/// What is sent, the path that the error names, a part of what it says.
fn cases() -> Vec<(Value, &'static str, &'static str)> {
    let unknown_job = "0192f0c1-2345-7abc-8def-0123456789ab";
    vec![
        (json!({"kind": "dance", "payload": {}}), "kind", "'dance'"),
        (json!({"kind": "echo", "payload": {"value": 1}, "colour": "red"}), "colour", "unknown field"),
        (json!({"kind": "echo", "payload": {"value": 1, "colour": "red"}}), "payload.colour", "unknown field"),
        (json!({"kind": "echo"}), "payload", "missing"),
        (json!({"payload": {"value": 1}}), "kind", "missing"),
        (json!({"kind": 5, "payload": {"value": 1}}), "kind", "string"),
        (json!({"kind": "echo", "payload": {}}), "payload.value", "missing"),
        (json!({"kind": "echo", "payload": {"value": 1, "sleep_ms": "long"}}), "payload.sleep_ms", "invalid type"),
        (json!({"kind": "echo", "payload": {"value": 1, "sleep_ms": -1}}), "payload.sleep_ms", "invalid value"),
        (hash("00", json!(["abc"])), "payload.inputs[0]", "even number"),
        (hash("00", json!(["00", "zz"])), "payload.inputs[1]", "hex"),
        (hash("00", json!([])), "payload.inputs", "at least one"),
        (hash(&"00".repeat(61), json!(["00"])), "payload.key", "at most 60 bytes"),
        (search(|p| p["nonce_end"] = json!(0)), "payload.nonce_end", "empty or reversed"),
        (search(|p| p["nonce_start"] = json!(11)), "payload.nonce_end", "reversed"),
        (search(|p| p["nonce_end"] = json!((1_u64 << 32) + 1)), "payload.nonce_end", "2^32"),
        (search(|p| p["target"] = json!("ff".repeat(31))), "payload.target", "32 bytes"),
        (search(|p| p["nonce_offset"] = json!(40)), "payload.nonce_offset", "blob"),
        (search(|p| p["find"] = json!("some")), "payload.find", "some"),
        (sha256d(|p| p["key"] = json!("00")), "payload.key", "sha256d has none"),
        (sha256d(|p| p["blob"] = json!("00".repeat(1025))), "payload.blob", "1024 bytes"),
        (sha256d(|p| p["target"] = json!("ffff001d")), "payload.target", "32 bytes"),
        (sha256d(|p| p["nonce_end"] = json!((1_u64 << 32) + 1)), "payload.nonce_end", "2^32"),
        (search(|p| drop(p.as_object_mut().map(|p| p.remove("key")))), "payload.key", "missing field"),
        (json!({"kind": "sha256d.hash", "payload": {"inputs": []}}), "payload.inputs", "at least one"),
        (json!({"kind": "sha256d", "payload": {"inputs": [""]}}), "kind", "known are"),
        (json!({"kind": "ai.chat", "payload": {"messages": []}}), "payload.messages", "at least one"),
        (
            json!({"kind": "ai.chat", "payload": {"messages": [{"role": "user", "content": "x"}], "temperature": 3}}),
            "payload.temperature",
            "0 to 2",
        ),
        (echo("priority", json!(10)), "priority", "0 to 9"),
        (echo("priority", json!("urgent")), "priority", "urgent"),
        (echo("max_attempts", json!(0)), "max_attempts", "1 to 100"),
        (echo("timeout_ms", json!(0)), "timeout_ms", "1 to"),
        (echo("run_at", json!("tomorrow")), "run_at", "tomorrow"),
        (echo("depends_on", json!([unknown_job])), "depends_on[0]", unknown_job),
        (echo("id", json!("not-a-uuid")), "id", "UUID"),
        (echo("queue", json!("")), "queue", "128"),
        (echo("requires", json!({"worker_id": "a/b"})), "requires.worker_id", ""),
        (echo("labels", json!({"a=b": "c"})), "labels.a=b", ""),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn each_wrong_field_is_named_with_what_is_allowed() {
    let fleet = Node::up().start().await;
    let rest = fleet.rest();
    let mut wrong = Vec::new();
    for (body, field, says) in cases() {
        let answer = rest.post("/jobs", &body).await;
        let detail = answer.body["detail"].as_str().unwrap_or_default().to_lowercase();
        let good = answer.status == 422 && answer.body["field"] == field && detail.contains(&says.to_lowercase());
        if !good {
            wrong.push(format!("{body}\n  wanted 422 {field} '{says}'\n  got {}", answer.text));
        }
        problem(&answer, answer.status, None, "");
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    workers_ready(&rest, 1).await;
    rest.completed(&rest.echo("the fleet goes on", 0).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_json_or_too_large_or_unknown_has_its_own_status() {
    let fleet = Node::up().start().await;
    let rest = fleet.rest();
    problem(&rest.post_text("/jobs", "{\"kind\": \"echo\",").await, 400, None, "line 1");
    problem(&rest.post_text("/jobs", "").await, 400, None, "");
    problem(&rest.post_text("/jobs", "[1]").await, 422, None, "");
    let too_large = format!("{{\"kind\":\"echo\",\"payload\":{{\"value\":\"{}\"}}}}", "x".repeat(33 << 20));
    problem(&rest.post_text("/jobs", too_large).await, 413, None, "32 MiB");

    let unknown = "/jobs/0192f0c1-2345-7abc-8def-0123456789ab";
    problem(&rest.get(unknown).await, 404, None, "0192f0c1-2345-7abc-8def-0123456789ab");
    problem(&rest.get(&format!("{unknown}/units")).await, 404, None, "");
    problem(&rest.get(&format!("{unknown}/events")).await, 404, None, "");
    problem(&rest.post(&format!("{unknown}/cancel"), &json!({})).await, 404, None, "");
    problem(&rest.post(&format!("{unknown}/retry"), &json!({})).await, 404, None, "");
    problem(&rest.get("/workers/nobody").await, 404, None, "nobody");
    problem(&rest.get("/nothing-here").await, 404, None, "");
    let wrong_id = rest.get("/jobs/5").await;
    problem(&wrong_id, wrong_id.status, None, "5");
    assert!([400, 404, 422].contains(&wrong_id.status), "{}", wrong_id.text);

    problem(&rest.get("/jobs?state=asleep").await, 400, Some("state"), "asleep");
    problem(&rest.get("/jobs?limit=501").await, 400, Some("limit"), "500");
    problem(&rest.get("/jobs?cursor=%00").await, 400, Some("cursor"), "");
    problem(&rest.get("/jobs?colour=red").await, 400, Some("colour"), "");
    let put = rest.send(rest.request(Method::PUT, "/jobs").json(&json!({}))).await;
    problem(&put, 405, None, "");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_answers_each_job_in_order_and_bounds_the_whole() {
    let fleet = Node::up().start().await;
    let rest = fleet.rest();
    workers_ready(&rest, 1).await;
    let good = json!({"kind": "echo", "payload": {"value": "good"}});
    let bad = json!({"kind": "echo", "payload": {"value": 1, "sleep_ms": "x"}});
    let answer = rest.post("/jobs/batch", &json!([good, bad, good])).await.expect(201);
    let items = answer.body.as_array().cloned().unwrap_or_default();
    assert_eq!(items.len(), 3);
    assert!(items[0]["id"].is_string() && items[2]["id"].is_string(), "{}", answer.text);
    let error = items[1]["error"].to_string();
    assert!(error.contains("payload.sleep_ms"), "{error}");
    rest.completed(items[2]["id"].as_str().unwrap_or_default()).await;

    problem(&rest.post("/jobs/batch", &json!([])).await, 422, None, "");
    problem(&rest.post("/jobs/batch", &good).await, 422, None, "");
    problem(&rest.post("/jobs/batch", &Value::Array(vec![good; 10_001])).await, 422, None, "10000");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_randomx_input_and_key_are_valid() {
    let fleet = Node::up().start().await;
    let rest = fleet.rest();
    rest.post("/jobs", &hash("", json!([""]))).await.expect(201);
}

#[tokio::test(flavor = "multi_thread")]
async fn with_a_token_everything_but_files_and_probes_wants_it() {
    let fleet = Node::up().with("FLOTA_TOKEN", "s3cret-token").start().await;
    let rest = fleet.rest();
    for path in ["/jobs", "/fleet", "/workers", "//metrics"] {
        problem(&rest.get(path).await, 401, None, "");
        let wrong = rest.send(rest.request(Method::GET, path).bearer_auth("wrong")).await;
        problem(&wrong, 401, None, "");
        let right = rest.send(rest.request(Method::GET, path).bearer_auth("s3cret-token")).await;
        assert_eq!(right.status, 200, "{path}: {}", right.text);
    }
    for path in ["//", "//livez", "//readyz"] {
        assert_eq!(rest.get(path).await.status, 200, "{path}");
    }
    let wrong = rest.send(rest.request(Method::GET, "/fleet").header("authorization", "Basic xyz")).await;
    problem(&wrong, 401, None, "");
    assert!(!fleet.log().contains("s3cret-token"), "the token stands in the log");
}
