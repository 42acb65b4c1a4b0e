//! Every decision of the master: one deterministic state machine without I/O, async, clock or randomness. It takes
//! inputs and the time and answers with effects, which the shell carries out after the batch is in the store.

mod ai;
mod assign;
mod audit;
mod check;
mod clock;
mod defect;
mod digests;
mod fleet;
mod gather;
mod job;
mod jobs;
mod meter;
mod queue;
pub mod record;
mod reports;
mod retry;
mod split;
mod standing;
mod units;
mod view;
mod workers;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use bytes::Bytes;
use flota_proto::kinds::Found;
use flota_proto::mqtt::{Register, WorkerStatus};
use flota_proto::rest::{JobError, JobState};
use flota_proto::{Algorithm, JobId, Kind, Timestamp, UnitId, WorkerId};

pub use ai::Used;
pub(crate) use check::mix;
pub use check::{Check, Verdict};
#[cfg(feature = "seeded-defects")]
pub use defect::Defect;
pub use digests::{DATASET_DIGEST_BYTES, Digest};
pub use fleet::{DEMO_MODEL, Desired};
pub use job::{Event, Seq, What};
pub use jobs::STORE_UNREADABLE;
pub use reports::Asked;
pub use standing::{Quarantine, Standing};
pub use view::{event_view, payload_view, stored_unit_view, stored_view};

use crate::handle::{Hello, Refused, Report, StreamId, WorkerControl};
use crate::submit::NewJob;
use fleet::{Fleet, WorkerIdx};
use job::Job;
use queue::Queue;
use record::{JobRow, UnitRow, WorkerRow};

/// When an input is applied, and the randomness that it may use (jitter).
#[derive(Clone, Copy, Debug)]
pub struct Moment {
    /// The time.
    pub now: Timestamp,
    /// A random number.
    pub entropy: u64,
}

/// A job that a new one waits for, as the shell found it.
#[derive(Clone, Copy, Debug)]
pub struct Dependency {
    /// Which.
    pub id: JobId,
    /// Its final state if the store has it ended; `None` when it is in the core.
    pub ended: Option<JobState>,
}

/// What can happen to the master.
#[derive(Debug)]
pub enum Input {
    /// A valid job, not known yet, is to be accepted.
    Submit {
        /// The job.
        job: Box<NewJob>,
        /// What it waits for, resolved.
        dependencies: Vec<Dependency>,
    },
    /// A job is to end.
    Cancel(JobId),
    /// A failed or cancelled job, read from the store, is to start again.
    Retry(Box<record::StoredJob>),
    /// A job is to move in the queue.
    SetPriority(JobId, u8),
    /// A worker says that it has come.
    Register(Box<Register>),
    /// A worker says how it is.
    Status(WorkerStatus),
    /// A worker opened its stream.
    Open(Hello, StreamId),
    /// A stream ended.
    Close(StreamId),
    /// A worker reported.
    Report(StreamId, Box<Report>),
    /// A simple worker answered the unit that it has.
    SimpleAnswer {
        /// Who.
        worker: WorkerId,
        /// Which unit.
        unit: UnitId,
        /// The fencing token.
        attempt: u64,
        /// Its answer, JSON of the kind, or what went wrong.
        answer: Result<Bytes, JobError>,
    },
    /// The check of a result has ended.
    Checked {
        /// Of which unit.
        unit: UnitId,
        /// The fencing token.
        attempt: u64,
        /// What came of it.
        verdict: Verdict,
    },
    /// The operator wants something of a worker.
    Control(WorkerId, WorkerControl),
    /// Time has passed.
    Tick,
    /// The clock was set, by so many milliseconds more than time has passed.
    ClockSet(i64),
}

/// A unit on its way to a worker.
#[derive(Clone, Debug)]
pub struct Assignment {
    /// To whom.
    pub worker: WorkerId,
    /// Who speaks the simple protocol.
    pub simple: bool,
    /// Of which job.
    pub seq: Seq,
    /// Which unit.
    pub unit: UnitId,
    /// The fencing token.
    pub attempt: u64,
    /// What to compute.
    pub kind: Kind,
    /// The part of the job, `None` where it is one unit.
    pub part: Option<(u64, u64)>,
    /// Bounds the attempt.
    pub timeout_ms: u64,
    /// Attempts of the unit that failed before.
    pub failures: u32,
    /// A key of the user's waits to be leased.
    pub credential: bool,
    /// Nothing but that key may be used for it.
    pub own_key_only: bool,
    /// When it was assigned.
    pub assigned_at: Timestamp,
    /// The job's payload where it is in memory.
    pub payload: Option<Bytes>,
}

/// The work of an attempt.
#[derive(Clone, Debug)]
pub struct HeldPart {
    /// Of which job.
    pub seq: Seq,
    /// The part of it, `None` where it is one unit.
    pub part: Option<(u64, u64)>,
    /// What to compute.
    pub kind: Kind,
    /// The job's payload where it is in memory.
    pub payload: Option<Bytes>,
}

