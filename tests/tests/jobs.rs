//! What can be asked of a job: keys, dependencies, times, cancelling, retrying, priorities.

use std::time::Duration;

use flota_tests::{Node, Rest, node::workers_ready, until::until_within};
use reqwest::Method;
use serde_json::{Value, json};

async fn fleet() -> (Node, Rest) {
    let fleet = Node::up().start().await;
    let rest = fleet.rest();
    workers_ready(&rest, 1).await;
    (fleet, rest)
}

fn echo(value: impl Into<Value>) -> Value {
    json!({"kind": "echo", "payload": {"value": value.into()}})
}

fn with(mut job: Value, name: &str, value: Value) -> Value {
    job[name] = value;
    job
}

async fn post_with_key(rest: &Rest, path: &str, key: &str, body: &Value) -> flota_tests::Answer {
    rest.send(rest.request(Method::POST, path).header("idempotency-key", key).json(body)).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_submitted_job_has_a_location_and_all_its_fields() {
    let (_fleet, rest) = fleet().await;
    let answer = rest.post("/jobs", &with(echo(json!({"a": [1, "ñ"]})), "labels", json!({"team": "blue"}))).await;
    let answer = answer.expect(201);
    let id = answer.body["id"].as_str().unwrap_or_default().to_owned();
    assert_eq!(answer.header("location"), format!("/api/v1/jobs/{id}"));
    let job = rest.get(&format!("/jobs/{id}?wait_ms=30000")).await.expect(200).body;
    assert_eq!(job["state"], "completed", "{job}");
    assert_eq!(job["result"], json!({"value": {"a": [1, "ñ"]}}));
    assert_eq!((job["queue"].as_str(), job["priority"].as_u64()), (Some("default"), Some(5)));
    assert_eq!((job["owner"].as_str(), job["max_attempts"].as_u64()), (Some("local"), Some(3)));
    assert_eq!(job["progress"], json!({"fraction": 1.0, "units_total": 1, "units_done": 1}));
    for time in ["created_at", "started_at", "finished_at"] {
        assert!(job[time].as_str().is_some_and(|text| text.ends_with('Z') && text.contains('T')), "{time}: {job}");
    }
    let found = rest.get("/jobs?label=team=blue&kind=echo&state=completed").await.expect(200).body;
    assert_eq!(found["items"][0]["id"], id.as_str());
    assert_eq!(rest.get("/jobs?label=team=red").await.body["items"], json!([]));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idempotency_key_answers_the_same_job_and_refuses_another_body() {
    let (mut fleet, rest) = fleet().await;
    let first = post_with_key(&rest, "/jobs", "k1", &echo(1)).await.expect(201);
    let again = post_with_key(&rest, "/jobs", "k1", &echo(1)).await.expect(201);
    assert_eq!(again.body["id"], first.body["id"]);
    let other = post_with_key(&rest, "/jobs", "k1", &echo(2)).await;
    assert_eq!(other.status, 422, "{}", other.text);

    let batch = json!([echo(1), echo(2)]);
    let first = post_with_key(&rest, "/jobs/batch", "k2", &batch).await.expect(201);
    // The key survives a crash: it is in the store with the jobs.
    fleet.kill();
    fleet.start_again().await;
    let again = post_with_key(&rest, "/jobs/batch", "k2", &batch).await.expect(201);
    assert_eq!(again.body, first.body);
}

#[tokio::test(flavor = "multi_thread")]
async fn failed_jobs_are_counted_and_started_again_by_filter() {
    let (_fleet, rest) = fleet().await;
    // Fails once and for all, and completes when it is asked for again.
    let failing = |queue: &str| {
        let payload = json!({"value": 1, "fail": {"times": 1, "retryable": false}});
        json!({"kind": "echo", "payload": payload, "queue": queue})
    };
    let batch = json!([failing("a"), failing("a"), failing("b"), echo(1)]);
    let ids: Vec<String> = rest
        .post("/jobs/batch", &batch)
        .await
        .expect(201)
        .body
        .as_array()
        .into_iter()
        .flatten()
        .map(|answer| answer["id"].as_str().unwrap_or_default().to_owned())
        .collect();
    for id in &ids {
        rest.get(&format!("/jobs/{id}?wait_ms=30000")).await.expect(200);
    }
    let retry = async |body: Value| rest.post("/jobs/retry", &body).await;
    let code = rest.get(&format!("/jobs/{}", ids[0])).await.body["error"]["code"].clone();
    let counted = retry(json!({"queue": "a", "code": code, "dry_run": true})).await.expect(200).body;
    assert_eq!((&counted["matched"], &counted["retried"]), (&json!(2), &json!(0)), "{counted}");
    assert_eq!(retry(json!({"code": "no_such"})).await.expect(200).body["matched"], 0);
    assert_eq!(retry(json!({"owner": "nobody"})).await.expect(200).body["matched"], 0);
    let listed = async |query: &str| {
        rest.get(&format!("/jobs?{query}")).await.expect(200).body["items"].as_array().map(Vec::len)
    };
    let code = code.as_str().unwrap_or_default();
    assert_eq!(listed(&format!("queue=a&code={code}")).await, Some(2));
    assert_eq!(listed("queue=a&code=no_such").await, Some(0));
    assert_eq!(listed("queue=a&owner=nobody").await, Some(0));
    assert_eq!(listed("queue=a&state=pending&code=no_such").await, Some(0));
    assert_eq!(retry(json!({"state": ["completed"]})).await.status, 422);
    assert_eq!(retry(json!({"stat": ["failed"]})).await.status, 422);
    let done = retry(json!({"queue": "a"})).await.expect(200).body;
    assert_eq!((&done["matched"], &done["retried"], &done["refused"]), (&json!(2), &json!(2), &json!([])), "{done}");
    for id in &ids[..2] {
        let job = rest.get(&format!("/jobs/{id}?wait_ms=30000")).await.expect(200).body;
        assert_ne!(job["finished_at"], Value::Null, "{job}");
        assert!(
            rest.get(&format!("/jobs/{id}/units")).await.body["items"][0]["attempts"]
                .as_array()
                .is_some_and(|tries| tries.len() == 2)
        );
    }
    let left = rest.get("/jobs?state=failed&queue=b").await.body;
    assert_eq!(left["items"].as_array().map(Vec::len), Some(1), "{left}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_id_chosen_by_the_client_answers_the_existing_job_or_409() {
    let (_fleet, rest) = fleet().await;
    let id = uuid::Uuid::now_v7().to_string();
    let body = with(echo(1), "id", json!(id));
    assert_eq!(rest.post("/jobs", &body).await.expect(201).body["id"], id.as_str());
    let again = rest.post("/jobs", &body).await;
    assert!([200, 201].contains(&again.status), "{}", again.text);
    assert_eq!(again.body["id"], id.as_str());
    assert_eq!(rest.post("/jobs", &with(echo(2), "id", json!(id))).await.status, 409);
}

#[tokio::test(flavor = "multi_thread")]
async fn jobs_wait_for_those_that_they_depend_on() {
    let (_fleet, rest) = fleet().await;
    let first = rest.echo("first", 1_500).await;
    let after = rest.submit(with(echo("after"), "depends_on", json!([first]))).await;
    let waiting = rest.job(&after).await;
    assert_eq!(waiting["state"], "blocked", "{waiting}");
    assert_eq!(waiting["waiting"]["reason"], "dependencies");
    let after = rest.completed(&after).await;
    let before = rest.job(&first).await;
    assert!(after["started_at"].as_str() >= before["finished_at"].as_str(), "{after} {before}");

    let broken =
        rest.submit(json!({"kind": "echo", "payload": {"value": 1, "fail": {"times": 9, "retryable": false}}})).await;
    let follow =
        |policy: &str| with(with(echo(policy), "depends_on", json!([broken])), "on_dependency_failure", json!(policy));
    for (policy, state) in [("fail", "failed"), ("cancel", "cancelled"), ("continue", "completed")] {
        let job = rest.submit(follow(policy)).await;
        assert_eq!(rest.ended(&job).await["state"], state);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delayed_start_waits_for_its_time() {
    let (_fleet, rest) = fleet().await;
    let at = flota_tests::rest::in_future(Duration::from_secs(3));
    let job = rest.submit(with(echo("later"), "run_at", json!(at))).await;
    let waiting = rest.job(&job).await;
    assert_eq!(waiting["state"], "scheduled", "{waiting}");
    assert_eq!(waiting["waiting"]["reason"], "run_at");
    let done = rest.completed(&job).await;
    assert!(done["started_at"].as_str() >= Some(at.as_str()), "{done} started before {at}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deadline_that_passes_fails_the_job() {
    let (_fleet, rest) = fleet().await;
    let at = flota_tests::rest::in_future(Duration::from_secs(1));
    let job = json!({"kind": "echo", "payload": {"value": 1, "sleep_ms": 60_000}, "deadline": at});
    let ended = rest.ended(&rest.submit(job).await).await;
    assert_eq!(
        (ended["state"].as_str(), ended["error"]["code"].as_str()),
        (Some("failed"), Some("deadline")),
        "{ended}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn cancelling_stops_the_work_within_a_second() {
    let (_fleet, rest) = fleet().await;
    let job = rest.echo("long", 600_000).await;
    rest.reaches(&job, &["computing"]).await;
    let cancelled = rest.post(&format!("/jobs/{job}/cancel"), &json!({})).await.expect(200);
    assert_eq!(cancelled.body["state"], "cancelled");
    // Its state is published twice a second at most: a second of work and one to be heard of.
    until_within(Duration::from_secs(2), "the worker has stopped", || async {
        let worker = rest.get("/workers").await.body["items"][0].clone();
        if worker["running"]["echo"].as_u64().unwrap_or(0) == 0 { Ok(()) } else { Err(worker) }
    })
    .await;
    assert_eq!(rest.post(&format!("/jobs/{job}/cancel"), &json!({})).await.status, 409);
    assert_eq!(rest.patch(&format!("/jobs/{job}"), &json!({"priority": 9})).await.status, 409);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failure_is_tried_again_and_a_failed_job_can_be_retried() {
    let (_fleet, rest) = fleet().await;
    let fails = |times: u32, retryable: bool| {
        json!({"kind": "echo", "max_attempts": 2,
            "payload": {"value": "x", "fail": {"times": times, "retryable": retryable}}})
    };
    let once = rest.completed(&rest.submit(fails(1, true)).await).await;
    assert_eq!(once["failures"], 1);
    let for_good = rest.ended(&rest.submit(fails(1, false)).await).await;
    assert_eq!((for_good["state"].as_str(), for_good["failures"].as_u64()), (Some("failed"), Some(1)), "{for_good}");
    assert!(for_good["error"]["code"].is_string() && for_good["error"]["message"].is_string(), "{for_good}");

    let job = rest.submit(fails(2, true)).await;
    assert_eq!(rest.ended(&job).await["state"], "failed");
    assert_eq!(rest.post(&format!("/jobs/{job}/retry"), &json!({})).await.expect(200).body["failures"], 0);
    let again = rest.ended(&job).await;
    assert_eq!(again["id"], job.as_str(), "a retry keeps the id");
    assert_eq!(rest.units(&job).await[0]["attempts"].as_array().map(Vec::len), Some(4));
    let done = rest.echo("fine", 0).await;
    rest.completed(&done).await;
    assert_eq!(rest.post(&format!("/jobs/{done}/retry"), &json!({})).await.status, 409);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_waiting_job_says_why_and_its_priority_can_be_changed() {
    let (_fleet, rest) = fleet().await;
    let nowhere = with(echo(1), "requires", json!({"labels": {"zone": "moon"}}));
    let job = rest.submit(nowhere).await;
    let waiting = rest.job(&job).await;
    assert_eq!(waiting["state"], "pending");
    assert_eq!(waiting["waiting"]["reason"], "no_fitting_worker", "{waiting}");
    assert!(waiting["waiting"]["detail"].as_str().is_some_and(|text| !text.is_empty()));
    let changed = rest.patch(&format!("/jobs/{job}"), &json!({"priority": "high"})).await.expect(200);
    assert_eq!(changed.body["priority"], 8);
    assert_eq!(rest.patch(&format!("/jobs/{job}"), &json!({"priority": 11})).await.status, 422);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_highest_priority_is_served_first_and_owners_take_turns() {
    let fleet = Node::up().with("FLOTA_WORKER_SLOTS", "echo=1").with("FLOTA_WORKER_PREFETCH", "echo=0").start().await;
    let rest = fleet.rest();
    workers_ready(&rest, 1).await;
    let blocker = rest.echo("blocker", 3_000).await;
    rest.reaches(&blocker, &["computing"]).await;
    let submit = async |owner: &str, priority: u8| {
        let body =
            with(with(echo(owner), "priority", json!(priority)), "payload", json!({"value": owner, "sleep_ms": 50}));
        let request = rest.request(Method::POST, "/jobs").header("x-flota-owner", owner).json(&body);
        rest.send(request).await.expect(201).body["id"].as_str().unwrap_or_default().to_owned()
    };
    let mut jobs = Vec::new();
    for _ in 0..4 {
        jobs.push(submit("ana", 5).await);
    }
    for _ in 0..2 {
        jobs.push(submit("ben", 5).await);
    }
    jobs.push(submit("cid", 9).await);
    let mut order = Vec::new();
    for job in &jobs {
        let done = rest.completed(job).await;
        order.push((done["started_at"].as_str().unwrap_or_default().to_owned(), done["owner"].clone()));
    }
    order.sort_by(|a, b| a.0.cmp(&b.0));
    let owners: Vec<&str> = order.iter().filter_map(|(_, owner)| owner.as_str()).collect();
    assert_eq!(owners[0], "cid", "{owners:?}");
    let place = |wanted: &str| owners.iter().position(|owner| *owner == wanted);
    assert!(place("ben") <= Some(2), "ben waited behind all of ana's: {owners:?}");
    let last_ben = owners.iter().rposition(|owner| *owner == "ben");
    assert!(last_ben < Some(6), "{owners:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn workers_can_be_drained_paused_and_resumed() {
    let (_fleet, rest) = fleet().await;
    let id = rest.get("/workers").await.body["items"][0]["worker_id"].as_str().unwrap_or_default().to_owned();
    let status = async |wanted: &str| {
        until_within(Duration::from_secs(20), &format!("the worker is {wanted}"), || async {
            let worker = rest.get(&format!("/workers/{id}")).await.body;
            if worker["status"] == wanted { Ok(()) } else { Err(worker) }
        })
        .await;
    };
    let running = rest.echo("runs on", 2_000).await;
    rest.reaches(&running, &["computing"]).await;
    rest.post(&format!("/workers/{id}/drain"), &json!({})).await.expect(200);
    status("draining").await;
    let waits = rest.echo("waits", 0).await;
    assert_eq!(rest.completed(&running).await["failures"], 0);
    assert_eq!(rest.job(&waits).await["state"], "pending");
    rest.post(&format!("/workers/{id}/resume"), &json!({})).await.expect(200);
    rest.completed(&waits).await;

    let handed_back = rest.echo("handed back", 2_000).await;
    rest.reaches(&handed_back, &["computing"]).await;
    rest.post(&format!("/workers/{id}/pause"), &json!({})).await.expect(200);
    status("paused").await;
    rest.reaches(&handed_back, &["pending"]).await;
    rest.post(&format!("/workers/{id}/resume"), &json!({})).await.expect(200);
    assert_eq!(rest.completed(&handed_back).await["failures"], 0, "what is handed back has not failed");
}
