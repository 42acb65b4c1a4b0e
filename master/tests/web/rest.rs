//! REST word by word.

use flota_proto::JobId;
use flota_proto::rest::JobState;
use reqwest::{Method, StatusCode};
use secrecy::SecretString;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::fake::worker;
use crate::server::{DEADLINE, Server, config, problem, until};

fn echo(value: u64) -> Value {
    json!({ "kind": "echo", "payload": { "value": value } })
}

fn id(job: &Value) -> JobId {
    job["id"].as_str().unwrap().parse().unwrap()
}

#[tokio::test]
async fn a_submitted_job_is_answered_with_201_its_address_and_itself() {
    let server = Server::start().await;
    let body = json!({ "kind": "echo", "payload": { "value": [1, 2] }, "priority": "high", "labels": { "a": "b" } });
    let request = server.post("/api/v1/jobs", body.to_string()).header("X-Flota-Owner", "ana");
    let response = request.header("X-Flota-Api-Key", "k-1").send().await.unwrap();
    assert_eq!(response.status(), StatusCode::CREATED);
    let location = response.headers()["location"].to_str().unwrap().to_owned();
    let job: Value = response.json().await.unwrap();
    assert_eq!(location, format!("/api/v1/jobs/{}", job["id"].as_str().unwrap()));
    assert_eq!((&job["kind"], &job["state"], &job["priority"]), (&json!("echo"), &json!("pending"), &json!(8)));
    assert_eq!((&job["owner"], &job["payload"]), (&json!("ana"), &json!({ "value": [1, 2] })));
    assert_eq!(server.fake.api_key(id(&job)).as_deref(), Some("k-1"));
    assert!(!job.to_string().contains("k-1"), "the key is shown");
    let again: Value = server.get(&location).send().await.unwrap().json().await.unwrap();
    assert_eq!(again, job);
    assert_eq!(server.submit(&echo(1)).await["owner"], "local");
}

