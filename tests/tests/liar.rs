//! A worker that invents its results is found out, set aside, and what it did is computed again by others.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use flota_proto::kinds::{HashResult, Payload, SearchResult};
use flota_proto::{Algorithm, Kind};
use flota_tests::until::until_within;
use flota_tests::{Mosquitto, Node, Rest, node::workers_ready};
use flota_worker::executor::randomx::{RandomxConfig, RandomxExecutor};
use flota_worker::executor::{Context, Executor, Failure, Output, Unit};
use flota_worker::{RunningWorker, Worker, WorkerConfig};
use rand::Rng;
use serde_json::{Value, json};
use tempfile::TempDir;

const DEADLINE: Duration = Duration::from_secs(120);

/// Answers at once, with anything; honest until it is told to lie, where it has something to compute with.
struct Liar {
    honest: Option<RandomxExecutor>,
    lies: Arc<AtomicBool>,
}

fn invented(bytes: u64) -> Vec<u8> {
    (0..bytes).map(|_| rand::rng().random()).collect()
}

#[async_trait]
impl Executor for Liar {
    fn kinds(&self) -> &[Kind] {
        &Kind::ALL
    }

    async fn execute(&self, unit: Unit, context: Context) -> Result<Output, Failure> {
        if let Some(honest) = self.honest.as_ref().filter(|_| !self.lies.load(Ordering::SeqCst)) {
            return honest.execute(unit, context).await;
        }
        let json = match (unit.payload, unit.kind.algorithm()) {
            (Payload::Hash(payload), _) => {
                let hashes = payload.inputs.iter().map(|_| invented(32).into()).collect();
                serde_json::to_vec(&HashResult { hashes, mode: "fast".into(), covered: Vec::new() })
            }
            (Payload::Search(payload), Some(algorithm)) => {
                let covered = vec![[payload.nonce_start, payload.nonce_end]];
                let mut result = SearchResult { hashes_computed: payload.count(), covered, ..SearchResult::default() };
                result.proof = invented(2 * result.groups_count(algorithm)).into();
                serde_json::to_vec(&result)
            }
            _ => return Err(Failure::permanent("unsupported", "no")),
        };
        let json = json.map_err(|error| Failure::permanent("internal", error.to_string()))?;
        Ok(Output { json: json.into(), hashes: 1_000 })
    }
}

struct Fleet {
    broker: Mosquitto,
    master: Node,
    liar: RunningWorker,
    lies: Arc<AtomicBool>,
    _directory: TempDir,
}

impl Fleet {
    async fn start() -> Self {
        Self::with(None).await
    }

    async fn with(honest: Option<RandomxExecutor>) -> Self {
        let broker = Mosquitto::start().await;
        let master = Node::master(&broker.url()).start().await;
        let directory = TempDir::new().expect("a directory");
        let config = WorkerConfig::new("liar".parse().expect("an id"), &broker.url(), directory.path().to_owned());
        let lies = Arc::new(AtomicBool::new(false));
        let executor = Liar { honest, lies: lies.clone() };
        let liar = Worker::start(config, vec![Arc::new(executor)]).await.expect("the liar starts");
        workers_ready(&master.rest(), 1).await;
        Self { broker, master, liar, lies, _directory: directory }
    }
}

async fn caught(rest: &Rest) -> Value {
    until_within(DEADLINE, "the liar is set aside", || async {
        let worker = rest.get("/workers/liar").await.body.clone();
        if worker["status"] == "quarantined" { Ok(worker) } else { Err(worker) }
    })
    .await
}

