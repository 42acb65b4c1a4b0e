//! What the two RandomX kinds hash, and what becomes of the hashes.

use flota_proto::Algorithm;
use flota_proto::HexBytes;
use flota_proto::kinds::{Find, Found, HashPayload, HashResult, Payload, SearchPayload, SearchResult, wins};
use flota_randomx::HASH_BYTES;
use serde::Serialize;

use super::crew::{Computed, Verdict, Work};

/// A unit of one of the two kinds.
#[derive(Debug)]
pub enum Job {
    /// `randomx.hash`
    Hash(HashPayload),
    /// `randomx.search`, with the unit's own range.
    Search(SearchPayload),
}

impl Job {
    /// `None` if the payload is of another kind.
    pub fn of(payload: Payload) -> Option<Self> {
        match payload {
            Payload::Hash(payload) => Some(Self::Hash(payload)),
            Payload::Search(payload) => Some(Self::Search(payload)),
            Payload::Chat(_) | Payload::Embed(_) | Payload::Echo(_) => None,
        }
    }

    /// The first nonce of a search for all.
    pub fn finds_from(&self) -> Option<u64> {
        match self {
            Self::Search(payload) if payload.find == Find::All => Some(payload.nonce_start),
            Self::Search(_) | Self::Hash(_) => None,
        }
    }

    /// The RandomX key.
    pub fn key(&self) -> &[u8] {
        match self {
            Self::Hash(payload) => payload.key.as_deref(),
            Self::Search(payload) => payload.key.as_deref(),
        }
        .unwrap_or_default()
    }

    /// The result as JSON; `mode` is `light` or `fast`.
    ///
    /// # Errors
    /// When it can't be written as JSON, which none of these types does.
    pub fn result(&self, computed: Computed, mode: &str) -> serde_json::Result<Vec<u8>> {
        match self {
            Self::Hash(_) => json(&hash_result(computed, mode)),
            Self::Search(payload) => json(&search_result(payload, computed)),
        }
    }
}

fn json<T: Serialize>(result: &T) -> serde_json::Result<Vec<u8>> {
    serde_json::to_vec(result)
}

fn hash_result(computed: Computed, mode: &str) -> HashResult {
    let hashes = computed.kept.into_iter().map(|(_, hash)| HexBytes(hash.to_vec())).collect();
    HashResult { hashes, mode: mode.to_owned(), covered: Vec::new() }
}

fn search_result(payload: &SearchPayload, computed: Computed) -> SearchResult {
    let wanted = match payload.find {
        // Two threads may have found one at the same time.
        Find::First => 1,
        Find::All => usize::MAX,
    };
    SearchResult {
        found: computed.kept.into_iter().take(wanted).map(|hit| found(payload.nonce_start, hit)).collect(),
        hashes_computed: computed.hashed,
        covered: covered(payload.nonce_start, computed.hashed),
        proof: computed.tops.into(),
    }
}

/// A winning nonce of a search that begins at `start`.
pub fn found(start: u64, (index, hash): (u64, [u8; HASH_BYTES])) -> Found {
    Found { nonce: start + index, hash: HexBytes(hash.to_vec()) }
}

fn covered(start: u64, hashed: u64) -> Vec<[u64; 2]> {
    if hashed == 0 { Vec::new() } else { vec![[start, start + hashed]] }
}

impl Work for Job {
    fn count(&self) -> u64 {
        match self {
            Self::Hash(payload) => payload.inputs.len() as u64,
            Self::Search(payload) => payload.count(),
        }
    }

    fn input<'a>(&'a self, index: u64, buffer: &'a mut Vec<u8>) -> &'a [u8] {
        match self {
            Self::Hash(payload) => payload.inputs.get(index as usize).map_or(&[], |input| input),
            Self::Search(payload) => {
                if buffer.is_empty() {
                    buffer.extend_from_slice(&payload.blob);
                }
                let nonce = ((payload.nonce_start + index) as u32).to_le_bytes();
                let place = buffer.iter_mut().skip(payload.nonce_offset as usize);
                place.zip(nonce).for_each(|(byte, digit)| *byte = digit);
                buffer
            }
        }
    }

    fn shows_all(&self) -> bool {
        matches!(self, Self::Search(_)) && self.count() <= Algorithm::Randomx.search_unit_max()
    }

    fn judge(&self, hash: &[u8; HASH_BYTES]) -> Verdict {
        match self {
            Self::Hash(_) => Verdict::Keep,
            Self::Search(payload) if !wins(hash, &payload.target) => Verdict::Skip,
            Self::Search(payload) => match payload.find {
                Find::First => Verdict::KeepAndStop,
                Find::All => Verdict::Keep,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nonce_is_written_little_endian_at_its_offset() {
        let job = Job::Search(SearchPayload {
            key: None,
            blob: HexBytes(vec![9; 7]),
            nonce_offset: 2,
            nonce_start: 0x0102_0300,
            nonce_end: 1 << 32,
            target: HexBytes(vec![0; 32]),
            find: Find::All,
        });
        let mut buffer = Vec::new();
        assert_eq!(job.input(4, &mut buffer), [9, 9, 4, 3, 2, 1, 9]);
        assert_eq!(job.input(5, &mut buffer), [9, 9, 5, 3, 2, 1, 9]);
    }
}