/// What the shell must do once the batch is in the store, in this order.
#[derive(Debug)]
pub enum Effect {
    /// Publish a unit to its worker.
    Publish(Box<Assignment>),
    /// Acknowledge a result or failure.
    Ack {
        /// To whom.
        stream: StreamId,
        /// Which unit.
        unit: UnitId,
        /// The fencing token.
        attempt: u64,
        /// It counted; else it was stale.
        applied: bool,
    },
    /// Tell a worker to stop an attempt.
    Cancel(StreamId, UnitId, u64),
    /// Ask a worker to hand back an attempt that has not started.
    TakeBack(StreamId, UnitId, u64),
    /// End a stream.
    Goodbye(StreamId, &'static str),
    /// Something happened to a job; `last` when it has ended.
    Event {
        /// Which job.
        job: JobId,
        /// Its kind.
        kind: Kind,
        /// What happened.
        event: Event,
        /// Nothing follows.
        last: bool,
    },
    /// A job ended: whoever waits for it is answered.
    Ended(JobId),
    /// A worker's state may have changed.
    Worker(WorkerId),
    /// Tell a worker what the operator wants.
    Desired(WorkerId, WorkerControl),
    /// An attempt ended, for the metrics.
    Attempt(flota_proto::rest::AttemptOutcome),
    /// Hashes that counted, for the metrics.
    Hashes(Algorithm, u64),
    /// Something happened to a job of a source.
    Mined(JobId, Mined),
    /// Check a result; it counts when [`Input::Checked`] says that it is right.
    Check(Box<Check>),
    /// The master set a worker aside.
    Quarantined {
        /// Which.
        worker: WorkerId,
        /// Why, for people.
        reason: String,
        /// It is released then.
        until: Timestamp,
    },
    /// A unit that had completed is computed again, as its worker lied since.
    Distrusted(UnitId),
    /// A worker lied; these of its latest units belong to jobs that have ended.
    Caught {
        /// Which worker.
        worker: WorkerId,
        /// Their results stay, and are marked.
        suspect: Vec<UnitId>,
    },
}

/// What a unit of a source's job came to.
#[derive(Debug)]
pub enum Mined {
    /// Its output counted.
    Output(WorkerId, Bytes),
    /// Winning nonces of a unit that goes on, by its worker's word.
    Found(WorkerId, Vec<Found>),
    /// An attempt computed about so many hashes in vain.
    Wasted(u64),
}

/// What a batch changed, to be stored in one commit.
#[derive(Debug, Default)]
pub struct Changes {
    /// Jobs.
    pub jobs: Vec<JobRow>,
    /// Units of jobs that have several.
    pub units: Vec<UnitRow>,
    /// Workers that must be remembered.
    pub workers: Vec<WorkerRow>,
    /// Workers that need not be remembered any more; of one that came again there is a row.
    pub forgotten: Vec<WorkerId>,
    /// What the shell stores beside them.
    pub asides: Vec<crate::aside::Aside>,
}

impl Changes {
    /// Whether there is nothing to commit.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        let workers = self.workers.is_empty() && self.forgotten.is_empty();
        self.jobs.is_empty() && self.units.is_empty() && workers && self.asides.is_empty()
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Timer {
    /// A hold or a wait of a unit.
    Unit(Seq, u32),
    /// A job's delayed start.
    Start(Seq),
    /// A job's deadline.
    Deadline(Seq),
    /// A worker that did not answer may be tried again.
    Worker(WorkerIdx),
    /// Questions of this shape have waited long enough for somebody who serves their model.
    Unserved(queue::ShapeId),
}

/// How hashes are checked before they count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Verify {
    /// Workers are believed.
    Off,
    /// All that is found, and samples of the rest.
    #[default]
    Samples,
    /// And a search without a proof of what it covered does not count.
    Strict,
}

/// Bounds of the core.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Jobs that have not ended.
    pub live_jobs_max: usize,
    /// The same, of one owner.
    pub owner_jobs_max: u64,
    /// The largest payload of a job.
    pub payload_bytes_max: usize,
    /// The largest result of a job.
    pub result_bytes_max: usize,
    /// How much text and progress is kept for those who watch a job.
    pub event_bytes_max: usize,
    /// Workers that are known, there or not.
    pub workers_max: usize,
    /// How long a lease lasts.
    pub lease_ms: u64,
    /// How long a published unit may wait for its acceptance.
    pub dispatch_timeout_ms: u64,
    /// Simple workers may be sent users' keys.
    pub simple_take_keys: bool,
    /// How hashes are checked before they count.
    pub verify: Verify,
    /// What is wrong on purpose.
    #[cfg(feature = "seeded-defects")]
    pub defect: Option<Defect>,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            live_jobs_max: 5_000_000,
            owner_jobs_max: 5_000_000,
            payload_bytes_max: flota_proto::BODY_BYTES_MAX,
            result_bytes_max: 64 * 1024 * 1024,
            event_bytes_max: 1024 * 1024,
            workers_max: 20_000,
            lease_ms: flota_proto::LEASE_MS,
            dispatch_timeout_ms: flota_proto::DISPATCH_TIMEOUT_MS,
            simple_take_keys: false,
            verify: Verify::Off,
            #[cfg(feature = "seeded-defects")]
            defect: None,
        }
    }
}

