//! A dataset goes from one worker to another. A target of its own: it takes two datasets' worth of memory.
#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use flota_proto::kinds::{Find, Found, HashPayload, HashResult, Payload, SearchPayload};
use flota_proto::mqtt::HashMode;
use flota_proto::{Algorithm, HexBytes, JobId, Kind, UnitId};
use flota_randomx::{Build, Cache, DIGEST_BYTES, Dataset, Error, Origin, Vm};
use flota_worker::executor::randomx::{Mode, RandomxConfig, RandomxExecutor};
use flota_worker::executor::{Context, Executor, Failure, Observer, Output, Unit};
use flota_worker::peer::fetch::{FetchError, Peers};
use flota_worker::peer::{Digests, serve};
use secrecy::SecretString;
use tokio_util::sync::CancellationToken;

const KEY: &[u8] = b"test key 000";
const PATIENCE: Duration = Duration::from_secs(600);

struct Holder(Arc<Dataset>);

#[async_trait]
impl Executor for Holder {
    fn kinds(&self) -> &[Kind] {
        &[]
    }
    fn dataset(&self, key: &[u8]) -> Option<Arc<Dataset>> {
        (key == KEY).then(|| self.0.clone())
    }
    async fn execute(&self, _: Unit, _: Context) -> Result<Output, Failure> {
        Err(Failure::permanent("unsupported", "it only gives"))
    }
}

fn threads() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// What the master says of every dataset.
#[derive(Clone, Debug)]
struct Says(Result<Option<[u8; DIGEST_BYTES]>, String>);

#[async_trait]
impl Digests for Says {
    async fn accepted(&self, _: &[u8]) -> Result<Option<[u8; DIGEST_BYTES]>, String> {
        self.0.clone()
    }
}

async fn fetch(
    peers: &Peers,
    key: &'static [u8],
    compute: Duration,
    says: Says,
) -> Result<Dataset, Option<FetchError>> {
    let (cache, peers) = (Cache::new(key).unwrap(), peers.clone());
    let fetching = move || peers.fetch(&cache, compute, &Build::new(threads()), Some(&says));
    tokio::task::spawn_blocking(fetching).await.unwrap()
}

/// One test, so that the dataset is computed once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dataset_is_fetched_from_a_peer_that_has_it_and_checked_and_used_in_the_middle_of_a_unit() {
    let cache = Arc::new(Cache::new(KEY).unwrap());
    let directory = tempfile::Builder::new().tempdir_in("/dev/shm").unwrap();
    let made = Dataset::shared(directory.path(), KEY, || Ok(cache.clone()), &Build::new(threads()));
    let dataset = Arc::new(made.unwrap());
    is_used_at_once_where_another_process_has_it(directory.path()).await;
    let digest = dataset.digest(threads());
    let token = Some(SecretString::from("secret"));
    let executors: Vec<Arc<dyn Executor>> = vec![Arc::new(Holder(dataset))];
    let (address, serving) = serve::start("127.0.0.1:0".parse().unwrap(), token.clone(), executors).await.unwrap();
    let serving = tokio::spawn(serving);
    let peers = Peers { addresses: vec!["127.0.0.1:1".into(), address.to_string()], token };

    let fetched = fetch(&peers, KEY, PATIENCE, Says(Ok(Some(digest)))).await.unwrap();
    assert_eq!((fetched.digest(threads()), fetched.origin()), (digest, Origin::Received));
    drop(fetched);
    let other_digest = fetch(&peers, KEY, PATIENCE, Says(Ok(Some([1; DIGEST_BYTES])))).await.unwrap_err().unwrap();
    assert!(matches!(other_digest, FetchError::Dataset(Error::WrongDigest)), "{other_digest}");
    let no_master = fetch(&peers, KEY, PATIENCE, Says(Err("it is away".into()))).await.unwrap_err().unwrap();
    assert!(no_master.to_string().contains("it is away"), "{no_master}");
    let none = Says(Ok(None));
    let other_key = fetch(&peers, b"test key 001", PATIENCE, none.clone()).await.unwrap_err().unwrap();
    assert!(other_key.to_string().contains("NotFound"), "{other_key}");
    let slow = fetch(&peers, KEY, Duration::ZERO, none.clone()).await.unwrap_err().unwrap();
    assert!(matches!(slow, FetchError::Slow { .. }), "{slow}");
    let stranger = Peers { token: None, ..peers.clone() };
    let stranger = fetch(&stranger, KEY, PATIENCE, none.clone()).await.unwrap_err().unwrap();
    assert!(stranger.to_string().contains("Unauthenticated"), "{stranger}");
    assert!(fetch(&Peers::default(), KEY, PATIENCE, none.clone()).await.unwrap_err().is_none());

    goes_from_light_to_fast(peers, none, &cache).await;
    serving.abort();
}

