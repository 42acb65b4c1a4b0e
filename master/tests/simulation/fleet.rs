//! What full workers do, and what goes wrong with them, the master and the broker.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};

use flota_master::core::{Assignment, Input, Verify};
use flota_master::handle::{Heartbeat, Report, StreamId, UnitFailure, UnitResult, UnitText, WorkerControl};
use flota_proto::mqtt::{WorkerState, WorkerStatus};
use flota_proto::rest::JobError;
use flota_proto::{Kind, UnitId, WorkerId};
use rand::Rng;

use crate::trouble::Trouble;
use crate::worker::{Held, SimWorker};
use crate::world::{Message, ToMaster, ToWorker, World};

fn text(unit: UnitId, attempt: u64, seq: u64, again: bool) -> UnitText {
    UnitText { unit, attempt, seq, again, text: seq.to_string() }
}

impl World {
    pub fn master_hears(&mut self, index: usize, boot: u64, stream: Option<StreamId>, what: ToMaster) {
        if self.workers[index].boot != boot {
            return;
        }
        match what {
            ToMaster::Register => {
                let register = Box::new(self.workers[index].register());
                self.input(Input::Register(register));
            }
            ToMaster::Open => self.open(index),
            ToMaster::Report(report) => {
                // A stream is in order and whole as long as it is open.
                if let Some(stream) = stream.filter(|stream| self.streams.contains_key(stream)) {
                    self.input(Input::Report(stream, report));
                }
            }
        }
    }

    fn open(&mut self, index: usize) {
        let stream = StreamId(self.next_stream);
        self.next_stream += 1;
        let hello = self.workers[index].hello();
        self.streams.insert(stream, index);
        self.workers[index].stream = Some(stream);
        self.note(format!("{} opens its stream", hello.worker));
        let worker = hello.worker.clone();
        if !self.input(Input::Open(hello, stream)) {
            self.streams.remove(&stream);
            self.workers[index].stream = None;
        } else if self.streams.contains_key(&stream) {
            let desired = self.core.desired(&worker);
            self.workers[index].resting = desired.drain || desired.paused;
            self.text_again(index);
        }
    }

    pub fn worker_hears(&mut self, id: &WorkerId, stream: StreamId, what: ToWorker) {
        let listens = |worker: &&mut SimWorker| worker.id == *id && worker.stream == Some(stream);
        let Some(worker) = self.workers.iter_mut().find(listens) else { return };
        match what {
            ToWorker::Ack(unit, attempt) => drop(worker.finished.remove(&(unit, attempt))),
            ToWorker::Cancel(unit, attempt) => drop(worker.held.remove(&(unit, attempt))),
            ToWorker::Goodbye => worker.stream = None,
        }
    }

    /// Drained it takes nothing new, paused it also hands back what runs.
    pub fn worker_wanted(&mut self, id: &WorkerId, control: WorkerControl) {
        let Some(index) = self.workers.iter().position(|worker| worker.id == *id) else { return };
        let worker = &mut self.workers[index];
        worker.resting = control != WorkerControl::Resume;
        if control == WorkerControl::Pause {
            let returned = std::mem::take(&mut worker.held).into_keys().collect();
            self.report(index, Report { returned, ..Report::default() });
        }
    }

    pub fn take_task(&mut self, assignment: Assignment) {
        let Some(index) = self.workers.iter().position(|worker| worker.id == assignment.worker) else { return };
        let key = (assignment.unit, assignment.attempt);
        let mut hash = DefaultHasher::new();
        key.hash(&mut hash);
        let before = self.by_chance_of(hash.finish());
        let held = self.work(index, &assignment);
        self.rng = before;
        let worker = &mut self.workers[index];
        if worker.held.contains_key(&key) || worker.finished.contains_key(&key) {
            return;
        }
        if worker.resting {
            return self.report(index, Report { returned: vec![key], ..Report::default() });
        }
        worker.held.insert(key, held);
        let started = assignment.unit.index.is_multiple_of(2);
        let report = Report { accepted: vec![(key.0, key.1, started)], ..Report::default() };
        self.report(index, report);
    }

