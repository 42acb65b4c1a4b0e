//! What computes a unit. One file or folder a job kind; the runner knows only this trait.

pub mod ai;
pub mod echo;
pub mod manners;
pub mod randomx;
mod rate;
pub mod sha256d;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use flota_proto::kinds::{Found, Payload};
use flota_proto::mqtt::RandomxState;
use flota_proto::{Algorithm, Kind, UnitId};
use flota_randomx::{DIGEST_BYTES, Dataset};
use secrecy::SecretString;
use tokio_util::sync::CancellationToken;

use crate::peer::Digests;

/// One attempt of a unit, as the executor gets it.
pub struct Unit {
    /// Which unit.
    pub id: UnitId,
    /// The fencing token.
    pub attempt: u64,
    /// What to compute.
    pub kind: Kind,
    /// Parsed and valid.
    pub payload: Payload,
    /// How many attempts of this unit failed before.
    pub failures: u32,
    /// How long this attempt may take.
    pub timeout: Duration,
    /// The user's own key, leased for this attempt.
    pub credential: Option<SecretString>,
    /// Only that key may be used.
    pub own_key_only: bool,
}

/// What an executor tells while it works.
pub trait Observer: Send + Sync {
    /// `fraction` (0 to 1) is done. Also proves that the attempt is alive: an executor that works for longer than a
    /// few seconds calls it, or [`Observer::alive`], at least every second.
    fn progress(&self, fraction: f64, note: &str);
    /// The next piece of an answer's text.
    fn delta(&self, text: &str);
    /// Winning nonces of a search, at once; the result names them again.
    fn found(&self, _found: Vec<Found>) {}
    /// The attempt is alive although there is nothing to show (waiting for a provider).
    fn alive(&self);
}

/// How an executor is observed and stopped.
#[derive(Clone)]
pub struct Context {
    /// Cancelled when the attempt must stop; work ends within a second.
    pub cancel: CancellationToken,
    /// Who is told.
    pub observer: Arc<dyn Observer>,
}

/// What came out.
#[derive(Debug)]
pub struct Output {
    /// The result of the kind for this unit, JSON.
    pub json: Bytes,
    /// Hashes computed.
    pub hashes: u64,
}

/// Why nothing came out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// For programs: lowercase with underscores.
    pub code: String,
    /// For people: what was wrong, where, what to do. Never a key, a prompt or a payload.
    pub message: String,
    /// Whether another attempt can help.
    pub retryable: bool,
    /// Not before; `None`: the master's backoff decides.
    pub retry_after: Option<Duration>,
    /// Nobody was asked: it is no try.
    pub unasked: bool,
}

impl Failure {
    /// A failure that another attempt can't mend.
    pub fn permanent(code: &str, message: impl Into<String>) -> Self {
        Self { code: code.to_owned(), message: message.into(), retryable: false, retry_after: None, unasked: false }
    }

    /// A failure that another attempt may mend.
    pub fn transient(code: &str, message: impl Into<String>) -> Self {
        Self { retryable: true, ..Self::permanent(code, message) }
    }

    /// The attempt was told to stop.
    #[must_use]
    pub fn cancelled() -> Self {
        Self::permanent("cancelled", "the attempt was cancelled")
    }
}

/// Computes units of some kinds.
#[async_trait]
pub trait Executor: Send + Sync {
    /// What it computes.
    fn kinds(&self) -> &[Kind];

    /// Models that it serves without a user's key (`demo` for the built-in stand-in).
    fn models(&self) -> Vec<String> {
        Vec::new()
    }

    /// RandomX keys (hex) for which it is warm.
    fn warm_keys(&self) -> Vec<String> {
        Vec::new()
    }

    /// Hashes a second over the last ten seconds, and with what.
    fn rate(&self) -> Option<(Algorithm, f64)> {
        None
    }

    /// How it stands with RandomX, where it computes that.
    fn randomx(&self) -> Option<RandomxState> {
        None
    }

    /// Work with this RandomX key will come: what takes long to prepare may be begun. Says what it did, for people.
    fn prepare(&self, _key: &[u8]) -> Option<String> {
        None
    }

    /// The RandomX dataset of `key`, if it is ready, to be given to other workers.
    fn dataset(&self, _key: &[u8]) -> Option<Arc<Dataset>> {
        None
    }

    /// Keys and digests of the last RandomX datasets that it computed itself.
    fn computed_datasets(&self) -> Vec<(Vec<u8>, [u8; DIGEST_BYTES])> {
        Vec::new()
    }

    /// Whom to ask which digest a dataset must have that another worker gives.
    fn trust(&self, _digests: Arc<dyn Digests>) {}

    /// With `held` the worker takes no units of this executor until told otherwise: work of its own accord stops, and memory is
    /// given back after a while.
    fn hold(&self, _held: bool) {}

    /// The outcome at once, for units that take next to no time and wait for nothing: it spares the runner a task, a
    /// slot and an acceptance. `None`: run it by [`Executor::execute`].
    fn immediate(&self, _unit: &Unit) -> Option<Result<Output, Failure>> {
        None
    }

    /// Computes `unit`. CPU work runs on threads of its own, never on the async runtime.
    ///
    /// # Errors
    /// [`Failure`] when there is no result; [`Failure::cancelled`] soon after `context.cancel`.
    async fn execute(&self, unit: Unit, context: Context) -> Result<Output, Failure>;
}
