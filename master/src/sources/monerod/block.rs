//! What must be understood of Monero's blocks: where the nonce stands, what a block's id is, and when a hash wins.

use sha3::{Digest, Keccak256};

/// Bytes of a nonce.
pub const NONCE_BYTES: usize = 4;
/// No hashing blob is longer by far.
const HASHING_BLOB_BYTES_MAX: usize = 512;

/// Where things stand in a block's header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Where the nonce begins.
    pub nonce_offset: usize,
    /// The block before.
    pub prev: [u8; 32],
}

/// Reads the header that a hashing blob and a block begin with.
///
/// # Errors
/// What is wrong with it.
pub fn header(blob: &[u8]) -> Result<Header, String> {
    let mut at = 0;
    for what in ["major version", "minor version", "timestamp"] {
        at += varint(blob.get(at..).unwrap_or_default()).ok_or_else(|| format!("its {what} is no varint"))?;
    }
    let prev = blob.get(at..at + 32).and_then(|bytes| bytes.try_into().ok()).ok_or("it ends within its header")?;
    let nonce_offset = at + 32;
    if blob.len() < nonce_offset + NONCE_BYTES {
        return Err("it ends before its nonce".into());
    }
    Ok(Header { nonce_offset, prev })
}

/// Reads the header of a hashing blob, which ends with the root of the transactions and their count.
///
/// # Errors
/// What is wrong with it.
pub fn hashing_blob(blob: &[u8]) -> Result<Header, String> {
    if blob.len() > HASHING_BLOB_BYTES_MAX {
        return Err(format!("it has {} bytes", blob.len()));
    }
    let found = header(blob)?;
    let rest = blob.get(found.nonce_offset + NONCE_BYTES + 32..).ok_or("it ends before the transactions' root")?;
    match varint(rest) {
        Some(length) if length == rest.len() => Ok(found),
        _ => Err("it does not end with the count of transactions".into()),
    }
}

/// How many bytes the varint at the beginning takes.
fn varint(bytes: &[u8]) -> Option<usize> {
    let last = bytes.iter().take(10).position(|byte| byte & 0x80 == 0)?;
    Some(last + 1)
}

/// A copy of `blob` with `nonce` at `offset`.
pub fn with_nonce(blob: &[u8], offset: usize, nonce: u32) -> Vec<u8> {
    let mut blob = blob.to_vec();
    if let Some(place) = blob.get_mut(offset..offset + NONCE_BYTES) {
        place.copy_from_slice(&nonce.to_le_bytes());
    }
    blob
}

/// The id of the block with this hashing blob: its Keccak hash behind its length as a varint.
pub fn id(hashing_blob: &[u8]) -> [u8; 32] {
    let mut length = hashing_blob.len();
    let mut digest = Keccak256::new();
    while length >= 0x80 {
        digest.update([length as u8 | 0x80]);
        length >>= 7;
    }
    digest.update([length as u8]);
    digest.update(hashing_blob);
    digest.finalize().into()
}

/// The little-endian number below which a hash times `difficulty` stays below 2²⁵⁶; `None` for a difficulty of 0.
pub fn target(difficulty: u128) -> Option<[u8; 32]> {
    if difficulty == 0 {
        return None;
    }
    // (2²⁵⁶ − 1) ÷ difficulty, bit by bit, then one more: rounded up, as below it is meant strictly.
    let (mut remainder, mut quotient) = (0u128, [0u8; 32]);
    for bit in (0..256).rev() {
        let over = remainder >> 127 == 1;
        remainder = remainder << 1 | 1;
        if over || remainder >= difficulty {
            remainder = remainder.wrapping_sub(difficulty);
            quotient[bit / 8] |= 1 << (bit % 8);
        }
    }
    for byte in &mut quotient {
        let (sum, carried) = byte.overflowing_add(1);
        *byte = sum;
        if !carried {
            return Some(quotient);
        }
    }
    // A difficulty of 1: 2²⁵⁶ has no room.
    Some([0xff; 32])
}

#[cfg(test)]
mod tests {
    use super::*;

    /// From monerod 0.18 on regtest.
    const HASHING: &str = "1010d7a886d806418015bb9ae982a1975da7d79277c2705727a56894ba0fb246adaabb1f4632e3000000000c6d813a42d3b3b8b99446f0aba451e668b4c72a511cb465cc4dd000ec765a1301";

    #[test]
    fn the_nonce_stands_behind_the_block_before() {
        let blob = hex::decode(HASHING).unwrap();
        let header = hashing_blob(&blob).unwrap();
        assert_eq!(header.nonce_offset, 39);
        assert!(hex::encode(header.prev).starts_with("418015bb"));
        assert_eq!(with_nonce(&blob, 39, 0x0403_0201)[39..43], [1, 2, 3, 4]);
    }

    #[test]
    fn what_is_no_hashing_blob_is_refused() {
        let blob = hex::decode(HASHING).unwrap();
        for length in 0..blob.len() {
            assert!(hashing_blob(&blob[..length]).is_err(), "{length} bytes");
        }
        assert!(hashing_blob(&[blob.clone(), vec![0]].concat()).is_err());
        assert!(hashing_blob(&[0xff; 100]).is_err());
        assert!(hashing_blob(&[0; 1000]).is_err());
    }

    #[test]
    fn targets_are_what_is_left_of_the_whole() {
        assert_eq!(target(0), None);
        assert_eq!(target(1), Some([0xff; 32]));
        let mut half = [0; 32];
        half[31] = 0x80;
        assert_eq!(target(2), Some(half));
        // 2²⁵⁶ ÷ 10 rounded up: 0x1999…999a.
        let mut tenth = [0x99; 32];
        (tenth[0], tenth[31]) = (0x9a, 0x19);
        assert_eq!(target(10), Some(tenth));
        let mut least = [0; 32];
        (least[16], least[0]) = (1, 1);
        assert_eq!(
            target(u128::MAX),
            Some({
                least[0] = 2;
                least
            })
        );
    }
}
