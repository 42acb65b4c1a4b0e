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
    /// The file that processes share: what of it, and why.
    #[error("the file of the shared RandomX dataset {0} ({1})")]
    Shared(&'static str, std::io::ErrorKind),
    /// What another worker sent is not the dataset of the key.
    #[error("what was received is not the dataset of this key: item {0} is wrong")]
    WrongItem(usize),
    /// What another worker sent is not what was computed elsewhere for this key.
    #[error("what was received is not the dataset of this key: its digest is not the accepted one")]
    WrongDigest,
    /// Another worker sent more, or less, than a dataset.
    #[error("what was received is not as long as a dataset")]
    WrongLength,
    /// The building was told to stop.
    #[error("the building of the RandomX dataset was stopped")]
    Stopped,
}
