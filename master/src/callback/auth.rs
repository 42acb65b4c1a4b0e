//! Whether a caller may report: `FLOTA_WORKER_TOKEN`, compared in constant time.

use secrecy::{ExposeSecret, SecretString};
use tonic::Status;
use tonic::metadata::MetadataMap;

use crate::secret;

/// The token that is demanded, if any.
pub(super) struct Token(Option<SecretString>);

impl Token {
    pub(super) fn new(token: Option<SecretString>) -> Self {
        Self(token)
    }

    /// Whether `presented` is the token; without one everybody may come.
    pub(super) fn admits(&self, presented: &str) -> bool {
        self.0.as_ref().is_none_or(|token| secret::same(token.expose_secret(), presented))
    }

    /// Whether the metadata carry the token.
    pub(super) fn bearer(&self, metadata: &MetadataMap) -> bool {
        let value = metadata.get("authorization").and_then(|value| value.to_str().ok()).unwrap_or_default();
        let presented = match value.split_once(' ') {
            Some((scheme, token)) if scheme.eq_ignore_ascii_case("bearer") => token.trim(),
            _ => "",
        };
        self.admits(presented)
    }

    pub(super) fn demand(&self, metadata: &MetadataMap) -> Result<(), Status> {
        if self.bearer(metadata) { Ok(()) } else { Err(refused()) }
    }
}

pub(super) fn refused() -> Status {
    Status::unauthenticated("the worker token is missing or wrong: set FLOTA_WORKER_TOKEN to that of the master")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_token_itself_is_admitted() {
        let token = Token::new(Some("s3cret".to_owned().into()));
        assert!(token.admits("s3cret"));
        for wrong in ["", "s3cre", "s3crett", "S3CRET"] {
            assert!(!token.admits(wrong), "{wrong}");
        }
        assert!(Token::new(None).admits(""));
    }

    #[test]
    fn the_bearer_scheme_is_taken_in_any_case() {
        let token = Token::new(Some("s3cret".to_owned().into()));
        for (value, admitted) in
            [("Bearer s3cret", true), ("bearer  s3cret", true), ("Basic s3cret", false), ("s3cret", false)]
        {
            let mut metadata = MetadataMap::new();
            metadata.insert("authorization", value.parse().expect("ASCII"));
            assert_eq!(token.bearer(&metadata), admitted, "{value}");
        }
        assert!(token.demand(&MetadataMap::new()).is_err());
    }
}
