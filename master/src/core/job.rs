//! A job in memory: what was asked, the units cut from it, and what happened to it. Data only; the rules are in the
//! files named after what they do.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use flota_proto::rest::{AttemptOutcome, JobError, JobState, OnDependencyFailure, RetryPolicy};
use flota_proto::{JobId, Kind, Timestamp, UnitId, WorkerId};

use super::fleet::WorkerIdx;
use super::gather::Gather;
use super::queue::ShapeId;
use crate::aside::Turn;
use crate::sources::SOURCE_LABEL;
use crate::submit::Work;

/// The order of acceptance: a job's key in memory and in the store.
pub type Seq = u64;

/// What was asked; never changes.
#[derive(Clone, Debug)]
pub struct Spec {
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
    /// What is particular about its retries.
    pub retry: Option<Arc<RetryPolicy>>,
    /// Bounds one attempt.
    pub timeout_ms: u64,
    /// Bounds the job.
    pub deadline: Option<Timestamp>,
    /// Which workers can take it.
    pub shape: ShapeId,
    /// What to do when a job that it waits for did not complete.
    pub on_dependency_failure: OnDependencyFailure,
    /// When it was accepted.
    pub created_at: Timestamp,
    /// How it can be cut.
    pub work: Work,
    /// How large a unit may be, where its result would get too large.
    pub unit_max: Option<u64>,
    /// Whether an earlier result may be used.
    pub cache: bool,
    /// Its place in a conversation.
    pub turn: Option<Turn>,
    /// Of `ai.*`, in tokens: what it holds as estimated, and what its answer may hold at most; 0 where that is not said.
    pub tokens: (u64, u64),
    /// Of `ai.embed`: how many vectors are wanted; 0 where that is not known.
    pub texts: u64,
}

impl Spec {
    /// Whether a source submitted it, which wants to hear of every unit.
    pub fn of_source(&self) -> bool {
        self.labels.as_ref().is_some_and(|labels| labels.contains_key(SOURCE_LABEL))
    }
}

/// A job that has not ended, or has in this batch.
#[derive(Debug)]
pub struct Job {
    /// Its key.
    pub seq: Seq,
    /// What was asked.
    pub spec: Box<Spec>,
    /// 0 to 9, 9 first.
    pub priority: u8,
    /// Where it stands.
    pub state: JobState,
    /// Not before; `None` once it has passed.
    pub run_at: Option<Timestamp>,
    /// Jobs that must end first.
    pub waits_for: BTreeSet<JobId>,
    /// When it was first assigned.
    pub started_at: Option<Timestamp>,
    /// When it ended.
    pub finished_at: Option<Timestamp>,
    /// By index: units that have been cut and have not ended; of a single-unit job also the one that has.
    pub units: Vec<Unit>,
    /// Index of the next unit.
    pub next_index: u32,
    /// Where the next unit begins.
    pub next_from: u64,
    /// Units that completed.
    pub units_done: u64,
    /// The most failures of an ended unit.
    pub failures: u32,
    /// What the completed units gave.
    pub gather: Gather,
    /// Who computes or computed it.
    pub workers: Vec<WorkerId>,
    /// Why it failed.
    pub error: Option<JobError>,
    /// Its result, JSON.
    pub result: Option<Bytes>,
    /// Small payloads stay in memory; others are read from the store when they are published.
    pub payload: Option<Bytes>,
    /// Changes of state, as they are stored.
    pub log: Vec<Event>,
    /// Progress and text, for those who watch; ends with the job.
    pub ring: VecDeque<Event>,
    /// How much text [`Job::ring`] holds.
    pub ring_bytes: usize,
    /// The next event's `seq`.
    pub next_event: u64,
    /// What the store has as that.
    pub stored_event: u64,
    /// When progress was last told.
    pub progress_at: Timestamp,
    /// Whether this batch changed what is stored.
    pub dirty: bool,
    /// Whether the store has it.
    pub stored: bool,
    /// A digest of its own key, for the limits of that.
    pub key: Option<u64>,
    /// The same is asked by this job already: its result is this one's too.
    pub shares: Option<JobId>,
    /// An earlier result was its.
    pub cached: bool,
}

