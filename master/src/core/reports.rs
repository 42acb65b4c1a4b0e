//! What workers report on their streams, and what simple workers answer. Everything is fenced: only the current
//! attempt of the worker that has it counts.

use bytes::Bytes;
use flota_proto::kinds::Found;
use flota_proto::rest::{AttemptOutcome, JobError};
use flota_proto::{Algorithm, Class, Kind, Timestamp, UnitId, WorkerId};

use super::fleet::{Owed, WorkerIdx};
use super::job::{Answer, Phase, Seq, Unit, UnitState, What};
use super::units::Loss;
use super::{Core, Effect, Mined, Moment};
use crate::handle::{Heartbeat, Refused, Report, StreamId, UnitFailure, UnitResult, UnitText};

/// A question that a simple worker was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Asked {
    /// Which unit.
    pub unit: UnitId,
    /// The fencing token.
    pub attempt: u64,
    /// When it was assigned.
    pub assigned_at: Timestamp,
    /// Its job still waits for the answer.
    pub wanted: bool,
}

/// Failures that say more about the worker than about the work.
const OWN_FAULTS: [&str; 4] = ["executor_panic", "internal", "out_of_memory", "out_of_threads"];
/// How much the newest measurement of a worker's speed counts.
const RATE_WEIGHT: f64 = 0.4;

impl Core {
    pub(super) fn report(&mut self, at: Moment, stream: StreamId, report: Report, out: &mut Vec<Effect>) {
        let Some(idx) = self.fleet.of_stream(stream) else { return };
        if report.accepted.is_empty() {
            self.fleet.touch(idx, at.now);
        } else {
            // An accept proves that the worker hears its topic.
            self.fleet.heard(idx, at.now);
        }
        for (unit, attempt, started) in report.accepted {
            self.accepted(at, idx, stream, unit, attempt, started, out);
        }
        for (unit, attempt, fraction, note) in report.progress {
            self.progress(at, idx, unit, attempt, fraction, &note, out);
        }
        for (unit, attempt, found) in report.found {
            self.found(idx, unit, attempt, found, out);
        }
        for text in report.deltas {
            self.delta(at, idx, text, out);
        }
        for result in report.results {
            self.result(at, idx, stream, result, out);
        }
        for failure in report.failures {
            self.failure(at, idx, stream, failure, out);
        }
        for (unit, attempt) in report.returned {
            self.returned(at, idx, unit, attempt, out);
        }
        if let Some(heartbeat) = report.heartbeat {
            self.heartbeat(at, idx, stream, heartbeat, out);
        }
    }

    #[allow(clippy::too_many_arguments)]
    fn accepted(
        &mut self,
        at: Moment,
        idx: WorkerIdx,
        stream: StreamId,
        unit: UnitId,
        attempt: u64,
        started: bool,
        out: &mut Vec<Effect>,
    ) {
        if !self.accept(at, idx, unit, attempt, started, out) {
            out.push(Effect::Cancel(stream, unit, attempt));
        }
    }

    /// A worker has an attempt, and perhaps computes it. Answers whether that is its current one.
    pub(super) fn accept(
        &mut self,
        at: Moment,
        idx: WorkerIdx,
        unit: UnitId,
        attempt: u64,
        started: bool,
        out: &mut Vec<Effect>,
    ) -> bool {
        let Some(seq) = self.current(idx, unit, attempt) else { return false };
        let until = at.now.after_ms(self.limits.lease_ms);
        let Some(job) = self.jobs.get_mut(&seq) else { return false };
        let (class, timeout_ms) = (job.spec.kind.class(), job.spec.timeout_ms);
        let Some(UnitState::Held(hold)) = job.unit_mut(unit.index).map(|unit| &mut unit.state) else { return false };
        hold.until = until;
        if hold.phase == Phase::Checking {
            return true;
        }
        let phase = match (hold.phase, started) {
            (Phase::Computing, _) | (_, true) => Phase::Computing,
            (Phase::Published | Phase::Waiting | Phase::Restored | Phase::Checking, false) => Phase::Waiting,
        };
        if hold.phase != phase {
            hold.phase = phase;
            if phase == Phase::Computing {
                let timeout_at = at.now.after_ms(timeout_ms);
                hold.timeout_at = Some(timeout_at);
                // The standing timer is at most a lease away; a shorter timeout needs one of its own.
                if timeout_at < until {
                    self.timers.insert((timeout_at, super::Timer::Unit(seq, unit.index)));
                }
            }
        }
        if class != Class::Echo {
            let waiting = self.waiting.entry(class).or_default();
            if phase == Phase::Waiting {
                waiting.insert((seq, unit.index));
            } else {
                waiting.remove(&(seq, unit.index));
            }
        }
        let worker = self.fleet.get(idx).map(|worker| worker.id.clone());
        self.refresh(at, seq, attempt, worker, None, out);
        true
    }

