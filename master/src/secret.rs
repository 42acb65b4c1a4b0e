//! Comparing secrets without telling by the time it takes how much of them was right.

use hmac::{Hmac, Mac};
use sha2::Sha256;

/// Whether both are the same. Compares authentication codes of both, whose comparison takes the same time whatever they
/// are.
pub(crate) fn same(expected: &str, presented: &str) -> bool {
    let code = |text: &str| {
        Hmac::<Sha256>::new_from_slice(b"flota compares secrets").map(|mac| mac.chain_update(text.as_bytes()))
    };
    match (code(expected), code(presented)) {
        (Ok(expected), Ok(presented)) => expected.verify(&presented.finalize().into_bytes()).is_ok(),
        _ => false,
    }
}