/// A contiguous part of a job's work.
#[derive(Clone, Debug)]
pub struct Unit {
    /// 0, 1, … in the order of cutting.
    pub index: u32,
    /// The first input or nonce.
    pub from: u64,
    /// One past the last.
    pub to: u64,
    /// The fencing token; 0 before the first.
    pub attempt: u64,
    /// What is compared with `max_attempts`.
    pub failures: u32,
    /// Where it stands.
    pub state: UnitState,
    /// 0 to 1 of the current attempt.
    pub fraction: f64,
    /// The limits have let its next attempt through.
    pub granted: bool,
    /// Attempts that have ended, oldest first, the last [`TRIES_MAX`].
    pub tries: Vec<Try>,
    /// Whether this batch changed what is stored.
    pub dirty: bool,
}

/// Attempts kept a unit.
pub const TRIES_MAX: usize = 50;

/// Where a unit stands.
#[derive(Clone, Debug, PartialEq)]
pub enum UnitState {
    /// In the queue.
    Pending,
    /// Waits for its next try.
    Scheduled {
        /// When it may run.
        run_at: Timestamp,
    },
    /// A worker has it.
    Held(Hold),
    /// Ended with its output.
    Completed,
    /// Ended: tries used up or not retryable.
    Failed,
    /// Ended with its job.
    Cancelled,
}

/// A worker's hold on a unit.
#[derive(Clone, Debug, PartialEq)]
pub struct Hold {
    /// Who.
    pub worker: WorkerIdx,
    /// When it was assigned.
    pub assigned_at: Timestamp,
    /// How far it got.
    pub phase: Phase,
    /// When the hold ends if nothing is heard.
    pub until: Timestamp,
    /// When the attempt has taken too long; set when it starts.
    pub timeout_at: Option<Timestamp>,
    /// Its result, while that is checked.
    pub answer: Option<Box<Answer>>,
    /// The next piece of its text; `None` where another master may have told some.
    pub next_text: Option<u64>,
}

/// A result that does not count yet.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    /// JSON of the kind.
    pub output: Bytes,
    /// How long the executor worked.
    pub elapsed_ms: u64,
    /// Hashes computed.
    pub hashes: u64,
}

/// How far an attempt got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Published; not accepted yet.
    Published,
    /// Accepted; waits for a slot at the worker.
    Waiting,
    /// Being computed.
    Computing,
    /// Its result is here and is being checked: the worker has nothing more to do with it.
    Checking,
    /// Held when a master ended; not adopted yet.
    Restored,
}

/// An attempt that has ended.
#[derive(Clone, Debug, PartialEq)]
pub struct Try {
    /// The fencing token.
    pub attempt: u64,
    /// Who had it.
    pub worker: WorkerId,
    /// How it ended.
    pub outcome: AttemptOutcome,
    /// Why it failed.
    pub error: Option<JobError>,
    /// When it was assigned.
    pub started_at: Timestamp,
    /// When it ended.
    pub finished_at: Timestamp,
}

/// Something that happened to a job.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    /// Grows within a job.
    pub seq: u64,
    /// The try that it belongs to; 0 before the first.
    pub attempt: u64,
    /// When.
    pub at: Timestamp,
    /// What.
    pub what: What,
}

/// What happened.
#[derive(Clone, Debug, PartialEq)]
pub enum What {
    /// The job's state changed.
    State {
        /// To this.
        state: JobState,
        /// By whom.
        worker: Option<WorkerId>,
        /// Why, and for a retry the reason of the wait.
        error: Option<JobError>,
    },
    /// It got further.
    Progress {
        /// 0 to 1 of the job.
        fraction: f64,
        /// Estimated.
        units_total: u64,
        /// Completed.
        units_done: u64,
        /// What the executor says.
        note: String,
    },
    /// The next piece of an answer's text.
    Delta {
        /// The text.
        text: String,
    },
}

