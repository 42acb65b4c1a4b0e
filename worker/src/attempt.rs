//! One attempt: from a task to a report. Fetches what the task only refers to, executes within the timeout, stops when told.

use std::sync::Arc;
use std::time::Duration;

use flota_common::clock;
use flota_proto::kinds::{Found, Payload};
use flota_proto::mqtt::Task;
use flota_proto::{Kind, v1};
use secrecy::SecretString;
use serde_json::value::RawValue;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::calls::Calls;
use crate::executor::{Context, Executor, Failure, Observer, Output, Unit};
use crate::runner::Runner;
use crate::table::{Key, Report, Sign, Start};

/// How long an executor that was told to stop may take.
const STOP_GRACE: Duration = Duration::from_secs(2);
const NOTE_CHARS_MAX: usize = 200;
const MESSAGE_CHARS_MAX: usize = 2_000;
const CODE_CHARS_MAX: usize = 64;

/// How an execution ended.
pub(crate) enum Ended {
    Outcome(Result<Output, Failure>),
    /// The master wants no report.
    Cancelled,
}

/// Fetches payload and key where they are missing, and executes.
pub(crate) async fn execute(start: Start, executor: Arc<dyn Executor>, observer: Observed, calls: &Calls) -> Ended {
    let cancel = start.cancel.clone();
    let prepared = tokio::select! {
        biased;
        () = cancel.cancelled() => return Ended::Cancelled,
        prepared = prepare(start, calls, &observer) => prepared,
    };
    match prepared {
        Ok(unit) => supervise(unit, executor, observer, &cancel).await,
        Err(failure) => Ended::Outcome(Err(failure)),
    }
}

async fn prepare(start: Start, calls: &Calls, observer: &Observed) -> Result<Unit, Failure> {
    let task = start.work.task;
    let key = (task.unit_id, task.attempt);
    let payload = match start.work.payload {
        Some(payload) => payload,
        None => calls.fetch_unit(key, task.kind).await?,
    };
    let credential = if task.credential { Some(calls.lease_credential(key).await?) } else { None };
    observer.alive();
    Ok(unit(&task, payload, credential))
}

/// Executes `unit` within its timeout, and stops it when told.
async fn supervise(unit: Unit, executor: Arc<dyn Executor>, observer: Observed, cancel: &CancellationToken) -> Ended {
    let timeout = unit.timeout;
    let stop = cancel.child_token();
    let context = Context { cancel: stop.clone(), observer: Arc::new(observer) };
    let mut execution = executor.execute(unit, context);
    let timed_out = tokio::select! {
        biased;
        outcome = &mut execution => return match outcome {
            Err(_) if cancel.is_cancelled() => Ended::Cancelled,
            outcome => Ended::Outcome(outcome),
        },
        () = cancel.cancelled() => false,
        () = tokio::time::sleep(timeout) => true,
    };
    stop.cancel();
    let last = tokio::time::timeout(STOP_GRACE, execution).await;
    if last.is_err() {
        warn!("an executor that was told to stop has not; its slot is given away");
    }
    match last {
        _ if !timed_out => Ended::Cancelled,
        // It made it just in time.
        Ok(Ok(output)) => Ended::Outcome(Ok(output)),
        Ok(_) | Err(_) => {
            let message = format!("the attempt took longer than the {} ms that it may take", timeout.as_millis());
            Ended::Outcome(Err(Failure::transient("timeout", message)))
        }
    }
}

/// The unit of a task.
pub(crate) fn unit(task: &Task, payload: Payload, credential: Option<SecretString>) -> Unit {
    /// Further than any clock counts, near enough to be added to.
    const UNBOUNDED: Duration = Duration::from_secs(60 * 60 * 24 * 365);
    let timeout = if task.timeout_ms == 0 { UNBOUNDED } else { Duration::from_millis(task.timeout_ms).min(UNBOUNDED) };
    Unit {
        id: task.unit_id,
        attempt: task.attempt,
        kind: task.kind,
        payload,
        failures: task.failures,
        timeout,
        credential,
        own_key_only: task.own_key_only,
    }
}

/// Parses a payload that came with its task.
pub(crate) fn parse(kind: Kind, json: &RawValue) -> Result<Payload, Failure> {
    Payload::parse(kind, json).map_err(|error| Failure::permanent("bad_payload", error.to_string()))
}

/// The report of an outcome, of which the master takes at most `bytes_max`.
pub(crate) fn report(
    (unit, attempt): Key,
    outcome: Result<Output, Failure>,
    took: Duration,
    bytes_max: usize,
) -> Report {
    let output = match outcome {
        Ok(output) => output,
        Err(failure) => return failed((unit, attempt), failure),
    };
    let bytes = output.json.len();
    if bytes > bytes_max {
        let message = format!(
            "the result of this unit has {bytes} bytes, more than the {bytes_max} that the master takes (its FLOTA_RESULT_MAX): ask for less in one job"
        );
        return failed((unit, attempt), Failure::permanent("result_too_large", message));
    }
    Report::Result(v1::Result {
        unit_id: unit.to_string(),
        attempt,
        output: output.json,
        elapsed_ms: milliseconds(took),
        hashes: output.hashes,
        output_from: 0,
    })
}

/// The report of a failure.
pub(crate) fn failed((unit, attempt): Key, failure: Failure) -> Report {
    Report::Failure(v1::Failure {
        unit_id: unit.to_string(),
        attempt,
        code: bounded(&failure.code, CODE_CHARS_MAX),
        message: bounded(&failure.message, MESSAGE_CHARS_MAX),
        retryable: failure.retryable,
        // 0 leaves it to the master's backoff.
        retry_after_ms: failure.retry_after.map_or(0, |after| milliseconds(after).max(1)),
        unasked: failure.unasked,
    })
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn bounded(text: &str, chars: usize) -> String {
    text.chars().take(chars).collect()
}

/// Tells the runner what an executor shows.
pub(crate) struct Observed {
    runner: Arc<Runner>,
    key: Key,
    sign: Arc<Sign>,
}

impl Observed {
    pub(crate) fn new(runner: Arc<Runner>, key: Key, sign: Arc<Sign>) -> Self {
        Self { runner, key, sign }
    }
}

impl Observer for Observed {
    fn progress(&self, fraction: f64, note: &str) {
        self.alive();
        if fraction.is_finite() {
            let note = bounded(note, NOTE_CHARS_MAX);
            self.runner.show(|table| table.progress(self.key, fraction.clamp(0.0, 1.0), note));
        }
    }

    fn delta(&self, text: &str) {
        self.alive();
        if !text.is_empty() {
            self.runner.show(|table| table.delta(self.key, text));
        }
    }

    fn found(&self, found: Vec<Found>) {
        self.runner.show(|table| table.found(self.key, found));
    }

    fn alive(&self) {
        self.sign.give(clock::instant());
    }
}
