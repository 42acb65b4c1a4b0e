//! Mining for a stand-in pool that computes every share once more, and misbehaves in every way that is known of pools.

use std::collections::BTreeSet;

use flota_tests::fake_pool::{FakePool, Manner, certificate};
use flota_tests::{Node, Rest, node::workers_ready, until};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};

async fn fleet() -> (Node, Rest) {
    let fleet = Node::up().with("FLOTA_RANDOMX_THREADS", "1").start().await;
    let rest = fleet.rest();
    workers_ready(&rest, 1).await;
    (fleet, rest)
}

async fn mine(rest: &Rest, pools: Vec<Value>) {
    rest.post("/sources", &json!({"id": "pool", "source": "stratum", "config": {"pools": pools}})).await.expect(201);
}

async fn source(rest: &Rest) -> Value {
    rest.get("/sources/pool").await.expect(200).body
}

async fn shows(rest: &Rest, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
    until(what, || async {
        let source = source(rest).await;
        if wanted(&source) { Ok(source) } else { Err(source) }
    })
    .await
}

fn count(source: &Value, counter: &str) -> u64 {
    source["counters"][counter].as_u64().unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread")]
async fn shares_are_right_and_counted_while_jobs_and_keys_change_and_change_back() {
    let pool = FakePool::start().await;
    let (_fleet, rest) = fleet().await;
    mine(&rest, vec![json!({"url": pool.url(), "user": "somebody", "password": "secret word", "rig_id": "rig"})]).await;
    let first = shows(&rest, "three shares are accepted", |source| count(source, "accepted") >= 3).await;
    assert_eq!(first["connected_to"], pool.url());
    assert!(!first.to_string().contains("secret word"), "a password is never shown: {first}");
    let login = pool.logins()[0].clone();
    assert_eq!(
        (&login["login"], &login["pass"], &login["rigid"]),
        (&json!("somebody"), &json!("secret word"), &json!("rig"))
    );
    assert_eq!(login["algo"], json!(["rx/0"]));

    let jobs = count(&source(&rest).await, "jobs");
    pool.say_job();
    pool.set_job("2", 20, &"22".repeat(32), 101, 0);
    let shares_of = |id: &str| pool.shares().into_iter().filter(|share| share.job_id == id).count();
    until("a share of the second job", || async { if shares_of("2") > 0 { Ok(()) } else { Err(pool.shares().len()) } })
        .await;
    assert_eq!(count(&source(&rest).await, "jobs"), jobs + 1, "a job that comes twice is one job");
    pool.set_job("3", 20, &"11".repeat(32), 102, 0);
    until("a share of the third job, with the first key", || async {
        if shares_of("3") > 0 { Ok(()) } else { Err(()) }
    })
    .await;

    // The pool of stock miners: it gives each a top byte of the nonce.
    pool.set_job("4", 20, &"11".repeat(32), 102, 0xa7);
    until("two shares of the NiceHash job", || async { if shares_of("4") > 1 { Ok(()) } else { Err(()) } }).await;
    let shares = pool.shares();
    assert!(shares.iter().all(|share| share.wins), "{shares:?}");
    assert!(shares.iter().filter(|share| share.job_id == "4").all(|share| share.nonce >> 24 == 0xa7), "{shares:?}");
    let distinct: BTreeSet<(String, u32)> = shares.iter().map(|share| (share.job_id.clone(), share.nonce)).collect();
    assert_eq!(distinct.len(), shares.len(), "a nonce is submitted once");

    pool.behave_quietly(Manner::LowDifficulty);
    let refused = shows(&rest, "a share is rejected", |source| count(source, "rejected") > 0).await;
    assert!(refused["counters"]["reasons"]["Low difficulty share"].as_u64() > Some(0), "{refused}");
    pool.behave_quietly(Manner::Stale);
    let late =
        shows(&rest, "a share is stale", |source| source["counters"]["reasons"]["Stale share"].as_u64() > Some(0))
            .await;
    assert!(count(&late, "stale") > 0, "{late}");
    assert_eq!(count(&late, "invalid"), 0, "{late}");
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_a_pool_does_wrong_the_next_one_is_used_until_it_is_back() {
    let (first, second) = (FakePool::start().await, FakePool::start().await);
    let (_fleet, rest) = fleet().await;
    let pool = |pool: &FakePool| json!({"url": pool.url(), "user": "somebody"});
    mine(&rest, vec![pool(&first), pool(&second)]).await;
    let at = |pool: &FakePool| {
        let url = pool.url();
        move |source: &Value| source["connected_to"] == url && source["state"] == "mining"
    };
    shows(&rest, "the first pool is used", at(&first)).await;
    assert!(second.logins().is_empty(), "the second is for when the first is down");
    let manners = [
        Manner::HangsUp,
        Manner::Bans,
        Manner::Garbage,
        Manner::Endless,
        Manner::OtherAlgorithm,
        Manner::TargetZero,
        Manner::HalfBlob,
        Manner::NoSeed,
        Manner::NullJob,
        Manner::Silent,
    ];
    for manner in manners {
        first.behave(manner);
        shows(&rest, &format!("the second pool is used while the first {manner:?}"), at(&second)).await;
        first.behave(Manner::Good);
        shows(&rest, &format!("the first pool is used again after {manner:?}"), at(&first)).await;
    }
    let shared = shows(&rest, "a share is accepted", |source| count(source, "accepted") > 0).await;
    assert_eq!(count(&shared, "invalid"), 0, "{shared}");

    first.behave(Manner::Bans);
    second.behave(Manner::TargetZero);
    let failing = shows(&rest, "nobody is left", |source| source["state"] == "failing").await;
    let detail = failing["detail"].as_str().unwrap_or_default();
    // Whoever is put out while something is unread is reset: then the words that came before are lost.
    let put_out = ["banned", "closed", "the connection broke"];
    assert!(put_out.iter().any(|how| detail.contains(how)), "{detail}");
    until("no work is left at the workers", || async {
        let live = rest.get("/jobs?label=source=pool&state=pending,assigned,computing").await.body;
        if live["items"].as_array().is_some_and(Vec::is_empty) { Ok(()) } else { Err(live) }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tls_takes_the_certificate_that_the_operator_named_and_no_other() {
    let directory = TempDir::new().expect("a directory");
    let fingerprint = certificate(directory.path());
    let pool = FakePool::start_tls(directory.path()).await;
    let (_fleet, rest) = fleet().await;
    mine(&rest, vec![json!({"url": pool.url(), "user": "somebody"})]).await;
    shows(&rest, "an unknown certificate is refused", |source| {
        source["state"] == "failing" && source["detail"].as_str().is_some_and(|detail| detail.contains("no TLS"))
    })
    .await;
    assert!(pool.logins().is_empty(), "no login goes to somebody unknown");
    rest.send(rest.request(reqwest::Method::DELETE, "/sources/pool")).await.expect(204);
    mine(&rest, vec![json!({"url": pool.url(), "user": "somebody", "tls_fingerprint": fingerprint})]).await;
    shows(&rest, "a share is accepted over TLS", |source| count(source, "accepted") > 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pools_that_can_not_work_are_refused_with_the_reason() {
    let fleet = Node::up().with("FLOTA_WORKER_SLOTS", "randomx=0").start().await;
    let rest = fleet.rest();
    let pool = |url: &str| json!({"pools": [{"url": url, "user": "somebody"}]});
    let tls = json!({"pools": [{"url": "stratum+tcp://a:1", "user": "x", "tls_fingerprint": "00".repeat(32)}]});
    let bad = [
        (json!({"pools": []}), "config.pools", "1 to 16"),
        (pool("http://pool:1"), "config.pools[0].url", "stratum+tcp"),
        (pool("stratum+tcp://pool"), "config.pools[0].url", "PORT"),
        (json!({"pools": [{"url": "stratum+tcp://a:1", "user": ""}]}), "config.pools[0].user", "1 to 512"),
        (tls, "config.pools[0].tls_fingerprint", "stratum+ssl"),
    ];
    for (config, field, wanted) in bad {
        let answer = rest.post("/sources", &json!({"source": "stratum", "config": config})).await.expect(422);
        assert_eq!(answer.body["field"], field, "{}", answer.text);
        assert!(answer.body["detail"].as_str().unwrap_or_default().contains(wanted), "{}", answer.text);
    }
}

/// A miner that computes nothing: it speaks Stratum, and knows the right hash of one nonce.
struct Miner {
    read: tokio::io::Lines<BufReader<tokio::net::tcp::OwnedReadHalf>>,
    write: tokio::net::tcp::OwnedWriteHalf,
}

impl Miner {
    async fn connect(port: u16) -> Self {
        let stream = until("guests may join", || tokio::net::TcpStream::connect(("127.0.0.1", port))).await;
        let (read, write) = stream.into_split();
        Self { read: BufReader::new(read).lines(), write }
    }

    async fn ask(&mut self, method: &str, params: Value) -> Value {
        let request = json!({"id": 7, "jsonrpc": "2.0", "method": method, "params": params});
        self.write.write_all(format!("{request}\n").as_bytes()).await.expect("the master reads");
        loop {
            let line = self.read.next_line().await.expect("the master writes").expect("the master answers");
            let message: Value = serde_json::from_str(&line).expect("JSON");
            if message["id"] == 7 {
                return message;
            }
        }
    }

    async fn login(&mut self, name: &str, password: &str) -> Value {
        let params = json!({"login": name, "pass": password, "agent": "XMRig/6.26.0 (Linux)", "algo": ["rx/0"]});
        self.ask("login", params).await
    }
}

async fn house(pool: &FakePool) -> (Node, Rest, u16) {
    let port = flota_tests::ports::free();
    let fleet = Node::up()
        .with("FLOTA_RANDOMX_THREADS", "1")
        .with("FLOTA_WORKER_TOKEN", "fleet-token")
        .with("FLOTA_STRATUM_LISTEN", format!("127.0.0.1:{port}"))
        .start()
        .await;
    let rest = fleet.rest();
    workers_ready(&rest, 1).await;
    mine(&rest, vec![json!({"url": pool.url(), "user": "somebody"})]).await;
    shows(&rest, "the fleet mines", |source| source["state"] == "mining").await;
    (fleet, rest, port)
}

#[tokio::test(flavor = "multi_thread")]
async fn guests_get_nonces_of_their_own_and_what_they_say_is_checked() {
    let pool = FakePool::start().await;
    let (_fleet, rest, port) = house(&pool).await;
    let mut stranger = Miner::connect(port).await;
    let refused = stranger.login("rig", "wrong").await;
    assert!(refused["error"]["message"].as_str().unwrap_or_default().contains("password"), "{refused}");

    let (mut one, mut two) = (Miner::connect(port).await, Miner::connect(port).await);
    let job = one.login("rig", "fleet-token").await["result"]["job"].clone();
    let other = two.login("rig", "fleet-token").await["result"]["job"].clone();
    let top = |job: &Value| u8::from_str_radix(&job["blob"].as_str().unwrap_or_default()[84..86], 16).unwrap_or(0);
    assert!(top(&job) >= 0xc0 && top(&other) >= 0xc0 && top(&job) != top(&other), "{job} {other}");
    assert_eq!((&job["algo"], &job["seed_hash"]), (&json!("rx/0"), &json!("11".repeat(32))));
    let workers = rest.get("/workers").await.body;
    let guests: Vec<&Value> =
        workers["items"].as_array().into_iter().flatten().filter(|w| w["labels"]["kind"] == "guest").collect();
    assert_eq!(guests.len(), 2, "{workers}");
    assert_eq!(guests[0]["language"], "XMRig");
    assert_eq!(source(&rest).await["guests"], 2);

    let share = |nonce: u32, hash: &str| {
        let nonce: String = nonce.to_le_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
        json!({"job_id": job["job_id"], "nonce": nonce, "result": hash})
    };
    let first = u32::from(top(&job)) << 24;
    let zero = "00".repeat(32);
    let answers = [
        (json!({"id": "somebody", "job_id": job["job_id"], "nonce": "000000c0", "result": zero}), "Unauthenticated"),
        (share(first, &"ff".repeat(32)), "Low diff share"),
        (share(first, &zero), "Duplicate share"),
        (share(1, &zero), "Invalid nonce"),
        (json!({"job_id": "no", "nonce": "00000000", "result": zero}), "Invalid job id"),
        (json!({"job_id": job["job_id"], "nonce": "xyz", "result": zero}), "Malformed share"),
        (share(first + 1, &zero), "Invalid hash"),
        (share(first + 2, &zero), "Invalid hash"),
    ];
    for (params, wanted) in answers {
        assert_eq!(one.ask("submit", params.clone()).await["error"]["message"], wanted, "{params}");
    }
    assert_eq!(one.ask("keepalived", json!({})).await["result"]["status"], "KEEPALIVED");
    assert_eq!(one.ask("submit", share(first + 3, &zero)).await["error"]["message"], "Invalid hash");
    assert!(matches!(one.read.next_line().await, Ok(None) | Err(_)), "who invents hashes is thrown out");
    until("it is gone from the source too", || async {
        let source = source(&rest).await;
        if source["guests"] == 1 && count(&source, "invalid") == 3 { Ok(()) } else { Err(source) }
    })
    .await;
    pool.set_job("2", 20, &"11".repeat(32), 101, 0);
    let line = two.read.next_line().await.expect("the master writes").expect("a job");
    assert!(line.contains("\"method\":\"job\""), "{line}");
}

/// The stock miner: `FLOTA_XMRIG`, or `xmrig` in the path.
fn xmrig() -> Option<std::path::PathBuf> {
    let named = std::env::var_os("FLOTA_XMRIG").map(std::path::PathBuf::from);
    let paths = std::env::var_os("PATH").unwrap_or_default();
    let mut found = std::env::split_paths(&paths).map(|directory| directory.join("xmrig"));
    named.or_else(|| found.find(|path| path.is_file()))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stock_xmrig_joins_as_a_guest_and_its_shares_reach_the_pool() {
    let Some(xmrig) = xmrig() else {
        println!("skipped: there is no xmrig in the path, and FLOTA_XMRIG names none");
        return;
    };
    let pool = FakePool::start().await;
    let (fleet, rest, port) = house(&pool).await;
    // Only the guest computes.
    let worker = rest.get("/workers").await.body["items"][0]["worker_id"].as_str().unwrap_or_default().to_owned();
    rest.post(&format!("/workers/{worker}/pause"), &json!({})).await.expect(200);
    let accepted = count(&source(&rest).await, "accepted");
    let mut command = std::process::Command::new(xmrig);
    command
        .args(["--no-color", "--donate-level=0", "--threads=1", "--randomx-mode=light", "--randomx-no-rdmsr"])
        .args([
            "--randomx-wrmsr=-1",
            "--no-huge-pages",
            "--nicehash",
            "--keepalive",
            "--user=stock",
            "--pass=fleet-token",
        ])
        .arg(format!("--url=127.0.0.1:{port}"));
    let miner = flota_tests::Process::start("xmrig", fleet.directory(), &mut command);
    let shown =
        shows(&rest, "shares of the guest are accepted", |source| count(source, "accepted") >= accepted + 3).await;
    assert_eq!(count(&shown, "invalid"), 0, "{shown}; {}", miner.describe());
    let of_guest: Vec<u32> = pool.shares().iter().map(|share| share.nonce >> 24).filter(|top| *top >= 0xc0).collect();
    assert!(of_guest.len() >= 3, "{of_guest:?}");
    until("the guest's rate is in the totals", || async {
        let fleet = rest.get("/fleet").await.body;
        if fleet["hashrate"].as_f64() > Some(0.0) { Ok(()) } else { Err(fleet) }
    })
    .await;
    println!("xmrig as a guest: {}", source(&rest).await["counters"]);
}