/// State changes kept a job; the first ones and the last ones are what people look for.
const LOG_MAX: usize = 200;
/// Progress and text kept a job while it runs.
const RING_MAX: usize = 8192;
/// Numbers of events that a master skips when it takes a job over, as they may have been told without being stored.
pub const EVENTS_SKIPPED_AT_RESTART: u64 = 1_000_000;
/// Events told without being stored.
const EVENTS_AHEAD_MAX: u64 = EVENTS_SKIPPED_AT_RESTART / 2;

impl Event {
    fn text_bytes(&self) -> usize {
        match &self.what {
            What::State { .. } => 0,
            What::Progress { note, .. } => note.len(),
            What::Delta { text } => text.len(),
        }
    }
}

/// How many units a job will have had, `cut` of which hold `inside` inputs or nonces, and `uncut` are in none.
pub fn estimate(cut: u64, inside: u64, uncut: u64) -> u64 {
    match uncut {
        0 => cut,
        uncut if cut == 0 => u64::from(uncut > 0),
        uncut => cut + uncut.div_ceil((inside / cut).max(1)),
    }
}

impl Job {
    /// The unit with this index, if it is in memory.
    pub fn unit(&self, index: u32) -> Option<&Unit> {
        self.units.binary_search_by_key(&index, |unit| unit.index).ok().and_then(|at| self.units.get(at))
    }

    /// The same, to change it.
    pub fn unit_mut(&mut self, index: u32) -> Option<&mut Unit> {
        let at = self.units.binary_search_by_key(&index, |unit| unit.index).ok()?;
        self.units.get_mut(at)
    }

    /// The identifier of one of its units.
    pub fn unit_id(&self, index: u32) -> UnitId {
        UnitId { job: self.spec.id, index }
    }

    /// Whether it is one unit and so one row.
    pub fn single(&self) -> bool {
        self.spec.work == Work::Single
    }

    /// One past the last input or nonce.
    pub fn end(&self) -> u64 {
        match self.spec.work {
            Work::Single => 1,
            Work::List(length) => length,
            Work::Range { end, .. } => end,
        }
    }

    /// The first input or nonce.
    pub fn start(&self) -> u64 {
        match self.spec.work {
            Work::Single | Work::List(_) => 0,
            Work::Range { start, .. } => start,
        }
    }

    /// What has not been cut into units yet.
    pub fn uncut(&self) -> u64 {
        self.end() - self.next_from
    }

    /// The part of the work that is done, 0 to 1.
    pub fn fraction(&self) -> f64 {
        if self.state == JobState::Completed {
            return 1.0;
        }
        let total = (self.end() - self.start()) as f64;
        let ahead: f64 = self
            .units
            .iter()
            .filter(|unit| matches!(unit.state, UnitState::Held(_)))
            .map(|unit| unit.fraction * (unit.to - unit.from) as f64)
            .sum();
        let live: u64 = self.units.iter().filter(|u| u.state != UnitState::Completed).map(|u| u.to - u.from).sum();
        let done = (self.next_from - self.start()).saturating_sub(live) as f64;
        ((done + ahead) / total).clamp(0.0, 1.0)
    }

    /// How many units it will have had; an estimate from the mean size so far while some are uncut.
    pub fn units_total(&self) -> u64 {
        estimate(self.next_index.into(), self.next_from - self.start(), self.uncut())
    }

