//! Where a dataset comes from: memory that the workers of this host share, another worker, or built in memory of this process.

use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use flota_common::clock;
use flota_randomx::{Build, Dataset, Error};

use super::caches::Caches;
use crate::peer::Digests;
use crate::peer::fetch::{FetchError, Peers};

/// Makes datasets.
#[derive(Debug)]
pub struct Maker {
    shared_directory: Option<PathBuf>,
    peers: Peers,
    /// Set once the worker knows its master.
    pub digests: OnceLock<Arc<dyn Digests>>,
    caches: Arc<Caches>,
}

impl Maker {
    /// With a directory all workers that have the same share one dataset.
    pub fn new(shared_directory: Option<PathBuf>, peers: Peers, caches: Arc<Caches>) -> Self {
        Self { shared_directory, peers, digests: OnceLock::new(), caches }
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
        let digests = self.digests.get().map(|digests| &**digests);
        match self.peers.fetch(&cache, Dataset::estimate(&cache, build), build, digests) {
            Ok(dataset) => {
                tracing::info!(fetch_ms = begun.elapsed().as_millis() as u64, "got a RandomX dataset from a peer");
                Ok(dataset)
            }
            Err(Some(FetchError::Dataset(error @ (Error::Stopped | Error::DatasetMemory)))) => Err(error),
            Err(Some(error @ FetchError::Master(_))) => {
                tracing::info!(%error, "did not get a RandomX dataset from a peer");
                Dataset::build(&cache, build)
            }
            Err(_) => Dataset::build(&cache, build),
        }
    }

    /// The dataset of `key` where another process of this host has it complete.
    #[cfg(target_os = "linux")]
    pub fn adopt(&self, key: &[u8], threads: usize) -> Option<Dataset> {
        // What is wrong is said when a dataset is made.
        Dataset::adopt(self.shared_directory.as_deref()?, key, threads).ok().flatten()
    }

    /// Not on this system.
    #[cfg(not(target_os = "linux"))]
    pub fn adopt(&self, _key: &[u8], _threads: usize) -> Option<Dataset> {
        None
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
