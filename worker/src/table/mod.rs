//! What this worker holds: units that wait, run, or have a result that the master has not acknowledged. Pure: no I/O, no
//! clock, no tasks; `outbox.rs` beside it says what of it is due on the stream.

mod outbox;
mod over;

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use flota_proto::kinds::Payload;
use flota_proto::mqtt::{Task, WorkerState};
use flota_proto::{Class, UnitId, v1};
use tokio_util::sync::CancellationToken;

pub(crate) use outbox::{OUTPUT_IN_MESSAGE_BYTES_MAX, Take};

use outbox::{Live, Outbox};
use over::Over;

/// A heartbeat lists only what gave a sign of life within this time.
const ALIVE_WITHIN: Duration = Duration::from_secs(10);
/// How many unacknowledged results may be held before new units are handed back.
const FINISHED_MAX: usize = 8_192;
/// How many attempts of each sort a `Hello` lists, so that it fits into a message; what is beyond is rescued.
const LISTED_MAX: usize = 8_192;
const FINISHED_BYTES_MAX: usize = 256 * 1024 * 1024;

const _: () = assert!(2 * LISTED_MAX * 60 < flota_proto::GRPC_MESSAGE_BYTES_MAX);
const _: () = assert!(ALIVE_WITHIN.as_millis() < flota_proto::LEASE_MS as u128);

/// A unit and its fencing token.
pub(crate) type Key = (UnitId, u64);

/// How an attempt ended.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Report {
    Result(v1::Result),
    Failure(v1::Failure),
}

impl Report {
    /// About as large as on the wire.
    pub(crate) fn size(&self) -> usize {
        const OVERHEAD: usize = 40;
        match self {
            Self::Result(r) => r.unit_id.len() + r.output.len() + OVERHEAD,
            Self::Failure(f) => f.unit_id.len() + f.code.len() + f.message.len() + OVERHEAD,
        }
    }
}

/// A unit as it came, its payload parsed when it came with it.
pub(crate) struct Work {
    pub(crate) task: Task,
    pub(crate) payload: Option<Payload>,
}

/// When an attempt last gave a sign of life; written by its executor without a lock.
#[derive(Debug)]
pub(crate) struct Sign {
    begun: Instant,
    last_ms: AtomicU64,
}

impl Sign {
    pub(crate) fn new(now: Instant) -> Self {
        Self { begun: now, last_ms: AtomicU64::new(0) }
    }

    pub(crate) fn give(&self, now: Instant) {
        let ms = now.saturating_duration_since(self.begun).as_millis();
        self.last_ms.fetch_max(u64::try_from(ms).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    fn age(&self, now: Instant) -> Duration {
        let last = Duration::from_millis(self.last_ms.load(Ordering::Relaxed));
        now.saturating_duration_since(self.begun).saturating_sub(last)
    }
}

/// An attempt that has its slot and is to be run.
pub(crate) struct Start {
    pub(crate) work: Work,
    pub(crate) class: Class,
    pub(crate) cancel: CancellationToken,
    pub(crate) sign: Arc<Sign>,
}

/// What a unit that has come brings.
pub(crate) enum Arrival {
    /// It is to be run.
    Work(Work),
    /// Its outcome is there already.
    Done(Report),
}

struct Held {
    attempt: u64,
    class: Class,
    /// Listed in the outbox to be accepted.
    accept_due: bool,
    phase: Phase,
}

enum Phase {
    Waiting(Box<Work>),
    Running(Box<Running>),
    Finished(Finished),
}

struct Running {
    cancel: CancellationToken,
    sign: Arc<Sign>,
    live: Live,
}

struct Finished {
    report: Report,
    spooled: bool,
}

/// The slots of a class and the queue before them.
#[derive(Default)]
struct Lane {
    slots: u32,
    waiting_max: usize,
    /// Executions that have not ended, those of cancelled attempts too.
    running: u32,
    queue: VecDeque<Key>,
}

/// What the worker may do, by the master's word or because it is ending.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Mode {
    pub(crate) drain: bool,
    pub(crate) paused: bool,
    pub(crate) closing: bool,
}

/// What the worker holds.
pub(crate) struct Table {
    held: HashMap<UnitId, Held>,
    lanes: BTreeMap<Class, Lane>,
    mode: Mode,
    /// Of these nothing is taken now.
    held_back: BTreeSet<Class>,
    over: Over,
    out: Outbox,
    finished: usize,
    finished_bytes: usize,
    unspool: Vec<Key>,
    /// Units whose outcome came at once, since [`Table::status`] was asked last.
    immediate: u64,
}

impl Table {
    pub(crate) fn new(slots: &BTreeMap<Class, u32>, prefetch: &BTreeMap<Class, u32>) -> Self {
        let lane = |class: Class| {
            let count = slots.get(&class).copied().unwrap_or(0);
            // Twice what the master may send: slots of cancelled attempts stay taken until their executors have ended.
            let waiting_max = 2 * (count as usize + prefetch.get(&class).copied().unwrap_or(0) as usize);
            (class, Lane { slots: count, waiting_max, ..Lane::default() })
        };
        Self {
            held: HashMap::new(),
            lanes: Class::ALL.into_iter().map(lane).collect(),
            mode: Mode::default(),
            held_back: BTreeSet::new(),
            over: Over::default(),
            out: Outbox::default(),
            finished: 0,
            finished_bytes: 0,
            unspool: Vec::new(),
            immediate: 0,
        }
    }

