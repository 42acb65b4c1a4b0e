//! A search whose worker is killed in the middle covers its range exactly. `FLOTA_TEST_NONCES` sets how many nonces (20,000 every
//! night).

use std::time::Duration;

use flota_tests::{Mosquitto, Node, node::workers_ready, until::until_within};
use serde_json::{Value, json};

const BLOB: &str = "0b0b98bea7e805e0010a2126d287a2a0cc833d312cb786385a7c2f9de69d25537f584a9bc9977b00000000666fd8753bf61a8631f12984e3fd44f4014eca629276817b56f32e9b68bd82f416";
const NONCE_OFFSET: usize = 39;
const KEY: &str = "746573742b6b6579"; // any key will do
const START: u64 = 4_000_000_000;

fn nonces() -> u64 {
    std::env::var("FLOTA_TEST_NONCES").ok().and_then(|text| text.parse().ok()).unwrap_or(2_000)
}

/// Light mode on two cores does about 40 hashes a second; a machine that does five is called broken.
fn deadline() -> Duration {
    Duration::from_secs(120 + nonces() / 5)
}

fn search(end: u64, target: &str, find: &str) -> Value {
    json!({"kind": "randomx.search", "cache": false, "payload": {
        "key": KEY, "blob": BLOB, "nonce_offset": NONCE_OFFSET, "nonce_start": START, "nonce_end": end,
        "target": target, "find": find,
    }})
}

/// About one hash in 64 lies below it: little endian, so the last byte is the highest.
fn target() -> String {
    format!("{}04", "00".repeat(31))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_search_with_a_worker_killed_in_the_middle_covers_exactly_its_range() {
    let broker = Mosquitto::start().await;
    let master = Node::master(&broker.url()).start().await;
    let worker = |id: &'static str| Node::worker(id, &broker.url()).with("FLOTA_RANDOMX_THREADS", "1");
    let victim = worker("victim").start().await;
    let _survivor = worker("survivor").start().await;
    let rest = master.rest();
    workers_ready(&rest, 2).await;

    let end = START + nonces();
    let job = rest.submit(search(end, &target(), "all")).await;
    until_within(deadline(), "the victim has done a unit and computes the next", || async {
        let units = rest.units(&job).await;
        let of_victim = |state: &str| units.iter().any(|u| u["worker_id"] == "victim" && u["state"] == state);
        if of_victim("completed") && of_victim("computing") { Ok(()) } else { Err(units.len()) }
    })
    .await;
    victim.kill();
    assert_eq!(rest.job(&job).await["state"], "computing", "the worker was to die in the middle");

    let ended = until_within(deadline(), "the search ends", || async {
        let job = rest.job(&job).await;
        if job["finished_at"].is_null() { Err(job["progress"].clone()) } else { Ok(job) }
    })
    .await;
    assert_eq!(ended["state"], "completed", "{ended}");
    let result = &ended["result"];
    assert_eq!(result["covered"], json!([[START, end]]));
    assert!(result["hashes_computed"].as_u64() >= Some(nonces()), "{}", result["hashes_computed"]);
    assert_eq!(ended["progress"]["fraction"], 1.0);

    let found = result["found"].as_array().cloned().unwrap_or_default();
    assert!(!found.is_empty(), "one nonce in 64 was to win");
    let numbers: Vec<u64> = found.iter().filter_map(|win| win["nonce"].as_u64()).collect();
    assert!(numbers.is_sorted_by(|a, b| a < b), "by nonce, each once: {numbers:?}");
    assert!(numbers.iter().all(|nonce| (START..end).contains(nonce)));

    let audit = rest.get(&format!("/jobs/{job}/audit")).await.expect(200).body;
    assert_eq!((&audit["exact"], &audit["covered"]), (&json!(true), &json!(nonces())), "{audit}");
    let computed: u64 = audit["workers"].as_array().into_iter().flatten().filter_map(|w| w["computed"].as_u64()).sum();
    assert_eq!(computed, nonces(), "{audit}");

    let units = rest.units(&job).await;
    let rescued = units.iter().filter(|unit| unit["attempts"].as_array().is_some_and(|tries| tries.len() > 1)).count();
    assert!(rescued >= 1, "a unit of the killed worker was to be tried again: {units:?}");
    check_hashes(&rest, &found).await;
}

/// What was found are the hashes that `randomx.hash` computes of the same bytes.
async fn check_hashes(rest: &flota_tests::Rest, found: &[Value]) {
    let sample = &found[..found.len().min(8)];
    let inputs: Vec<String> = sample
        .iter()
        .map(|win| {
            let nonce = u32::try_from(win["nonce"].as_u64().unwrap_or_default()).unwrap_or_default();
            let nonce: String = nonce.to_le_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
            let at = NONCE_OFFSET * 2;
            format!("{}{nonce}{}", &BLOB[..at], &BLOB[at + 8..])
        })
        .collect();
    let job = rest.submit(json!({"kind": "randomx.hash", "payload": {"key": KEY, "inputs": inputs}})).await;
    let hashes = rest.completed(&job).await["result"]["hashes"].clone();
    let expected: Vec<&Value> = sample.iter().map(|win| &win["hash"]).collect();
    assert_eq!(hashes, json!(expected));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_search_for_the_first_stops_all_its_units_once_one_has_found() {
    let fleet = Node::up().with("FLOTA_RANDOMX_THREADS", "1").start().await;
    let rest = fleet.rest();
    workers_ready(&rest, 1).await;
    // A range that would take years: it ends because of the find.
    let job = rest.submit(search(1 << 32, &target(), "first")).await;
    let ended = until_within(deadline(), "the first is found", || async {
        let job = rest.job(&job).await;
        if job["finished_at"].is_null() { Err(job["progress"].clone()) } else { Ok(job) }
    })
    .await;
    assert_eq!(ended["state"], "completed", "{ended}");
    assert_eq!(ended["result"]["found"].as_array().map(Vec::len), Some(1), "{ended}");
    let units = rest.units(&job).await;
    let left: Vec<&Value> = units.iter().filter(|u| u["state"] != "completed" && u["state"] != "cancelled").collect();
    assert!(left.is_empty(), "{left:?}");
    let covered = ended["result"]["covered"].as_array().cloned().unwrap_or_default();
    let counted: u64 = covered.iter().filter_map(|range| Some(range[1].as_u64()? - range[0].as_u64()?)).sum();
    assert!(counted > 0 && counted <= ended["result"]["hashes_computed"].as_u64().unwrap_or_default(), "{ended}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_search_stops_within_a_second_and_keeps_what_was_computed() {
    let fleet = Node::up().with("FLOTA_RANDOMX_THREADS", "1").start().await;
    let rest = fleet.rest();
    workers_ready(&rest, 1).await;
    let job = rest.submit(search(1 << 32, &"00".repeat(32), "all")).await;
    until_within(deadline(), "a unit is done", || async {
        let job = rest.job(&job).await;
        if job["progress"]["units_done"].as_u64() > Some(0) { Ok(()) } else { Err(job) }
    })
    .await;
    let cancelled = rest.post(&format!("/jobs/{job}/cancel"), &json!({})).await.expect(200);
    assert_eq!(cancelled.body["state"], "cancelled");
    until_within(Duration::from_secs(5), "the worker is idle", || async {
        let worker = rest.get("/workers").await.body["items"][0].clone();
        let busy = worker["running"]["randomx"].as_u64().unwrap_or_default();
        if busy == 0 && worker["status"] == "idle" { Ok(()) } else { Err(worker) }
    })
    .await;
    assert!(!rest.job(&job).await["result"]["covered"].as_array().is_none_or(Vec::is_empty));
}
