//! What the store keeps: rows made from jobs and units, and jobs made from rows. Plain data, so that every store
//! writes and reads the same.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use flota_proto::rest::{AttemptOutcome, JobError, JobState, OnDependencyFailure, Requires, RetryPolicy};
use flota_proto::{JobId, Kind, Timestamp, WorkerId};
use serde::{Deserialize, Serialize};

use super::fleet::{Desired, Fleet, Worker};
use super::gather::Part;
use super::job::{EVENTS_SKIPPED_AT_RESTART, Event, Hold, Job, Phase, Seq, Spec, Try, Unit, UnitState, What};
use super::queue::{Queue, Shape};
use super::retry::longest_wait_ms;
use super::standing::Standing;
use super::{Core, Timer};
use crate::aside::Turn;
use crate::submit::Work;

/// The part of a job that is written once.
#[derive(Clone, Debug, PartialEq)]
pub struct JobHead {
    /// The job's identifier.
    pub id: JobId,
    /// A digest of the body, where the client chose the id.
    pub fingerprint: Option<[u8; 16]>,
    /// What it asks for.
    pub kind: Kind,
    /// Its queue's name.
    pub queue: Arc<str>,
    /// Its project's name.
    pub project: Option<Arc<str>>,
    /// Who submitted it.
    pub owner: Arc<str>,
    /// Names and values.
    pub labels: Option<Arc<BTreeMap<String, String>>>,
    /// How many attempts of a unit may fail.
    pub max_attempts: u32,
    /// Bounds one attempt.
    pub timeout_ms: u64,
    /// When it was accepted.
    pub created_at: Timestamp,
    /// What most jobs leave at its default.
    pub rest: Rest,
}

/// What most jobs leave at its default; nothing is stored for those.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Rest {
    /// `None` for one unit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub work: Option<WorkRow>,
    /// How large a unit may be, where its result would get too large.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unit_max: Option<u64>,
    /// What a worker must have.
    #[serde(skip_serializing_if = "is_default")]
    pub requires: Requires,
    /// The model that is asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// It came with a key of the user's.
    #[serde(skip_serializing_if = "is_default")]
    pub credential: bool,
    /// The RandomX key, hex.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub randomx_key: Option<Arc<str>>,
    /// What to do when a job that it waits for did not complete.
    #[serde(skip_serializing_if = "is_default")]
    pub on_dependency_failure: OnDependencyFailure,
    /// Whether an earlier result may be used.
    #[serde(skip_serializing_if = "is_default")]
    pub cache: bool,
    /// Its place in a conversation.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub turn: Option<Turn>,
    /// What is particular about its retries.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry: Option<Arc<RetryPolicy>>,
    /// Of `ai.*`: the tokens of its question, as estimated, and of its answer at most.
    #[serde(skip_serializing_if = "is_default")]
    pub tokens: (u64, u64),
    /// Of `ai.embed`: how many vectors are wanted.
    #[serde(skip_serializing_if = "is_default")]
    pub texts: u64,
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// [`Work`] as it is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum WorkRow {
    /// So many inputs.
    List(u64),
    /// Start, end, whether the first find ends it.
    Range(u64, u64, bool),
}

/// The part of a job that changes.
#[derive(Clone, Debug, PartialEq)]
pub struct JobRow {
    /// Its key.
    pub seq: Seq,
    /// With the payload, the first time.
    pub head: Option<Box<(JobHead, Bytes)>>,
    /// Where it stands.
    pub state: JobState,
    /// 0 to 9, 9 first.
    pub priority: u8,
    /// Not before.
    pub run_at: Option<Timestamp>,
    /// Bounds the job; lifted by a retry after it has passed.
    pub deadline: Option<Timestamp>,
    /// When it was first assigned.
    pub started_at: Option<Timestamp>,
    /// When it ended.
    pub finished_at: Option<Timestamp>,
    /// The most failures of a unit.
    pub failures: u32,
    /// Jobs that must end first.
    pub waits_for: Vec<JobId>,
    /// Index of the next unit.
    pub next_index: u32,
    /// Where the next unit begins.
    pub next_from: u64,
    /// Units that completed.
    pub units_done: u64,
    /// Who computes or computed it.
    pub workers: Vec<WorkerId>,
    /// The unit of a job that is one.
    pub unit: Option<UnitRow>,
    /// Changes of state, see [`encode_events`].
    pub events: String,
    /// The next event's `seq`.
    pub next_event: u64,
    /// Why it failed.
    pub error: Option<JobError>,
    /// Its result, JSON.
    pub result: Option<Bytes>,
    /// Something in it is of a worker that was found to lie when it had ended.
    pub suspect: bool,
    /// The result is another job's.
    pub cached: bool,
}

