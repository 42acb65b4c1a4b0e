//! Workers come, go, and are told what the operator wants.

use flota_proto::mqtt::{Register, WorkerState, WorkerStatus};
use flota_proto::{UnitId, WorkerId};

use super::fleet::{Desired, Worker, WorkerIdx};
use super::job::Phase;
use super::{Core, Effect, Moment};
use crate::handle::{Hello, Refused, StreamId, WorkerControl};

impl Core {
    pub(super) fn register(&mut self, at: Moment, register: Register, out: &mut Vec<Effect>) -> Result<(), Refused> {
        let idx = self.admit(at, &register.worker_id)?;
        self.registered(at, idx, register, out);
        Ok(())
    }

    fn admit(&mut self, at: Moment, id: &WorkerId) -> Result<WorkerIdx, Refused> {
        let most = self.limits.workers_max;
        let detail =
            format!("no room for another worker: {most} are known and none can be forgotten (FLOTA_WORKERS_MAX)");
        self.fleet.admit(id, at.now).ok_or(Refused::Busy { detail, retry_after_seconds: 5 })
    }

    fn registered(&mut self, at: Moment, idx: WorkerIdx, register: Register, out: &mut Vec<Effect>) {
        let Some(worker) = self.fleet.get(idx) else { return };
        let id = worker.id.clone();
        let full = register.protocol.is_some();
        if full && self.is_older(at, worker, &register.boot_id) {
            // An older process with the same id still talks: its stream is, or will be, told to go.
            return;
        }
        if !full && worker.stream.is_some() {
            return;
        }
        let other_process = full && !worker.boot_id.is_empty() && register.boot_id != worker.boot_id;
        if other_process && let Some(stream) = worker.stream {
            out.push(Effect::Goodbye(stream, "superseded"));
            self.fleet.update(idx, |worker| worker.stream = None);
        }
        self.fleet.update(idx, |worker| {
            worker.describe(register);
            worker.last_seen_at = at.now;
            worker.replaced |= other_process;
        });
        if self.fleet.get(idx).is_some_and(|worker| worker.dirty) {
            self.dirty_workers.insert(idx);
        }
        if let Some(worker) = self.fleet.get(idx) {
            self.queue.unpark(|shape| self.fleet.fits(worker, shape));
        }
        // A full worker is there when its stream is.
        if self.fleet.get(idx).is_some_and(Worker::online) {
            out.push(Effect::Worker(id));
        }
    }

    /// Whether a process is older than one that is there, or was a lease ago. After that it may follow all the same: on
    /// a machine whose clock was wrong the boot ids are no order.
    fn is_older(&self, at: Moment, worker: &Worker, boot_id: &str) -> bool {
        let there = worker.stream.is_some() || at.now.since_ms(worker.last_seen_at) <= self.limits.lease_ms;
        there && !worker.boot_id.is_empty() && *boot_id < *worker.boot_id
    }

    pub(super) fn status(&mut self, at: Moment, status: &WorkerStatus, out: &mut Vec<Effect>) {
        let Some(idx) = self.fleet.find(&status.worker_id) else { return };
        let Some(worker) = self.fleet.get(idx) else { return };
        let (id, before) = (worker.id.clone(), worker.state());
        if worker.simple {
            if self.fleet.update(idx, |worker| worker.simple_says(status, at.now)) == Some(true) {
                self.dirty_workers.insert(idx);
            }
        } else {
            // The master's own words about a worker name no process.
            if status.boot_id.is_empty() || status.boot_id != worker.boot_id {
                return;
            }
            self.fleet.update(idx, |worker| {
                worker.reported = Some(status.status);
                worker.last_seen_at = at.now;
                worker.load = status.load.unwrap_or(worker.load);
                worker.hashrate = status.hashrate.unwrap_or(worker.hashrate);
                worker.randomx.clone_from(&status.randomx);
                worker.algorithms.clone_from(&status.algorithms);
            });
            if status.status == WorkerState::Offline {
                self.gone(at, idx, out);
            }
        }
        if self.fleet.get(idx).is_some_and(|worker| worker.state() != before) {
            out.push(Effect::Worker(id));
        }
    }

    /// Its will says that the process is gone, and so does its stream: no need to wait for the leases.
    fn gone(&mut self, at: Moment, idx: WorkerIdx, out: &mut Vec<Effect>) {
        let gone = |worker: &Worker| {
            !worker.simple && worker.stream.is_none() && worker.reported == Some(WorkerState::Offline)
        };
        if self.fleet.get(idx).is_some_and(gone) {
            self.lose_all_of(at, idx, &[], out);
        }
    }

