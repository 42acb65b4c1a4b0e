//! What becomes of a unit that a worker has: its output, its failure, its lost hold.

use flota_proto::rest::{AttemptOutcome, JobError, JobState};
use flota_proto::{Class, UnitId};

use super::defect::Defect;
use super::fleet::WorkerIdx;
use super::gather::Part;
use super::job::{Hold, Phase, Seq, Try, UnitState, What};
use super::record;
use super::retry::backoff_ms;
use super::{Core, Effect, Mined, Moment, Timer};

/// How often a job of many units tells its progress.
const PROGRESS_MS: u64 = 250;
/// How long a worker is left alone that handed back a unit.
const HANDED_BACK_MS: u64 = 1_000;
/// The longest that a worker which did not answer is left alone.
const MUTED_MS_MAX: u64 = 60_000;

/// Why an attempt came to nothing.
pub(super) struct Loss {
    /// How it ended.
    pub outcome: AttemptOutcome,
    /// What is said of it.
    pub error: JobError,
    /// It counts against `max_attempts`.
    pub counts: bool,
    /// Another attempt may help.
    pub retryable: bool,
    /// The next try waits: for the backoff, or as long as the executor says.
    pub wait_ms: Option<u64>,
}

impl Loss {
    fn lost(outcome: AttemptOutcome, counts: bool, code: &str, message: String) -> Self {
        Self { outcome, error: JobError { code: code.into(), message }, counts, retryable: true, wait_ms: None }
    }
}

impl Core {
    /// The key of the unit whose current attempt this is and which `idx` has.
    pub(super) fn current(&self, idx: WorkerIdx, unit: UnitId, attempt: u64) -> Option<Seq> {
        let seq = *self.by_id.get(&unit.job)?;
        let found = self.jobs.get(&seq)?.unit(unit.index)?;
        let held = found.hold().is_some_and(|hold| hold.worker == idx);
        if self.has(Defect::NoFencing) && found.hold().is_some() {
            return Some(seq);
        }
        (held && found.attempt == attempt).then_some(seq)
    }

    /// Ends the current attempt of a unit and takes it from its worker. The unit's state is the caller's to set.
    pub(super) fn take_hold(
        &mut self,
        at: Moment,
        seq: Seq,
        index: u32,
        outcome: AttemptOutcome,
        error: Option<JobError>,
        out: &mut Vec<Effect>,
    ) -> Option<(Hold, UnitId)> {
        let job = self.jobs.get_mut(&seq)?;
        let (class, id) = (job.spec.kind.class(), job.unit_id(index));
        let unit = job.unit_mut(index)?;
        let hold = unit.hold()?.clone();
        let (tried, worker) = (unit.attempt, self.fleet.get(hold.worker).map(|worker| worker.id.clone()));
        let hashed = (unit.fraction * (unit.to - unit.from) as f64) as u64;
        if let Some(worker) = worker {
            unit.end_try(Try {
                attempt: unit.attempt,
                worker,
                outcome,
                error,
                started_at: hold.assigned_at,
                finished_at: at.now,
            });
        }
        unit.state = UnitState::Pending;
        if outcome != AttemptOutcome::Completed && hashed > 0 && job.spec.of_source() {
            out.push(Effect::Mined(job.spec.id, Mined::Wasted(hashed)));
        }
        if !job.units.iter().any(|unit| unit.hold().is_some()) {
            self.active.remove(&seq);
        }
        let checking = hold.phase == Phase::Checking;
        self.fleet.release(hold.worker, class, (seq, index), checking);
        if checking && let Some(stream) = self.fleet.get(hold.worker).and_then(|worker| worker.stream) {
            // Whatever came of it, the worker need not keep it.
            let applied = matches!(outcome, AttemptOutcome::Completed | AttemptOutcome::Failed);
            out.push(Effect::Ack { stream, unit: id, attempt: tried, applied });
        }
        self.unlist_waiting(class, seq, index);
        self.mark(seq);
        out.push(Effect::Attempt(outcome));
        Some((hold, id))
    }

    pub(super) fn unlist_waiting(&mut self, class: Class, seq: Seq, index: u32) {
        if let Some(waiting) = self.waiting.get_mut(&class) {
            waiting.remove(&(seq, index));
        }
    }

    /// Tells the worker that had `hold` to stop, if it can be reached.
    pub(super) fn tell_cancel(&self, hold: &Hold, unit: UnitId, out: &mut Vec<Effect>) {
        let attempt = self
            .by_id
            .get(&unit.job)
            .and_then(|seq| self.jobs.get(seq))
            .and_then(|job| job.unit(unit.index))
            .map_or(0, |unit| unit.attempt);
        if let Some(stream) = self.fleet.get(hold.worker).and_then(|worker| worker.stream) {
            out.push(Effect::Cancel(stream, unit, attempt));
        }
    }