    /// Takes in a unit that was published to this worker.
    pub(crate) fn offer(&mut self, (unit, attempt): Key, class: Class, arrival: Arrival) {
        if self.over.covers(unit, attempt) {
            return;
        }
        match self.held.get(&unit) {
            Some(held) if held.attempt > attempt => return,
            Some(held) if held.attempt == attempt => return self.accept(unit),
            Some(_) => self.forget(unit),
            None => {}
        }
        if !self.takes(class, &arrival) {
            return self.hand_back((unit, attempt));
        }
        match arrival {
            Arrival::Done(report) => {
                self.immediate += 1;
                self.insert_finished((unit, attempt), class, report, false);
            }
            Arrival::Work(work) => {
                self.lanes.entry(class).or_default().queue.push_back((unit, attempt));
                let phase = Phase::Waiting(Box::new(work));
                self.held.insert(unit, Held { attempt, class, accept_due: false, phase });
                self.accept(unit);
            }
        }
    }

    fn takes(&self, class: Class, arrival: &Arrival) -> bool {
        let room = match arrival {
            Arrival::Done(_) => true,
            Arrival::Work(_) => self.lanes.get(&class).is_some_and(|lane| lane.queue.len() < lane.waiting_max),
        };
        let wanted = !self.held_back.contains(&class);
        room && wanted
            && self.mode == Mode::default()
            && self.finished < FINISHED_MAX
            && self.finished_bytes < FINISHED_BYTES_MAX
    }

    /// Gives free slots to what waits.
    pub(crate) fn start_ready(&mut self, now: Instant) -> Vec<Start> {
        let mut starts = Vec::new();
        for (&class, lane) in &mut self.lanes {
            while lane.running < lane.slots
                && let Some((unit, _)) = lane.queue.pop_front()
            {
                if let Some(start) = self.held.get_mut(&unit).and_then(|held| held.start(now)) {
                    lane.running += 1;
                    self.out.accept(unit, &mut self.held);
                    starts.push(Start { class, ..start });
                }
            }
        }
        starts
    }

    /// An execution has ended, its slot is free; without a report it was cancelled.
    pub(crate) fn end(&mut self, key: Key, class: Class, report: Option<Report>, spooled: bool) {
        if let Some(lane) = self.lanes.get_mut(&class) {
            lane.running = lane.running.saturating_sub(1);
        }
        match report {
            Some(report) if self.runs(key) => {
                self.flush_live(key.0);
                self.held.remove(&key.0);
                self.insert_finished(key, class, report, spooled);
            }
            Some(_) if spooled => self.unspool.push(key),
            Some(_) | None => {
                if self.runs(key) {
                    self.held.remove(&key.0);
                }
            }
        }
    }

