//! RandomX datasets from worker to worker: [`serve`] gives, [`fetch`] takes. A worker that was given one believes it only after it has
//! computed many random items of it from its own cache, and when it has the digest that the master accepts, where that knows one.

pub mod fetch;
pub mod serve;

use std::fmt::Debug;

use async_trait::async_trait;
use flota_randomx::{DATASET_BYTES, DIGEST_BYTES};

/// Bytes of a message.
const CHUNK_BYTES: usize = 512 * 1024;
/// The largest message that is taken.
const MESSAGE_BYTES_MAX: usize = 1024 * 1024 + 1024;
/// One stream carries two gigabytes: small windows would wait for every round trip.
const WINDOW_BYTES: u32 = 8 * 1024 * 1024;

const _: () = assert!(CHUNK_BYTES < MESSAGE_BYTES_MAX && DATASET_BYTES > CHUNK_BYTES);

/// What the master says of datasets.
#[async_trait]
pub trait Digests: Debug + Send + Sync {
    /// The digest that the dataset of `key` must have, `None` where the master knows none.
    ///
    /// # Errors
    /// Why the master did not say.
    async fn accepted(&self, key: &[u8]) -> Result<Option<[u8; DIGEST_BYTES]>, String>;
}
