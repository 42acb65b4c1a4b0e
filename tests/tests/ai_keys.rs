//! A user's own API key: it reaches the provider, and nothing else ever holds it in clear.
#![allow(clippy::unwrap_used)]

use std::path::Path;

use flota_tests::fake_gemini::{End, FakeGemini, Options, Script, Trouble};
use flota_tests::{Mosquitto, Node, Rest, Tap, node::workers_ready, socket::Socket, sse, until};
use reqwest::Method;
use serde_json::{Value, json};

const KEY: &str = "AIzaSy-the-users-own-key-0123456789";
const FLEETS_KEY: &str = "AIzaSy-the-fleets-key";
const MODEL: &str = "gemini-3.5-flash-lite";

/// Every form in which the key could stand somewhere.
fn forms() -> Vec<Vec<u8>> {
    let hex: String = KEY.bytes().map(|byte| format!("{byte:02x}")).collect();
    let base64 = "QUl6YVN5LXRoZS11c2Vycy1vd24ta2V5LTAxMjM0NTY3O";
    vec![KEY.into(), hex.into_bytes(), base64.into(), KEY.bytes().rev().collect(), b"users-own-key".to_vec()]
}

fn holds_key(bytes: &[u8]) -> bool {
    forms().iter().any(|form| bytes.windows(form.len()).any(|part| part == form))
}

/// The files below `directory` that hold the key.
fn files_with_key(directory: &Path, found: &mut Vec<String>, seen: &mut Vec<String>) {
    for entry in std::fs::read_dir(directory).unwrap_or_else(|e| panic!("{}: {e}", directory.display())).flatten() {
        let path = entry.path();
        if path.is_dir() {
            files_with_key(&path, found, seen);
        } else if let Ok(bytes) = std::fs::read(&path) {
            let name = path.display().to_string();
            if holds_key(&bytes) {
                found.push(name.clone());
            }
            seen.push(name);
        }
    }
}

async fn ask(rest: &Rest, question: &str) -> String {
    let body = json!({"kind": "ai.chat", "payload": {"messages": [{"role": "user", "content": question}]}});
    let request = rest.request(Method::POST, "/jobs").header("X-Flota-Api-Key", KEY).json(&body);
    let answer = rest.send(request).await.expect(201);
    assert!(!holds_key(answer.text.as_bytes()));
    answer.body["id"].as_str().unwrap_or_default().to_owned()
}

