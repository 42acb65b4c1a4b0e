//! What gives the fleet work: `flota submit`, `flota ask`, `flota hash`.

use std::time::Duration;

use clap::Args;
use flota_proto::rest::OnDependencyFailure;
use flota_proto::{Algorithm, JobId, Kind, Timestamp};

use super::parse::{algorithm, kind, name_value, on_dependency_failure, point_in_time, priority, time_span};

/// `flota submit`
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    flota submit echo --payload '{\"value\": 42}' --wait\n  \
    flota submit randomx.hash --payload @inputs.json --priority high\n  \
    jq -n '{messages: [{role: \"user\", content: \"Hi\"}]}' | flota submit ai.chat --payload - --wait")]
pub struct Submit {
    /// randomx.hash, randomx.search, sha256d.hash, sha256d.search, ai.chat, ai.embed or echo
    #[arg(value_parser = kind)]
    pub kind: Kind,
    /// The payload as JSON, @FILE to read it from a file, - to read it from the standard input
    #[arg(long, short, value_name = "JSON|@FILE|-")]
    pub payload: String,
    /// Wait until the job has ended and print its result; without it the job's id is printed
    #[arg(long, short)]
    pub wait: bool,
    /// 0 to 9, 9 first; or low, normal, high
    #[arg(long, value_parser = priority)]
    pub priority: Option<u8>,
    /// A UUID for the job: submitting the same again answers the job that is there
    #[arg(long)]
    pub id: Option<JobId>,
    /// The queue's name
    #[arg(long)]
    pub queue: Option<String>,
    /// The project's name
    #[arg(long)]
    pub project: Option<String>,
    /// A label to find the job by; may be repeated
    #[arg(long = "label", value_name = "NAME=VALUE", value_parser = name_value)]
    pub labels: Vec<(String, String)>,
    /// How many attempts may fail [default: 3]
    #[arg(long, value_name = "NUMBER")]
    pub max_attempts: Option<u32>,
    /// How long one attempt may take, such as 90s or 10m
    #[arg(long, value_name = "TIME", value_parser = time_span)]
    pub timeout: Option<Duration>,
    /// Not before this time: RFC 3339, or from now on such as +10m
    #[arg(long, value_name = "TIME", value_parser = point_in_time)]
    pub run_at: Option<Timestamp>,
    /// Fail if not ended by this time: RFC 3339, or from now on such as +1h
    #[arg(long, value_name = "TIME", value_parser = point_in_time)]
    pub deadline: Option<Timestamp>,
    /// What the worker must have, such as '{"cores": 4, "features": ["avx2"]}'
    #[arg(long, value_name = "JSON")]
    pub requires: Option<String>,
    /// A job that must end first; may be repeated
    #[arg(long, value_name = "ID")]
    pub depends_on: Vec<JobId>,
    /// What to do when one of those did not complete: fail, cancel or continue [default: fail]
    #[arg(long, value_name = "WHAT", value_parser = on_dependency_failure)]
    pub on_dependency_failure: Option<OnDependencyFailure>,
    /// Whether an earlier result of the same may be used [default: true for randomx.*]
    #[arg(long, value_name = "true|false", hide_possible_values = true)]
    pub cache: Option<bool>,
    /// Send GEMINI_API_KEY along, for this job alone
    #[arg(long)]
    pub own_key: bool,
}

/// `flota ask`
#[derive(Debug, Args)]
#[command(
    after_help = "Ctrl-C stops the answer, at the AI too. Into a pipe the answer is written once it is complete; with \
    --stream as it comes."
)]
pub struct Ask {
    /// The question; - reads it from the standard input
    #[arg(required = true, value_name = "QUESTION")]
    pub question: Vec<String>,
    /// The model, without it the worker's default
    #[arg(long, short)]
    pub model: Option<String>,
    /// Instructions for the AI
    #[arg(long, value_name = "TEXT")]
    pub system: Option<String>,
    /// 0 to 2: how freely it answers
    #[arg(long, value_name = "NUMBER")]
    pub temperature: Option<f64>,
    /// The longest answer
    #[arg(long, value_name = "TOKENS")]
    pub max_output_tokens: Option<u32>,
    /// 0 to 9, 9 first; or low, normal, high
    #[arg(long, value_parser = priority)]
    pub priority: Option<u8>,
    /// Send GEMINI_API_KEY along, for this question alone
    #[arg(long)]
    pub own_key: bool,
    /// Write the answer as it comes into a pipe too
    #[arg(long)]
    pub stream: bool,
    /// Ask the AIs of this machine's settings, without the fleet
    #[arg(long, conflicts_with = "priority")]
    pub local: bool,
    /// Whom to ask, one after the other: own, local, gemini, demo, each also with :MODEL
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    pub chain: Vec<flota_proto::chain::Link>,
}

/// `flota hash`
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  flota hash --key 'test key 000' 'This is a test'\n  \
    flota hash --algorithm sha256d 'This is a test'")]
pub struct Hash {
    /// With what: rx/0 (RandomX) or sha256d (SHA-256 twice)
    #[arg(long, value_name = "NAME", default_value = "rx/0", value_parser = algorithm)]
    pub algorithm: Algorithm,
    /// The RandomX key, up to 60 bytes
    #[arg(long, value_name = "TEXT")]
    pub key: Option<String>,
    /// What to hash; - reads lines from the standard input
    #[arg(required = true, value_name = "INPUT")]
    pub inputs: Vec<String>,
    /// Key and inputs are hex
    #[arg(long)]
    pub hex: bool,
    /// 0 to 9, 9 first; or low, normal, high
    #[arg(long, value_parser = priority)]
    pub priority: Option<u8>,
    /// Compute again what was computed before
    #[arg(long)]
    pub no_cache: bool,
}
