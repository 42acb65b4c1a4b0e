//! What the master thinks of a worker: how often its hashes were found right or wrong, what went wrong in a row, and whether it is set
//! aside for that.

use flota_proto::kinds::PROOF_GROUPS_MAX;
use flota_proto::rest::{AttemptOutcome, JobError};
use flota_proto::{Class, Timestamp, UnitId, WorkerId};
use serde::{Deserialize, Serialize};

use super::fleet::WorkerIdx;
use super::job::{Phase, Seq, Try, Unit, UnitState};
use super::{Core, Effect, Moment, Timer};

/// So many faults in a row, without one unit completed between them, set a worker aside.
pub const FAULTS_MAX: u32 = 5;
/// For how long, the first time; twice as long each further time.
pub const FAULTY_MS: u64 = 5 * 60_000;
/// The longest.
pub const FAULTY_MS_MAX: u64 = 60 * 60_000;
/// For how long one whose hash was wrong is set aside, the first time; twice as long each further time.
pub const WRONG_MS: u64 = 60 * 60_000;
/// The longest.
pub const WRONG_MS_MAX: u64 = 24 * 60 * 60_000;
/// Hashes computed again of each unit of a worker of which little is known, …
pub const SAMPLES_NEW: u32 = 4;
/// … until so many were right.
pub const NEW_UNTIL: u32 = 64;
/// The same of one that was once wrong.
pub const SAMPLES_ONCE_WRONG: u32 = 16;
/// Until so many were right since.
pub const ONCE_WRONG_UNTIL: u32 = 256;
/// After that one hash of one unit in so many.
pub const TRUSTED_ONE_IN: u64 = 4;
/// Completed units remembered of a worker.
const RECENT_MAX: usize = 100;

const _: () = assert!(PROOF_GROUPS_MAX > SAMPLES_ONCE_WRONG as u64);

/// What is remembered of a worker, also over a restart.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Standing {
    /// Hashes that were computed again and were right, since the last that was not.
    #[serde(skip)]
    pub checked: u32,
    /// Faults in a row.
    #[serde(skip)]
    pub faults: u32,
    /// Results that were wrong.
    pub wrong: u32,
    /// How often it was set aside.
    pub times: u32,
    /// It is set aside.
    pub quarantine: Option<Quarantine>,
}

/// Why a worker is set aside.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Quarantine {
    /// For people.
    pub reason: String,
    /// Since when.
    pub since: Timestamp,
    /// It is released then; `None`: by an operator only.
    pub until: Option<Timestamp>,
}

/// A unit that a worker completed.
#[derive(Clone, Debug)]
pub struct Recent {
    seq: Seq,
    id: UnitId,
    unit: Unit,
}

/// Why a worker that is there gets no work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Aside {
    /// Somebody paused it.
    Paused,
    /// Somebody drains it.
    Draining,
    /// The master does not trust it.
    Quarantined,
    /// It did not accept what it was given, and is left alone for a while.
    Muted,
}

impl Aside {
    /// In a sentence, after a number.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Paused => "paused",
            Self::Draining => "draining",
            Self::Quarantined => "in quarantine",
            Self::Muted => "not answering",
        }
    }
}

impl Standing {
    /// Whether a new master should know it.
    pub fn worth_keeping(&self) -> bool {
        self.wrong > 0 || self.times > 0 || self.quarantine.is_some()
    }

    /// How many hashes of its next unit are computed again.
    pub fn samples(&self, entropy: u64) -> u32 {
        match (self.is_known(), self.wrong) {
            (true, _) => u32::from(entropy.is_multiple_of(TRUSTED_ONE_IN)),
            (false, 0) => SAMPLES_NEW,
            (false, _) => SAMPLES_ONCE_WRONG,
        }
    }

    /// Whether enough of its hashes were right.
    pub fn is_known(&self) -> bool {
        self.checked >= if self.wrong > 0 { ONCE_WRONG_UNTIL } else { NEW_UNTIL }
    }
}

impl Core {
    /// Something went wrong with a worker that is its own fault rather than that of the work.
    pub(super) fn fault(&mut self, at: Moment, idx: WorkerIdx, what: &str, out: &mut Vec<Effect>) {
        let faults = self.fleet.update(idx, |worker| {
            worker.standing.faults += u32::from(worker.standing.quarantine.is_none() && !worker.simple);
            worker.standing.faults
        });
        if faults.is_some_and(|faults| faults >= FAULTS_MAX) {
            let reason = format!("{FAULTS_MAX} faults in a row, the last: it {what}");
            self.set_aside(at, idx, reason, FAULTY_MS, FAULTY_MS_MAX, out);
        }
    }

    /// A worker did something right.
    pub(super) fn did_well(&mut self, idx: WorkerIdx) {
        if self.fleet.get(idx).is_some_and(|worker| worker.standing.faults > 0) {
            self.fleet.update(idx, |worker| worker.standing.faults = 0);
        }
    }

    fn set_aside(
        &mut self,
        at: Moment,
        idx: WorkerIdx,
        reason: String,
        first_ms: u64,
        max_ms: u64,
        out: &mut Vec<Effect>,
    ) {
        let set = self.fleet.update(idx, |worker| {
            let standing = &mut worker.standing;
            let lasts_ms = first_ms.saturating_mul(1 << standing.times.min(16)).min(max_ms);
            let until = at.now.after_ms(lasts_ms);
            standing.times = standing.times.saturating_add(1);
            standing.faults = 0;
            standing.quarantine = Some(Quarantine { reason: reason.clone(), since: at.now, until: Some(until) });
            (worker.id.clone(), until)
        });
        let Some((worker, until)) = set else { return };
        self.timers.insert((until, Timer::Worker(idx)));
        self.dirty_workers.insert(idx);
        out.push(Effect::Quarantined { worker: worker.clone(), reason, until });
        out.push(Effect::Worker(worker));
    }

