//! The commands that talk to a running fleet.

pub mod ask;
pub mod fleet;
pub mod hash;
pub mod healthcheck;
pub mod jobs;
pub mod logs;
pub mod submit;
pub mod workers;

use flota_common::config::Settings;
use secrecy::SecretString;
use serde_json::value::RawValue;

use crate::failure::Failure;

/// `GEMINI_API_KEY` where `wanted`; it never leaves this machine without being asked to.
fn own_key(settings: &Settings, wanted: bool) -> Result<Option<&SecretString>, Failure> {
    match (&settings.gemini_api_key, wanted) {
        (_, false) => Ok(None),
        (Some(key), true) => Ok(Some(key)),
        (None, true) => Err(Failure::Usage("--own-key sends GEMINI_API_KEY along, but it is not set".into())),
    }
}

/// `text` as JSON that goes out as it stands.
fn raw_json(what: &str, text: String) -> Result<Box<RawValue>, Failure> {
    RawValue::from_string(text).map_err(|error| Failure::Usage(format!("{what} is no valid JSON: {error}")))
}

/// What comes on the standard input.
fn stdin_text() -> Result<String, Failure> {
    std::io::read_to_string(std::io::stdin())
        .map_err(|error| Failure::Usage(format!("can't read the standard input: {error}")))
}