/// The state machine.
#[derive(Debug, Default)]
pub struct Core {
    limits: Limits,
    jobs: BTreeMap<Seq, Job>,
    by_id: HashMap<JobId, Seq>,
    next_seq: Seq,
    queue: Queue,
    fleet: Fleet,
    /// Who waits for a job that has not ended.
    dependents: HashMap<JobId, BTreeSet<Seq>>,
    /// Jobs with units at workers.
    active: BTreeSet<Seq>,
    /// Units that wait at a worker beyond its slots and could be taken back.
    waiting: BTreeMap<flota_proto::Class, BTreeSet<(Seq, u32)>>,
    timers: BTreeSet<(Timestamp, Timer)>,
    counts: BTreeMap<JobState, u64>,
    /// Jobs that have not ended, by owner.
    owners: HashMap<Arc<str>, u64>,
    names: BTreeSet<Arc<str>>,
    /// There is more to assign at once.
    more: bool,
    dirty: Vec<Seq>,
    unit_rows: Vec<UnitRow>,
    dirty_workers: BTreeSet<WorkerIdx>,
    ended: Vec<Seq>,
    meter: meter::Meter,
    attempts_above: u64,
    /// Jobs of which something stored can't be read, and what.
    damaged: Vec<(JobId, String)>,
    unserved: BTreeSet<queue::ShapeId>,
}

/// Names kept shared; beyond it each job has its own copy.
const NAMES_MAX: usize = 10_000;
/// Timers handled at once, so that one tick does not hold up the loop.
const TIMERS_PER_TICK: usize = 10_000;