/// A unit.
#[derive(Clone, Debug, PartialEq)]
pub struct UnitRow {
    /// Its job.
    pub seq: Seq,
    /// 0, 1, … in the order of cutting.
    pub index: u32,
    /// The first input or nonce.
    pub from: u64,
    /// One past the last.
    pub to: u64,
    /// Where it stands.
    pub state: JobState,
    /// The fencing token.
    pub attempt: u64,
    /// Attempts that failed.
    pub failures: u32,
    /// Who has it.
    pub worker: Option<WorkerId>,
    /// When that was assigned.
    pub assigned_at: Option<Timestamp>,
    /// When it may be tried again.
    pub run_at: Option<Timestamp>,
    /// Attempts that have ended, see [`encode_tries`].
    pub tries: String,
    /// The output of one that completed, where the job has several.
    pub output: Option<Bytes>,
    /// Its worker was found to lie when the job had ended.
    pub suspect: bool,
}

/// A worker that must be remembered: a simple one, or one of which the operator wants something.
#[derive(Clone, Debug, PartialEq)]
pub struct WorkerRow {
    /// Its identifier.
    pub id: WorkerId,
    /// Speaks the simple protocol.
    pub simple: bool,
    /// What it is written in.
    pub language: String,
    /// Nothing more for it until it speaks again.
    pub silent: bool,
    /// What the operator wants.
    pub drain: bool,
    /// What the operator wants.
    pub paused: bool,
    /// When it was last heard of.
    pub last_seen_at: Timestamp,
    /// What the master thinks of it, see [`Standing`]; `None` where there is nothing to remember.
    pub standing: Option<Standing>,
}

/// A job as the store gives it back.
#[derive(Clone, Debug, PartialEq)]
pub struct StoredJob {
    /// Written once.
    pub head: JobHead,
    /// The newest row, without `head`.
    pub row: JobRow,
    /// Its units where it has several.
    pub units: Vec<UnitRow>,
    /// What of it can't be read; such a job can't go on.
    pub damaged: Option<String>,
}

type EventRow<'a> = (u64, u64, u64, &'a str, Option<&'a str>, Option<(&'a str, &'a str)>);
type EventRowOwned = (u64, u64, u64, String, Option<String>, Option<(String, String)>);

/// Changes of state as JSON: `[[seq, attempt, ms, state, worker, [code, message]], …]`.
#[must_use]
pub fn encode_events(events: &[Event]) -> String {
    let rows: Vec<EventRow<'_>> = events
        .iter()
        .filter_map(|event| match &event.what {
            What::State { state, worker, error } => Some((
                event.seq,
                event.attempt,
                event.at.0,
                state.as_str(),
                worker.as_ref().map(WorkerId::as_str),
                error.as_ref().map(|error| (error.code.as_str(), error.message.as_str())),
            )),
            What::Progress { .. } | What::Delta { .. } => None,
        })
        .collect();
    serde_json::to_string(&rows).unwrap_or_default()
}

/// The reverse of [`encode_events`]; what can't be read is left out.
#[must_use]
pub fn decode_events(text: &str) -> Vec<Event> {
    let rows: Vec<EventRowOwned> = serde_json::from_str(text).unwrap_or_default();
    let event = |(seq, attempt, at, state, worker, error): EventRowOwned| {
        Some(Event {
            seq,
            attempt,
            at: Timestamp(at),
            what: What::State {
                state: state.parse().ok()?,
                worker: worker.and_then(|worker| worker.parse().ok()),
                error: error.map(|(code, message)| JobError { code, message }),
            },
        })
    };
    rows.into_iter().filter_map(event).collect()
}

type TryRow<'a> = (u64, &'a str, AttemptOutcome, u64, u64, Option<(&'a str, &'a str)>);
type TryRowOwned = (u64, String, AttemptOutcome, u64, u64, Option<(String, String)>);

/// Ended attempts as JSON: `[[attempt, worker, outcome, start ms, end ms, [code, message]], …]`; empty for none.
#[must_use]
pub fn encode_tries(tries: &[Try]) -> String {
    if tries.is_empty() {
        return String::new();
    }
    let rows: Vec<TryRow<'_>> = tries.iter().map(try_row).collect();
    serde_json::to_string(&rows).unwrap_or_default()
}

