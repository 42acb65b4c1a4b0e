//! The digest of a dataset: BLAKE3 of the BLAKE3 digests of its pieces, so that all threads can work on it. Reading the memory takes
//! longer than computing it: whoever maps a dataset that another process made can check all of it and still be ready at once.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

/// Bytes of a digest.
pub const DIGEST_BYTES: usize = 32;
const PIECE: usize = 2 * 1024 * 1024;

/// The digest of `bytes`, computed on up to `threads` threads.
pub fn of(bytes: &[u8], threads: usize) -> [u8; DIGEST_BYTES] {
    let pieces: Vec<&[u8]> = bytes.chunks(PIECE).collect();
    let next = AtomicUsize::new(0);
    let member = || {
        let take = || pieces.get(next.fetch_add(1, Ordering::Relaxed)..)?.first();
        let mut digests = Vec::new();
        while let Some(piece) = take() {
            digests.push((piece.as_ptr().addr(), blake3::hash(piece)));
        }
        digests
    };
    let mut all = thread::scope(|scope| {
        let begin = |_| thread::Builder::new().spawn_scoped(scope, member).ok();
        let helpers: Vec<_> = (1..threads).filter_map(begin).collect();
        let mut all = member();
        for helper in helpers {
            all.extend(helper.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
        }
        all
    });
    all.sort_unstable_by_key(|(place, _)| *place);
    let mut whole = blake3::Hasher::new();
    for (_, digest) in &all {
        whole.update(digest.as_bytes());
    }
    whole.finalize().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_the_same_on_any_number_of_threads_and_changes_with_every_byte() {
        let mut bytes: Vec<u8> = (0..PIECE * 5 / 2).map(|index| (index * 7 % 251) as u8).collect();
        let digest = of(&bytes, 1);
        assert_eq!(of(&bytes, 4), digest);
        bytes[PIECE + 3] ^= 1;
        assert_ne!(of(&bytes, 2), digest);
        let first = blake3::hash(&bytes[..PIECE]);
        assert_eq!(of(&bytes[..PIECE], 2), *blake3::hash(first.as_bytes()).as_bytes());
    }
}
