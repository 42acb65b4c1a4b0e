//! Brings waiting units and free workers together.

use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap};

use flota_proto::kinds::HASH_UNIT_MAX;
use flota_proto::rest::AttemptOutcome;
use flota_proto::{Class, JobId, Kind, WorkerId};

use super::fleet::{Worker, WorkerIdx};
use super::job::{Hold, Job, Phase, Seq, Unit, UnitState};
use super::queue::{Entry, REMAINDER, Rank, ShapeId};
use super::split::unit_size;
use super::{Assignment, Core, Effect, Moment, Timer};

/// Units of a class assigned at once: what is left follows in the next batch, so that leases are heard in between.
const ASSIGNED_MAX: usize = 4_000;
/// Workers named in a job.
const JOB_WORKERS_MAX: usize = 1000;

impl Core {
    /// Assigns what can be assigned now; called once after a batch of inputs.
    pub fn settle(&mut self, at: Moment, out: &mut Vec<Effect>) {
        self.more = false;
        self.fail_damaged(at, out);
        if self.fleet.take_chat_gone() {
            // Questions that name no model now fit whoever is there.
            self.queue.unpark(|shape| shape.kind.class() == Class::Ai);
        }
        for class in Class::ALL {
            self.assign_class(at, class, out);
            self.take_back(at, class, out);
        }
    }

    /// The best entry that any worker with room can take goes first, so no lower priority is served before a higher.
    fn assign_class(&mut self, at: Moment, class: Class, out: &mut Vec<Effect>) {
        if !self.fleet.has_room(class) {
            return;
        }
        let shapes: Vec<ShapeId> = self.queue.active(class).collect();
        let mut best: BinaryHeap<Reverse<(Rank, Entry, ShapeId)>> = BinaryHeap::with_capacity(shapes.len());
        for shape in shapes {
            if let Some((rank, entry)) = self.queue.top(shape) {
                best.push(Reverse((rank, entry, shape)));
            }
        }
        let mut left = ASSIGNED_MAX;
        while let Some(Reverse((rank, entry, shape))) = best.pop() {
            if left == 0 {
                self.more = true;
                return;
            }
            if !self.fleet.has_room(class) {
                return;
            }
            // Turns given to an owner through another shape may have moved this one back.
            match self.queue.top(shape) {
                Some((now, entry)) if now != rank => {
                    best.push(Reverse((now, entry, shape)));
                    continue;
                }
                Some(_) => {}
                None => continue,
            }
            // Room only shrinks in this pass: a shape that finds no worker now finds none later.
            let Some(worker) = self.fleet.best_for(self.queue.shape(shape)) else {
                if !self.fleet.any_may_fit(self.queue.shape(shape)) {
                    self.queue.park(class, shape);
                    self.watch_unserved(at, shape);
                }
                continue;
            };
            if class != Class::Ai || self.may_be_asked(at, entry, out) {
                self.assign(at, entry, worker, out);
            }
            left -= 1;
            if let Some((rank, entry)) = self.queue.top(shape) {
                best.push(Reverse((rank, entry, shape)));
            }
        }
    }

    fn assign(&mut self, at: Moment, (seq, index): Entry, idx: WorkerIdx, out: &mut Vec<Effect>) {
        let Some(worker) = self.fleet.get(idx) else { return };
        let Some(job) = self.jobs.get_mut(&seq) else { return };
        let (id, simple) = (worker.id.clone(), worker.simple);
        let (shape, priority, owner) = (job.spec.shape, job.priority, job.spec.owner.clone());
        let class = job.spec.kind.class();
        let index = if index == REMAINDER {
            let size = next_size(job, worker, self.fleet.ready_count(class));
            let (from, index) = (job.next_from, job.next_index);
            job.units.push(Unit::cut(index, from, from + size));
            job.next_from += size;
            job.next_index += 1;
            if job.uncut() == 0 {
                self.queue.remove(shape, priority, &owner, (seq, REMAINDER));
            }
            index
        } else {
            self.queue.remove(shape, priority, &owner, (seq, index));
            index
        };
        self.queue.served(shape, priority, &owner);
        self.hold(at, seq, index, idx, &id, simple, out);
    }

