//! Units through the executor, as the runner gives them; vectors of Bitcoin's block chain.

use flota_proto::{HexBytes, JobId, UnitId};
use proptest::prelude::*;
use tokio_util::sync::CancellationToken;

use super::super::Observer;
use super::*;

/// The headers of block 0 and block 125552, and their hashes as they lie in memory (explorers print them the other way round).
const BLOCK_0: &str = "0100000000000000000000000000000000000000000000000000000000000000000000003ba3edfd7a7b12b27ac72c3e67768f617f\
                       c81bc3888a51323a9fb8aa4b1e5e4a29ab5f49ffff001d1dac2b7c";
const HASH_0: &str = "6fe28c0ab6f1b372c1a6a246ae63f74f931e8365e15a089c68d6190000000000";
const NONCE_0: u64 = 2_083_236_893;
const BLOCK_125552: &str = "0100000081cd02ab7e569e8bcd9317e2fe99f2de44d49ab2b8851ba4a308000000000000e320b6c2fffc8d750423db8b1eb\
                            942ae710e951ed797f7affc8892b0f1fc122bc7f5d74df2b9441a42a14695";
const HASH_125552: &str = "1dbd981fe6985776b644b173a4d0385ddc1aa2a829688d1e0000000000000000";
const NONCE_125552: u64 = 2_504_433_986;
/// Where the nonce of a block header stands.
const PLACE: u64 = 76;

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

fn executor(threads: usize) -> Sha256dExecutor {
    Sha256dExecutor::new(Manners { threads, percent: 100, nice: 0, cpus: Vec::new() })
}

fn context() -> (Context, Arc<Seen>) {
    let seen = Arc::new(Seen::default());
    (Context { cancel: CancellationToken::new(), observer: seen.clone() }, seen)
}

fn bytes(hex: &str) -> HexBytes {
    HexBytes(hex::decode(hex).unwrap())
}

/// What the four `bits` of a header stand for: mantissa and exponent of a number of 256 bits.
fn target(bits: u32) -> HexBytes {
    let mut target = vec![0; 32];
    let place = (bits >> 24) as usize - 3;
    target[place..place + 3].copy_from_slice(&bits.to_le_bytes()[..3]);
    target.into()
}

fn search(header: &str, bits: u32, nonces: std::ops::Range<u64>, find: Find) -> SearchPayload {
    SearchPayload {
        key: None,
        blob: bytes(header),
        nonce_offset: PLACE,
        nonce_start: nonces.start,
        nonce_end: nonces.end,
        target: target(bits),
        find,
    }
}

async fn run(executor: &Sha256dExecutor, payload: SearchPayload) -> Result<SearchResult, Failure> {
    let unit = unit(Kind::Search(Algorithm::Sha256d), Payload::Search(payload));
    let output = executor.execute(unit, context().0).await?;
    let result: SearchResult = serde_json::from_slice(&output.json).unwrap();
    assert_eq!(output.hashes, result.hashes_computed);
    assert!(result.proof_fits(Algorithm::Sha256d) && !result.proof.is_empty());
    Ok(result)
}

