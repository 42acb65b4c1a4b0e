//! Carries out what the core decided, after the batch is in the store.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::Arc;

use flota_common::clock;
use flota_proto::mqtt::{Command, Control, WorkerState, WorkerStatus};
use flota_proto::rest::JobState;
use flota_proto::{Algorithm, JobId, Kind, UnitId, WorkerId, v1};
use serde_json::json;
use tracing::{info, warn};
use uuid::Uuid;

use super::Dispatcher;
use crate::core::{Assignment, Effect, Event, Mined, What, event_view};
use crate::handle::{JobUpdate, StreamId, WorkerControl};
use crate::sources::News;

/// Attempts named in one message to a worker: it stays below 1 MiB.
const ATTEMPTS_PER_MESSAGE: usize = 8_000;
/// Workers of which the last told state is remembered.
const WORKER_STATES_MAX: usize = 20_000;
/// How long a command to a worker is valid.
const COMMAND_VALID_MS: u64 = 60_000;

/// What goes to one stream.
#[derive(Default)]
struct Outgoing {
    message: v1::MasterMessage,
    count: usize,
}

/// One line a job.
fn warn_of_suspects(worker: &WorkerId, suspect: &[UnitId]) {
    let mut jobs: BTreeMap<JobId, usize> = BTreeMap::new();
    suspect.iter().for_each(|unit| *jobs.entry(unit.job).or_default() += 1);
    for (job_id, units) in jobs {
        warn!(
            %job_id,
            worker_id = worker.as_str(),
            "{units} units of job {job_id}, which has ended, are suspect: worker {worker} has sent a wrong result since"
        );
    }
}

impl Dispatcher {
    /// Lets the effects of a committed batch out.
    pub(super) fn release(&mut self) {
        let mut tasks: BTreeMap<WorkerId, Vec<Assignment>> = BTreeMap::new();
        let mut outgoing: BTreeMap<StreamId, Outgoing> = BTreeMap::new();
        for effect in std::mem::take(&mut self.effects) {
            match effect {
                Effect::Publish(assignment) => match tasks.entry(assignment.worker.clone()) {
                    Entry::Vacant(entry) => drop(entry.insert(vec![*assignment])),
                    Entry::Occupied(mut entry) => entry.get_mut().push(*assignment),
                },
                Effect::Ack { stream, unit, attempt, applied } => {
                    let outcome = if applied { v1::Outcome::Applied } else { v1::Outcome::Stale };
                    let ack = v1::Ack { unit_id: unit.to_string(), attempt, outcome: outcome.into() };
                    self.add(&mut outgoing, stream, |message| message.acks.push(ack));
                }
                Effect::Cancel(stream, unit, attempt) => {
                    let attempt = v1::Attempt::of(unit, attempt);
                    self.add(&mut outgoing, stream, |message| message.cancel.push(attempt));
                }
                Effect::TakeBack(stream, unit, attempt) => {
                    let attempt = v1::Attempt::of(unit, attempt);
                    self.add(&mut outgoing, stream, |message| message.take_back.push(attempt));
                }
                Effect::Goodbye(stream, reason) => {
                    self.add(&mut outgoing, stream, |message| message.goodbye = Some(reason.to_owned()));
                }
                Effect::Event { job, kind, event, last } => self.tell(job, kind, &event, last),
                Effect::Ended(id) => self.job_ended(id),
                Effect::Worker(worker) => self.worker_changed(&worker),
                Effect::Desired(worker, control) => self.command_worker(&worker, control),
                Effect::Mined(job, mined) => self.config.listeners.tell(
                    job,
                    match mined {
                        Mined::Output(worker, output) => News::Output { worker, output },
                        Mined::Found(worker, found) => News::Found { worker, found },
                        Mined::Wasted(hashes) => News::Wasted(hashes),
                    },
                ),
                Effect::Check(check) => self.check(*check),
                Effect::Quarantined { worker, reason, until } => {
                    let until = until.to_rfc3339();
                    warn!(worker_id = worker.as_str(), "worker {worker} is set aside until {until}: {reason}");
                    metrics::counter!("flota_quarantines_total").increment(1);
                }
                Effect::Caught { worker, suspect } => warn_of_suspects(&worker, &suspect),
                Effect::Distrusted(unit) => info!(job_id = %unit.job, "unit {unit} is computed again"),
                Effect::Hashes(algorithm, count) => count_hashes(algorithm, count),
                Effect::Attempt(outcome) => {
                    metrics::counter!("flota_attempts_total", "outcome" => outcome.as_str()).increment(1);
                }
            }
        }
        for (worker, assignments) in tasks {
            self.publish_tasks(&worker, assignments);
        }
        for (stream, Outgoing { message, .. }) in outgoing {
            self.send_to_stream(stream, message);
        }
    }

    fn add(
        &mut self,
        outgoing: &mut BTreeMap<StreamId, Outgoing>,
        stream: StreamId,
        put: impl FnOnce(&mut v1::MasterMessage),
    ) {
        let out = outgoing.entry(stream).or_default();
        put(&mut out.message);
        out.count += 1;
        if out.count >= ATTEMPTS_PER_MESSAGE {
            let full = std::mem::take(out);
            self.send_to_stream(stream, full.message);
        }
    }

    /// Sends to a worker; one that does not read is disconnected and comes back with what it holds.
    fn send_to_stream(&mut self, stream: StreamId, message: v1::MasterMessage) {
        let last = message.goodbye.is_some();
        let Some(sender) = self.streams.get(&stream) else { return };
        if sender.try_send(message).is_err() {
            warn!("a worker does not read its stream: it is closed");
            self.streams.remove(&stream);
        } else if last {
            self.streams.remove(&stream);
        }
    }