    /// Takes in a result that an earlier process left behind.
    pub(crate) fn restore(&mut self, key: Key, report: Report) {
        match self.held.get(&key.0) {
            Some(held) if held.attempt >= key.1 => return self.unspool.push(key),
            Some(_) => self.forget(key.0),
            None => {}
        }
        self.insert_finished(key, Class::Randomx, report, true);
    }

    fn insert_finished(&mut self, (unit, attempt): Key, class: Class, report: Report, spooled: bool) {
        self.finished += 1;
        self.finished_bytes += report.size();
        let phase = Phase::Finished(Finished { report, spooled });
        self.held.insert(unit, Held { attempt, class, accept_due: false, phase });
        self.out.reports.push_back(unit);
    }

    /// Whether this attempt is being run and wanted.
    pub(crate) fn runs(&self, (unit, attempt): Key) -> bool {
        self.held.get(&unit).is_some_and(|held| held.attempt == attempt && matches!(held.phase, Phase::Running(_)))
    }

    /// The master has the report, or the attempt no longer counts.
    pub(crate) fn acknowledge(&mut self, (unit, attempt): Key, outcome: v1::Outcome) {
        let Some(held) = self.held.get(&unit) else { return };
        if held.attempt > attempt {
            return;
        }
        let finished = matches!(held.phase, Phase::Finished(_));
        if finished && held.class != Class::Echo {
            self.over.note(unit, attempt);
        }
        if finished {
            self.forget(unit);
        } else if outcome == v1::Outcome::Stale {
            self.cancel((unit, attempt));
        }
    }

    /// The master no longer wants the attempt. What is finished stays until it is acknowledged.
    pub(crate) fn cancel(&mut self, (unit, attempt): Key) {
        let keep = self.held.get(&unit).is_some_and(|held| {
            held.attempt > attempt || held.attempt == attempt && matches!(held.phase, Phase::Finished(_))
        });
        if !keep {
            self.over.note(unit, attempt);
            self.forget(unit);
        }
    }

    /// The master wants the attempt back if it has not started.
    pub(crate) fn take_back(&mut self, (unit, attempt): Key) {
        let waits = match self.held.get(&unit) {
            None => true,
            Some(held) => held.attempt < attempt || held.attempt == attempt && matches!(held.phase, Phase::Waiting(_)),
        };
        if waits && !self.over.covers(unit, attempt) {
            self.forget(unit);
            self.hand_back((unit, attempt));
        }
    }

    fn hand_back(&mut self, (unit, attempt): Key) {
        self.over.note(unit, attempt);
        self.out.returned.push_back((unit, attempt));
    }

    /// Removes a unit from everywhere, stopping its execution.
    fn forget(&mut self, unit: UnitId) {
        let Some(held) = self.held.remove(&unit) else { return };
        match held.phase {
            Phase::Waiting(_) => {
                if let Some(lane) = self.lanes.get_mut(&held.class) {
                    lane.queue.retain(|key| *key != (unit, held.attempt));
                }
            }
            Phase::Running(running) => running.cancel.cancel(),
            Phase::Finished(finished) => {
                self.finished -= 1;
                self.finished_bytes -= finished.report.size();
                if finished.spooled {
                    self.unspool.push((unit, held.attempt));
                }
            }
        }
    }

    pub(crate) fn mode(&self) -> Mode {
        self.mode
    }

    /// Changes what the worker may do; hands back what it may no longer hold.
    pub(crate) fn set_mode(&mut self, mode: Mode) {
        self.mode = mode;
        if mode != Mode::default() {
            self.hand_back_all(mode.paused);
        }
    }

    /// Hands back what waits, and with `running` what runs.
    pub(crate) fn hand_back_all(&mut self, running: bool) {
        self.hand_back_those(|held| match held.phase {
            Phase::Waiting(_) => true,
            Phase::Running(_) => running,
            Phase::Finished(_) => false,
        });
    }

    /// Takes nothing of `class` from now on and hands back what there is, or takes it again.
    pub(crate) fn hold_back(&mut self, class: Class, hold: bool) {
        if !hold {
            self.held_back.remove(&class);
        } else if self.held_back.insert(class) {
            self.hand_back_those(|held| held.class == class && !matches!(held.phase, Phase::Finished(_)));
        }
    }