#[tokio::test]
async fn hashes_are_those_of_the_chain_and_come_in_the_order_of_the_inputs() {
    let inputs = [BLOCK_0, BLOCK_125552, "", BLOCK_0].map(bytes).to_vec();
    let payload = Payload::Hash(HashPayload { key: None, inputs });
    let executor = executor(3);
    let output = executor.execute(unit(Kind::Hash(Algorithm::Sha256d), payload), context().0).await.unwrap();
    let empty = "5df6e0e2761359d30a8275058e299fcc0381534545f55cf43e41983f5d4c9456";
    let expected = format!(r#"{{"hashes":["{HASH_0}","{HASH_125552}","{empty}","{HASH_0}"]}}"#);
    assert_eq!((String::from_utf8_lossy(&output.json), output.hashes), (expected.into(), 4));
}

#[tokio::test]
async fn a_search_finds_the_nonce_of_each_block_and_no_other_around_it() {
    for (header, bits, nonce, hash) in
        [(BLOCK_0, 0x1d00_ffff, NONCE_0, HASH_0), (BLOCK_125552, 0x1a44_b9f2, NONCE_125552, HASH_125552)]
    {
        for threads in [1, 3] {
            let range = nonce - 9_000..nonce + 9_000;
            let result = run(&executor(threads), search(header, bits, range.clone(), Find::All)).await.unwrap();
            assert_eq!(result.found, [Found { nonce, hash: bytes(hash) }]);
            assert_eq!((result.hashes_computed, result.covered), (18_000, vec![[range.start, range.end]]));
            let after = run(&executor(threads), search(header, bits, nonce + 1..nonce + 2, Find::All)).await.unwrap();
            assert!(after.found.is_empty(), "{after:?}");
            let first = run(&executor(threads), search(header, bits, range.clone(), Find::First)).await.unwrap();
            assert_eq!(first.found, [Found { nonce, hash: bytes(hash) }]);
            let [[from, to]] = first.covered[..] else { panic!("{:?}", first.covered) };
            assert_eq!((from, to - from), (range.start, first.hashes_computed));
            assert!((from..to).contains(&nonce));
        }
    }
}

#[tokio::test]
async fn the_last_nonce_is_the_highest_of_32_bits() {
    let end = 1 << 32;
    let result = run(&executor(2), search(BLOCK_0, 0x1d00_ffff, end - 5_000..end, Find::All)).await.unwrap();
    assert_eq!(result.covered, [[end - 5_000, end]]);
}

#[tokio::test]
async fn a_unit_with_too_many_finds_says_so_before_they_fill_the_memory() {
    let easy =
        SearchPayload { target: HexBytes(vec![0xff; 32]), ..search(BLOCK_0, 0x1d00_ffff, 0..1 << 28, Find::All) };
    let failure = run(&executor(2), easy).await.unwrap_err();
    assert_eq!((failure.code.as_str(), failure.retryable), ("result_too_large", false));
}

#[tokio::test]
async fn a_cancel_ends_a_search_and_its_threads() {
    let executor = executor(2);
    let (context, seen) = context();
    let cancel = context.cancel.clone();
    let payload = Payload::Search(search(BLOCK_0, 0x0300_0001, 0..1 << 32, Find::All));
    let work = executor.execute(unit(Kind::Search(Algorithm::Sha256d), payload), context);
    let stop_once_it_computes = async {
        while seen.0.lock().unwrap().iter().all(|fraction| *fraction <= 0.0) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        cancel.cancel();
    };
    let both = async { tokio::join!(work, stop_once_it_computes) };
    let (result, ()) = tokio::time::timeout(Duration::from_secs(60), both).await.unwrap();
    assert_eq!(result.unwrap_err(), Failure::cancelled());
    assert!(executor.rate().is_some_and(|(algorithm, rate)| algorithm == Algorithm::Sha256d && rate > 0.0));
    // The threads hold them; the executor alone is left when they have ended.
    let ended = async {
        while Arc::strong_count(&executor.rates) > 1 {
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

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// However it is cut and by how many threads it is done: the same finds, and a proof that anybody can compute again.
    #[test]
    fn any_range_has_the_finds_and_the_proof_of_brute_force(
        start in 0..(1_u64 << 32) - 20_000, length in 1..20_000_u64, threads in 1..4_usize, high in 0..4_u8,
    ) {
        let payload = SearchPayload {
            target: HexBytes([vec![0xff; 31], vec![high]].concat()),
            ..search(BLOCK_0, 0x1d00_ffff, start..start + length, Find::All)
        };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let result = runtime.block_on(run(&executor(threads), payload.clone())).unwrap();
        let mut hasher = Hasher::new(&payload.blob, PLACE as usize);
        let (mut found, mut proof) = (Vec::new(), Vec::new());
        for [from, to] in result.groups(Algorithm::Sha256d) {
            let mut top = [0; 2];
            for nonce in from..to {
                let hash = hasher.hash(nonce as u32);
                (top[0], top[1]) = (top[0] ^ hash[31], top[1] ^ hash[30]);
                if hash[31] < high || hash[31] == high && hash[..31] != [0xff; 31] {
                    found.push(Found { nonce, hash: hash.to_vec().into() });
                }
            }
            proof.extend(top);
        }
        prop_assert_eq!(&result.covered, &[[start, start + length]]);
        prop_assert_eq!((&result.found, &result.proof.0), (&found, &proof));
    }
}