    pub(super) fn open(
        &mut self,
        at: Moment,
        hello: &Hello,
        stream: StreamId,
        out: &mut Vec<Effect>,
    ) -> Result<(), Refused> {
        let idx = self.admit(at, &hello.worker)?;
        let Some(worker) = self.fleet.get(idx) else { return Ok(()) };
        let (known, replaced) = (worker.boot_id.clone(), worker.replaced);
        if self.is_older(at, worker, &hello.boot_id) {
            return Err(Refused::Conflict(
                "superseded",
                format!("a newer process has the worker id {}: give this one another FLOTA_WORKER_ID", hello.worker),
            ));
        }
        if let Some(old) = worker.stream {
            let reason = if known == hello.boot_id { "replaced" } else { "superseded" };
            out.push(Effect::Goodbye(old, reason));
        }
        let other = !known.is_empty() && known != hello.boot_id;
        self.fleet.update(idx, |worker| {
            worker.simple = false;
            worker.boot_id.clone_from(&hello.boot_id);
            worker.stream = Some(stream);
            worker.connected_at = Some(at.now);
            worker.last_seen_at = at.now;
            // What an earlier process registered says nothing about this one.
            worker.registered &= !other;
            worker.replaced = false;
            worker.reported = None;
        });
        self.adopt(at, idx, hello, stream, other || replaced, out);
        out.push(Effect::Worker(hello.worker.clone()));
        Ok(())
    }

    /// What the worker lists goes on, as waiting until its report says that it has begun; what it does not list, although it had accepted it, is lost.
    fn adopt(
        &mut self,
        at: Moment,
        idx: WorkerIdx,
        hello: &Hello,
        stream: StreamId,
        restarted: bool,
        out: &mut Vec<Effect>,
    ) {
        for (unit, attempt) in &hello.running {
            if !self.accept(at, idx, *unit, *attempt, false, out) {
                out.push(Effect::Cancel(stream, *unit, *attempt));
            }
        }
        for (unit, attempt) in &hello.finished {
            self.accept(at, idx, *unit, *attempt, true, out);
        }
        let mut keep: Vec<(UnitId, u64)> = hello.running.iter().chain(&hello.finished).copied().collect();
        if !restarted {
            // Published while the stream was down: it may still come by MQTT.
            keep.extend(self.published_to(idx));
        }
        self.lose_all_of(at, idx, &keep, out);
    }

    fn published_to(&self, idx: WorkerIdx) -> Vec<(UnitId, u64)> {
        let held = self.fleet.get(idx).into_iter().flat_map(|worker| worker.held.iter());
        held.filter_map(|(seq, index)| {
            let job = self.jobs.get(seq)?;
            let unit = job.unit(*index)?;
            let published = unit.hold().is_some_and(|hold| hold.phase == Phase::Published);
            published.then(|| (job.unit_id(*index), unit.attempt))
        })
        .collect()
    }

    pub(super) fn close(&mut self, at: Moment, stream: StreamId, out: &mut Vec<Effect>) {
        let Some(idx) = self.fleet.of_stream(stream) else { return };
        let id = self.fleet.update(idx, |worker| {
            worker.stream = None;
            worker.connected_at = None;
            worker.id.clone()
        });
        self.gone(at, idx, out);
        if let Some(id) = id {
            out.push(Effect::Worker(id));
        }
    }

    pub(super) fn control(
        &mut self,
        _at: Moment,
        worker: &WorkerId,
        control: WorkerControl,
        out: &mut Vec<Effect>,
    ) -> Result<(), Refused> {
        let idx = self.fleet.find(worker).ok_or_else(|| Refused::NotFound(format!("worker {worker}")))?;
        self.fleet.update(idx, |worker| {
            worker.desired = match control {
                WorkerControl::Drain => Desired { drain: true, ..worker.desired },
                WorkerControl::Pause => Desired { paused: true, ..worker.desired },
                WorkerControl::Resume => Desired::default(),
            };
            if control == WorkerControl::Resume {
                worker.reported = None;
                worker.hears();
            }
            worker.dirty = true;
        });
        if control == WorkerControl::Resume {
            self.release_from_quarantine(idx, out);
        }
        self.dirty_workers.insert(idx);
        out.push(Effect::Desired(worker.clone(), control));
        out.push(Effect::Worker(worker.clone()));
        Ok(())
    }

    /// What the operator wants of a worker.
    #[must_use]
    pub fn desired(&self, worker: &WorkerId) -> Desired {
        self.fleet.find(worker).and_then(|idx| self.fleet.get(idx)).map(|worker| worker.desired).unwrap_or_default()
    }
}
