//! The commands as a user meets them, against a stand-in for the master's REST: output, errors, exit codes.

mod fleet;

use std::io::Write;
use std::process::Stdio;

use fleet::{Fleet, Running, flota};
use serde_json::{Value, json};

fn echoed(running: &Running, args: &[&str]) -> String {
    let mut all = vec!["submit", "echo", "--payload", r#"{"value": [1, 2]}"#];
    all.extend(args);
    running.flota(&all).ok()
}

fn event(seq: u64, attempt: u64, kind: &str, data: &Value) -> String {
    let event = json!({"seq": seq, "attempt": attempt, "timestamp": 1_795_254_600_123_u64, "type": kind, "data": data});
    format!("id: {seq}\nevent: {kind}\ndata: {event}\n\n")
}

fn chat(text: &str) -> Value {
    let usage = json!({"input_tokens": 1, "output_tokens": 2, "thought_tokens": 0});
    json!({"text": text, "model": "m", "provider": "demo", "finish": "complete", "usage": usage})
}

#[test]
fn submit_prints_the_id_and_with_wait_the_result() {
    let running = Running::start(Fleet::default());
    let id = echoed(&running, &["--priority", "high", "--label", "a=b"]);
    assert_eq!(running.fleet().jobs[0]["id"], id.trim());
    assert_eq!(running.fleet().jobs[0]["priority"], 8);
    assert_eq!(running.fleet().jobs[0]["labels"], json!({"a": "b"}));
    assert_eq!(echoed(&running, &["--wait"]), "{\"value\":[1,2]}\n");
    let job: Value = serde_json::from_str(&echoed(&running, &["--wait", "--json"])).unwrap();
    assert_eq!(job["state"], "completed");
}

#[test]
fn who_waits_for_a_job_that_waits_is_told_why_once() {
    let running = Running::start(Fleet { waits: 2, ..Fleet::default() });
    let ran = running.flota(&["submit", "echo", "--payload", "{\"value\": 1}", "--wait"]);
    assert_eq!(ran.ok(), "{\"value\":1}\n");
    assert_eq!(ran.stderr(), "waiting: no worker is there that fits\n");
}

#[test]
fn submit_reads_the_payload_from_the_standard_input() {
    let running = Running::start(Fleet::default());
    let mut command = flota();
    command.env("FLOTA_URL", format!("http://{}", running.address())).env("HOME", "/nonexistent");
    command.args(["submit", "echo", "--payload", "-", "--wait"]).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(b"{\"value\": \"in\"}\n").unwrap();
    assert_eq!(String::from_utf8(child.wait_with_output().unwrap().stdout).unwrap(), "{\"value\":\"in\"}\n");
}

#[test]
fn a_failed_job_is_exit_code_1_with_its_error() {
    let fleet = Fleet {
        failing: [("echo".into(), json!({"code": "on_purpose", "message": "as asked"}))].into(),
        ..Fleet::default()
    };
    let running = Running::start(fleet);
    let ran = running.flota(&["submit", "echo", "--payload", "{\"value\": 1}", "--wait"]);
    let text = ran.failed(1);
    assert!(text.contains("failed: as asked (on_purpose)"), "{text}");
    let ran = running.flota(&["submit", "echo", "--payload", "{\"value\": 1}", "--wait", "--json"]);
    let error: Value = serde_json::from_str(&ran.failed(1)).unwrap();
    assert_eq!(error["exit_code"], 1);
    assert_eq!(serde_json::from_str::<Value>(&ran.stdout()).unwrap()["state"], "failed");
}

#[test]
fn wrong_usage_is_exit_code_2_and_says_what_is_wrong() {
    let running = Running::start(Fleet::default());
    let failed = |args: &[&str]| running.flota(args).failed(2);
    assert!(failed(&["submit", "echos", "--payload", "{}"]).contains("known are randomx.hash"));
    assert!(failed(&["submit", "echo", "--payload", "{value: 1}"]).contains("the payload is no valid JSON"));
    let text = failed(&["submit", "echo", "--payload", "{\"value\": \"refuse\"}"]);
    assert_eq!(text, "flota: payload.value: may not be that\n");
    assert!(failed(&["jobs", "show", "nonsense"]).contains("a job id is a UUID"));
    assert!(failed(&["jobs", "show", "0193e5f0-7c1a-7000-8000-000000000000"]).contains("there is no job 0193e5f0"));
    assert!(failed(&["jobs", "--limit", "0"]).contains("--limit"));
    assert!(
        failed(&["fleet", "--url", "nowhere"])
            .contains("--url = 'nowhere' (flags): must be an address that begins with http://")
    );
}

#[test]
fn a_fleet_that_is_not_there_is_exit_code_3_and_says_how_to_start_one() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let url = format!("http://{free}");
    let output = flota().args(["fleet", "--url", &url]).env("HOME", "/nonexistent").output().unwrap();
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(3), "{text}");
    assert!(text.contains(&url) && text.contains("`flota up`"), "{text}");
}

