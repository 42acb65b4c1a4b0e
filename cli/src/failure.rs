//! Why a command did not succeed, and the exit code that says so.

use std::io;
use std::process::ExitCode;

use flota_common::config::ConfigErrors;

use crate::output::{Hue, Out};

/// Why a command did not succeed.
#[derive(Debug)]
pub enum Failure {
    /// 1: the job failed or was cancelled; what is to be said of it was said.
    Job(String),
    /// 1: something else went wrong.
    Failed(String),
    /// 2: the command was used wrongly, or the fleet refuses what was asked.
    Usage(String),
    /// 3: the fleet can't be reached or takes nothing now.
    Unreachable(String),
    /// 130: by Ctrl-C.
    Interrupted(String),
    /// 0: whoever read the output has had enough.
    ClosedPipe,
}

impl Failure {
    fn code(&self) -> u8 {
        match self {
            Self::Job(_) | Self::Failed(_) => 1,
            Self::Usage(_) => 2,
            Self::Unreachable(_) => 3,
            Self::Interrupted(_) => 130,
            Self::ClosedPipe => 0,
        }
    }

    /// What is said.
    pub fn message(&self) -> &str {
        match self {
            Self::Job(text)
            | Self::Failed(text)
            | Self::Usage(text)
            | Self::Unreachable(text)
            | Self::Interrupted(text) => text,
            Self::ClosedPipe => "",
        }
    }

    /// Says it on stderr and gives the exit code.
    pub fn report(&self, out: &Out) -> ExitCode {
        let (message, code) = (self.message(), self.code());
        if !message.is_empty() {
            if out.json {
                eprintln!("{}", serde_json::json!({"error": message, "exit_code": code}));
            } else {
                eprintln!("{} {message}", out.paint_note(Hue::Red, "flota:"));
            }
        }
        ExitCode::from(code)
    }
}

impl From<ConfigErrors> for Failure {
    fn from(errors: ConfigErrors) -> Self {
        Self::Usage(match errors.0.as_slice() {
            [one] => format!("the configuration is wrong: {one}"),
            _ => format!("the configuration is wrong:\n{errors}").replace('\n', "\n  "),
        })
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::BrokenPipe { Self::ClosedPipe } else { Self::Failed(error.to_string()) }
    }
}
