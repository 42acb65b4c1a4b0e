//! RandomX datasets from worker to worker: [`serve`] gives, [`fetch`] takes. A worker that was given one believes it only after it has
//! computed many random items of it from its own cache.

pub mod fetch;
pub mod serve;

use flota_randomx::DATASET_BYTES;

/// Bytes of a message.
const CHUNK_BYTES: usize = 512 * 1024;
/// The largest message that is taken.
const MESSAGE_BYTES_MAX: usize = 1024 * 1024 + 1024;
/// One stream carries two gigabytes: small windows would wait for every round trip.
const WINDOW_BYTES: u32 = 8 * 1024 * 1024;

const _: () = assert!(CHUNK_BYTES < MESSAGE_BYTES_MAX && DATASET_BYTES > CHUNK_BYTES);