    /// Puts a unit back into the queue at once.
    pub(super) fn requeue(&mut self, at: Moment, seq: Seq, index: u32, error: Option<JobError>, out: &mut Vec<Effect>) {
        let Some(job) = self.jobs.get_mut(&seq) else { return };
        let (shape, priority, owner) = (job.spec.shape, job.priority, job.spec.owner.clone());
        let Some(unit) = job.unit_mut(index) else { return };
        unit.state = UnitState::Pending;
        unit.dirty = true;
        let attempt = unit.attempt;
        self.queue.insert(shape, priority, &owner, (seq, index));
        self.mark(seq);
        self.refresh(at, seq, attempt, None, error, out);
    }

    /// The current attempt gave its output. Answers whether it counted.
    pub(super) fn complete_unit(
        &mut self,
        at: Moment,
        seq: Seq,
        index: u32,
        output: bytes::Bytes,
        out: &mut Vec<Effect>,
    ) {
        let Some(job) = self.jobs.get_mut(&seq) else { return };
        let Some(unit) = job.unit(index) else { return };
        let holder = unit.hold().filter(|_| job.spec.of_source()).and_then(|hold| self.fleet.get(hold.worker));
        let miner = holder.map(|worker| worker.id.clone());
        let (kind, work, single) = (job.spec.kind, job.spec.work, job.single());
        let part = Part { from: unit.from, to: unit.to, output: &output };
        let satisfied = match job.gather.take(kind, work, &part) {
            Ok(satisfied) => satisfied,
            Err(why) => return self.refuse_result(at, seq, index, &why, out),
        };
        if let Some(worker) = miner {
            out.push(Effect::Mined(job.spec.id, Mined::Output(worker, output.clone())));
        }
        let held = self.take_hold(at, seq, index, AttemptOutcome::Completed, None, out);
        let worker = held.map(|(hold, _)| hold.worker);
        worker.into_iter().for_each(|idx| self.did_well(idx));
        let twice = self.has(Defect::EffectTwice);
        let Some(job) = self.jobs.get_mut(&seq) else { return };
        if twice {
            let _ = job.gather.take(kind, work, &part);
        }
        job.units_done += 1;
        if let Some(unit) = job.unit_mut(index) {
            unit.state = UnitState::Completed;
            unit.fraction = 1.0;
            unit.dirty = true;
        }
        if single {
            if output.len() > self.limits.result_bytes_max {
                return self.end_too_large(at, seq, out);
            }
            job.result = Some(output);
            return self.end(at, seq, JobState::Completed, None, out);
        }
        if let Ok(position) = job.units.binary_search_by_key(&index, |unit| unit.index) {
            let mut unit = job.units.remove(position);
            job.failures = job.failures.max(unit.failures);
            self.unit_rows.push(record::unit_row(job, &mut unit, &self.fleet, Some(output)));
            if let Some(idx) = worker.filter(|_| self.checks(kind.class())) {
                self.remember(idx, seq, unit);
            }
        }
        let Some(job) = self.jobs.get_mut(&seq) else { return };
        if job.gather.bytes() > self.limits.result_bytes_max {
            return self.end_too_large(at, seq, out);
        }
        if satisfied || (job.units.is_empty() && job.uncut() == 0) {
            return self.end(at, seq, JobState::Completed, None, out);
        }
        self.mark(seq);
        self.tell_progress(at, seq, 0, "", out);
        self.refresh(at, seq, 0, None, None, out);
    }

    /// The current attempt's output is no answer to its unit.
    pub(super) fn refuse_result(&mut self, at: Moment, seq: Seq, index: u32, why: &str, out: &mut Vec<Effect>) {
        let hold = self.jobs.get(&seq).and_then(|job| job.unit(index)).and_then(super::job::Unit::hold);
        let worker = hold.map(|hold| hold.worker);
        let error = JobError { code: "bad_result".into(), message: format!("the worker's result was refused: {why}") };
        let outcome = AttemptOutcome::Failed;
        let loss = Loss { outcome, error, counts: true, retryable: true, wait_ms: Some(0) };
        self.lose_unit(at, seq, index, loss, out);
        if let Some(idx) = worker {
            self.fault(at, idx, &format!("sent a result that was refused: {why}"), out);
        }
    }

    /// More than may be kept: another try would give the same.
    fn end_too_large(&mut self, at: Moment, seq: Seq, out: &mut Vec<Effect>) {
        let most = self.limits.result_bytes_max;
        let message = format!("its result is larger than the {most} bytes that are kept (FLOTA_RESULT_MAX)");
        let error = JobError { code: "result_too_large".into(), message };
        self.end(at, seq, JobState::Failed, Some(error), out);
    }