#[tokio::test]
async fn bad_bodies_name_what_is_wrong_and_where() {
    let server = Server::start().await;
    for (body, status, code, field) in [
        ("", 400, "bad_json", None),
        ("{", 400, "bad_json", None),
        (r#"{"kind":"echo","payload":{"value":1}} x"#, 400, "bad_json", None),
        ("[]", 422, "invalid_field", None),
        (r#"["echo",{"value":1}]"#, 422, "invalid_field", None),
        ("7", 422, "invalid_field", None),
        ("{}", 422, "invalid_field", Some("kind")),
        (r#"{"kind":"echo"}"#, 422, "invalid_field", Some("payload")),
        (r#"{"kind":7,"payload":{}}"#, 422, "invalid_field", Some("kind")),
        (r#"{"kind":"bake","payload":{}}"#, 422, "invalid_field", Some("kind")),
        (r#"{"kind":"echo","payload":{}}"#, 422, "invalid_field", Some("payload.value")),
        (r#"{"kind":"echo","payload":{"value":1},"colour":1}"#, 422, "invalid_field", Some("colour")),
        (r#"{"kind":"echo","payload":{"value":1},"priority":"urgent"}"#, 422, "invalid_field", Some("priority")),
        (r#"{"kind":"echo","payload":{"value":1},"priority":10}"#, 422, "invalid_field", Some("priority")),
        (r#"{"kind":"echo","payload":{"value":1},"id":"x"}"#, 422, "invalid_field", Some("id")),
        (r#"{"kind":"echo","payload":{"value":1},"run_at":"soon"}"#, 422, "invalid_field", Some("run_at")),
        (
            r#"{"kind":"randomx.hash","payload":{"key":"","inputs":["00","0"]}}"#,
            422,
            "invalid_field",
            Some("payload.inputs[1]"),
        ),
        (r#"{"kind":"randomx.hash","payload":{"key":"","inputs":[]}}"#, 422, "invalid_field", Some("payload.inputs")),
    ] {
        let response = server.post("/api/v1/jobs", body).send().await.unwrap();
        let problem = problem(response, status, code).await;
        assert_eq!(problem["field"].as_str(), field, "{body}: {problem}");
    }
    let response = server.post("/api/v1/jobs", &b"{\"kind\":\"\xff\"}"[..]).send().await.unwrap();
    problem(response, 400, "bad_json").await;
    assert!(server.fake.jobs().is_empty());
}

#[tokio::test]
async fn a_body_that_announces_too_much_is_refused_before_it_comes() {
    let server = Server::start().await;
    for (expect, sent) in [("Expect: 100-continue\r\n", ""), ("", "{\"kind\":"), ("", "")] {
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        let head =
            format!("POST /api/v1/jobs HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 41943040\r\n{expect}\r\n{sent}");
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut answer = [0; 12];
        tokio::time::timeout(DEADLINE, stream.read_exact(&mut answer)).await.expect("at once").unwrap();
        assert_eq!(std::str::from_utf8(&answer), Ok("HTTP/1.1 413"), "{expect}{sent}");
    }
}

#[tokio::test]
async fn arrays_are_no_objects_and_ids_are_of_version_7() {
    let server = Server::start().await;
    for (body, field) in [
        (r#"{"kind":"echo","payload":{"value":1},"requires":[1]}"#, "requires"),
        (r#"{"kind":"echo","payload":{"value":1},"requires":[]}"#, "requires"),
        (r#"{"kind":"echo","payload":{"value":1},"retry":[]}"#, "retry"),
        (r#"{"kind":"echo","payload":{"value":1,"fail":[1,false]}}"#, "payload.fail"),
        (r#"{"kind":"ai.chat","payload":{"messages":[["user","x"]]}}"#, "payload.messages[0]"),
        (r#"{"kind":"echo","payload":{"value":1},"id":"00000000-0000-0000-0000-000000000000"}"#, "id"),
        (r#"{"kind":"echo","payload":{"value":1},"id":"6fa459ea-ee8a-4ca4-894e-db77e160355e"}"#, "id"),
        (r#"{"kind":"echo","payload":{"value":1},"id":"{01970000-0000-7000-8000-000000000000}"}"#, "id"),
        (r#"{"kind":"echo","payload":{"value":1},"id":"urn:uuid:01970000-0000-7000-8000-000000000000"}"#, "id"),
    ] {
        let response = server.post("/api/v1/jobs", body).send().await.unwrap();
        let problem = problem(response, 422, "invalid_field").await;
        assert_eq!(problem["field"], field, "{body}: {problem}");
    }
    assert!(server.fake.jobs().is_empty());
    let job = json!({ "kind": "echo", "payload": { "value": 1 }, "id": "01970000-0000-7000-8000-000000000000" });
    assert_eq!(server.submit(&job).await["id"], job["id"]);
}

#[tokio::test]
async fn metrics_are_there_before_anything_has_happened() {
    let server = Server::start().await;
    let text = server.get("/metrics").send().await.unwrap().text().await.unwrap();
    for name in [
        "flota_hashes_total ",
        "flota_job_duration_seconds_count ",
        "flota_job_wait_seconds_count ",
        "flota_store_commit_seconds_count ",
        "flota_jobs_total{kind=\"ai.chat\",outcome=\"failed\"} ",
        "flota_attempts_total{outcome=\"lease_expired\"} ",
        "flota_queue_depth{queue=\"default\",state=\"pending\"} ",
        "flota_queue_oldest_age_seconds{queue=\"default\"} ",
        "flota_mqtt_publishes_total{outcome=\"acknowledged\"} ",
    ] {
        assert!(text.lines().any(|line| line.starts_with(name)), "{name} is missing in {text}");
    }
}

#[tokio::test]
async fn every_call_refuses_parameters_that_it_does_not_take() {
    let server = Server::start().await;
    let document: Value = server.get("/api/v1/openapi.json").send().await.unwrap().json().await.unwrap();
    let mut calls = vec![(Method::GET, "/api/v1/openapi.json".to_owned())];
    for (path, item) in document["paths"].as_object().unwrap() {
        let path = path.replace("{id}", "01960000-0000-7000-8000-000000000000");
        let methods = item.as_object().unwrap().keys();
        calls.extend(methods.map(|method| (method.to_uppercase().parse().unwrap(), path.clone())));
    }
    assert!(calls.len() > 30, "{calls:?}");
    for (method, path) in calls {
        let request = server.request(method.clone(), &format!("{path}?foo=1")).body(echo(1).to_string());
        let problem = problem(request.send().await.unwrap(), 400, "bad_parameter").await;
        assert_eq!(problem["field"], "foo", "{method} {path}: {problem}");
    }
    let request = server.post("/api/v1/jobs/retry?dry_run=true&code=nope", "{}");
    problem(request.send().await.unwrap(), 400, "bad_parameter").await;
    assert!(server.fake.jobs().is_empty());
    assert_eq!(server.get("/livez?x=1").send().await.unwrap().status(), StatusCode::OK);
    assert_eq!(server.request(Method::PUT, "/api/v1/jobs?x=1").send().await.unwrap().status(), 405);
}

#[tokio::test]
async fn a_body_beyond_32_mib_is_413_even_for_a_client_that_sends_it_all() {
    let server = Server::start().await;
    let body = "x".repeat(33 * 1024 * 1024);
    problem(server.post("/api/v1/jobs", body).send().await.unwrap(), 413, "body_too_large").await;
    let chunks = (0..40).map(|_| Ok::<_, std::io::Error>(vec![b' '; 1024 * 1024]));
    let body = reqwest::Body::wrap_stream(futures::stream::iter(chunks));
    problem(server.post("/api/v1/jobs/batch", body).send().await.unwrap(), 413, "body_too_large").await;
    let fits = format!(r#"{{"kind":"echo","payload":{{"value":"{}"}}}}"#, "x".repeat(31 * 1024 * 1024));
    assert_eq!(server.post("/api/v1/jobs", fits).send().await.unwrap().status(), StatusCode::CREATED);
}

#[tokio::test]
async fn a_batch_is_answered_in_order_and_a_bad_item_stops_no_other() {
    let server = Server::start().await;
    let refused = json!({ "kind": "echo", "payload": { "value": 4 }, "labels": { "refuse": "yes" } });
    let own = JobId::generate();
    let chosen = json!({ "kind": "echo", "payload": { "value": 5 }, "id": own });
    let batch = json!([echo(1), 7, { "kind": "echo", "payload": { "value": 3 }, "x": 1 }, refused, chosen, echo(6)]);
    let response = server.post("/api/v1/jobs/batch", batch.to_string()).send().await.unwrap();
    assert_eq!(response.status(), StatusCode::CREATED);
    let answers: Vec<Value> = response.json().await.unwrap();
    let codes: Vec<_> = answers.iter().map(|answer| answer["error"]["code"].as_str()).collect();
    assert_eq!(codes, [None, Some("invalid_field"), Some("invalid_field"), Some("refused"), None, None]);
    assert_eq!(answers[2]["error"]["field"], "x");
    assert_eq!(answers[3]["error"]["status"], 409);
    assert_eq!(answers[4], json!({ "id": own }));
    let values: Vec<_> = server.fake.jobs().iter().map(|job| job.payload.as_ref().unwrap().get().to_owned()).collect();
    assert_eq!(values.len(), 3, "{values:?}");
    let first: Value = server
        .get(&format!("/api/v1/jobs/{}", answers[0]["id"].as_str().unwrap()))
        .send()
        .await
        .unwrap()
        .json()
        .await
        .unwrap();
    assert_eq!(first["payload"]["value"], 1);
}

#[tokio::test]
async fn a_batch_is_1_to_10000_jobs() {
    let server = Server::start().await;
    let batch = |jobs: usize| format!("[{}]", vec![echo(1).to_string(); jobs].join(","));
    for body in ["[]".to_owned(), batch(10_001), "{}".into(), echo(1).to_string()] {
        problem(server.post("/api/v1/jobs/batch", body).send().await.unwrap(), 422, "invalid_field").await;
    }
    assert!(server.fake.jobs().is_empty());
    let response = server.post("/api/v1/jobs/batch", batch(10_000)).send().await.unwrap();
    let answers: Vec<Value> = response.json().await.unwrap();
    assert_eq!(answers.iter().filter(|answer| answer["id"].is_string()).count(), 10_000);
    assert_eq!(server.fake.jobs().len(), 10_000);
}

#[tokio::test]
async fn too_many_is_429_with_the_time_to_wait() {
    let server = Server::start().await;
    server.fake.world().busy = true;
    for (path, body) in [("/api/v1/jobs", echo(1)), ("/api/v1/jobs/batch", json!([echo(1), echo(2)]))] {
        let response = server.post(path, body.to_string()).send().await.unwrap();
        assert_eq!(response.headers()["retry-after"], "7");
        problem(response, 429, "busy").await;
    }
}

#[tokio::test]
async fn an_idempotency_key_repeats_the_answer_and_refuses_another_body() {
    let server = Server::start().await;
    let send = |body: Value| server.post("/api/v1/jobs", body.to_string()).header("Idempotency-Key", "k").send();
    let first: Value = send(echo(1)).await.unwrap().json().await.unwrap();
    let again = send(echo(1)).await.unwrap();
    assert_eq!(again.status(), StatusCode::CREATED);
    assert_eq!(again.json::<Value>().await.unwrap()["id"], first["id"]);
    problem(send(echo(2)).await.unwrap(), 422, "invalid_field").await;
    let batch = server.post("/api/v1/jobs/batch", json!([echo(1)]).to_string()).header("Idempotency-Key", "k");
    problem(batch.send().await.unwrap(), 422, "invalid_field").await;
    let long = server.post("/api/v1/jobs", echo(1).to_string()).header("Idempotency-Key", "k".repeat(256));
    problem(long.send().await.unwrap(), 400, "bad_header").await;
    assert_eq!(server.fake.jobs().len(), 1);
}

#[tokio::test]
async fn a_clients_id_seen_before_answers_the_job_or_conflicts() {
    let server = Server::start().await;
    let body = |value: u64| json!({ "kind": "echo", "payload": { "value": value }, "id": JobId::default_for_tests() });
    let first = server.submit(&body(1)).await;
    assert_eq!(server.submit(&body(1)).await["id"], first["id"]);
    problem(server.post("/api/v1/jobs", body(2).to_string()).send().await.unwrap(), 409, "id_taken").await;
}

trait ForTests {
    fn default_for_tests() -> JobId;
}

impl ForTests for JobId {
    fn default_for_tests() -> JobId {
        "0193e5f0-7c1a-7000-8000-000000000000".parse().unwrap()
    }
}

#[tokio::test]
async fn a_long_poll_answers_when_the_job_has_ended_or_the_time_is_up() {
    let server = Server::start().await;
    let job = server.submit(&echo(1)).await;
    let path = format!("/api/v1/jobs/{}", job["id"].as_str().unwrap());
    let early: Value = server.get(&format!("{path}?wait_ms=20")).send().await.unwrap().json().await.unwrap();
    assert_eq!(early["state"], "pending");
    let fake = server.fake.clone();
    let waiting = tokio::spawn(server.get(&format!("{path}?wait_ms=99999999")).send());
    fake.complete(id(&job), &json!({ "value": 1 }));
    let done: Value = waiting.await.unwrap().unwrap().json().await.unwrap();
    assert_eq!((&done["state"], &done["result"]), (&json!("completed"), &json!({ "value": 1 })));
    assert_eq!(done["payload"], json!({ "value": 1 }));
    let at_once: Value = server.get(&format!("{path}?wait_ms=30000")).send().await.unwrap().json().await.unwrap();
    assert_eq!(at_once["state"], "completed");
    for bad in ["-1", "soon", "1.5"] {
        let response = server.get(&format!("{path}?wait_ms={bad}")).send().await.unwrap();
        assert_eq!(problem(response, 400, "bad_parameter").await["field"], "wait_ms");
    }
}

#[tokio::test]
async fn a_list_takes_its_filters_and_refuses_others() {
    let server = Server::start().await;
    for value in 0..3 {
        server.submit(&echo(value)).await;
    }
    let page: Value = server.get("/api/v1/jobs?limit=2").send().await.unwrap().json().await.unwrap();
    assert_eq!(page["items"].as_array().unwrap().len(), 2);
    assert!(page.as_object().unwrap().contains_key("next_cursor"));
    let all = "/api/v1/jobs?state=failed,cancelled&state=pending&kind=echo&queue=q&project=p&label=a=b=c&owner=ann&code=quota_day&cursor=7&limit=500";
    assert_eq!(server.get(all).send().await.unwrap().status(), StatusCode::OK);
    let filter = server.fake.world().filters.pop().unwrap();
    for part in [
        "[Failed, Cancelled, Pending]",
        "Some(Echo)",
        r#"queue: Some("q")"#,
        r#"project: Some("p")"#,
        r#"("a", "b=c")"#,
        r#"owner: Some("ann")"#,
        r#"code: Some("quota_day")"#,
        r#"cursor: Some("7")"#,
        "limit: 500",
    ] {
        assert!(filter.contains(part), "{part} is not in {filter}");
    }
    let template = "/api/v1/jobs?state=&kind=&queue=&project=&label=&owner=&code=&limit=&cursor=";
    assert_eq!(server.get(template).send().await.unwrap().status(), StatusCode::OK);
    for (query, field) in [
        ("state=lost", "state"),
        ("kind=bake", "kind"),
        ("limit=0", "limit"),
        ("limit=501", "limit"),
        ("limit=many", "limit"),
        ("label=a", "label"),
        ("cursor=x", "cursor"),
        ("colour=red", "colour"),
        ("queue=a&queue=b", "queue"),
        ("code=a&code=b", "code"),
    ] {
        let response = server.get(&format!("/api/v1/jobs?{query}")).send().await.unwrap();
        assert_eq!(problem(response, 400, "bad_parameter").await["field"], field);
    }
}

#[tokio::test]
async fn cancel_retry_and_patch_do_it_or_conflict() {
    let server = Server::start().await;
    let job = server.submit(&echo(1)).await;
    let path = format!("/api/v1/jobs/{}", job["id"].as_str().unwrap());
    let call = |method: Method, path: String, body: &'static str| server.request(method, &path).body(body).send();
    let patched: Value =
        call(Method::PATCH, path.clone(), r#"{"priority":"low"}"#).await.unwrap().json().await.unwrap();
    assert_eq!(patched["priority"], 2);
    for (body, field) in
        [(r#"{"priority":10}"#, "priority"), ("{}", "priority"), (r#"{"priority":1,"state":"failed"}"#, "state")]
    {
        let response = call(Method::PATCH, path.clone(), body).await.unwrap();
        assert_eq!(problem(response, 422, "invalid_field").await["field"], field);
    }
    problem(call(Method::POST, format!("{path}/retry"), "").await.unwrap(), 409, "not_retryable").await;
    let cancelled: Value = call(Method::POST, format!("{path}/cancel"), "").await.unwrap().json().await.unwrap();
    assert_eq!(cancelled["state"], "cancelled");
    problem(call(Method::POST, format!("{path}/cancel"), "").await.unwrap(), 409, "job_ended").await;
    problem(call(Method::PATCH, path.clone(), r#"{"priority":1}"#).await.unwrap(), 409, "job_ended").await;
    let again: Value = call(Method::POST, format!("{path}/retry"), "").await.unwrap().json().await.unwrap();
    assert_eq!(again["state"], "pending");
    let units: Value = call(Method::GET, format!("{path}/units"), "").await.unwrap().json().await.unwrap();
    assert_eq!(units, json!({ "items": [], "next_cursor": null }));
}

#[tokio::test]
async fn what_is_not_there_is_a_problem_too() {
    let server = Server::start().await;
    let nobody = format!("/api/v1/jobs/{}", JobId::generate());
    for path in [nobody.clone(), format!("{nobody}/units"), format!("{nobody}/events"), "/api/v1/workers/nobody".into()]
    {
        problem(server.get(&path).send().await.unwrap(), 404, "not_found").await;
    }
    for path in [format!("{nobody}?wait_ms=1000"), "/api/v1/jobs/x".into(), "/api/v1/workers/a%2Fb".into()] {
        let response = server.get(&path).send().await.unwrap();
        let (status, code) = if path.contains("wait") { (404, "not_found") } else { (400, "bad_id") };
        problem(response, status, code).await;
    }
    for path in ["/api", "/api/v1", "/api/v1/nothing", "/api/v2/jobs", "/socket.io/nothing"] {
        problem(server.get(path).send().await.unwrap(), 404, "no_such_route").await;
    }
    let response = server.request(Method::DELETE, "/api/v1/jobs").send().await.unwrap();
    assert!(response.headers().contains_key("allow"));
    problem(response, 405, "method_not_allowed").await;
    problem(server.request(Method::POST, "/").send().await.unwrap(), 405, "method_not_allowed").await;
}

#[tokio::test]
async fn workers_are_listed_page_by_page_and_controlled() {
    let server = Server::start().await;
    server.fake.world().workers = ["w-2", "w-1", "w-3"].map(worker).into();
    let first: Value = server.get("/api/v1/workers?limit=2").send().await.unwrap().json().await.unwrap();
    let ids = |page: &Value| {
        page["items"]
            .as_array()
            .unwrap()
            .iter()
            .map(|w| w["worker_id"].as_str().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    assert_eq!(ids(&first), ["w-1", "w-2"]);
    let next = format!("/api/v1/workers?limit=2&cursor={}", first["next_cursor"].as_str().unwrap());
    let second: Value = server.get(&next).send().await.unwrap().json().await.unwrap();
    assert_eq!((ids(&second), &second["next_cursor"]), (vec!["w-3".to_owned()], &Value::Null));
    for (action, status) in [("drain", "draining"), ("pause", "paused"), ("resume", "idle")] {
        let response = server.post(&format!("/api/v1/workers/w-1/{action}"), "").send().await.unwrap();
        assert_eq!(response.json::<Value>().await.unwrap()["status"], status);
    }
    let one: Value = server.get("/api/v1/workers/w-1").send().await.unwrap().json().await.unwrap();
    assert_eq!(one["worker_id"], "w-1");
    problem(server.post("/api/v1/workers/nobody/drain", "").send().await.unwrap(), 404, "not_found").await;
    problem(server.get("/api/v1/workers?cursor=zz").send().await.unwrap(), 400, "bad_parameter").await;
    let fleet: Value = server.get("/api/v1/fleet").send().await.unwrap().json().await.unwrap();
    assert_eq!(fleet["slots"]["ai"], json!({ "total": 64, "used": 3 }));
}

#[tokio::test]
async fn with_a_token_all_but_page_and_health_want_it() {
    let token = Some(SecretString::from("s3cret"));
    let server = Server::with(flota_master::web::WebConfig { token, ..config() }).await.unwrap();
    for path in ["/api/v1/jobs", "/api/v1/fleet", "/api/v1/openapi.json", "/api/v1/nothing", "/metrics"] {
        let response = server.get(path).send().await.unwrap();
        assert!(response.headers()["www-authenticate"].to_str().unwrap().starts_with("Bearer"));
        problem(response, 401, "unauthorized").await;
        problem(server.get(path).bearer_auth("wrong").send().await.unwrap(), 401, "unauthorized").await;
        let status = server.get(path).bearer_auth("s3cret").send().await.unwrap().status();
        assert_ne!(status, StatusCode::UNAUTHORIZED, "{path}");
    }
    for path in ["/livez", "/readyz", "/", "/socket.io/socket.io.js"] {
        assert_ne!(server.get(path).send().await.unwrap().status(), StatusCode::UNAUTHORIZED, "{path}");
    }
}

#[tokio::test]
async fn a_listener_for_others_wants_a_token_and_a_taken_port_says_so() {
    for listen in ["0.0.0.0:0", "[::]:0", "192.0.2.1:0"] {
        let config = flota_master::web::WebConfig { listen: listen.parse().unwrap(), ..config() };
        let error = Server::with(config).await.err().unwrap().to_string();
        assert!(error.contains("FLOTA_TOKEN"), "{error}");
    }
    let first = Server::start().await;
    let config = flota_master::web::WebConfig { listen: first.address, ..config() };
    let error = Server::with(config).await.err().unwrap();
    assert!(error.is_port_taken());
    assert!(error.to_string().contains(&first.address.to_string()), "{error}");
}

#[tokio::test]
async fn pages_of_other_origins_are_kept_out_unless_allowed() {
    let allowed_origins = vec!["https://ops.example".to_owned()];
    let server = Server::with(flota_master::web::WebConfig { allowed_origins, ..config() }).await.unwrap();
    let from = |origin: &str| server.get("/api/v1/fleet").header("origin", origin).send();
    problem(from("https://evil.example").await.unwrap(), 403, "origin_not_allowed").await;
    let same = from(&server.url("")).await.unwrap();
    assert_eq!(same.status(), StatusCode::OK);
    let allowed = from("https://ops.example").await.unwrap();
    assert_eq!(allowed.headers()["access-control-allow-origin"], "https://ops.example");
    assert_eq!(allowed.status(), StatusCode::OK);
    let preflight = server.request(Method::OPTIONS, "/api/v1/jobs").header("origin", "https://ops.example");
    let preflight = preflight.header("access-control-request-method", "POST").send().await.unwrap();
    assert!(preflight.headers()["access-control-allow-headers"].to_str().unwrap().contains("idempotency-key"));
    let foreign = server.request(Method::OPTIONS, "/api/v1/jobs").header("origin", "https://evil.example");
    let foreign = foreign.header("access-control-request-method", "POST").send().await.unwrap();
    assert!(!foreign.headers().contains_key("access-control-allow-origin"));
    let rebound = server.get("/api/v1/fleet").header("host", "evil.example:8888").send().await.unwrap();
    problem(rebound, 403, "origin_not_allowed").await;
}

#[tokio::test]
async fn openapi_describes_every_call_and_its_shapes() {
    let server = Server::start().await;
    let document: Value = server.get("/api/v1/openapi.json").send().await.unwrap().json().await.unwrap();
    assert!(document["openapi"].as_str().unwrap().starts_with("3.1"));
    assert_eq!(document["info"]["version"], "1.2.3");
    for (path, methods) in [
        ("/jobs", &["get", "post"][..]),
        ("/jobs/batch", &["post"]),
        ("/jobs/{id}", &["get", "patch"]),
        ("/jobs/{id}/units", &["get"]),
        ("/jobs/{id}/events", &["get"]),
        ("/jobs/{id}/cancel", &["post"]),
        ("/jobs/{id}/retry", &["post"]),
        ("/workers", &["get"]),
        ("/workers/{id}", &["get"]),
        ("/workers/{id}/drain", &["post"]),
        ("/workers/{id}/pause", &["post"]),
        ("/workers/{id}/resume", &["post"]),
        ("/fleet", &["get"]),
    ] {
        let item =
            document["paths"][format!("/api/v1{path}")].as_object().unwrap_or_else(|| panic!("{path} is missing"));
        assert_eq!(item.keys().collect::<Vec<_>>(), methods, "{path}");
    }
    let list = &document["paths"]["/api/v1/jobs"]["get"]["parameters"];
    let names: Vec<_> = list.as_array().unwrap().iter().map(|p| p["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["state", "kind", "queue", "project", "label", "owner", "code", "limit", "cursor"]);
    let schemas = document["components"]["schemas"].as_object().unwrap();
    for name in ["Job", "SubmitJob", "Problem", "Worker", "Fleet", "Unit", "JobEvent", "SearchPayload", "ChatResult"] {
        assert!(schemas.contains_key(name), "{name} is missing");
    }
    let kinds = flota_proto::Kind::ALL.map(flota_proto::Kind::as_str);
    assert_eq!(schemas["Kind"]["enum"], json!(kinds));
}

#[tokio::test]
async fn metrics_and_health_answer() {
    let server = Server::start().await;
    server.fake.world().depths = vec![flota_master::handle::QueueDepthRow {
        queue: "default".into(),
        by_state: [(JobState::Pending, 4)].into(),
        oldest: Some(flota_common::clock::now()),
    }];
    for path in ["/livez", "/readyz"] {
        assert_eq!(server.get(path).send().await.unwrap().status(), StatusCode::OK, "{path}");
    }
    let text = server.get("/metrics").send().await.unwrap().text().await.unwrap();
    for line in [
        r#"flota_build_info{version="1.2.3"} 1"#,
        r#"flota_queue_depth{queue="default",state="pending"} 4"#,
        r#"flota_worker_slots{state="used"} 3"#,
        "# HELP flota_socket_clients",
        "flota_queue_oldest_age_seconds{queue=\"default\"}",
    ] {
        assert!(text.contains(line), "{line} is not in\n{text}");
    }
    server.fake.world().depths.clear();
    let text = server.get("/metrics").send().await.unwrap().text().await.unwrap();
    assert!(text.contains(r#"flota_queue_depth{queue="default",state="pending"} 0"#), "{text}");
}

#[tokio::test]
async fn the_stop_ends_long_polls_and_every_task() {
    let server = Server::start().await;
    let job = server.submit(&echo(1)).await;
    let poll = server.get(&format!("/api/v1/jobs/{}?wait_ms=30000", job["id"].as_str().unwrap())).send();
    let poll = tokio::spawn(poll);
    let events = server.get(&format!("/api/v1/jobs/{}/events", job["id"].as_str().unwrap())).send().await.unwrap();
    let fake = server.fake.clone();
    until("the stream is open", || fake.readers(id(&job)) > 0).await;
    server.stop.cancel();
    server.tasks.close();
    tokio::time::timeout(crate::server::DEADLINE, server.tasks.wait()).await.unwrap();
    events.text().await.unwrap();
    if let Ok(answer) = poll.await.unwrap() {
        problem(answer, 503, "unavailable").await;
    }
}
