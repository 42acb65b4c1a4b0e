//! A dataset goes from one worker to another. A target of its own: it takes two datasets' worth of memory.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use flota_proto::Kind;
use flota_randomx::{Build, Cache, Dataset};
use flota_worker::executor::{Context, Executor, Failure, Output, Unit};
use flota_worker::peer::fetch::{FetchError, Peers};
use flota_worker::peer::serve;
use secrecy::SecretString;

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

async fn fetch(peers: Peers, key: &'static [u8], compute: Duration) -> Result<Dataset, Option<FetchError>> {
    let cache = Cache::new(key).unwrap();
    tokio::task::spawn_blocking(move || peers.fetch(&cache, compute, &Build::new(1))).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dataset_is_fetched_from_a_peer_that_has_it_and_checked() {
    let cache = Arc::new(Cache::new(KEY).unwrap());
    let dataset = Arc::new(Dataset::build(&cache, &Build::new(threads())).unwrap());
    let digest = dataset.digest(threads());
    let token = Some(SecretString::from("secret"));
    let executors: Vec<Arc<dyn Executor>> = vec![Arc::new(Holder(dataset))];
    let (address, serving) = serve::start("127.0.0.1:0".parse().unwrap(), token.clone(), executors).await.unwrap();
    let serving = tokio::spawn(serving);
    let peers = Peers { addresses: vec!["127.0.0.1:1".into(), address.to_string()], token };

    let fetched = fetch(peers.clone(), KEY, PATIENCE).await.unwrap();
    assert_eq!(fetched.digest(threads()), digest);
    drop(fetched);

    let other_key = fetch(peers.clone(), b"test key 001", PATIENCE).await.unwrap_err().unwrap();
    assert!(other_key.to_string().contains("NotFound"), "{other_key}");
    let slow = fetch(peers.clone(), KEY, Duration::ZERO).await.unwrap_err().unwrap();
    assert!(matches!(slow, FetchError::Slow { .. }), "{slow}");
    let stranger = fetch(Peers { token: None, ..peers }, KEY, PATIENCE).await.unwrap_err().unwrap();
    assert!(stranger.to_string().contains("Unauthenticated"), "{stranger}");
    assert!(fetch(Peers::default(), KEY, PATIENCE).await.unwrap_err().is_none());
    serving.abort();
}