    /// The current attempt came to nothing: the unit waits, goes back to the queue, or fails with its job.
    pub(super) fn lose_unit(&mut self, at: Moment, seq: Seq, index: u32, loss: Loss, out: &mut Vec<Effect>) {
        let Loss { outcome, error, counts, retryable, wait_ms } = loss;
        if self.take_hold(at, seq, index, outcome, Some(error.clone()), out).is_none() {
            return;
        }
        let Some(job) = self.jobs.get_mut(&seq) else { return };
        let max_attempts = job.spec.max_attempts;
        let Some(unit) = job.unit_mut(index) else { return };
        unit.failures += u32::from(counts);
        // What did not get to anybody is not charged again.
        unit.granted |= !counts;
        unit.dirty = true;
        let (failures, attempt) = (unit.failures, unit.attempt);
        let retry = job.spec.retry.clone();
        let never = retry.as_ref().is_some_and(|policy| policy.never.contains(&error.code));
        let Some(unit) = job.unit_mut(index) else { return };
        if counts && (!retryable || never || failures >= max_attempts) {
            unit.state = UnitState::Failed;
            let error = if outcome == AttemptOutcome::LeaseExpired { poisonous(error, failures) } else { error };
            return self.end(at, seq, JobState::Failed, Some(error), out);
        }
        match wait_ms {
            Some(retry_after_ms) => {
                let entropy = at.entropy ^ seq.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ u64::from(index);
                let run_at = at.now.after_ms(backoff_ms(retry.as_deref(), failures, retry_after_ms, entropy));
                unit.state = UnitState::Scheduled { run_at };
                self.timers.insert((run_at, Timer::Unit(seq, index)));
                self.mark(seq);
                self.refresh(at, seq, attempt, None, Some(error), out);
            }
            None => self.requeue(at, seq, index, Some(error), out),
        }
    }

    /// A unit's hold or wait may be over.
    pub(super) fn unit_timer(&mut self, at: Moment, seq: Seq, index: u32, out: &mut Vec<Effect>) {
        let Some(unit) = self.jobs.get(&seq).and_then(|job| job.unit(index)) else { return };
        match &unit.state {
            UnitState::Scheduled { run_at } if *run_at <= at.now => self.requeue(at, seq, index, None, out),
            UnitState::Held(hold) => {
                let due = hold.timeout_at.map_or(hold.until, |timeout| timeout.min(hold.until));
                if due > at.now {
                    self.timers.insert((due, Timer::Unit(seq, index)));
                } else {
                    let hold = hold.clone();
                    self.hold_over(at, seq, index, &hold, out);
                }
            }
            UnitState::Pending
            | UnitState::Scheduled { .. }
            | UnitState::Completed
            | UnitState::Failed
            | UnitState::Cancelled => {}
        }
    }

    fn hold_over(&mut self, at: Moment, seq: Seq, index: u32, hold: &Hold, out: &mut Vec<Effect>) {
        let Some(worker) = self.fleet.get(hold.worker) else { return };
        let (name, simple) = (worker.id.clone(), worker.simple);
        let Some(id) = self.jobs.get(&seq).map(|job| job.unit_id(index)) else { return };
        let timed_out = simple || hold.timeout_at.is_some_and(|timeout| timeout <= at.now);
        if timed_out {
            let message = format!("worker {name} took longer than the attempt's timeout");
            let loss = Loss::lost(AttemptOutcome::TimedOut, true, "timeout", message);
            if simple {
                self.fell_silent(hold.worker, out);
            } else {
                self.tell_cancel(hold, id, out);
            }
            return self.lose_unit(at, seq, index, Loss { wait_ms: Some(0), ..loss }, out);
        }
        match hold.phase {
            Phase::Published => {
                self.mute(at, hold.worker, out);
                let message = format!("worker {name} did not accept it in time");
                let loss = Loss::lost(AttemptOutcome::Unanswered, false, "unanswered", message);
                self.lose_unit(at, seq, index, loss, out);
            }
            Phase::Waiting | Phase::Computing => {
                self.mute(at, hold.worker, out);
                self.tell_cancel(hold, id, out);
                let message = format!("worker {name} was not heard of for a whole lease");
                let loss = Loss::lost(AttemptOutcome::LeaseExpired, true, "lease_expired", message);
                self.lose_unit(at, seq, index, loss, out);
            }
            Phase::Checking => {
                let message = "its result was not checked in time".to_owned();
                self.lose_unit(at, seq, index, Loss::lost(AttemptOutcome::Lost, false, "unchecked", message), out);
            }
            Phase::Restored => self.lose_restored(at, seq, index, out),
        }
    }