impl Core {
    /// An empty one.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self { limits, next_seq: 1, fleet: Fleet::new(limits.simple_take_keys, limits.workers_max), ..Self::default() }
    }

    /// Applies `input` and assigns what can be assigned; the effects come in the order the shell must carry them out.
    ///
    /// # Errors
    /// [`Refused`] when the input may not be applied; the core is unchanged.
    pub fn handle(&mut self, at: Moment, input: Input) -> Result<Vec<Effect>, Refused> {
        let mut out = Vec::new();
        self.apply(at, input, &mut out)?;
        self.settle(at, &mut out);
        Ok(out)
    }

    /// Applies one input of a batch; [`Core::settle`] follows once for all.
    ///
    /// # Errors
    /// [`Refused`] when the input may not be applied; the core is unchanged.
    pub fn apply(&mut self, at: Moment, input: Input, out: &mut Vec<Effect>) -> Result<(), Refused> {
        match input {
            Input::Submit { job, dependencies } => self.submit(at, *job, &dependencies, out),
            Input::Cancel(id) => self.cancel(at, id, out),
            Input::Retry(stored) => self.retry(at, *stored, out),
            Input::SetPriority(id, priority) => self.set_priority(id, priority),
            Input::Register(register) => self.register(at, *register, out),
            Input::Status(status) => {
                self.status(at, &status, out);
                Ok(())
            }
            Input::Open(hello, stream) => self.open(at, &hello, stream, out),
            Input::Close(stream) => {
                self.close(at, stream, out);
                Ok(())
            }
            Input::Report(stream, report) => {
                self.report(at, stream, *report, out);
                Ok(())
            }
            Input::SimpleAnswer { worker, unit, attempt, answer } => {
                self.simple_answer(at, &worker, unit, attempt, answer, out)
            }
            Input::Checked { unit, attempt, verdict } => {
                self.checked(at, unit, attempt, verdict, out);
                Ok(())
            }
            Input::Control(worker, control) => self.control(at, &worker, control, out),
            Input::Tick => {
                self.tick(at, out);
                Ok(())
            }
            Input::ClockSet(by_ms) => {
                self.clock_set(at, by_ms);
                Ok(())
            }
        }
    }

    /// When [`Input::Tick`] next has work to do, or `None` when nothing is waiting for time.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Timestamp> {
        if self.more || !self.damaged.is_empty() { Some(Timestamp(0)) } else { self.timers.first().map(|(at, _)| *at) }
    }

    /// What has changed since the last call, to be stored; follows [`Core::settle`].
    pub fn take_changes(&mut self) -> Changes {
        let mut units = std::mem::take(&mut self.unit_rows);
        let mut jobs = Vec::with_capacity(self.dirty.len());
        for seq in std::mem::take(&mut self.dirty) {
            if let Some(job) = self.jobs.get_mut(&seq)
                && job.dirty
            {
                job.dirty = false;
                jobs.push(record::job_row(job, &self.fleet, &self.queue));
                job.stored = true;
                if !job.single() {
                    record::unit_rows(job, &self.fleet, &mut units);
                }
            }
        }
        let workers = std::mem::take(&mut self.dirty_workers)
            .into_iter()
            .filter_map(|idx| self.fleet.get(idx).map(record::worker_row))
            .collect();
        let forgotten = std::mem::take(&mut self.fleet.forgotten);
        let mut changes = Changes { jobs, units, workers, forgotten, asides: Vec::new() };
        self.spoil(&mut changes);
        changes
    }

    /// Drops the jobs that ended, after their commit.
    pub fn forget_ended(&mut self) {
        for seq in std::mem::take(&mut self.ended) {
            if self.jobs.get(&seq).is_some_and(|job| job.state.ended())
                && let Some(job) = self.jobs.remove(&seq)
            {
                self.by_id.remove(&job.spec.id);
                self.queue.release(job.spec.shape);
            }
        }
    }

    /// How many jobs have not ended, or have in this batch.
    #[must_use]
    pub fn live_jobs(&self) -> usize {
        self.jobs.len()
    }

    /// Whether `owner` may have so many more jobs accepted.
    ///
    /// # Errors
    /// [`Refused::Busy`] when the queue, or the owner's part of it, would be too long.
    pub fn check_room(&self, owner: &str, count: usize) -> Result<(), Refused> {
        let busy = |detail| Err(Refused::Busy { detail, retry_after_seconds: 5 });
        if self.jobs.len().saturating_add(count) > self.limits.live_jobs_max {
            let most = self.limits.live_jobs_max;
            return busy(format!(
                "the queue is full: {} of {most} jobs have not ended (FLOTA_JOBS_MAX)",
                self.jobs.len()
            ));
        }
        let (live, most) = (self.owners.get(owner).copied().unwrap_or(0), self.limits.owner_jobs_max);
        if live.saturating_add(count as u64) > most {
            let text = "of this owner have not ended (FLOTA_OWNER_JOBS_MAX)";
            return busy(format!("{live} of {most} jobs {text}"));
        }
        Ok(())
    }

    fn owner_has_more(&mut self, seq: Seq) {
        if let Some(job) = self.jobs.get(&seq) {
            *self.owners.entry(job.spec.owner.clone()).or_default() += 1;
        }
    }

    fn owner_has_less(&mut self, owner: &Arc<str>) {
        if let Some(live) = self.owners.get_mut(owner) {
            *live = live.saturating_sub(1);
            if *live == 0 {
                self.owners.remove(owner);
            }
        }
    }

    fn tick(&mut self, at: Moment, out: &mut Vec<Effect>) {
        for _ in 0..TIMERS_PER_TICK {
            match self.timers.first() {
                Some((due, _)) if *due <= at.now => {}
                _ => return,
            }
            let Some((_, timer)) = self.timers.pop_first() else { return };
            match timer {
                Timer::Unit(seq, index) => self.unit_timer(at, seq, index, out),
                Timer::Start(seq) => self.start_timer(at, seq, out),
                Timer::Deadline(seq) => self.deadline_timer(at, seq, out),
                Timer::Unserved(shape) => self.unserved_timer(at, shape, out),
                Timer::Worker(idx) => {
                    let due = |w: &mut fleet::Worker| {
                        if w.muted_until.is_some_and(|until| until <= at.now) {
                            w.muted_until = None;
                        }
                        w.owes.is_some_and(|owed| owed.until <= at.now)
                    };
                    if self.fleet.update(idx, due) == Some(true) {
                        self.fell_silent(idx, out);
                    }
                    let over = |worker: &fleet::Worker| {
                        let quarantine = worker.standing.quarantine.as_ref();
                        quarantine.and_then(|quarantine| quarantine.until).is_some_and(|until| until <= at.now)
                    };
                    if self.fleet.get(idx).is_some_and(over) {
                        self.release_from_quarantine(idx, out);
                    }
                }
            }
        }
    }

    fn mark(&mut self, seq: Seq) {
        if let Some(job) = self.jobs.get_mut(&seq)
            && !job.dirty
        {
            job.dirty = true;
            self.dirty.push(seq);
        }
    }

    fn name(&mut self, name: &str) -> Arc<str> {
        if let Some(shared) = self.names.get(name) {
            return shared.clone();
        }
        let shared: Arc<str> = name.into();
        if self.names.len() < NAMES_MAX {
            self.names.insert(shared.clone());
        }
        shared
    }
}
