//! Solo mining on a real Monero node (regtest): real templates, real proof of work, blocks that the node confirms.

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::time::Duration;

use flota_tests::fake_node::{FakeNode, Manner};
use flota_tests::monerod::WALLET;
use flota_tests::until::until_within;
use flota_tests::{Monerod, Mosquitto, Node, Rest, node::workers_ready, until};
use reqwest::Method;
use serde_json::{Value, json};

/// A block is a dozen hashes and some calls; a machine that takes so long for all of them is called broken.
const LONG: Duration = Duration::from_secs(400);

fn solo(node: &Monerod) -> Value {
    json!({"id": "solo", "source": "monerod", "config": {"url": node.url(), "wallet_address": WALLET}})
}

async fn source(rest: &Rest) -> Value {
    rest.get("/sources/solo").await.expect(200).body
}

async fn blocks_confirmed(rest: &Rest, count: u64) -> Value {
    until_within(LONG, &format!("{count} blocks are on the main chain"), || async {
        let source = source(rest).await;
        if source["counters"]["blocks"].as_u64() >= Some(count) { Ok(source) } else { Err(source) }
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn twenty_blocks_are_confirmed_across_key_changes_while_workers_die_and_come() {
    let node = Monerod::new(25).with_epochs(8, 2).start().await;
    let broker = Mosquitto::start().await;
    let master = Node::master(&broker.url()).start().await;
    let worker = |id: &'static str| Node::worker(id, &broker.url()).with("FLOTA_RANDOMX_THREADS", "1");
    let victim = worker("victim").start().await;
    let _survivor = worker("survivor").start().await;
    let rest = master.rest();
    workers_ready(&rest, 2).await;
    rest.post("/sources", &solo(&node)).await.expect(201);

    blocks_confirmed(&rest, 7).await;
    until("the victim computes", || async {
        // Between two templates there is no job.
        let source = source(&rest).await;
        let Some(job) = source["work"]["job_id"].as_str() else { return Err(vec![source]) };
        let units = rest.units(job).await;
        let busy = units.iter().any(|unit| unit["worker_id"] == "victim" && unit["state"] == "computing");
        if busy { Ok(()) } else { Err(units) }
    })
    .await;
    victim.kill();
    blocks_confirmed(&rest, 9).await;
    let _late = worker("late").start().await;
    let keys = Mutex::new(BTreeSet::new());
    let done = until_within(LONG, "20 blocks are on the main chain", || async {
        let source = source(&rest).await;
        keys.lock().unwrap().extend(source["work"]["seed_hash"].as_str().map(str::to_owned));
        if source["counters"]["blocks"].as_u64() >= Some(20) { Ok(source) } else { Err(source["counters"].clone()) }
    })
    .await;
    let keys = keys.into_inner().unwrap();
    assert!(keys.len() >= 2, "the key was to change: {keys:?}");

    let counters = &done["counters"];
    for block in done["blocks"].as_array().cloned().unwrap_or_default() {
        if block["state"] == "confirmed" {
            let height = block["height"].as_u64().unwrap_or_default();
            assert_eq!(node.block_at(height).await.as_deref(), block["hash"].as_str(), "{block}");
        }
    }
    assert_eq!(counters["rejected"], 0, "{counters}");
    assert_eq!(counters["invalid"], 0, "{counters}");
    assert!(counters["hashes"].as_u64() > Some(0), "{counters}");
    println!("20 blocks: {counters}");

    let stopped = rest.post("/sources/solo/stop", &json!({})).await.expect(200).body;
    assert_eq!(stopped["state"], "stopped");
    until("no job is left", || async {
        let live = rest.get("/jobs?label=source=solo&state=pending,assigned,computing").await.body;
        if live["items"].as_array().is_some_and(Vec::is_empty) { Ok(()) } else { Err(live) }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_block_of_somebody_else_takes_stale_work_off_the_workers_and_a_restart_goes_on() {
    // So hard that nothing is found.
    let mut node = Monerod::new(1_000_000_000).start().await;
    let mut fleet = Node::up().with("FLOTA_RANDOMX_THREADS", "1").start().await;
    let rest = fleet.rest();
    workers_ready(&rest, 1).await;
    rest.post("/sources", &solo(&node)).await.expect(201);
    let working = |rest: Rest, what: &'static str, not: Option<String>| async move {
        until(what, || async {
            let source = source(&rest).await;
            let job = source["work"]["job_id"].as_str().map(str::to_owned);
            match job.filter(|job| Some(job) != not.as_ref() && source["state"] == "mining") {
                Some(job) if rest.job(&job).await["state"] == "computing" => Ok(job),
                _ => Err(source),
            }
        })
        .await
    };
    let first = working(rest.clone(), "the fleet computes", None).await;
    assert_eq!(rest.post("/sources", &solo(&node)).await.expect(409).body["code"], "id_taken");

    // The same as a new block, without the work: the node's chain is another one now.
    node.process().kill();
    node.start_again().await;
    let second = working(rest.clone(), "the fleet computes again", Some(first.clone())).await;
    rest.reaches(&first, &["cancelled"]).await;
    until("what was thrown away is counted", || async {
        let counters = source(&rest).await["counters"].clone();
        if counters["wasted_hashes"].as_u64() > Some(0) { Ok(()) } else { Err(counters) }
    })
    .await;

    fleet.kill();
    fleet.start_again().await;
    let third = working(rest.clone(), "the restarted master goes on by itself", Some(second.clone())).await;
    assert_ne!(third, second);
    rest.reaches(&second, &["cancelled"]).await;

    node.process().kill();
    let failing = until("the source says that the node is away", || async {
        let source = source(&rest).await;
        if source["detail"].as_str().is_some_and(|detail| detail.contains("does not answer")) {
            Ok(source)
        } else {
            Err(source)
        }
    })
    .await;
    assert_eq!(failing["config"]["wallet_address"], WALLET);
    rest.send(rest.request(Method::DELETE, "/sources/solo")).await.expect(204);
    rest.get("/sources/solo").await.expect(404);
    rest.reaches(&third, &["cancelled"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sources_that_can_not_work_are_refused_with_the_reason() {
    let fleet = Node::up().with("FLOTA_WORKER_SLOTS", "randomx=0").start().await;
    let rest = fleet.rest();
    let config = |wallet: &str| json!({"url": "http://127.0.0.1:1", "wallet_address": wallet});
    let subaddress = "85oYs3QM9oBJ8QgRfFWTzmJ8QgRfFWTzmJ8QgRfFWTzmJ7suhUXwdrDJ8QgRfFWTzmJ8QgRfFWTzmJ8QgRfFWTzmCa641Hz";
    let mistyped = WALLET.replacen("QXf", "QXg", 1);
    let bad = [
        (json!({"source": "monerod", "config": config(&mistyped)}), "config.wallet_address", "checksum"),
        (json!({"source": "monerod", "config": config(subaddress)}), "config.wallet_address", "subaddress"),
        (json!({"source": "monerod", "config": config("4")}), "config.wallet_address", "characters"),
        (json!({"source": "monerod", "config": {"url": "ftp://x", "wallet_address": WALLET}}), "config.url", "http"),
        (
            json!({"source": "monerod", "config": {"url": "http://a:b@x", "wallet_address": WALLET}}),
            "config.url",
            "user",
        ),
        (json!({"source": "monerod", "config": {"url": "http://x", "wallet": WALLET}}), "config.wallet", "unknown"),
        (json!({"source": "monerod", "config": []}), "config", "object"),
        (json!({"source": "api", "config": {}}), "source", "POST /api/v1/jobs"),
        (json!({"source": "nicehash", "config": {}}), "source", "monerod"),
        (json!({"id": "No Name", "source": "monerod", "config": config(WALLET)}), "id", "lowercase"),
        (json!({"id": "x", "source": "monerod", "config": config(WALLET), "donate": 1}), "donate", "unknown"),
    ];
    for (body, field, wanted) in bad {
        let answer = rest.post("/sources", &body).await.expect(422);
        let detail = answer.body["detail"].as_str().unwrap_or_default();
        assert_eq!(answer.body["field"], field, "{}", answer.text);
        assert!(detail.contains(wanted), "{detail} should say {wanted}");
    }
    assert_eq!(rest.get("/sources").await.body["items"], json!([]));
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_a_node_does_wrong_is_said_and_mended_when_it_is_right_again() {
    let node = FakeNode::start().await;
    let fleet = Node::up().with("FLOTA_RANDOMX_THREADS", "1").start().await;
    let rest = fleet.rest();
    workers_ready(&rest, 1).await;
    let config = json!({"url": node.url(), "wallet_address": WALLET});
    rest.post("/sources", &json!({"id": "solo", "source": "monerod", "config": config})).await.expect(201);
    let shows = |what: String, state: &'static str, detail: &'static str| {
        let rest = rest.clone();
        async move {
            until(&what, || async {
                let source = source(&rest).await;
                let said = source["detail"].as_str().unwrap_or_default().contains(detail);
                if source["state"] == state && said { Ok(()) } else { Err(source) }
            })
            .await;
        }
    };
    let wrong = [
        (Manner::Testnet, "failing", "another chain"),
        (Manner::Synchronising, "failing", "synchronising"),
        (Manner::NoDifficulty, "failing", "difficulty is 0"),
        (Manner::HalfBlob, "failing", "malformed"),
        (Manner::Mismatch, "failing", "different blocks"),
        (Manner::NoSeed, "failing", "seed_hash"),
        (Manner::Refuses, "failing", "Core is busy"),
        (Manner::NewBlockNegative, "failing", "new block"),
        (Manner::NewBlockSlow, "failing", "new block"),
        (Manner::NewBlockOldTemplate, "failing", "not its newest"),
        // The work at hand is still good for a while.
        (Manner::Garbage, "mining", "nonsense"),
        (Manner::Broken, "mining", "500"),
        (Manner::Silent, "failing", "does not answer"),
    ];
    for (manner, state, detail) in wrong {
        node.behave(Manner::Good);
        shows(format!("it mines before the node is {manner:?}"), "mining", "").await;
        node.behave(manner);
        shows(format!("it says that the node is {manner:?}"), state, detail).await;
    }
    until("no work is left at the workers", || async {
        let live = rest.get("/jobs?label=source=solo&state=pending,assigned,computing").await.body;
        if live["items"].as_array().is_some_and(Vec::is_empty) { Ok(()) } else { Err(live) }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_with_a_login_takes_it_and_the_password_is_never_shown() {
    let node = Monerod::new(1_000_000_000).with_option("--rpc-login=miner:pass word").start().await;
    let fleet = Node::up().with("FLOTA_WORKER_SLOTS", "randomx=0").start().await;
    let rest = fleet.rest();
    let body = |password: &str| {
        let config = json!({"url": node.url(), "wallet_address": WALLET, "user": "miner", "password": password});
        json!({"id": "solo", "source": "monerod", "config": config})
    };
    rest.post("/sources", &body("wrong")).await.expect(201);
    until("the wrong password is refused", || async {
        let source = source(&rest).await;
        if source["detail"].as_str().is_some_and(|detail| detail.contains("refuses")) { Ok(()) } else { Err(source) }
    })
    .await;
    rest.send(rest.request(Method::DELETE, "/sources/solo")).await.expect(204);
    rest.post("/sources", &body("pass word")).await.expect(201);
    let shown = until("the right one is taken", || async {
        let source = source(&rest).await;
        if source["state"] == "mining" { Ok(source) } else { Err(source) }
    })
    .await;
    assert!(!shown.to_string().contains("pass word"), "{shown}");
    assert!(!fleet.log().contains("pass word"), "the log holds a password");
}
