//! Why there is no cache, dataset or VM.

use crate::{CACHE_BYTES, DATASET_BYTES};

/// Why there is no cache, dataset or VM.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// 256 MiB.
    #[error("there is no memory for a RandomX cache of {} MiB", CACHE_BYTES >> 20)]
    CacheMemory,
    /// 2080 MiB.
    #[error("there is no memory for a RandomX dataset of {} MiB", DATASET_BYTES >> 20)]
    DatasetMemory,
    /// 2 MiB for each.
    #[error("there is no memory for a RandomX virtual machine")]
    VmMemory,
    /// Not one thread was to be had.
    #[error("the system gives no thread to build the RandomX dataset")]
    Threads,
    /// The building was told to stop.
    #[error("the building of the RandomX dataset was stopped")]
    Stopped,
}