async fn nothing_answers_it(rest: &Rest, jobs: &[String]) {
    let fixed = ["/jobs?limit=500", "/workers", "/fleet", "/conversations", "/openapi.json", "//metrics"];
    for path in fixed {
        let answer = rest.get(path).await.expect(200);
        assert!(!holds_key(answer.text.as_bytes()), "{path}");
    }
    for job in jobs {
        for path in [format!("/jobs/{job}"), format!("/jobs/{job}/units")] {
            assert!(!holds_key(rest.get(&path).await.expect(200).text.as_bytes()), "{path}");
        }
        if rest.job(job).await["finished_at"].is_string() {
            let (_, events) = sse::read(rest, job, None, usize::MAX).await;
            assert!(!holds_key(format!("{events:?}").as_bytes()));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_users_key_survives_a_killed_master_and_stands_nowhere_in_clear() {
    let fake = FakeGemini::start().await.unwrap();
    let broker = Mosquitto::start().await;
    let tap = Tap::before(broker.port).await;
    let url = format!("mqtt://127.0.0.1:{}", tap.port);
    let mut master = Node::master(&url).with("FLOTA_LOG", "trace").start().await;
    let worker = Node::worker("w1", &url).with("FLOTA_GEMINI_BASE_URL", fake.base_url()).with("FLOTA_LOG", "trace");
    let worker = worker.with("FLOTA_WORKER_SLOTS", "ai=1").start().await;
    let topics = broker.subscribe("#").await;
    let rest = master.rest();
    workers_ready(&rest, 1).await;

    // One is being answered when the master is killed, one waits behind it, one fails because of its key, one is stopped.
    fake.next(Script::text(&["slow ", "answer"], "STOP").after(std::time::Duration::from_secs(4)));
    let running = ask(&rest, "one").await;
    until("the provider is asked", || async { if fake.calls().is_empty() { Err("not yet") } else { Ok(()) } }).await;
    let waiting = ask(&rest, "two").await;
    let mut found = Vec::new();
    files_with_key(&master.data_dir(), &mut found, &mut Vec::new());
    assert_eq!(found, [] as [String; 0], "while the jobs wait");
    master.kill();
    master.start_again().await;
    for job in [&running, &waiting] {
        let ended = rest.completed(job).await;
        assert_eq!(ended["result"]["provider"], "gemini", "{ended}");
    }
    fake.next(Trouble::BadKey);
    let bad = ask(&rest, "three").await;
    let ended = rest.ended(&bad).await;
    assert_eq!(ended["error"]["code"], "bad_key", "{ended}");
    fake.next(Script::unfinished(&["half"]).end(End::Stall));
    let stopped = ask(&rest, "four").await;
    rest.reaches(&stopped, &["computing"]).await;
    rest.post(&format!("/jobs/{stopped}/cancel"), &Value::Null).await.expect(200);

    let keys: Vec<_> =
        fake.calls().iter().filter_map(|seen| seen.header("x-goog-api-key").map(str::to_owned)).collect();
    assert_eq!(keys, [KEY; 4], "each attempt reached the provider with the key");
    assert!(fake.requests().iter().all(|seen| !holds_key(seen.query.as_bytes()) && !holds_key(seen.path.as_bytes())));

    nothing_answers_it(&rest, &[running, waiting, bad, stopped]).await;
    let mut seen = Vec::new();
    for node in [&master, &worker] {
        assert!(!holds_key(node.log().as_bytes()), "a log holds the key");
        files_with_key(node.directory(), &mut found, &mut seen);
    }
    assert_eq!(found, [] as [String; 0]);
    for ending in ["flota.db", "flota.db-wal", "seal.key"] {
        assert!(seen.iter().any(|name| name.ends_with(ending)), "{ending} was searched: {seen:?}");
    }
    let packets = tap.bytes();
    assert!(packets.windows(5).any(|part| part == b"/task"), "the relay saw the tasks");
    assert!(!holds_key(&packets), "a packet of the broker holds the key");
    assert!(topics.log().contains("flota/workers/w1/tasks"));
    assert!(!holds_key(topics.log().as_bytes()));
}

/// A stand-in that knows the fleet's key only.
async fn fleets_key_only() -> FakeGemini {
    FakeGemini::start_with(Options { keys: vec![FLEETS_KEY.to_owned()], ..Options::default() }).await.unwrap()
}

fn with_fleets_key(fake: &FakeGemini) -> Node {
    Node::up().with("GEMINI_API_KEY", FLEETS_KEY).with("FLOTA_GEMINI_BASE_URL", fake.base_url())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_key_is_told_and_does_not_spend_the_fleets() {
    let fake = fleets_key_only().await;
    let node = with_fleets_key(&fake).with("FLOTA_AI_BUDGET", "tokens=10").with("FLOTA_AI_LIMITS", "key_requests=1");
    let node = node.start().await;
    let rest = node.rest();
    workers_ready(&rest, 1).await;
    let mut socket = Socket::connect(node.web_port).await;
    for number in 0..5 {
        socket.ask("user-query", &json!({"query": "x", "apiKey": format!("junk{number}")})).await;
        let answer = socket.event("ai-response").await;
        assert_eq!((&answer["finish"], &answer["error"]["code"]), (&json!("error"), &json!("bad_key")), "{answer}");
        assert!(answer["response"].as_str().unwrap().contains("refuses your API key"), "{answer}");
    }
    socket.ask("user-query", &json!({"query": "x"})).await;
    let answer = socket.event("ai-response").await;
    assert_eq!((&answer["error"]["code"], &answer["jobId"]), (&json!("budget_spent"), &Value::Null), "{answer}");
    let keys: Vec<_> =
        fake.calls().iter().filter_map(|seen| seen.header("x-goog-api-key").map(str::to_owned)).collect();
    assert_eq!(keys, ["junk0", "junk1", "junk2", "junk3", "junk4"]);
    let report = rest.get("/usage").await.expect(200).body;
    let paid = |item: &&Value| item["own_key"] == false;
    assert!(report["items"].as_array().unwrap().iter().find(paid).is_none(), "{report}");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_answers_instead_of_a_bad_key_is_told_with_the_answer_and_in_the_ledger() {
    let fake = fleets_key_only().await;
    let node = with_fleets_key(&fake).with("FLOTA_AI_LOCAL_URL", fake.local_url());
    let node = node.with("FLOTA_AI_LOCAL_MODEL", "local-model").start().await;
    let rest = node.rest();
    workers_ready(&rest, 1).await;
    let mut socket = Socket::connect(node.web_port).await;
    socket.ask("user-query", &json!({"query": "x", "apiKey": "junk"})).await;
    let answer = socket.event("ai-response").await;
    assert_eq!((&answer["finish"], &answer["provider"]), (&json!("complete"), &json!("local")), "{answer}");
    let note = answer["notes"][0].as_str().unwrap();
    assert!(note.contains("Gemini refuses your API key") && note.contains("the local AI"), "{note}");
    let job = rest.job(answer["jobId"].as_str().unwrap()).await;
    assert_eq!(job["result"]["notes"], answer["notes"]);
    let report = rest.get("/usage").await.expect(200).body;
    let items = report["items"].as_array().unwrap();
    assert_eq!(items.len(), 1, "{report}");
    assert_eq!((&items[0]["provider"], &items[0]["own_key"]), (&json!("local"), &json!(false)), "{report}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_whose_key_can_not_be_opened_fails_and_says_why() {
    let mut master = Node::master("mqtt://127.0.0.1:1").start().await;
    let rest = master.rest();
    let job = ask(&rest, "one").await;
    master.kill();
    master.start_again().await;
    assert_eq!(rest.job(&job).await["state"], "pending", "the key was opened again");
    master.kill();
    std::fs::remove_file(master.data_dir().join("seal.key")).unwrap();
    master.start_again().await;
    let ended = rest.ended(&job).await;
    assert_eq!(ended["error"]["code"], "credential_lost", "{ended}");
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_that_are_none_are_refused_without_being_shown() {
    let master = Node::master("mqtt://127.0.0.1:1").start().await;
    let rest = master.rest();
    let body = json!({"kind": "ai.chat", "model": MODEL, "payload": {"messages": [{"role": "user", "content": "x"}]}});
    for bad in ["two words-0123456789", "tab\there-0123456789"] {
        let request = rest.request(Method::POST, "/jobs").header("X-Flota-Api-Key", bad).json(&body);
        let answer = rest.send(request).await.expect(400);
        assert_eq!(answer.body["code"], "bad_header");
        assert!(!answer.text.contains("0123456789"), "{}", answer.text);
    }
    assert!(!master.log().contains("0123456789"));
}
