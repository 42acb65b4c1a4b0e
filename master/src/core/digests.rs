//! Which digest of a RandomX dataset is believed: what workers say of those that they computed themselves, as far as their word counts.

use flota_proto::Class;

use super::Core;
use super::fleet::Worker;

/// Bytes of a dataset's digest.
pub const DATASET_DIGEST_BYTES: usize = 32;

/// What is known of the digest of a dataset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Digest {
    /// Nobody whose word counts has computed it.
    Unknown,
    /// Who has computed it says so.
    Accepted([u8; DATASET_DIGEST_BYTES]),
    /// Two whose word counts say otherwise, and one of them is wrong.
    Disputed,
}

impl Core {
    /// What the digest of the dataset of a RandomX key must be.
    #[must_use]
    pub fn dataset_digest(&self, key: &[u8]) -> Digest {
        let mut found = Digest::Unknown;
        for (_, worker) in self.fleet.iter().filter(|(_, worker)| self.word_counts(worker)) {
            for (_, said) in worker.computed.iter().filter(|(of, _)| of == key) {
                match found {
                    Digest::Unknown => found = Digest::Accepted(*said),
                    Digest::Accepted(before) if before == *said => {}
                    Digest::Accepted(_) | Digest::Disputed => return Digest::Disputed,
                }
            }
        }
        found
    }

    /// A worker's word counts once enough of its hashes were computed again and found right. Where nothing is checked everybody's does.
    fn word_counts(&self, worker: &Worker) -> bool {
        worker.standing.quarantine.is_none() && (!self.checks(Class::Randomx) || worker.standing.is_known())
    }
}