fn try_row(ended: &Try) -> TryRow<'_> {
    let error = ended.error.as_ref().map(|error| (error.code.as_str(), error.message.as_str()));
    (ended.attempt, ended.worker.as_str(), ended.outcome, ended.started_at.0, ended.finished_at.0, error)
}

/// The reverse of [`encode_tries`]; what can't be read is left out.
#[must_use]
pub fn decode_tries(text: &str) -> Vec<Try> {
    let rows: Vec<TryRowOwned> = serde_json::from_str(text).unwrap_or_default();
    let ended = |(attempt, worker, outcome, started, finished, error): TryRowOwned| {
        Some(Try {
            attempt,
            worker: worker.parse().ok()?,
            outcome,
            error: error.map(|(code, message)| JobError { code, message }),
            started_at: Timestamp(started),
            finished_at: Timestamp(finished),
        })
    };
    rows.into_iter().filter_map(ended).collect()
}

pub(super) fn job_row(job: &mut Job, fleet: &Fleet, queue: &Queue) -> JobRow {
    let head = (!job.stored).then(|| Box::new((job_head(job, queue), job.payload.clone().unwrap_or_default())));
    let single = job.single();
    let row = JobRow {
        seq: job.seq,
        head,
        state: job.state,
        priority: job.priority,
        run_at: job.run_at,
        deadline: job.spec.deadline,
        started_at: job.started_at,
        finished_at: job.finished_at,
        failures: job.failures(),
        waits_for: job.waits_for.iter().copied().collect(),
        next_index: job.next_index,
        next_from: job.next_from,
        units_done: job.units_done,
        workers: job.workers.clone(),
        unit: None,
        events: encode_events(&job.log),
        next_event: job.next_event,
        error: job.error.clone(),
        result: job.result.clone(),
        suspect: false,
        cached: job.cached,
    };
    job.stored_event = job.next_event;
    job.slim();
    let seq = job.seq;
    let unit = job.units.first_mut().filter(|_| single).map(|unit| row_of(seq, unit, fleet, None));
    JobRow { unit, ..row }
}

fn job_head(job: &Job, queue: &Queue) -> JobHead {
    let spec = &job.spec;
    let shape = queue.shape(spec.shape);
    JobHead {
        id: spec.id,
        fingerprint: spec.fingerprint,
        kind: spec.kind,
        queue: spec.queue.clone(),
        project: spec.project.clone(),
        owner: spec.owner.clone(),
        labels: spec.labels.clone(),
        max_attempts: spec.max_attempts,
        timeout_ms: spec.timeout_ms,
        created_at: spec.created_at,
        rest: Rest {
            work: match spec.work {
                Work::Single => None,
                Work::List(length) => Some(WorkRow::List(length)),
                Work::Range { start, end, first } => Some(WorkRow::Range(start, end, first)),
            },
            unit_max: spec.unit_max,
            requires: shape.requires.clone(),
            model: shape.model.clone(),
            credential: shape.credential,
            randomx_key: shape.randomx_key.clone(),
            on_dependency_failure: spec.on_dependency_failure,
            cache: spec.cache,
            turn: spec.turn,
            retry: spec.retry.clone(),
            tokens: spec.tokens,
            texts: spec.texts,
        },
    }
}

/// Rows of the units of a job that changed.
pub(super) fn unit_rows(job: &mut Job, fleet: &Fleet, rows: &mut Vec<UnitRow>) {
    let seq = job.seq;
    let changed = job.units.iter_mut().filter(|unit| unit.dirty);
    rows.extend(changed.map(|unit| row_of(seq, unit, fleet, None)));
}

pub(super) fn unit_row(job: &Job, unit: &mut Unit, fleet: &Fleet, output: Option<Bytes>) -> UnitRow {
    row_of(job.seq, unit, fleet, output)
}

fn row_of(seq: Seq, unit: &mut Unit, fleet: &Fleet, output: Option<Bytes>) -> UnitRow {
    unit.dirty = false;
    let hold = unit.hold();
    UnitRow {
        seq,
        index: unit.index,
        from: unit.from,
        to: unit.to,
        state: unit.job_state(),
        attempt: unit.attempt,
        failures: unit.failures,
        worker: hold.and_then(|hold| fleet.get(hold.worker)).map(|worker| worker.id.clone()),
        assigned_at: hold.map(|hold| hold.assigned_at),
        run_at: unit.retries_at(),
        tries: encode_tries(&unit.tries),
        output,
        suspect: false,
    }
}

pub(super) fn worker_row(worker: &Worker) -> WorkerRow {
    WorkerRow {
        id: worker.id.clone(),
        simple: worker.simple,
        language: worker.language.clone(),
        silent: worker.silent,
        drain: worker.desired.drain,
        paused: worker.desired.paused,
        last_seen_at: worker.last_seen_at,
        standing: worker.standing.worth_keeping().then(|| worker.standing.clone()),
    }
}