    /// What an attempt will have been, which hangs on nothing but itself.
    fn work(&mut self, index: usize, assignment: &Assignment) -> Held {
        let slow = if self.workers[index].slow { 30 } else { 1 };
        let work_ms = slow * self.rng.random_range(10..4000);
        let fails = self.trouble(Trouble::UnitsFail, 8);
        let finds = assignment.part.filter(|_| self.chance(3)).map(|(from, _)| from);
        // The last worker lies now and then, where somebody looks.
        let may_lie = self.faults && self.limits.verify != Verify::Off && index + 1 == self.workers.len();
        let lies = may_lie && self.chance(20);
        let finds = finds.or(assignment.part.filter(|_| lies).map(|(from, _)| from));
        Held {
            kind: assignment.kind,
            part: assignment.part,
            done_at: self.now.after_ms(work_ms),
            fails,
            finds,
            lies,
            texts: 0,
        }
    }

    fn report(&mut self, index: usize, report: Report) {
        let worker = &self.workers[index];
        let (boot, stream) = (worker.boot, worker.stream);
        let what = ToMaster::Report(Box::new(report));
        self.send(1, Message::ToMaster { worker: index, boot, stream, what });
    }

    /// One moment of a worker: connects, finishes what is due, tells how far it is, beats.
    pub fn live(&mut self, index: usize) {
        if self.workers[index].hung {
            return;
        }
        let boot = self.workers[index].boot;
        if self.workers[index].stream.is_none() {
            if self.chance(20) {
                let order = if self.chance(50) {
                    [ToMaster::Open, ToMaster::Register]
                } else {
                    [ToMaster::Register, ToMaster::Open]
                };
                for what in order {
                    self.send(1, Message::ToMaster { worker: index, boot, stream: None, what });
                }
                // Where the stream was opened first, the registration of an earlier process says nothing.
            }
            return;
        }
        let now = self.now;
        self.workers[index].finish_due(now);
        if !self.workers[index].finished.is_empty() {
            let report = self.workers[index].results();
            self.report(index, report);
        }
        if self.chance(10) {
            self.tell_more(index);
        }
        if self.trouble(Trouble::WorkersLie, 2) {
            self.lie(index);
        }
        if self.chance(30) {
            let report = self.workers[index].heartbeat();
            self.report(index, report);
        }
    }

    fn tell_more(&mut self, index: usize) {
        let mut report = Report::default();
        for ((unit, attempt), held) in &mut self.workers[index].held {
            if held.kind == Kind::AiChat {
                report.deltas.push(text(*unit, *attempt, held.texts, false));
                held.texts += 1;
            } else {
                report.progress.push((*unit, *attempt, 0.5, "half".into()));
            }
        }
        self.report(index, report);
    }

    /// On a new stream it sends its text again, as it does not know what arrived.
    fn text_again(&mut self, index: usize) {
        let held = self.workers[index].held.iter();
        let deltas = held.flat_map(|((unit, attempt), held)| (0..held.texts).map(|n| text(*unit, *attempt, n, true)));
        let report = Report { deltas: deltas.collect(), ..Report::default() };
        self.report(index, report);
    }

    /// Says something that is not so, of a unit and an attempt that it may never have had. What it claims as a result is none.
    fn lie(&mut self, index: usize) {
        let known: Vec<UnitId> = self.newest.keys().copied().collect();
        if known.is_empty() {
            return;
        }
        let unit = known[self.rng.random_range(0..known.len())];
        let attempt = self.rng.random_range(0..self.newest[&unit] + 3);
        let mut report = Report::default();
        let lie = self.rng.random_range(0..7);
        if matches!(lie, 4 | 5) {
            self.lied.insert((unit, attempt));
        }
        match lie {
            0 => {
                let running = vec![(unit, attempt)];
                report.heartbeat = Some(Heartbeat { running, hashrate: f64::NAN, ..Heartbeat::default() });
            }
            1 => report.accepted.push((unit, attempt, true)),
            2 => report.returned.push((unit, attempt)),
            3 => report.progress.push((unit, attempt, f64::INFINITY, "nearly".into())),
            4 => {
                let output = "nonsense".into();
                report.results.push(UnitResult { unit, attempt, output, elapsed_ms: 0, hashes: u64::MAX });
            }
            5 => {
                let error = JobError { code: "lie".into(), message: "it did not".into() };
                report.failures.push(UnitFailure {
                    unit,
                    attempt,
                    error,
                    retryable: true,
                    retry_after_ms: 60_000,
                    unasked: false,
                });
            }
            _ => {
                let states = [WorkerState::Idle, WorkerState::Paused, WorkerState::Draining, WorkerState::Offline];
                let state = states[self.rng.random_range(0..states.len())];
                let status = self.status_of(index, state);
                self.input(Input::Status(status));
                return;
            }
        }
        self.note(format!("w{index} lies: {report:?}"));
        self.report(index, report);
    }

