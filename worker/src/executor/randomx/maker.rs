//! Where a dataset comes from: memory that the workers of this host share, another worker, or built in memory of this process.

use std::path::PathBuf;
use std::sync::Arc;

use flota_common::clock;
use flota_randomx::{Build, Dataset, Error};

use super::caches::Caches;
use crate::peer::fetch::{FetchError, Peers};

/// Makes datasets.
#[derive(Debug)]
pub struct Maker {
    shared_directory: Option<PathBuf>,
    peers: Peers,
    caches: Arc<Caches>,
}

impl Maker {
    /// With a directory all workers that have the same share one dataset.
    pub fn new(shared_directory: Option<PathBuf>, peers: Peers, caches: Arc<Caches>) -> Self {
        Self { shared_directory, peers, caches }
    }

    /// Whether another process may have the dataset already, which takes no more memory then.
    pub fn is_shared(&self) -> bool {
        self.shared_directory.is_some()
    }

    /// Makes the dataset of `key`, reporting to `build` and stopping with it.
    ///
    /// # Errors
    /// [`Error`]
    pub fn make(&self, key: &[u8], build: &Build) -> Result<Dataset, Error> {
        let made = match self.share(key, build) {
            Some(Err(error @ Error::Shared(..))) => {
                tracing::warn!(%error, "this worker has a RandomX dataset of its own");
                self.build(key, build)
            }
            Some(made) => made,
            None => self.build(key, build),
        };
        self.caches.released(key);
        made
    }

    fn build(&self, key: &[u8], build: &Build) -> Result<Dataset, Error> {
        let cache = self.caches.get(key)?;
        if self.peers.addresses.is_empty() {
            return Dataset::build(&cache, build);
        }
        let begun = clock::instant();
        match self.peers.fetch(&cache, Dataset::estimate(&cache, build), build) {
            Ok(dataset) => {
                tracing::info!(fetch_ms = begun.elapsed().as_millis() as u64, "got a RandomX dataset from a peer");
                Ok(dataset)
            }
            Err(Some(FetchError::Dataset(error @ (Error::Stopped | Error::DatasetMemory)))) => Err(error),
            Err(_) => Dataset::build(&cache, build),
        }
    }

    #[cfg(target_os = "linux")]
    fn share(&self, key: &[u8], build: &Build) -> Option<Result<Dataset, Error>> {
        let directory = self.shared_directory.as_deref()?;
        Some(Dataset::shared(directory, key, || self.caches.get(key), build))
    }

    #[cfg(not(target_os = "linux"))]
    fn share(&self, _key: &[u8], _build: &Build) -> Option<Result<Dataset, Error>> {
        None
    }
}
