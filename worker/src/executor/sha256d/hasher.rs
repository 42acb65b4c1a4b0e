//! SHA-256 twice (FIPS 180-4) of inputs that differ in their nonce only: the blocks before it are compressed once.

use std::slice;

use sha2::compress256;
use sha2::digest::generic_array::GenericArray;
use sha2::digest::typenum::U64;

/// What SHA-256 begins with.
const START: [u32; 8] =
    [0x6a09_e667, 0xbb67_ae85, 0x3c6e_f372, 0xa54f_f53a, 0x510e_527f, 0x9b05_688c, 0x1f83_d9ab, 0x5be0_cd19];
const BLOCK: usize = 64;

type Block = GenericArray<u8, U64>;

/// Hashes one blob with many nonces. Each thread has its own.
#[derive(Clone, Debug)]
pub struct Hasher {
    /// After the blocks before the nonce.
    midstate: [u32; 8],
    /// The other blocks, padded.
    tail: Vec<Block>,
    /// Where in them the nonce stands.
    place: usize,
    /// The first hash, padded, is what the second is of.
    outer: Block,
}

impl Hasher {
    /// Of `blob` with 4 bytes of nonce at `place`, which it must have.
    pub fn new(blob: &[u8], place: usize) -> Self {
        let (head, rest) = blob.split_at(place.min(blob.len()) / BLOCK * BLOCK);
        let mut midstate = START;
        compress256(&mut midstate, &blocks(head));
        let tail = blocks(&padded(rest, blob.len()));
        let outer = Block::clone_from_slice(&padded(&[0; 32], 32));
        Self { midstate, tail, place: place - head.len(), outer }
    }

    /// The hash with `nonce`.
    pub fn hash(&mut self, nonce: u32) -> [u8; 32] {
        for (index, byte) in (self.place..).zip(nonce.to_le_bytes()) {
            self.tail[index / BLOCK][index % BLOCK] = byte;
        }
        let mut first = self.midstate;
        compress256(&mut first, &self.tail);
        self.outer[..32].copy_from_slice(&bytes(first));
        let mut second = START;
        compress256(&mut second, slice::from_ref(&self.outer));
        bytes(second)
    }
}

fn blocks(bytes: &[u8]) -> Vec<Block> {
    bytes.chunks_exact(BLOCK).map(Block::clone_from_slice).collect()
}

/// The end of a message of `length` bytes, with what SHA-256 puts behind it.
fn padded(end: &[u8], length: usize) -> Vec<u8> {
    let mut padded = end.to_vec();
    padded.push(0x80);
    let whole = (padded.len() + 8).next_multiple_of(BLOCK);
    padded.resize(whole - 8, 0);
    padded.extend((length as u64 * 8).to_be_bytes());
    padded
}

fn bytes(state: [u32; 8]) -> [u8; 32] {
    let mut bytes = [0; 32];
    for (place, word) in bytes.chunks_exact_mut(4).zip(state) {
        place.copy_from_slice(&word.to_be_bytes());
    }
    bytes
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use sha2::{Digest, Sha256};

    use super::*;

    proptest! {
        #[test]
        fn it_hashes_what_sha_256_hashes_twice(
            mut blob in proptest::collection::vec(any::<u8>(), 4..300),
            place in any::<proptest::sample::Index>(),
            nonces in proptest::collection::vec(any::<u32>(), 1..4),
        ) {
            let place = place.index(blob.len() - 3);
            let mut hasher = Hasher::new(&blob, place);
            for nonce in nonces {
                blob[place..place + 4].copy_from_slice(&nonce.to_le_bytes());
                let expected: [u8; 32] = Sha256::digest(Sha256::digest(&blob)).into();
                prop_assert_eq!(hasher.hash(nonce), expected);
            }
        }
    }
}
