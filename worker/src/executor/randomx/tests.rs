//! Units through the executor, as the runner gives them.

use std::sync::Mutex;

use flota_proto::kinds::{Find, HashPayload, HashResult, Payload, SearchPayload, SearchResult};
use flota_proto::{HexBytes, JobId, UnitId};
use flota_randomx::{Cache, Vm};

use super::super::Observer;
use super::*;

#[derive(Default)]
struct Seen(Mutex<Vec<f64>>);

impl Observer for Seen {
    fn progress(&self, fraction: f64, _note: &str) {
        self.0.lock().unwrap().push(fraction);
    }
    fn delta(&self, _text: &str) {}
    fn alive(&self) {}
}

fn unit(kind: Kind, payload: Payload) -> Unit {
    Unit {
        id: UnitId { job: JobId::generate(), index: 0 },
        attempt: 1,
        kind,
        payload,
        failures: 0,
        timeout: Duration::from_secs(600),
        credential: None,
        own_key_only: false,
    }
}

fn executor(threads: usize) -> RandomxExecutor {
    RandomxExecutor::new(RandomxConfig { threads: NonZeroUsize::new(threads), ..RandomxConfig::default() })
}

fn context() -> (Context, Arc<Seen>) {
    let seen = Arc::new(Seen::default());
    (Context { cancel: CancellationToken::new(), observer: seen.clone() }, seen)
}

fn hex_of(text: &str) -> HexBytes {
    HexBytes(text.as_bytes().to_vec())
}

fn search(range: std::ops::Range<u64>, target: [u8; 32], find: Find) -> SearchPayload {
    SearchPayload {
        key: Some(hex_of("test key 000")),
        blob: HexBytes(vec![7; 76]),
        nonce_offset: 39,
        nonce_start: range.start,
        nonce_end: range.end,
        target: HexBytes(target.to_vec()),
        find,
    }
}

/// One hash in `rarity` wins.
fn target(rarity: u8) -> [u8; 32] {
    let mut bytes = [0xff; 32];
    bytes[31] = (256 / u16::from(rarity) - 1) as u8;
    bytes
}

async fn run_search(executor: &RandomxExecutor, payload: SearchPayload) -> SearchResult {
    let output =
        executor.execute(unit(Kind::Search(Algorithm::Randomx), Payload::Search(payload)), context().0).await.unwrap();
    let result: SearchResult = serde_json::from_slice(&output.json).unwrap();
    assert_eq!(output.hashes, result.hashes_computed);
    result
}

#[tokio::test]
async fn hashes_come_in_the_order_of_the_inputs_and_the_key_stays_warm() {
    let executor = executor(3);
    assert!(executor.warm_keys().is_empty());
    let inputs = ["This is a test", "Lorem ipsum dolor sit amet", "", "This is a test"].map(hex_of).to_vec();
    let payload = Payload::Hash(HashPayload { key: Some(hex_of("test key 000")), inputs });
    let (context, seen) = context();
    let output = executor.execute(unit(Kind::Hash(Algorithm::Randomx), payload), context).await.unwrap();
    let result: HashResult = serde_json::from_slice(&output.json).unwrap();
    let hashes: Vec<String> = result.hashes.iter().map(HexBytes::to_hex).collect();
    assert_eq!(hashes[0], "639183aae1bf4c9a35884cb46b09cad9175f04efd7684e7262a0ac1c2f0b4e3f");
    assert_eq!(hashes[1], "300a0adb47603dedb42228ccb2b211104f4da45af709cd7547cd049e9489c969");
    assert_eq!((hashes.len(), &hashes[3], result.mode.as_str(), output.hashes), (4, &hashes[0], "light", 4));
    assert_eq!(executor.warm_keys(), [hex_of("test key 000").to_hex()]);
    assert!(executor.rate().unwrap().1 > 0.0);
    assert_eq!(seen.0.lock().unwrap()[0], 0.0, "the making of the cache is announced");
}

#[tokio::test]
async fn a_search_finds_what_brute_force_finds() {
    let mut vm = Vm::light(&Arc::new(Cache::new(b"test key 000").unwrap())).unwrap();
    let job = Job::Search(search(100..130, target(4), Find::All));
    let mut buffer = Vec::new();
    let mut expected = Vec::new();
    for index in 0..30 {
        let hash = vm.hash(job.input(index, &mut buffer));
        if hash[31] < 64 {
            expected.push((100 + index, hex::encode(hash)));
        }
    }
    assert!(!expected.is_empty() && expected.len() < 30);
    for threads in [1, 3] {
        let result = run_search(&executor(threads), search(100..130, target(4), Find::All)).await;
        let found: Vec<_> = result.found.iter().map(|found| (found.nonce, found.hash.to_hex())).collect();
        assert_eq!(found, expected);
        assert_eq!((result.hashes_computed, result.covered), (30, vec![[100, 130]]));
    }
}

#[tokio::test]
async fn a_search_for_the_first_stops_there_and_says_what_it_covered() {
    let executor = executor(2);
    let end = 1 << 32;
    let result = run_search(&executor, search(end - 5000..end, target(4), Find::First)).await;
    assert_eq!(result.found.len(), 1);
    let [[from, to]] = result.covered[..] else { panic!("one range: {:?}", result.covered) };
    assert_eq!((from, to - from), (end - 5000, result.hashes_computed));
    assert!((from..to).contains(&result.found[0].nonce));
    assert!(result.hashes_computed < 5000);
    assert_eq!(run_search(&executor, search(end - 1..end, target(1), Find::First)).await.covered, [[end - 1, end]]);
    assert!(run_search(&executor, search(0..3, [0; 32], Find::First)).await.found.is_empty());
}

#[tokio::test]
async fn a_cancel_ends_a_search_and_its_threads() {
    let executor = executor(2);
    let (context, seen) = context();
    let cancel = context.cancel.clone();
    let work = executor.execute(
        unit(Kind::Search(Algorithm::Randomx), Payload::Search(search(0..1 << 32, [0; 32], Find::All))),
        context,
    );
    let stop_once_it_computes = async {
        let computing = || seen.0.lock().unwrap().iter().any(|fraction| *fraction > 0.0);
        while !computing() {
            tokio::task::yield_now().await;
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        cancel.cancel();
        clock::instant()
    };
    let both = async { tokio::join!(work, stop_once_it_computes) };
    let (result, cancelled_at) = tokio::time::timeout(Duration::from_secs(60), both).await.unwrap();
    assert_eq!(result.unwrap_err(), Failure::cancelled());
    assert!(cancelled_at.elapsed() < Duration::from_secs(5), "a hash at hand, not the search");
    // The threads hold the caches; the executor alone is left when they have ended.
    let ended = async {
        while Arc::strong_count(&executor.engine) > 1 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), ended).await.unwrap();
}

#[tokio::test]
async fn a_payload_of_another_kind_is_refused() {
    let payload = Payload::Embed(flota_proto::kinds::EmbedPayload { texts: vec!["x".into()], model: None });
    let failure = executor(1).execute(unit(Kind::AiEmbed, payload), context().0).await.unwrap_err();
    assert_eq!((failure.code.as_str(), failure.retryable), ("unsupported", false));
}