    #[allow(clippy::too_many_arguments)]
    fn progress(
        &mut self,
        at: Moment,
        idx: WorkerIdx,
        unit: UnitId,
        attempt: u64,
        fraction: f64,
        note: &str,
        out: &mut Vec<Effect>,
    ) {
        let Some(seq) = self.current(idx, unit, attempt) else { return };
        if let Some(found) = self.jobs.get_mut(&seq).and_then(|job| job.unit_mut(unit.index)) {
            found.fraction = if fraction.is_finite() { fraction.clamp(0.0, 1.0) } else { found.fraction };
        }
        self.tell_progress(at, seq, attempt, note, out);
    }

    /// What a unit of a source's job has found is worth something now, and perhaps nothing when the unit ends.
    fn found(&self, idx: WorkerIdx, unit: UnitId, attempt: u64, mut found: Vec<Found>, out: &mut Vec<Effect>) {
        let Some(job) = self.current(idx, unit, attempt).and_then(|seq| self.jobs.get(&seq)) else { return };
        let (Some(part), Some(worker)) = (job.unit(unit.index), self.fleet.get(idx)) else { return };
        found.retain(|found| (part.from..part.to).contains(&found.nonce));
        if job.spec.of_source() && !found.is_empty() {
            out.push(Effect::Mined(job.spec.id, Mined::Found(worker.id.clone(), found)));
        }
    }

    fn delta(&mut self, at: Moment, idx: WorkerIdx, delta: UnitText, out: &mut Vec<Effect>) {
        let UnitText { unit, attempt, seq: place, again, text } = delta;
        let Some(seq) = self.current(idx, unit, attempt) else { return };
        let Some(job) = self.jobs.get_mut(&seq) else { return };
        let Some(UnitState::Held(hold)) = job.unit_mut(unit.index).map(|unit| &mut unit.state) else { return };
        if again && hold.next_text.is_none_or(|next| place < next) {
            return;
        }
        hold.next_text = hold.next_text.max(Some(place.saturating_add(1)));
        if job.ring.back().is_some_and(|event| event.attempt < attempt) {
            // A new attempt begins its text anew.
            job.clear_ring();
        }
        let event = job.record(at.now, attempt, What::Delta { text }, self.limits.event_bytes_max);
        out.push(Effect::Event { job: job.spec.id, kind: job.spec.kind, event, last: false });
        if job.events_run_ahead() {
            self.mark(seq);
        }
    }

    fn result(&mut self, at: Moment, idx: WorkerIdx, stream: StreamId, result: UnitResult, out: &mut Vec<Effect>) {
        let (unit, attempt) = (result.unit, result.attempt);
        let seq = self.current(idx, unit, attempt);
        let checking = seq.is_some_and(|seq| self.is_checking(seq, unit.index));
        // A worker leaves out what is overtaken by the result; whoever watches sees every state all the same.
        let accepted = seq.filter(|_| !checking && self.accept(at, idx, unit, attempt, true, out));
        // What is checked is acknowledged when it counts: a worker that finds another master repeats it.
        if checking || accepted.is_some_and(|seq| self.check_result(at, idx, seq, &result, out)) {
            return;
        }
        out.push(Effect::Ack { stream, unit, attempt, applied: accepted.is_some() });
        let UnitResult { output, elapsed_ms, hashes, .. } = result;
        if let Some(seq) = accepted {
            self.count(at, idx, seq, unit.index, Answer { output, elapsed_ms, hashes }, out);
        }
    }

    fn is_checking(&self, seq: Seq, index: u32) -> bool {
        let hold = self.jobs.get(&seq).and_then(|job| job.unit(index)).and_then(Unit::hold);
        hold.is_some_and(|hold| hold.phase == Phase::Checking)
    }

    pub(super) fn measure(&mut self, idx: WorkerIdx, algorithm: Algorithm, rate: f64) {
        self.fleet.update(idx, |worker| {
            let speed = worker.speeds.entry(algorithm).or_insert(rate);
            *speed += (rate - *speed) * RATE_WEIGHT;
        });
    }

    fn failure(&mut self, at: Moment, idx: WorkerIdx, stream: StreamId, failure: UnitFailure, out: &mut Vec<Effect>) {
        let UnitFailure { unit, attempt, error, retryable, retry_after_ms, unasked } = failure;
        let seq = self.current(idx, unit, attempt);
        out.push(Effect::Ack { stream, unit, attempt, applied: seq.is_some() });
        if let Some(seq) = seq {
            self.accept(at, idx, unit, attempt, true, out);
            let own_fault = OWN_FAULTS.contains(&error.code.as_str());
            let wait_ms = Some(retry_after_ms);
            let policy = self.jobs.get(&seq).and_then(|job| job.spec.retry.as_deref());
            let never = policy.is_some_and(|policy| policy.never.contains(&error.code));
            // Who waits for a key that rests has not had its try.
            let counts = !unasked || !retryable || never;
            let loss = Loss { outcome: AttemptOutcome::Failed, error, counts, retryable, wait_ms };
            self.lose_unit(at, seq, unit.index, loss, out);
            if own_fault {
                self.fault(at, idx, "failed to compute for want of memory or by a defect", out);
            }
        }
    }

