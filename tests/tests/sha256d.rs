//! A second algorithm through the whole fleet: the vectors are blocks of Bitcoin's chain.

use std::sync::Arc;

use flota_tests::until::until;
use flota_tests::{Mosquitto, Node, node::workers_ready};
use flota_worker::executor::randomx::{RandomxConfig, RandomxExecutor};
use flota_worker::{Worker, WorkerConfig};
use serde_json::{Value, json};
use tempfile::TempDir;

/// The headers of block 0 and block 125552, and their hashes as they lie in memory.
const BLOCK_0: &str = "0100000000000000000000000000000000000000000000000000000000000000000000003ba3edfd7a7b12b27ac72c3e67768f617f\
                       c81bc3888a51323a9fb8aa4b1e5e4a29ab5f49ffff001d1dac2b7c";
const HASH_0: &str = "6fe28c0ab6f1b372c1a6a246ae63f74f931e8365e15a089c68d6190000000000";
const NONCE_0: u64 = 2_083_236_893;
const BLOCK_125552: &str = "0100000081cd02ab7e569e8bcd9317e2fe99f2de44d49ab2b8851ba4a308000000000000e320b6c2fffc8d750423db8b1eb\
                            942ae710e951ed797f7affc8892b0f1fc122bc7f5d74df2b9441a42a14695";
const HASH_125552: &str = "1dbd981fe6985776b644b173a4d0385ddc1aa2a829688d1e0000000000000000";

/// `bits` of block 0: 1d00ffff.
fn target() -> String {
    format!("{}ffff00000000", "00".repeat(26))
}

fn search(range: std::ops::Range<u64>, find: &str) -> Value {
    json!({"kind": "sha256d.search", "payload": {
        "blob": BLOCK_0, "nonce_offset": 76, "nonce_start": range.start, "nonce_end": range.end,
        "target": target(), "find": find,
    }})
}

#[tokio::test(flavor = "multi_thread")]
async fn the_fleet_finds_the_nonce_of_the_first_block_by_several_workers_each_nonce_once() {
    let broker = Mosquitto::start().await;
    let master = Node::master(&broker.url()).start().await;
    let _workers = [
        Node::worker("one", &broker.url()).with("FLOTA_RANDOMX_THREADS", "1").start().await,
        Node::worker("two", &broker.url()).with("FLOTA_RANDOMX_THREADS", "1").start().await,
    ];
    let rest = master.rest();
    workers_ready(&rest, 2).await;
    let range = NONCE_0 - 1_500_000..NONCE_0 + 1_500_000;
    let job = rest.submit(search(range.clone(), "all")).await;
    let result = rest.completed(&job).await["result"].clone();
    assert_eq!(
        result,
        json!({"found": [{"nonce": NONCE_0, "hash": HASH_0}], "hashes_computed": 3_000_000,
            "covered": [[range.start, range.end]]})
    );
    let audit = rest.get(&format!("/jobs/{job}/audit")).await.expect(200).body;
    assert_eq!((&audit["exact"], &audit["covered"]), (&json!(true), &json!(3_000_000)), "{audit}");
    assert_eq!(audit["workers"].as_array().map(Vec::len), Some(2), "{audit}");

    let first = rest.submit(search(NONCE_0 - 400_000..1 << 32, "first")).await;
    let result = rest.completed(&first).await["result"].clone();
    assert_eq!(result["found"], json!([{"nonce": NONCE_0, "hash": HASH_0}]));

    let metrics = rest.get("//metrics").await.expect(200).text;
    let counted = metrics.lines().find(|line| line.starts_with("flota_algorithm_hashes_total{algorithm=\"sha256d\"}"));
    let count = counted.and_then(|line| line.rsplit_once(' ')?.1.parse::<u64>().ok());
    assert!(count.is_some_and(|count| count > 3_000_000), "{counted:?}");
    assert!(metrics.contains("flota_checks_total{outcome=\"right\"}"), "new workers are checked");
    assert!(!metrics.contains("flota_checks_total{outcome=\"wrong\"}"));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_line_hashes_with_a_chosen_algorithm() {
    let fleet = Node::up().with("FLOTA_RANDOMX_THREADS", "1").start().await;
    let rest = fleet.rest();
    workers_ready(&rest, 1).await;
    let run = async |arguments: &[&str]| {
        let mut command = tokio::process::Command::from(fleet.cli());
        let output = command.arg("hash").args(arguments).output().await.expect("failed to start flota hash");
        let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        (output.status.code(), said)
    };
    let (code, said) = run(&["--algorithm", "sha256d", "--hex", BLOCK_0, BLOCK_125552]).await;
    assert_eq!((code, said.contains(HASH_0), said.contains(HASH_125552)), (Some(0), true, true), "{said}");
    let (code, said) = run(&["--algorithm", "sha256d", "--key", "k", "x"]).await;
    assert_eq!((code, said.contains("has no key")), (Some(2), true), "{said}");
    let (code, said) = run(&["x"]).await;
    assert_eq!((code, said.contains("--key")), (Some(2), true), "{said}");
    let (code, said) = run(&["--algorithm", "md5", "x"]).await;
    assert_eq!((code, said.contains("rx/0, sha256d")), (Some(2), true), "{said}");

    // More finds than one message holds: about one nonce in two wins.
    let easy = json!({"kind": "sha256d.search", "payload": {
        "blob": BLOCK_0, "nonce_offset": 76, "nonce_start": 0, "nonce_end": 30_000,
        "target": format!("{}80", "00".repeat(31)), "find": "all",
    }});
    let result = rest.completed(&rest.submit(easy).await).await["result"].clone();
    let found = result["found"].as_array().map_or(0, Vec::len);
    assert!((14_000..16_000).contains(&found), "{found}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_without_the_capability_gets_no_such_work() {
    let broker = Mosquitto::start().await;
    let master = Node::master(&broker.url()).start().await;
    let rest = master.rest();
    let directory = TempDir::new().expect("a directory");
    let config = WorkerConfig::new("older".parse().expect("an id"), &broker.url(), directory.path().to_owned());
    let executor = Arc::new(RandomxExecutor::new(RandomxConfig::default()));
    let older = Worker::start(config, vec![executor]).await.expect("it starts");
    workers_ready(&rest, 1).await;
    let job = rest.submit(json!({"kind": "sha256d.hash", "payload": {"inputs": [BLOCK_0]}})).await;
    until("it says that it waits for a worker", || async {
        let job = rest.job(&job).await;
        if job["state"] == "pending" && !job["waiting"]["reason"].is_null() { Ok(()) } else { Err(job) }
    })
    .await;
    let newer = Node::worker("newer", &broker.url()).start().await;
    let ended = rest.completed(&job).await;
    assert_eq!((&ended["workers"], &ended["result"]), (&json!(["newer"]), &json!({"hashes": [HASH_0]})));
    let features = async |id: &str| {
        let worker = rest.get(&format!("/workers/{id}")).await.expect(200).body;
        let features = worker["capabilities"]["features"].as_array().cloned().unwrap_or_default();
        ["rx/0", "sha256d"].map(|name| features.contains(&json!(name)))
    };
    assert_eq!((features("older").await, features("newer").await), ([true, false], [true, true]));
    older.shutdown().await;
    drop(newer);
}
