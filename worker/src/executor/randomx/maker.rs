//! Where a dataset comes from: memory that the workers of this host share, or built in memory of this process.

use std::path::PathBuf;
use std::sync::Arc;

use flota_randomx::{Build, Dataset, Error};

use super::caches::Caches;

/// Makes datasets.
#[derive(Debug)]
pub struct Maker {
    shared_directory: Option<PathBuf>,
    caches: Arc<Caches>,
}

impl Maker {
    /// With a directory all workers that have the same share one dataset.
    pub fn new(shared_directory: Option<PathBuf>, caches: Arc<Caches>) -> Self {
        Self { shared_directory, caches }
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
        Dataset::build(&self.caches.get(key)?, build)
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
