//! The commands that talk to a running fleet, and those that work on its store.

pub mod ask;
pub mod ask_local;
pub mod backup;
pub mod fleet;
pub mod hash;
pub mod healthcheck;
pub mod jobs;
pub mod logs;
pub mod mine;
pub mod submit;
pub mod workers;

use flota_common::config::Settings;
use secrecy::SecretString;
use serde_json::value::RawValue;

use crate::failure::Failure;
use crate::output::Out;

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

/// Of several wishes one that is refused does not spare the rest: the first refusal becomes the command's end, the
/// others are said at once. What meets all of them alike ends the command.
fn keep_first(out: &Out, first: &mut Result<(), Failure>, next: Result<(), Failure>) -> Result<(), Failure> {
    match next {
        Ok(()) => Ok(()),
        Err(failure @ (Failure::Unreachable(_) | Failure::Interrupted(_) | Failure::ClosedPipe)) => Err(failure),
        Err(failure) if first.is_ok() => {
            *first = Err(failure);
            Ok(())
        }
        Err(failure) => {
            failure.report(out);
            Ok(())
        }
    }
}

/// What comes on the standard input.
fn stdin_text() -> Result<String, Failure> {
    std::io::read_to_string(std::io::stdin())
        .map_err(|error| Failure::Usage(format!("can't read the standard input: {error}")))
}
