//! Takes a dataset from another worker, as long as the link is faster than computing would be.

use std::time::{Duration, Instant};

use flota_common::clock;
use flota_proto::v1;
use flota_proto::v1::dataset_peer_client::DatasetPeerClient;
use flota_randomx::{Build, Cache, DATASET_BYTES, DIGEST_BYTES, Dataset, Error, Incoming};
use rand::Rng;
use secrecy::SecretString;
use thiserror::Error as ThisError;
use tokio::runtime::Runtime;
use tonic::Status;
use tonic::transport::Endpoint;

use super::{Digests, MESSAGE_BYTES_MAX, WINDOW_BYTES};
use crate::calls::authorised;

/// How many random items of a received dataset are computed. A hash reads 16,384: if one in 10,000 were wrong, four of five hashes
/// would be, and this many items show it with a probability of 99.9 %.
const ITEMS_CHECKED: usize = 65_536;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// A peer that says nothing for so long is given up.
const SILENCE_MAX: Duration = Duration::from_secs(10);
/// After this many bytes the speed of the link is known.
const MEASURED_BYTES: usize = 32 * 1024 * 1024;

/// Other workers, and what to show them.
#[derive(Clone, Debug, Default)]
pub struct Peers {
    /// `host:port` each, tried in turn.
    pub addresses: Vec<String>,
    /// `FLOTA_WORKER_TOKEN`.
    pub token: Option<SecretString>,
}

/// Why a peer gave no dataset. Completes "failed to …".
#[derive(Debug, ThisError)]
pub enum FetchError {
    /// It is not there, refused, or broke off.
    #[error("fetch it: {0}")]
    Peer(String),
    /// Computing is faster.
    #[error("fetch it faster than it is computed: it would take {fetch:.1?}, computing {compute:.1?}")]
    Slow {
        /// By the speed so far.
        fetch: Duration,
        /// As measured on some items.
        compute: Duration,
    },
    /// Without its word nothing is fetched.
    #[error("ask the master which digest it must have: {0}")]
    Master(String),
    /// What came is not the dataset, or there is no memory for it, or the building was stopped.
    #[error(transparent)]
    Dataset(#[from] Error),
}

impl Peers {
    /// The dataset of `cache` from the first peer that has it, on a thread that may block. `compute` is how long computing takes;
    /// `digests` says which digest it must have.
    ///
    /// # Errors
    /// Why the last peer gave none; `None` without peers.
    pub fn fetch(
        &self,
        cache: &Cache,
        compute: Duration,
        build: &Build,
        digests: Option<&dyn Digests>,
    ) -> Result<Dataset, Option<FetchError>> {
        if self.addresses.is_empty() {
            return Err(None);
        }
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| Some(FetchError::Peer(error.to_string())))?;
        let accepted = match digests {
            Some(digests) => {
                runtime.block_on(digests.accepted(cache.key())).map_err(|why| Some(FetchError::Master(why)))?
            }
            None => None,
        };
        let mut last = None;
        for address in &self.addresses {
            build.begin_again();
            match self.fetch_from(&runtime, address, cache, accepted, compute, build) {
                Ok(dataset) => return Ok(dataset),
                Err(error @ FetchError::Dataset(Error::Stopped | Error::DatasetMemory)) => return Err(Some(error)),
                Err(error) => {
                    tracing::info!(peer = address, %error, "did not get a RandomX dataset from a peer");
                    last = Some(error);
                }
            }
        }
        build.begin_again();
        Err(last)
    }

    fn fetch_from(
        &self,
        runtime: &Runtime,
        address: &str,
        cache: &Cache,
        accepted: Option<[u8; DIGEST_BYTES]>,
        compute: Duration,
        build: &Build,
    ) -> Result<Dataset, FetchError> {
        let incoming = runtime.block_on(self.receive(address, cache.key(), compute, build))?;
        let mut random = rand::rng();
        Ok(incoming.finish(cache, accepted, build.threads, (0..ITEMS_CHECKED).map(|_| random.random()))?)
    }

    async fn receive(
        &self,
        address: &str,
        key: &[u8],
        compute: Duration,
        build: &Build,
    ) -> Result<Incoming, FetchError> {
        let broken = |status: Status| FetchError::Peer(format!("{:?}: {}", status.code(), status.message()));
        let endpoint = Endpoint::from_shared(format!("http://{address}"))
            .map_err(|error| FetchError::Peer(error.to_string()))?
            .connect_timeout(CONNECT_TIMEOUT)
            .initial_stream_window_size(WINDOW_BYTES)
            .initial_connection_window_size(WINDOW_BYTES);
        let channel = endpoint.connect().await.map_err(|_| FetchError::Peer("it can't be reached".into()))?;
        let mut client = DatasetPeerClient::new(channel).max_decoding_message_size(MESSAGE_BYTES_MAX);
        let request = authorised(v1::FetchDatasetRequest { key: key.to_vec().into() }, self.token.as_ref());
        let mut pieces = client.fetch(request).await.map_err(broken)?.into_inner();
        let mut incoming = Incoming::new(build.largest)?;
        let (begun, mut received) = (clock::instant(), 0);
        loop {
            let piece = tokio::time::timeout(SILENCE_MAX, pieces.message()).await;
            let piece = piece.map_err(|_| FetchError::Peer("it went silent".into()))?.map_err(broken)?;
            let Some(piece) = piece else { return Ok(incoming) };
            received += piece.payload.len();
            incoming.push(&piece.payload, build)?;
            worth_it(begun, received, compute)?;
        }
    }
}

/// Whether what is left will come sooner than all is computed.
fn worth_it(begun: Instant, received: usize, compute: Duration) -> Result<(), FetchError> {
    let elapsed = begun.elapsed();
    // A link that is so slow that it can't be measured has taken too long already.
    if received < MEASURED_BYTES && elapsed < compute / 4 {
        return Ok(());
    }
    let left = DATASET_BYTES.saturating_sub(received) as f64 / received.max(1) as f64;
    let fetch = elapsed.mul_f64(left.min(1e6));
    if fetch <= compute { Ok(()) } else { Err(FetchError::Slow { fetch, compute }) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_is_measured_before_it_is_judged() {
        let ago = |ms| clock::instant() - Duration::from_millis(ms);
        let judge = |ms, received| worth_it(ago(ms), received, Duration::from_secs(20)).is_ok();
        assert!(judge(1, 1), "nothing is known yet");
        assert!(judge(100, MEASURED_BYTES));
        assert!(!judge(2_000, MEASURED_BYTES));
        assert!(!judge(6_000, 1));
        assert!(judge(19_000, DATASET_BYTES - 1));
    }
}
