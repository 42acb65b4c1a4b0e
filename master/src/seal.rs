//! Seals users' API keys for the store: XChaCha20-Poly1305 (draft-irtf-cfrg-xchacha-03), a random nonce each, bound to the job
//! that the key belongs to.

use chacha20poly1305::aead::{Aead, KeyInit, Payload};
use chacha20poly1305::{XChaCha20Poly1305, XNonce};
use rand::RngCore;
use secrecy::{ExposeSecret, SecretString};

/// The length of the sealing key.
pub const KEY_BYTES: usize = 32;
const NONCE_BYTES: usize = 24;

/// Seals and opens.
#[derive(Clone)]
pub struct Sealer(XChaCha20Poly1305);

impl Sealer {
    /// With this key.
    #[must_use]
    pub fn new(key: &[u8; KEY_BYTES]) -> Self {
        Self(XChaCha20Poly1305::new(key.into()))
    }

    /// With a key that nobody keeps: what it sealed is lost with it.
    #[must_use]
    pub fn ephemeral() -> Self {
        let mut key = [0; KEY_BYTES];
        rand::rng().fill_bytes(&mut key);
        Self::new(&key)
    }

    /// The nonce and the sealed secret. It opens with the same `context` only.
    #[must_use]
    pub fn seal(&self, context: &[u8], secret: &SecretString) -> Vec<u8> {
        let mut nonce = [0; NONCE_BYTES];
        rand::rng().fill_bytes(&mut nonce);
        let payload = Payload { msg: secret.expose_secret().as_bytes(), aad: context };
        // It fails beyond 256 GiB only; an empty seal opens for nobody.
        let sealed = self.0.encrypt(&XNonce::from(nonce), payload).unwrap_or_default();
        [nonce.as_slice(), &sealed].concat()
    }

    /// The secret; `None` where another key sealed it, or it was changed.
    #[must_use]
    pub fn open(&self, context: &[u8], sealed: &[u8]) -> Option<SecretString> {
        let (nonce, sealed) = sealed.split_first_chunk::<NONCE_BYTES>()?;
        let bytes = self.0.decrypt(&XNonce::from(*nonce), Payload { msg: sealed, aad: context }).ok()?;
        String::from_utf8(bytes).ok().map(SecretString::from)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_sealed_opens_with_the_same_key_and_context_only() {
        let secret = SecretString::from("AIza-secret".to_owned());
        let (one, other) = (Sealer::ephemeral(), Sealer::ephemeral());
        let sealed = one.seal(b"job 1", &secret);
        assert!(!sealed.windows(6).any(|part| part == b"secret"));
        assert_ne!(sealed, one.seal(b"job 1", &secret));
        assert_eq!(one.open(b"job 1", &sealed).unwrap().expose_secret(), "AIza-secret");
        assert!(one.open(b"job 2", &sealed).is_none());
        assert!(other.open(b"job 1", &sealed).is_none());
        for index in 0..sealed.len() {
            let mut changed = sealed.clone();
            changed[index] ^= 1;
            assert!(one.open(b"job 1", &changed).is_none(), "{index}");
            assert!(one.open(b"job 1", &sealed[..index]).is_none(), "{index}");
        }
    }
}