    /// A hold from before a restart that its worker did not confirm.
    pub(super) fn lose_restored(&mut self, at: Moment, seq: Seq, index: u32, out: &mut Vec<Effect>) {
        let message = "its worker did not come back after a restart of the master".to_owned();
        let loss = Loss::lost(AttemptOutcome::Lost, false, "lost", message);
        self.lose_unit(at, seq, index, loss, out);
    }

    /// The process of a worker is gone: what it had accepted counts as failed, what it had not goes back.
    pub(super) fn lose_all_of(&mut self, at: Moment, idx: WorkerIdx, keep: &[(UnitId, u64)], out: &mut Vec<Effect>) {
        let Some(worker) = self.fleet.get(idx) else { return };
        let name = worker.id.clone();
        let held: Vec<(Seq, u32)> = worker.held.iter().copied().collect();
        let mut died = false;
        for (seq, index) in held {
            let Some(job) = self.jobs.get(&seq) else { continue };
            let Some(unit) = job.unit(index) else { continue };
            if keep.contains(&(job.unit_id(index), unit.attempt)) {
                continue;
            }
            let phase = unit.hold().map(|hold| hold.phase);
            died |= phase == Some(Phase::Computing);
            match phase {
                // Its result is here already.
                Some(Phase::Checking) => {}
                Some(Phase::Restored) => self.lose_restored(at, seq, index, out),
                Some(Phase::Computing) => {
                    let message = format!("worker {name} died while it computed this");
                    let loss = Loss::lost(AttemptOutcome::LeaseExpired, true, "worker_died", message);
                    self.lose_unit(at, seq, index, loss, out);
                }
                Some(Phase::Published | Phase::Waiting) | None => {
                    let message = format!("worker {name} died before it began this");
                    let loss = Loss::lost(AttemptOutcome::Returned, false, "worker_died", message);
                    self.lose_unit(at, seq, index, loss, out);
                }
            }
        }
        if died {
            self.fault(at, idx, "died while it computed", out);
        }
    }

    /// A simple worker let its time pass: it gets nothing until it speaks, also from the next master.
    pub(super) fn fell_silent(&mut self, idx: WorkerIdx, out: &mut Vec<Effect>) {
        let name = self.fleet.update(idx, |worker| {
            worker.silent = true;
            worker.owes = None;
            worker.id.clone()
        });
        self.dirty_workers.insert(idx);
        out.extend(name.map(Effect::Worker));
    }

    /// A worker that hands back what it was given is left alone for a moment, or it would do so again and again.
    pub(super) fn leave_alone(&mut self, at: Moment, idx: WorkerIdx) {
        let until = at.now.after_ms(HANDED_BACK_MS);
        self.fleet.update(idx, |worker| worker.muted_until = worker.muted_until.max(Some(until)));
        self.timers.insert((until, Timer::Worker(idx)));
    }

    /// A worker that does not answer, or let a lease end, is left alone for a while, longer each time, so that a deaf or
    /// hung one does not hold up the same unit again and again.
    fn mute(&mut self, at: Moment, idx: WorkerIdx, out: &mut Vec<Effect>) {
        let base = self.limits.dispatch_timeout_ms;
        let muted = self.fleet.update(idx, |worker| {
            // What was published together comes back together: that is one fault.
            if worker.muted_until.is_some_and(|until| until > at.now) {
                return None;
            }
            worker.unanswered = worker.unanswered.saturating_add(1);
            let wait = base.saturating_mul(1 << worker.unanswered.min(5)).min(MUTED_MS_MAX);
            let until = at.now.after_ms(wait);
            worker.muted_until = Some(until);
            Some(until)
        });
        if let Some(until) = muted.flatten() {
            self.timers.insert((until, Timer::Worker(idx)));
            self.fault(at, idx, "did not answer in time", out);
        }
    }

    /// Tells how far a job is, not too often.
    pub(super) fn tell_progress(&mut self, at: Moment, seq: Seq, attempt: u64, note: &str, out: &mut Vec<Effect>) {
        let Some(job) = self.jobs.get_mut(&seq) else { return };
        if at.now.since_ms(job.progress_at) < PROGRESS_MS && job.progress_at.0 != 0 {
            return;
        }
        job.progress_at = at.now;
        let what = What::Progress {
            fraction: job.fraction(),
            units_total: job.units_total(),
            units_done: job.units_done,
            note: note.to_owned(),
        };
        let event = job.record(at.now, attempt, what, self.limits.event_bytes_max);
        out.push(Effect::Event { job: job.spec.id, kind: job.spec.kind, event, last: false });
        if job.events_run_ahead() {
            self.mark(seq);
        }
    }
}

/// Says of a unit whose workers died with it that it is the likely cause.
fn poisonous(error: JobError, failures: u32) -> JobError {
    let message =
        format!("{}; it is not tried again after {failures} attempts that ended like this or failed", error.message);
    JobError { message, ..error }
}