    /// Lets a worker back in, by the operator's word or because its time is over.
    pub(super) fn release_from_quarantine(&mut self, idx: WorkerIdx, out: &mut Vec<Effect>) {
        let released = self.fleet.update(idx, |worker| {
            worker.standing.faults = 0;
            worker.standing.quarantine.take().map(|_| worker.id.clone())
        });
        if let Some(worker) = released.flatten() {
            self.dirty_workers.insert(idx);
            out.push(Effect::Worker(worker));
        }
    }

    /// Remembers that a worker completed a unit.
    pub(super) fn remember(&mut self, idx: WorkerIdx, seq: Seq, unit: Unit) {
        let Some(id) = self.jobs.get(&seq).map(|job| job.unit_id(unit.index)) else { return };
        self.fleet.update(idx, |worker| {
            if worker.recent.len() >= RECENT_MAX {
                worker.recent.pop_front();
            }
            worker.recent.push_back(Recent { seq, id, unit });
        });
    }

    /// A worker's hash is wrong: it is set aside, what it has is taken from it, and what it completed lately is computed again, or
    /// marked where its job has ended.
    pub(super) fn caught(&mut self, at: Moment, idx: WorkerIdx, unit: UnitId, why: &str, out: &mut Vec<Effect>) {
        let Some(worker) = self.fleet.get(idx) else { return };
        let name = worker.id.clone();
        let held: Vec<(Seq, u32)> = worker.held.iter().copied().collect();
        let message = format!("worker {name} sent a wrong result: {why}");
        let error = JobError { code: "wrong_result".into(), message };
        for (seq, index) in held {
            let proven = self.jobs.get(&seq).is_some_and(|job| job.unit_id(index) == unit);
            let outcome = if proven { AttemptOutcome::Failed } else { AttemptOutcome::Returned };
            self.take_from_liar(at, seq, index, outcome, &error, out);
        }
        let recent = self.fleet.update(idx, |worker| {
            worker.standing.wrong = worker.standing.wrong.saturating_add(1);
            worker.standing.checked = 0;
            std::mem::take(&mut worker.recent)
        });
        let (mut again, mut suspect) = (0, Vec::new());
        for recent in recent.unwrap_or_default() {
            if self.jobs.get(&recent.seq).is_some_and(|job| !job.state.ended()) {
                again += u64::from(self.compute_again(at, recent, &error, out));
            } else {
                suspect.push(recent.id);
            }
        }
        let reason = format!(
            "its result of unit {unit} was wrong ({why}); {again} earlier units are computed again, {} of jobs that have \
             ended are marked as suspect",
            suspect.len()
        );
        out.push(Effect::Caught { worker: name, suspect });
        self.set_aside(at, idx, reason, WRONG_MS, WRONG_MS_MAX, out);
    }

    fn take_from_liar(
        &mut self,
        at: Moment,
        seq: Seq,
        index: u32,
        outcome: AttemptOutcome,
        error: &JobError,
        out: &mut Vec<Effect>,
    ) {
        let Some((hold, unit)) = self.take_hold(at, seq, index, outcome, Some(error.clone()), out) else { return };
        if hold.phase != Phase::Checking {
            self.tell_cancel(&hold, unit, out);
        }
        self.requeue(at, seq, index, Some(error.clone()), out);
        self.tell_distrust(at, seq, error, out);
    }

    /// Takes a completed unit out of its job again. Answers whether the job goes on, so that this was of use.
    fn compute_again(&mut self, at: Moment, recent: Recent, error: &JobError, out: &mut Vec<Effect>) -> bool {
        let Recent { seq, mut unit, .. } = recent;
        let Some(job) = self.jobs.get_mut(&seq).filter(|job| !job.state.ended()) else { return false };
        let Err(place) = job.units.binary_search_by_key(&unit.index, |unit| unit.index) else { return false };
        job.gather.drop_part(unit.from, unit.to);
        job.units_done = job.units_done.saturating_sub(1);
        unit.state = UnitState::Pending;
        unit.fraction = 0.0;
        unit.dirty = true;
        if let Some(last) = unit.tries.last_mut() {
            *last = Try { outcome: AttemptOutcome::Failed, error: Some(error.clone()), ..last.clone() };
        }
        let index = unit.index;
        job.units.insert(place, unit);
        out.push(Effect::Distrusted(job.unit_id(index)));
        self.requeue(at, seq, index, Some(error.clone()), out);
        self.tell_distrust(at, seq, error, out);
        true
    }

    /// Whoever watches the job hears of it, though its state may stay what it was.
    fn tell_distrust(&mut self, at: Moment, seq: Seq, error: &JobError, out: &mut Vec<Effect>) {
        let told = |job: &super::job::Job| {
            let what = job.log.last().map(|event| &event.what);
            matches!(what, Some(super::What::State { error: Some(last), .. }) if last == error)
        };
        if self.jobs.get(&seq).is_some_and(|job| !told(job)) {
            self.tell_state(at, seq, Some(error.clone()), out);
        }
    }

    /// Whether a worker is set aside.
    #[must_use]
    pub fn is_set_aside(&self, worker: &WorkerId) -> bool {
        let found = self.fleet.find(worker).and_then(|idx| self.fleet.get(idx));
        found.is_some_and(|worker| worker.standing.quarantine.is_some())
    }

    /// Whether results of a class are checked at all.
    pub(super) fn checks(&self, class: Class) -> bool {
        self.limits.verify != super::Verify::Off && class == Class::Randomx
    }
}