#[test]
fn a_token_is_sent_and_a_missing_one_is_explained() {
    let running = Running::start(Fleet { token: Some("s3cret".into()), ..Fleet::default() });
    running.flota(&["fleet", "--token", "s3cret"]).ok();
    let text = running.flota(&["fleet"]).failed(2);
    assert!(text.contains("FLOTA_TOKEN") && text.contains("no token was sent"), "{text}");
    let text = running.flota(&["fleet", "--token", "wrong-one"]).failed(2);
    assert!(!text.contains("wrong-one"), "{text}");
}

#[test]
fn the_own_key_is_sent_only_when_asked_to() {
    let running = Running::start(Fleet { results: [("ai.chat".into(), chat("Hi"))].into(), ..Fleet::default() });
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "AIza-mine\n").unwrap();
    let config = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(config.path(), format!("gemini_api_key_file = '{}'", file.path().display())).unwrap();
    let config = config.path().to_str().unwrap();
    assert_eq!(running.flota(&["ask", "--config", config, "Hello?"]).ok(), "Hi\n");
    assert!(running.fleet().headers.get("x-flota-api-key").is_none());
    running.flota(&["ask", "--config", config, "--own-key", "Hello?"]).ok();
    assert_eq!(running.fleet().headers["x-flota-api-key"], "AIza-mine");
    assert!(running.flota(&["ask", "--own-key", "Hello?"]).failed(2).contains("GEMINI_API_KEY"));
}

#[test]
fn ask_streams_the_answer_and_survives_a_broken_stream() {
    let first = event(1, 0, "pending", &json!({})) + &event(3, 1, "delta", &json!({"text": "¡Ho"}));
    let second = event(3, 1, "delta", &json!({"text": "¡Ho"})) // seen before
        + &event(4, 1, "delta", &json!({"text": "la!"}))
        + &event(5, 1, "completed", &json!({}));
    let fleet =
        Fleet {
            results: [("ai.chat".into(), chat("¡Hola!"))].into(), events: vec![first, second], ..Fleet::default()
        };
    let running = Running::start(fleet);
    assert_eq!(running.flota(&["ask", "--stream", "Hello", "there?"]).ok(), "¡Hola!\n");
    assert_eq!(running.fleet().resumed_after, [None, Some("3".into())]);
    assert_eq!(running.fleet().jobs[0]["payload"]["messages"][0]["content"], "Hello there?");
}

#[test]
fn hash_prints_the_hash_before_its_input() {
    let result = json!({"hashes": ["00ff", "ab12"], "mode": "light"});
    let running = Running::start(Fleet { results: [("randomx.hash".into(), result)].into(), ..Fleet::default() });
    assert_eq!(running.flota(&["hash", "--key", "k", "one", "two"]).ok(), "00ff  one\nab12  two\n");
    assert_eq!(running.fleet().jobs[0]["payload"], json!({"key": "6b", "inputs": ["6f6e65", "74776f"]}));
    running.flota(&["hash", "--hex", "--key", "6B", "00"]).ok();
    assert_eq!(running.fleet().jobs[1]["payload"], json!({"key": "6b", "inputs": ["00"]}));
    assert!(running.flota(&["hash", "--hex", "--key", "6b", "0"]).failed(2).contains("'0' is no hex"));
}

#[test]
fn jobs_lists_beyond_a_page_and_shows_one() {
    let running = Running::start(Fleet::default());
    let id = echoed(&running, &[]);
    let list = running.flota(&["jobs"]).ok();
    assert!(list.contains("completed") && list.contains(id.trim()) && !list.contains('\u{1b}'), "{list}");
    let shown = running.flota(&["jobs", "show", id.trim()]).ok();
    assert!(shown.contains("1.24 s") && shown.contains("{\"value\":[1,2]}"), "{shown}");
    let job = running.fleet().jobs[0].clone();
    running.fleet().jobs = vec![job; 1200];
    let page: Value =
        serde_json::from_str(&running.flota(&["jobs", "list", "--limit", "1100", "--json"]).ok()).unwrap();
    assert_eq!(page["items"].as_array().unwrap().len(), 1100);
    assert_eq!(page["next_cursor"], "1100");
}