impl Core {
    /// A core with what a store holds: workers that must be remembered and jobs that have not ended.
    #[must_use]
    pub fn restore(
        limits: super::Limits,
        now: Timestamp,
        next_seq: Seq,
        workers: Vec<WorkerRow>,
        jobs: impl IntoIterator<Item = StoredJob>,
    ) -> Self {
        let mut core = Self::new(limits);
        core.next_seq = next_seq;
        for row in workers {
            core.restore_worker(&row);
        }
        core.restore_jobs(now, jobs);
        core
    }

    /// From now on attempts have numbers above this.
    pub fn number_attempts_above(&mut self, attempts_above: u64) {
        self.attempts_above = attempts_above;
    }

    /// Adds jobs of the store that have not ended.
    pub fn restore_jobs(&mut self, now: Timestamp, jobs: impl IntoIterator<Item = StoredJob>) {
        for stored in jobs {
            let seq = self.restore_job(now, stored);
            self.restore_place(seq);
        }
    }

    fn restore_worker(&mut self, row: &WorkerRow) {
        let idx = self.fleet.enter(&row.id, row.last_seen_at);
        if let Some(until) = row.standing.as_ref().and_then(|standing| standing.quarantine.as_ref()?.until) {
            self.timers.insert((until, Timer::Worker(idx)));
        }
        self.fleet.update(idx, |worker| {
            if row.simple {
                worker.describe(flota_proto::mqtt::Register {
                    worker_id: row.id.clone(),
                    language: row.language.clone(),
                    status: String::new(),
                    timestamp: row.last_seen_at,
                    protocol: None,
                    boot_id: String::new(),
                    version: String::new(),
                    slots: BTreeMap::new(),
                    prefetch: BTreeMap::new(),
                    kinds: Vec::new(),
                    models: Vec::new(),
                    capabilities: flota_proto::mqtt::Capabilities::default(),
                    labels: BTreeMap::new(),
                });
                worker.silent = row.silent;
            }
            worker.dirty = false;
            worker.desired = Desired { drain: row.drain, paused: row.paused };
            // How often it was right is not kept: it is looked at closely again.
            worker.standing = row.standing.clone().unwrap_or_default();
            worker.standing.checked = 0;
        });
    }

    /// Puts a stored job into memory, without its place in the queue; answers with its key.
    pub(super) fn restore_job(&mut self, now: Timestamp, stored: StoredJob) -> Seq {
        let StoredJob { head, row, units, mut damaged } = stored;
        let shape = Shape {
            kind: head.kind,
            requires: head.rest.requires,
            model: head.rest.model,
            credential: head.rest.credential,
            randomx_key: head.rest.randomx_key,
        };
        let spec = Spec {
            id: head.id,
            fingerprint: head.fingerprint,
            kind: head.kind,
            queue: self.name(&head.queue),
            project: head.project.map(|name| self.name(&name)),
            owner: self.name(&head.owner),
            labels: head.labels,
            max_attempts: head.max_attempts,
            timeout_ms: head.timeout_ms,
            deadline: row.deadline,
            shape: self.queue.acquire(shape),
            on_dependency_failure: head.rest.on_dependency_failure,
            created_at: head.created_at,
            work: match head.rest.work {
                None => Work::Single,
                Some(WorkRow::List(length)) => Work::List(length),
                Some(WorkRow::Range(start, end, first)) => Work::Range { start, end, first },
            },
            unit_max: head.rest.unit_max,
            cache: head.rest.cache,
            turn: head.rest.turn,
            retry: head.rest.retry,
            tokens: head.rest.tokens,
            texts: head.rest.texts,
        };
        let seq = row.seq;
        let mut job = Job::fresh(seq, spec, row.priority);
        job.stored = true;
        job.state = row.state;
        job.run_at = row.run_at;
        job.started_at = row.started_at;
        job.finished_at = row.finished_at;
        job.failures = row.failures;
        job.waits_for = row.waits_for.into_iter().collect();
        job.next_index = row.next_index;
        job.next_from = row.next_from;
        job.workers = row.workers;
        job.log = decode_events(&row.events);
        job.next_event = row.next_event.saturating_add(EVENTS_SKIPPED_AT_RESTART);
        job.stored_event = row.next_event;
        job.units_done = if job.single() { 0 } else { row.units_done };
        for unit in row.unit.into_iter().chain(units) {
            if let Err(why) = self.restore_unit(now, &mut job, unit) {
                damaged.get_or_insert(why);
            }
        }
        if let Some(why) = damaged {
            self.damaged.push((job.spec.id, why));
        }
        self.by_id.insert(job.spec.id, seq);
        self.jobs.insert(seq, job);
        seq
    }