    fn returned(&mut self, at: Moment, idx: WorkerIdx, unit: UnitId, attempt: u64, out: &mut Vec<Effect>) {
        let Some(seq) = self.current(idx, unit, attempt) else { return };
        if self.take_hold(at, seq, unit.index, AttemptOutcome::Returned, None, out).is_some() {
            self.requeue(at, seq, unit.index, None, out);
            self.leave_alone(at, idx);
        }
    }

    fn heartbeat(&mut self, at: Moment, idx: WorkerIdx, stream: StreamId, heartbeat: Heartbeat, out: &mut Vec<Effect>) {
        let until = at.now.after_ms(self.limits.lease_ms);
        for (unit, attempt) in heartbeat.running {
            match self.current(idx, unit, attempt) {
                Some(seq) => {
                    let found = self.jobs.get_mut(&seq).and_then(|job| job.unit_mut(unit.index));
                    if let Some(UnitState::Held(hold)) = found.map(|unit| &mut unit.state) {
                        hold.until = hold.until.max(until);
                    }
                }
                None => out.push(Effect::Cancel(stream, unit, attempt)),
            }
        }
        self.fleet.update(idx, |worker| {
            worker.load = heartbeat.load;
            worker.hashrate = heartbeat.hashrate;
            worker.warm_keys = heartbeat.warm_keys.iter().map(|key| key.as_str().into()).collect();
            worker.computed = heartbeat.computed;
        });
    }

    pub(super) fn simple_answer(
        &mut self,
        at: Moment,
        worker: &WorkerId,
        unit: UnitId,
        attempt: u64,
        answer: Result<Bytes, JobError>,
        out: &mut Vec<Effect>,
    ) -> Result<(), Refused> {
        let idx = self.fleet.find(worker).filter(|idx| self.fleet.get(*idx).is_some_and(|worker| worker.simple));
        let stale = || Refused::Conflict("stale", "no unit of this worker waits for this answer".into());
        let idx = idx.ok_or_else(stale)?;
        let Some(seq) = self.current(idx, unit, attempt) else {
            let owed = |worker: &super::fleet::Worker| worker.owes.is_some_and(|owed| owed.is(unit, attempt));
            if !self.fleet.get(idx).is_some_and(owed) {
                return Err(stale());
            }
            // Nobody wants the answer any more, but now the worker is free.
            self.fleet.update(idx, |worker| worker.owes = None);
            return Ok(());
        };
        self.fleet.heard(idx, at.now);
        self.accept(at, idx, unit, attempt, true, out);
        match answer {
            Ok(output) => self.complete_unit(at, seq, unit.index, output, out),
            Err(error) => {
                let outcome = AttemptOutcome::Failed;
                let loss = Loss { outcome, error, counts: true, retryable: true, wait_ms: Some(0) };
                self.lose_unit(at, seq, unit.index, loss, out);
            }
        }
        Ok(())
    }

    /// The question that a simple worker has: one that it was asked, or one that was cancelled meanwhile.
    #[must_use]
    pub fn held_by_simple(&self, worker: &WorkerId) -> Option<Asked> {
        let found = self.fleet.get(self.fleet.find(worker)?).filter(|worker| worker.simple)?;
        if let Some(Owed { unit, attempt, assigned_at, .. }) = found.owes {
            return Some(Asked { unit, attempt, assigned_at, wanted: false });
        }
        let (seq, index) = *found.held.first()?;
        let job = self.jobs.get(&seq).filter(|job| job.spec.kind == Kind::AiChat)?;
        let unit = job.unit(index)?;
        let assigned_at = unit.hold()?.assigned_at;
        Some(Asked { unit: job.unit_id(index), attempt: unit.attempt, assigned_at, wanted: true })
    }

    /// What `worker` has as this attempt.
    #[must_use]
    pub fn held_part(&self, worker: &WorkerId, unit: UnitId, attempt: u64) -> Option<super::HeldPart> {
        let seq = self.current(self.fleet.find(worker)?, unit, attempt)?;
        let job = self.jobs.get(&seq)?;
        let found = job.unit(unit.index)?;
        let part = (!job.single()).then_some((found.from, found.to));
        Some(super::HeldPart { seq, part, kind: job.spec.kind, payload: job.payload.clone() })
    }
}