    pub fn fault(&mut self) {
        let index = self.rng.random_range(0..self.workers.len());
        match self.rng.random_range(0..400) {
            0..4 if self.may(Trouble::WorkersDie) => self.worker_dies(index),
            4..8 if self.may(Trouble::StreamsBreak) => {
                self.note(format!("w{index} loses its stream"));
                if let Some(stream) = self.workers[index].stream.take() {
                    self.close(stream);
                }
            }
            8..11 if self.may(Trouble::WorkersHang) => {
                self.note(format!("w{index} hangs"));
                self.workers[index].hung = true;
            }
            11..20 => {
                self.workers[index].hung = false;
                self.workers[index].slow = false;
            }
            20..22 if self.may(Trouble::TheMasterRestarts) => {
                self.note("the master restarts".into());
                self.restart();
            }
            22..24 if self.may(Trouble::TheClockJumps) => {
                let by_ms = self.rng.random_range(1_000..600_000);
                let by_ms = if self.chance(50) { by_ms } else { -by_ms };
                self.set_clock(by_ms);
            }
            24..26 if self.may(Trouble::TheBrokerForgets) => {
                self.note("the broker forgets everything".into());
                self.network.retain(|_, message| !matches!(message, Message::Task(_)));
            }
            26..34 if self.may(Trouble::OperatorsDrainAndPause) => {
                let wanted = [WorkerControl::Drain, WorkerControl::Pause, WorkerControl::Resume, WorkerControl::Resume];
                let control = wanted[self.rng.random_range(0..wanted.len())];
                self.input(Input::Control(self.workers[index].id.clone(), control));
            }
            34..36 if self.may(Trouble::SimpleWorkersDie) => {
                let index = self.rng.random_range(0..self.simple.len());
                self.note(format!("{} dies", self.simple[index].id));
                self.simple[index].die();
            }
            36..38 if self.may(Trouble::TheDiskIsFullForAWhile) => {
                self.note("the disk is full".into());
                self.full_until = self.now.after_ms(self.rng.random_range(500..6000));
            }
            38..41 if self.may(Trouble::WorkersAreSlow) => {
                self.note(format!("w{index} is slow"));
                self.workers[index].slow = true;
            }
            _ => {}
        }
    }

    fn status_of(&self, index: usize, status: WorkerState) -> WorkerStatus {
        let worker = &self.workers[index];
        serde_json::from_value(serde_json::json!({
            "worker_id": worker.id, "status": status, "timestamp": self.now, "boot_id": worker.boot_id(),
        }))
        .expect("a status")
    }

    /// Its finished results may lie on its disk; the broker may publish its will, sooner or later.
    fn worker_dies(&mut self, index: usize) {
        self.note(format!("w{index} dies"));
        let keeps = self.chance(50);
        let worker = &mut self.workers[index];
        let (id, boot_id, stream) = (worker.id.clone(), worker.boot_id(), worker.stream);
        worker.die(keeps);
        if let Some(stream) = stream {
            self.close(stream);
        }
        if self.chance(70) {
            let will = WorkerStatus {
                worker_id: id,
                status: WorkerState::Offline,
                timestamp: self.now,
                boot_id,
                slots: BTreeMap::new(),
                running: BTreeMap::new(),
                hashrate: None,
                algorithms: std::collections::BTreeMap::new(),
                randomx: None,
                load: None,
            };
            let delay = self.delay();
            self.send(delay, Message::Said(Box::new(Input::Status(will))));
        }
    }

    fn close(&mut self, stream: StreamId) {
        self.streams.remove(&stream);
        self.input(Input::Close(stream));
    }

    pub fn stop_faults(&mut self) {
        self.faults = false;
        self.set_clock(-self.clock_ms);
        for index in 0..self.workers.len() {
            self.workers[index].hung = false;
            self.workers[index].slow = false;
            self.input(Input::Control(self.workers[index].id.clone(), WorkerControl::Resume));
        }
    }
}