fn wrong_results(units: &[Value]) -> usize {
    let tries = units.iter().filter_map(|unit| unit["attempts"].as_array()).flatten();
    tries.filter(|attempt| attempt["error"]["code"] == "wrong_result" && attempt["worker_id"] == "liar").count()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_claims_nonces_it_never_hashed_is_caught_and_others_hash_them() {
    claims_nonces_it_never_hashed(Algorithm::Randomx, 150).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn so_it_is_whatever_the_algorithm() {
    claims_nonces_it_never_hashed(Algorithm::Sha256d, 500_000).await;
}

async fn claims_nonces_it_never_hashed(algorithm: Algorithm, nonces: u64) {
    let fleet = Fleet::start().await;
    let rest = fleet.master.rest();
    let mut payload = json!({
        "blob": "00".repeat(43), "nonce_offset": 39, "nonce_start": 7, "nonce_end": 7 + nonces,
        "target": "00".repeat(32), "find": "all",
    });
    if algorithm.has_key() {
        payload["key"] = json!("6b");
    }
    let job = rest.submit(json!({"kind": algorithm.search_kind(), "cache": false, "payload": payload})).await;
    let worker = caught(&rest).await;
    let detail = worker["status_detail"].as_str().unwrap_or_default();
    assert!(detail.contains("wrong") && detail.contains("flota workers resume"), "{detail}");
    let quarantine = &worker["quarantine"];
    assert!(quarantine["reason"].as_str().is_some_and(|reason| detail.contains(reason)), "{worker}");
    assert!(quarantine["since"].is_string() && quarantine["until"].is_string(), "{worker}");
    let _honest = Node::worker("honest", &fleet.broker.url()).start().await;
    let ended = until_within(DEADLINE, "the honest worker has done it all", || async {
        let job = rest.job(&job).await;
        if job["finished_at"].is_null() { Err(job) } else { Ok(job) }
    })
    .await;
    assert_eq!((&ended["state"], &ended["failures"]), (&json!("completed"), &json!(0)), "{ended}");
    assert_eq!(ended["result"]["covered"], json!([[7, 7 + nonces]]));
    let units = rest.units(&job).await;
    assert!(wrong_results(&units) >= 1, "{units:?}");
    assert!(units.iter().all(|unit| unit["worker_id"] == "honest"), "{units:?}");
    fleet.liar.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn invented_hashes_are_caught_with_the_first_and_the_liar_returns_by_the_operators_word() {
    let fleet = Fleet::start().await;
    let rest = fleet.master.rest();
    let inputs: Vec<String> = (0..20).map(|input: u8| format!("{input:02x}")).collect();
    let job =
        rest.submit(json!({"kind": "randomx.hash", "cache": false, "payload": {"key": "6b", "inputs": inputs}})).await;
    caught(&rest).await;
    let units = rest.units(&job).await;
    assert_eq!(wrong_results(&units), 1, "{units:?}");
    rest.post(&format!("/jobs/{job}/cancel"), &json!({})).await.expect(200);
    let released = rest.post("/workers/liar/resume", &json!({})).await.expect(200);
    assert_eq!(released.body["status"], "idle", "{}", released.body);
    fleet.liar.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_liar_did_before_is_marked_and_given_to_nobody_else() {
    let fleet = Fleet::with(Some(RandomxExecutor::new(RandomxConfig::default()))).await;
    let rest = fleet.master.rest();
    let asked = json!({"kind": "randomx.hash", "payload": {"key": "6b", "inputs": ["00", "01"]}});
    let first = rest.submit(asked.clone()).await;
    let result = rest.completed(&first).await["result"].clone();
    let given = rest.submit(asked.clone()).await;
    assert_eq!(rest.completed(&given).await["workers"], json!([]), "an earlier result is used");
    assert!(rest.job(&first).await.get("suspect").is_none());

    fleet.lies.store(true, Ordering::SeqCst);
    let other = json!({"kind": "randomx.hash", "payload": {"key": "6b", "inputs": ["02", "03"]}});
    let lie = rest.submit(other).await;
    caught(&rest).await;
    for job in [&first, &given] {
        let job = rest.job(job).await;
        assert_eq!(
            (&job["state"], &job["suspect"], &job["result"]),
            (&json!("completed"), &json!(true), &result),
            "{job}"
        );
    }
    assert_eq!(rest.units(&first).await[0]["suspect"], true);
    let audit = rest.get(&format!("/jobs/{first}/audit")).await.expect(200).body;
    assert_eq!(
        (&audit["suspect"], &audit["workers"][0]["suspect"], &audit["exact"]),
        (&json!(2), &json!(2), &json!(true))
    );
    assert_eq!(audit["units"][0]["suspect"], true, "{audit}");

    let again = rest.submit(asked).await;
    let _honest = Node::worker("honest", &fleet.broker.url()).start().await;
    let job = rest.completed(&again).await;
    assert_eq!((&job["workers"], &job["result"]["hashes"]), (&json!(["honest"]), &result["hashes"]));
    assert!(job.get("suspect").is_none() && rest.completed(&lie).await.get("suspect").is_none());
    flota_tests::browser::passes("suspect", &[&fleet.master.url(), &first], fleet.master.directory()).await;
    fleet.liar.shutdown().await;
}