    fn tell(&mut self, job: JobId, kind: Kind, event: &Event, last: bool) {
        self.notes.event(job, kind, event);
        if let What::State { state, .. } = event.what
            && last
        {
            *self.ended_counts.entry(state).or_default() += 1;
            metrics::counter!("flota_jobs_total", "kind" => kind.as_str(), "outcome" => state.as_str()).increment(1);
            self.config.listeners.tell(job, News::Ended(state));
        }
        let Some(subscribers) = self.subscribers.get_mut(&job) else { return };
        let result = if last { self.core.job_result(job) } else { None };
        let update = Arc::new(JobUpdate { job, event: event_view(event, result.as_deref()), last });
        // One that is too slow is let go: it subscribes again after the last event that it saw.
        subscribers.retain(|subscriber| subscriber.try_send(update.clone()).is_ok());
        if last || subscribers.is_empty() {
            self.subscribers.remove(&job);
        }
    }

    fn job_ended(&mut self, id: JobId) {
        self.credentials.drop_key(id);
        self.keep_result(id);
        if let Some(ending) = self.core.ending(id) {
            metrics::histogram!("flota_job_duration_seconds").record(ending.duration_ms as f64 / 1000.0);
            metrics::histogram!("flota_job_wait_seconds").record(ending.wait_ms as f64 / 1000.0);
        }
        let Some(waiters) = self.waiters.remove(&id) else { return };
        let Some(view) = self.core.job_view(id) else { return };
        for waiter in waiters {
            let _ = waiter.send(Ok(view.clone()));
        }
    }

    /// Workers tell their states themselves; only that one has gone, or is set aside, is the master's to tell.
    fn worker_changed(&mut self, worker: &WorkerId) {
        let Some(view) = self.core.worker_view(worker) else { return };
        let before = self.worker_states.insert(worker.clone(), view.status);
        if self.worker_states.len() > WORKER_STATES_MAX {
            self.worker_states.clear();
        }
        // One that comes is not there until it has registered and connected: that is no news.
        if before == Some(view.status) || (before.is_none() && view.status == WorkerState::Offline) {
            return;
        }
        info!(worker_id = worker.as_str(), "worker {worker} is {}", view.status.as_str());
        let ours = matches!(view.status, WorkerState::Offline | WorkerState::Quarantined);
        if !ours || view.simple {
            return;
        }
        let status = WorkerStatus {
            worker_id: worker.clone(),
            status: view.status,
            timestamp: clock::now(),
            // Left empty, so that it is not taken for the worker's own word.
            boot_id: String::new(),
            slots: view.slots,
            running: view.running,
            hashrate: None,
            algorithms: std::collections::BTreeMap::new(),
            randomx: None,
            load: None,
        };
        if let Ok(payload) = serde_json::to_vec(&status) {
            self.send(self.config.topics.workers_status(), payload);
        }
    }

    fn command_worker(&self, worker: &WorkerId, control: WorkerControl) {
        let command = match control {
            WorkerControl::Drain => Command::Drain,
            WorkerControl::Pause => Command::Pause,
            WorkerControl::Resume => Command::Resume,
        };
        self.order(self.config.topics.worker_control(worker), command, json!({}));
    }

    /// Tells all workers of a RandomX key that comes next. A hint: who misses it prepares when the work is there.
    pub(super) fn prepare(&self, key: &[u8]) {
        self.order(self.config.topics.control(), Command::Prepare, json!({ "key": hex::encode(key) }));
    }

    fn order(&self, topic: String, command: Command, args: serde_json::Value) {
        let now = clock::now();
        let control = Control {
            command_id: Uuid::now_v7().to_string(),
            epoch: self.epoch,
            issued_at_ms: now.0,
            expires_at_ms: now.0 + COMMAND_VALID_MS,
            command,
            args,
        };
        if let Ok(payload) = serde_json::to_vec(&control) {
            self.send(topic, payload);
        }
    }

    /// The payload of an attempt, for the worker that has it.
    pub(super) fn fetch_unit(
        &mut self,
        unit: UnitId,
        attempt: u64,
        worker: &WorkerId,
    ) -> Result<bytes::Bytes, crate::handle::Refused> {
        let stale = || crate::handle::Refused::Conflict("stale", "this worker does not have this attempt".into());
        let crate::core::HeldPart { seq, part, kind, payload } =
            self.core.held_part(worker, unit, attempt).ok_or_else(stale)?;
        let payload =
            self.unit_payload(seq, kind, part, payload).and_then(|payload| self.with_history(unit.job, payload));
        payload.inspect_err(|error| self.not_published(unit.job, error.clone()))
    }

    /// Jobs that have ended, by state, added to those of the core.
    pub(super) fn add_ended(&self, fleet: &mut flota_proto::rest::Fleet) {
        for state in [JobState::Completed, JobState::Failed, JobState::Cancelled] {
            fleet.jobs.insert(state, self.ended_counts.get(&state).copied().unwrap_or(0));
        }
    }
}

fn count_hashes(algorithm: Algorithm, count: u64) {
    metrics::counter!("flota_algorithm_hashes_total", "algorithm" => algorithm.as_str()).increment(count);
    if algorithm == Algorithm::Randomx {
        metrics::counter!("flota_hashes_total").increment(count);
    }
}
