//! What the stand-in is told to answer.

use std::sync::OnceLock;
use std::time::{Duration, Instant};

use flota_common::clock;
use serde::{Deserialize, Serialize};

use super::errors::Trouble;

/// The answer to one call.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reply {
    /// A stream.
    Stream(Script),
    /// An error with its usual body.
    Trouble(Trouble),
    /// A status with any body.
    Raw {
        /// The HTTP status.
        status: u16,
        /// What follows the head.
        body: String,
    },
    /// The same, written at most so many bytes at once.
    Cut {
        /// The HTTP status.
        status: u16,
        /// What follows the head.
        body: String,
        /// `None`: whole.
        size: Option<usize>,
    },
}

/// A stream, piece by piece.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default)]
pub struct Script {
    /// What comes, one frame each.
    pub pieces: Vec<Piece>,
    /// How it ends.
    pub end: End,
    /// Before the head of the answer.
    pub first_delay_ms: u64,
    /// Before each piece but the first.
    pub pause_ms: u64,
    /// Before the pieces with these indexes it waits until it is told to go on.
    pub holds: Vec<usize>,
    /// Writes hold at most so many bytes.
    pub cut: Option<usize>,
    /// Lines end with LF instead of CRLF.
    pub lf: bool,
    /// The model that says it answered, if another one.
    pub model_version: Option<String>,
    /// [`STAMP`] in a piece becomes the time of its writing, see [`stamp`].
    pub stamped: bool,
}

/// Stands for the time of writing.
pub const STAMP: &str = "@@@@@@@@@@@@@@@@";

/// Microseconds since the first call in this process, as long as [`STAMP`].
#[must_use]
pub fn stamp() -> String {
    static BEGUN: OnceLock<Instant> = OnceLock::new();
    let begun = BEGUN.get_or_init(clock::instant);
    format!("{:016}", clock::instant().saturating_duration_since(*begun).as_micros())
}

/// One frame of a stream.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Piece {
    /// A part of the answer.
    Text(String),
    /// A part of the summary of thinking.
    Thought(String),
    /// Why the answer ends, beside an empty part with a signature; the usage stands here.
    Finish(String),
    /// The prompt was blocked.
    Block(String),
    /// This, after `data: `.
    Raw(String),
}

/// How a stream ends.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum End {
    /// With a blank line after the last frame.
    #[default]
    Whole,
    /// Without that blank line.
    WithoutBlankLine,
    /// With an error as bare JSON over several lines.
    BareError(Trouble),
    /// With an error in a frame of its own.
    ErrorFrame(Trouble),
    /// With a broken connection.
    Reset,
    /// Within a frame, in the middle of a character.
    MidCharacter,
    /// With its last piece so many times again.
    Repeat {
        /// How often.
        times: usize,
    },
    /// Not at all.
    Stall,
}

impl Default for Script {
    fn default() -> Self {
        Self {
            pieces: Vec::new(),
            end: End::Whole,
            first_delay_ms: 0,
            pause_ms: 0,
            holds: Vec::new(),
            cut: None,
            lf: false,
            model_version: None,
            stamped: false,
        }
    }
}

impl Script {
    /// These pieces.
    #[must_use]
    pub fn of(pieces: impl IntoIterator<Item = Piece>) -> Self {
        Self { pieces: pieces.into_iter().collect(), ..Self::default() }
    }

    /// These texts, then the finish reason `finish`.
    #[must_use]
    pub fn text(texts: &[&str], finish: &str) -> Self {
        let mut script = Self::unfinished(texts);
        script.pieces.push(Piece::Finish(finish.to_owned()));
        script
    }

    /// These texts and no finish reason.
    #[must_use]
    pub fn unfinished(texts: &[&str]) -> Self {
        Self::of(texts.iter().map(|text| Piece::Text((*text).to_owned())))
    }

    /// Ends so.
    #[must_use]
    pub fn end(self, end: End) -> Self {
        Self { end, ..self }
    }

    /// Writes at most `bytes` at once.
    #[must_use]
    pub fn cut(self, bytes: usize) -> Self {
        Self { cut: Some(bytes), ..self }
    }

    /// Waits `delay` before the head.
    #[must_use]
    pub fn after(self, delay: Duration) -> Self {
        Self { first_delay_ms: delay.as_millis() as u64, ..self }
    }
}

impl From<Script> for Reply {
    fn from(script: Script) -> Self {
        Self::Stream(script)
    }
}

impl From<Trouble> for Reply {
    fn from(trouble: Trouble) -> Self {
        Self::Trouble(trouble)
    }
}