    #[allow(clippy::too_many_arguments)]
    fn hold(
        &mut self,
        at: Moment,
        seq: Seq,
        index: u32,
        idx: WorkerIdx,
        worker: &WorkerId,
        simple: bool,
        out: &mut Vec<Effect>,
    ) {
        let Some(job) = self.jobs.get_mut(&seq) else { return };
        let (single, unit_id) = (job.single(), job.unit_id(index));
        let (kind, timeout_ms) = (job.spec.kind, job.spec.timeout_ms);
        let credential = self.queue.shape(job.spec.shape).credential;
        let own_key_only = credential && self.meter.own_key_only(seq);
        let until = at.now.after_ms(if simple { timeout_ms } else { self.limits.dispatch_timeout_ms });
        if job.started_at.is_none() {
            job.started_at = Some(at.now);
        }
        if !job.workers.contains(worker) && job.workers.len() < JOB_WORKERS_MAX {
            job.workers.push(worker.clone());
        }
        let (payload, above) = (job.payload.clone(), self.attempts_above);
        let Some(unit) = job.unit_mut(index) else { return };
        unit.attempt = unit.attempt.max(above) + 1;
        unit.fraction = 0.0;
        unit.granted = false;
        unit.dirty = true;
        unit.state = UnitState::Held(Hold {
            worker: idx,
            assigned_at: at.now,
            phase: Phase::Published,
            until,
            timeout_at: None,
            answer: None,
            next_text: Some(0),
        });
        let (attempt, failures, part) = (unit.attempt, unit.failures, (unit.from, unit.to));
        self.fleet.hold(idx, kind.class(), (seq, index));
        self.active.insert(seq);
        self.timers.insert((until, Timer::Unit(seq, index)));
        self.mark(seq);
        out.push(Effect::Publish(Box::new(Assignment {
            worker: worker.clone(),
            simple,
            seq,
            unit: unit_id,
            attempt,
            kind,
            part: (!single).then_some(part),
            timeout_ms,
            failures,
            credential,
            own_key_only,
            assigned_at: at.now,
            payload,
        })));
        self.refresh(at, seq, attempt, Some(worker.clone()), None, out);
    }

    /// Where nothing waits and a worker is idle, it gets a unit that waits at another worker beyond its slots.
    fn take_back(&mut self, at: Moment, class: Class, out: &mut Vec<Effect>) {
        if self.waiting.get(&class).is_none_or(BTreeSet::is_empty) || self.queue.active(class).next().is_some() {
            return;
        }
        let idle: Vec<WorkerIdx> = self.fleet.with_free_slot(class).take(16).collect();
        for idx in idle {
            if self.fleet.get(idx).is_none_or(|worker| worker.held_of(class) > 0) {
                continue;
            }
            let waiting = self.waiting.get(&class).into_iter().flatten();
            let Some((seq, index)) = waiting.copied().find(|unit| self.better_at(idx, *unit)) else { continue };
            let attempt = self.jobs.get(&seq).and_then(|job| job.unit(index)).map_or(0, |unit| unit.attempt);
            if let Some((hold, id)) = self.take_hold(at, seq, index, AttemptOutcome::Returned, None, out) {
                if let Some(stream) = self.fleet.get(hold.worker).and_then(|worker| worker.stream) {
                    out.push(Effect::TakeBack(stream, id, attempt));
                }
                self.requeue(at, seq, index, None, out);
                self.assign(at, (seq, index), idx, out);
            }
        }
    }

    /// Whether an idle worker could begin a unit sooner than the one at which it waits behind others.
    fn better_at(&self, idx: WorkerIdx, (seq, index): (Seq, u32)) -> bool {
        let Some(job) = self.jobs.get(&seq) else { return false };
        let Some(hold) = job.unit(index).and_then(Unit::hold) else { return false };
        let class = job.spec.kind.class();
        let behind = |holder: &Worker| holder.held_of(class) > holder.slots.get(&class).copied().unwrap_or(0);
        hold.worker != idx
            && self.fleet.get(hold.worker).is_some_and(behind)
            && self.fleet.get(idx).is_some_and(|worker| self.fleet.fits(worker, self.queue.shape(job.spec.shape)))
    }

    /// The place from 1 of a job that waits because no worker is free; `None` when it does not wait for that.
    #[must_use]
    pub fn position(&self, id: JobId) -> Option<u64> {
        let job = self.jobs.get(self.by_id.get(&id)?)?;
        let waits = job.state == flota_proto::rest::JobState::Pending;
        waits.then(|| self.queue.depth_from(job.spec.kind.class(), job.priority).max(1))
    }
}

/// How much of what is not cut yet of a job `worker` gets, one of so many.
fn next_size(job: &Job, worker: &Worker, workers: usize) -> u64 {
    let uncut = job.uncut();
    let (algorithm, most) = match job.spec.kind {
        Kind::Hash(algorithm) => (algorithm, HASH_UNIT_MAX),
        Kind::Search(algorithm) => (algorithm, algorithm.search_unit_max()),
        Kind::AiChat | Kind::AiEmbed | Kind::Echo => return uncut,
    };
    let speed = worker.speeds.get(&algorithm).copied();
    let size = unit_size(uncut, speed, worker.power() * algorithm.assumed_rate(), workers);
    size.min(most).min(job.spec.unit_max.unwrap_or(u64::MAX))
}