    fn restore_unit(&mut self, now: Timestamp, job: &mut Job, row: UnitRow) -> Result<(), String> {
        let (kind, work) = (job.spec.kind, job.spec.work);
        if let (JobState::Completed, Some(output)) = (row.state, &row.output) {
            let part = Part { from: row.from, to: row.to, output };
            let taken = job.gather.take(kind, work, &part);
            return taken.map(drop).map_err(|_| format!("the output of its unit {}", row.index));
        }
        let mut unit = Unit::cut(row.index, row.from, row.to);
        unit.attempt = row.attempt;
        unit.failures = row.failures;
        unit.tries = decode_tries(&row.tries);
        unit.dirty = false;
        unit.state = match (row.state, row.worker) {
            (JobState::Assigned | JobState::Computing, Some(worker)) => {
                let idx = self.fleet.enter(&worker, now);
                let assigned_at = row.assigned_at.unwrap_or(now);
                let simple = self.fleet.get(idx).is_some_and(|worker| worker.simple);
                let (phase, until) = if simple {
                    // Never longer than from now: the clock may have been set back.
                    (Phase::Published, assigned_at.min(now).after_ms(job.spec.timeout_ms))
                } else {
                    (Phase::Restored, now.after_ms(self.limits.lease_ms))
                };
                self.fleet.hold(idx, kind.class(), (job.seq, row.index));
                self.active.insert(job.seq);
                self.timers.insert((until, Timer::Unit(job.seq, row.index)));
                let (timeout_at, answer, next_text) = (None, None, None);
                UnitState::Held(Hold { worker: idx, assigned_at, phase, until, timeout_at, answer, next_text })
            }
            (JobState::Scheduled, _) => {
                // Where the clock was set back meanwhile: never longer than the longest wait from now.
                let longest = longest_wait_ms(job.spec.retry.as_deref());
                let run_at = row.run_at.unwrap_or(now).min(now.after_ms(longest));
                self.timers.insert((run_at, Timer::Unit(job.seq, row.index)));
                UnitState::Scheduled { run_at }
            }
            (JobState::Failed, _) => UnitState::Failed,
            (JobState::Cancelled, _) => UnitState::Cancelled,
            (JobState::Completed, _) => UnitState::Completed,
            (JobState::Blocked | JobState::Pending | JobState::Assigned | JobState::Computing, _) => UnitState::Pending,
        };
        job.units.push(unit);
        Ok(())
    }

    /// Gives a restored job its place: timers, dependents, queue, count.
    fn restore_place(&mut self, seq: Seq) {
        let Some(job) = self.jobs.get(&seq) else { return };
        *self.counts.entry(job.state).or_default() += 1;
        *self.owners.entry(job.spec.owner.clone()).or_default() += 1;
        if let Some(deadline) = job.spec.deadline {
            self.timers.insert((deadline, Timer::Deadline(seq)));
        }
        if let Some(run_at) = job.run_at {
            self.timers.insert((run_at, Timer::Start(seq)));
        }
        for dependency in &job.waits_for {
            self.dependents.entry(*dependency).or_default().insert(seq);
        }
        if job.waits_for.is_empty() && job.run_at.is_none() {
            let entries = super::jobs::waiting_entries(job);
            let (shape, priority, owner) = (job.spec.shape, job.priority, job.spec.owner.clone());
            for entry in entries {
                self.queue.insert(shape, priority, &owner, entry);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_and_tries_round_trip() {
        let worker: WorkerId = "w1".parse().unwrap();
        let error = Some(JobError { code: "c".into(), message: "it broke".into() });
        let events = vec![Event {
            seq: 3,
            attempt: 2,
            at: Timestamp(5),
            what: What::State { state: JobState::Assigned, worker: Some(worker.clone()), error: error.clone() },
        }];
        assert_eq!(decode_events(&encode_events(&events)), events);
        let tries = vec![Try {
            attempt: 2,
            worker,
            outcome: AttemptOutcome::LeaseExpired,
            error,
            started_at: Timestamp(1),
            finished_at: Timestamp(9),
        }];
        assert_eq!(decode_tries(&encode_tries(&tries)), tries);
        assert_eq!(encode_tries(&[]), "");
        assert_eq!(decode_tries(""), []);
    }
}