    /// Adds an event to the log or the ring, which holds at most about `ring_bytes_max`, and returns it.
    pub fn record(&mut self, at: Timestamp, attempt: u64, what: What, ring_bytes_max: usize) -> Event {
        let event = Event { seq: self.next_event, attempt, at, what };
        self.next_event += 1;
        match event.what {
            What::State { .. } => {
                if self.log.len() >= LOG_MAX {
                    self.log.remove(LOG_MAX / 2);
                }
                self.log.push(event.clone());
            }
            What::Progress { .. } | What::Delta { .. } => {
                self.ring_bytes += event.text_bytes();
                self.ring.push_back(event.clone());
                while self.ring.len() > RING_MAX || (self.ring_bytes > ring_bytes_max && self.ring.len() > 1) {
                    let oldest = self.ring.pop_front();
                    self.ring_bytes -= oldest.as_ref().map_or(0, Event::text_bytes);
                }
            }
        }
        event
    }

    /// Whether the numbers of its events have run so far ahead of the store that the row must be written: numbers told
    /// before a restart are never told again only if the next master begins above them.
    pub fn events_run_ahead(&self) -> bool {
        self.next_event.saturating_sub(self.stored_event) > EVENTS_AHEAD_MAX
    }

    /// The text that its current attempt has told; `None` where that is nothing.
    pub fn told_text(&self) -> Option<String> {
        let attempt = self.ring.back()?.attempt;
        let mut told = String::new();
        for event in self.ring.iter().filter(|event| event.attempt == attempt) {
            if let What::Delta { text } = &event.what {
                told.push_str(text);
            }
        }
        (!told.is_empty()).then_some(told)
    }

    /// Forgets progress and text.
    pub fn clear_ring(&mut self) {
        self.ring = VecDeque::new();
        self.ring_bytes = 0;
    }

    /// Log and ring after `after`, in order.
    pub fn events_after(&self, after: Option<u64>) -> Vec<Event> {
        let later = |event: &&Event| after.is_none_or(|seq| event.seq > seq);
        let mut events: Vec<Event> =
            self.log.iter().filter(later).chain(self.ring.iter().filter(later)).cloned().collect();
        events.sort_by_key(|event| event.seq);
        events
    }

    /// The failures that are compared with `max_attempts`: the most of any unit.
    pub fn failures(&self) -> u32 {
        self.units.iter().map(|unit| unit.failures).max().unwrap_or(0).max(self.failures)
    }
}

impl Unit {
    /// A unit that was just cut.
    pub fn cut(index: u32, from: u64, to: u64) -> Self {
        Self {
            index,
            from,
            to,
            attempt: 0,
            failures: 0,
            state: UnitState::Pending,
            fraction: 0.0,
            granted: false,
            tries: Vec::new(),
            dirty: true,
        }
    }

    /// The worker's hold, if one has it.
    pub fn hold(&self) -> Option<&Hold> {
        match &self.state {
            UnitState::Held(hold) => Some(hold),
            UnitState::Pending
            | UnitState::Scheduled { .. }
            | UnitState::Completed
            | UnitState::Failed
            | UnitState::Cancelled => None,
        }
    }

    /// When its next try may run, while it waits for that.
    pub fn retries_at(&self) -> Option<Timestamp> {
        match self.state {
            UnitState::Scheduled { run_at } => Some(run_at),
            UnitState::Pending
            | UnitState::Held(_)
            | UnitState::Completed
            | UnitState::Failed
            | UnitState::Cancelled => None,
        }
    }

    /// Its state in the words of jobs.
    pub fn job_state(&self) -> JobState {
        match &self.state {
            UnitState::Pending => JobState::Pending,
            UnitState::Scheduled { .. } => JobState::Scheduled,
            UnitState::Held(hold) if matches!(hold.phase, Phase::Computing | Phase::Checking) => JobState::Computing,
            UnitState::Held(_) => JobState::Assigned,
            UnitState::Completed => JobState::Completed,
            UnitState::Failed => JobState::Failed,
            UnitState::Cancelled => JobState::Cancelled,
        }
    }

    /// Keeps the end of the current attempt.
    pub fn end_try(&mut self, ended: Try) {
        if self.tries.len() >= TRIES_MAX {
            self.tries.remove(0);
        }
        self.tries.push(ended);
        self.fraction = 0.0;
        self.dirty = true;
    }
}