fn unit(kind: Kind, payload: Payload) -> Unit {
    Unit {
        id: UnitId { job: JobId::generate(), index: 0 },
        attempt: 1,
        kind,
        payload,
        failures: 0,
        timeout: PATIENCE,
        credential: None,
        own_key_only: false,
    }
}

/// Not even one hash is worth a cache then. Another opening of the file is to its locks what another process is.
async fn is_used_at_once_where_another_process_has_it(directory: &Path) {
    let shared_directory = Some(directory.to_owned());
    let executor = RandomxExecutor::new(RandomxConfig { shared_directory, ..RandomxConfig::default() });
    let inputs = vec![HexBytes(b"This is a test".to_vec())];
    let hash =
        unit(Kind::Hash(Algorithm::Randomx), Payload::Hash(HashPayload { key: Some(HexBytes(KEY.to_vec())), inputs }));
    let context = Context { cancel: CancellationToken::new(), observer: Arc::new(Seen::default()) };
    let output = executor.execute(hash, context).await.unwrap();
    let result: HashResult = serde_json::from_slice(&output.json).unwrap();
    assert_eq!(result.mode, "fast");
    assert_eq!(result.hashes[0].to_hex(), "639183aae1bf4c9a35884cb46b09cad9175f04efd7684e7262a0ac1c2f0b4e3f");
    assert!(executor.randomx().unwrap().shared && executor.computed_datasets().is_empty());
}

/// What was found so far.
#[derive(Default)]
struct Seen(Mutex<Vec<Found>>);

impl Observer for Seen {
    fn progress(&self, _: f64, _: &str) {}
    fn delta(&self, _: &str) {}
    fn alive(&self) {}
    fn found(&self, found: Vec<Found>) {
        self.0.lock().unwrap().extend(found);
    }
}

impl Seen {
    /// Waits for as many more as `more`.
    async fn wait(&self, more: usize) {
        let wanted = self.0.lock().unwrap().len() + more;
        let enough = async {
            while self.0.lock().unwrap().len() < wanted {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(PATIENCE, enough).await.unwrap();
    }
}

fn long_search() -> SearchPayload {
    SearchPayload {
        key: Some(HexBytes(KEY.to_vec())),
        blob: HexBytes(vec![7; 76]),
        nonce_offset: 39,
        nonce_start: 0,
        nonce_end: 1 << 20,
        target: HexBytes(vec![0x7f; 32]),
        find: Find::All,
    }
}

/// A unit of so many hashes is worth a dataset: it begins without, and is not begun again when there is one.
async fn goes_from_light_to_fast(peers: Peers, says: Says, cache: &Arc<Cache>) {
    let executor = RandomxExecutor::new(RandomxConfig { mode: Mode::Auto, peers, ..RandomxConfig::default() });
    executor.trust(Arc::new(says));
    let executor = Arc::new(executor);
    let (cancel, seen) = (CancellationToken::new(), Arc::new(Seen::default()));
    let unit = unit(Kind::Search(Algorithm::Randomx), Payload::Search(long_search()));
    let context = Context { cancel: cancel.clone(), observer: seen.clone() };
    let running = tokio::spawn({
        let executor = executor.clone();
        async move { executor.execute(unit, context).await }
    });
    let mode = || executor.randomx().unwrap().mode;
    seen.wait(3).await;
    assert_eq!(mode(), HashMode::Light, "it does not wait for the dataset");
    let goes_over = async {
        while mode() != HashMode::Fast {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, goes_over).await.unwrap();
    let light = seen.0.lock().unwrap().len();
    seen.wait(20).await;
    cancel.cancel();
    assert_eq!(running.await.unwrap().unwrap_err(), Failure::cancelled());

    let found = std::mem::take(&mut *seen.0.lock().unwrap());
    let mut nonces: Vec<u64> = found.iter().map(|found| found.nonce).collect();
    nonces.sort_unstable();
    nonces.dedup();
    assert_eq!(nonces.len(), found.len(), "nothing twice");
    let mut vm = Vm::light(cache).unwrap();
    for found in found[..3].iter().chain(&found[light..]) {
        let mut blob = vec![7; 76];
        blob[39..43].copy_from_slice(&(found.nonce as u32).to_le_bytes());
        assert_eq!(vm.hash(&blob)[..], found.hash[..], "nonce {}", found.nonce);
    }
}