    fn hand_back_those(&mut self, back: impl Fn(&Held) -> bool) {
        let keys: Vec<Key> =
            self.held.iter().filter(|(_, held)| back(held)).map(|(unit, held)| (*unit, held.attempt)).collect();
        for key in keys {
            self.forget(key.0);
            self.hand_back(key);
        }
    }

    /// The attempts whose leases go on: those that wait, those that gave a sign of life, and those whose reports have not gone out
    /// because there is much before them.
    pub(crate) fn alive(&self, now: Instant) -> Vec<v1::Attempt> {
        let unsent = self.unsent();
        self.attempts(|unit, held| match &held.phase {
            Phase::Waiting(_) => true,
            Phase::Running(running) => running.sign.age(now) <= ALIVE_WITHIN,
            Phase::Finished(_) => unsent.contains(unit),
        })
    }

    /// The attempts that are not finished, for `Hello`.
    pub(crate) fn unfinished(&self) -> Vec<v1::Attempt> {
        self.attempts(|_, held| !matches!(held.phase, Phase::Finished(_)))
    }

    /// The attempts whose reports are not acknowledged, for `Hello`.
    pub(crate) fn finished(&self) -> Vec<v1::Attempt> {
        self.attempts(|_, held| matches!(held.phase, Phase::Finished(_)))
    }

    fn attempts(&self, which: impl Fn(&UnitId, &Held) -> bool) -> Vec<v1::Attempt> {
        let wanted = self.held.iter().filter(|(unit, held)| which(unit, held));
        wanted.take(LISTED_MAX).map(|(unit, held)| v1::Attempt::of(*unit, held.attempt)).collect()
    }

    /// Reports that are in no file yet.
    pub(crate) fn unspooled(&self) -> Vec<(Key, Report)> {
        let report = |(unit, held): (&UnitId, &Held)| match &held.phase {
            Phase::Finished(finished) if !finished.spooled => Some(((*unit, held.attempt), finished.report.clone())),
            Phase::Finished(_) | Phase::Waiting(_) | Phase::Running(_) => None,
        };
        self.held.iter().filter_map(report).collect()
    }

    /// Reports whose files are to be removed.
    pub(crate) fn take_unspool(&mut self) -> Vec<Key> {
        std::mem::take(&mut self.unspool)
    }

    /// Executions that have not ended.
    pub(crate) fn executing(&self) -> u32 {
        self.lanes.values().map(|lane| lane.running).sum()
    }

    /// Nothing is held and everything was sent.
    pub(crate) fn is_settled(&self) -> bool {
        self.held.is_empty() && self.out.is_empty()
    }

    /// What the worker does now, and how many units of each class run.
    pub(crate) fn status(&mut self) -> (WorkerState, BTreeMap<Class, u32>) {
        let running: BTreeMap<Class, u32> =
            self.lanes.iter().filter(|(_, l)| l.slots > 0).map(|(class, l)| (*class, l.running)).collect();
        let busy = std::mem::take(&mut self.immediate) > 0 || running.values().any(|n| *n > 0);
        let state = match self.mode {
            Mode { paused: true, .. } => WorkerState::Paused,
            Mode { drain: true, .. } | Mode { closing: true, .. } => WorkerState::Draining,
            Mode { .. } if busy => WorkerState::Busy,
            Mode { .. } => WorkerState::Idle,
        };
        (state, running)
    }
}

impl Held {
    fn start(&mut self, now: Instant) -> Option<Start> {
        let cancel = CancellationToken::new();
        let sign = Arc::new(Sign::new(now));
        let running = Running { cancel: cancel.clone(), sign: sign.clone(), live: Live::new(now) };
        match std::mem::replace(&mut self.phase, Phase::Running(Box::new(running))) {
            Phase::Waiting(work) => Some(Start { work: *work, class: self.class, cancel, sign }),
            other => {
                self.phase = other;
                None
            }
        }
    }
}

#[cfg(test)]
mod tests;