#[test]
fn jobs_are_told_what_to_do_and_refusals_are_explained() {
    let running = Running::start(Fleet::default());
    let id = echoed(&running, &[]);
    let id = id.trim();
    assert!(running.flota(&["jobs", "priority", id, "low"]).ok().contains("priority 2"));
    assert!(running.flota(&["jobs", "retry", id]).ok().contains("pending"));
    assert!(running.flota(&["jobs", "cancel", id]).failed(2).contains("has ended already"));
    let unknown = "0193e5f0-7c1a-7000-8000-000000000000";
    let several = running.flota(&["jobs", "retry", unknown, id]);
    assert!(several.failed(2).contains("there is no job") && several.stdout().contains(id), "one refusal spares none");
}

#[test]
fn watch_tells_each_change_and_ends_with_the_job() {
    let events = event(1, 0, "pending", &json!({}))
        + &event(2, 1, "assigned", &json!({"worker_id": "w-1"}))
        + &event(3, 1, "progress", &json!({"fraction": 0.5, "note": "half"}))
        + &event(4, 1, "completed", &json!({}));
    let running = Running::start(Fleet { events: vec![events], ..Fleet::default() });
    let id = echoed(&running, &[]);
    let told = running.flota(&["jobs", "watch", id.trim()]).ok();
    assert!(told.contains("on w-1, attempt 1") && told.contains("50 %, half"), "{told}");
    assert!(told.ends_with("{\"value\":[1,2]}\n"), "{told}");
    assert_eq!(running.flota(&["jobs", "watch", "--json", id.trim()]).ok().lines().count(), 4);
}

#[test]
fn workers_and_fleet_are_shown() {
    let running = Running::start(Fleet::default());
    let list = running.flota(&["workers"]).ok();
    assert!(list.contains("w-1") && list.contains("ai 3/64") && list.contains("23.4 GiB"), "{list}");
    assert!(running.flota(&["workers", "show", "w-1"]).ok().contains("zone=a"));
    assert!(running.flota(&["workers", "drain", "w-1"]).ok().contains("draining"));
    let fleet = running.flota(&["fleet"]).ok();
    assert!(fleet.contains("1 idle") && fleet.contains("echo 0/256") && fleet.contains("empty"), "{fleet}");
}

#[test]
fn healthcheck_is_0_or_3() {
    let running = Running::start(Fleet::default());
    assert_eq!(running.flota(&["healthcheck"]).ok(), "alive\n");
    assert_eq!(running.flota(&["healthcheck", "--json"]).ok(), "{\"status\":\"alive\"}\n");
    assert!(running.flota(&["healthcheck", "--ready"]).failed(3).contains("the broker is away"));
}

#[test]
fn completions_need_no_configuration() {
    let output = flota().args(["completions", "bash"]).env("FLOTA_WRONG", "1").output().unwrap();
    assert!(output.status.success() && String::from_utf8(output.stdout).unwrap().contains("_flota"));
    let output = flota().arg("fleet").env("FLOTA_WRONG", "1").output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8(output.stderr).unwrap().contains("FLOTA_WRONG (environment): there is no such setting"));
}

const BENCH: [&str; 9] = ["bench", "dispatch", "--jobs", "2345", "--batch", "100", "--connections", "3", "--json"];

#[test]
fn bench_counts_every_job_once_and_sends_refused_batches_again() {
    let running = Running::start(Fleet { busy: 2, ..Fleet::default() });
    let dir = tempfile::tempdir().unwrap();
    let mut args = BENCH.to_vec();
    args.extend(["--latency", "5", "--data-dir", dir.path().to_str().unwrap()]);
    let report: Value = serde_json::from_str(&running.flota(&args).ok()).unwrap();
    assert_eq!(report["checked"], json!({"right": 2345, "not_completed": 0, "doubled": 0, "wrong": 0, "missing": 0}));
    assert_eq!(report["batches_refused"], 2);
    assert_eq!(report["latency"]["samples"], 5);
    assert!(report["disk"]["commit"]["p50_ms"].as_f64().unwrap() > 0.0);
    assert!(report["cpu"][0]["name"] == "bench");
    args.pop();
    args.pop();
    args.retain(|arg| *arg != "--json");
    assert!(running.flota(&args).ok().contains("jobs/s, from the first request to the last result"));
}

#[test]
fn bench_finds_one_wrong_result_among_thousands() {
    let running = Running::start(Fleet { spoiled: Some(1234), ..Fleet::default() });
    let mut args = BENCH.to_vec();
    args.extend(["--latency", "0"]);
    let ran = running.flota(&args);
    assert!(ran.failed(1).contains("2344 are right"), "{}", ran.stderr());
    let report: Value = serde_json::from_str(&ran.stdout()).unwrap();
    assert_eq!(report["checked"]["wrong"], 1);
}
