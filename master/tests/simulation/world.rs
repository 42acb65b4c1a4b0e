//! The world of one seed: a master over a disk, workers, a network that loses and doubles, and things that go wrong.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;
use flota_master::core::{Assignment, Core, Dependency, Effect, Input, Limits, Moment, What};
use flota_master::handle::{Report, StreamId};
use flota_master::submit::{NewJob, Work};
use flota_proto::rest::{JobState, OnDependencyFailure, Requires};
use flota_proto::{JobId, Kind, Timestamp, UnitId, WorkerId};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use uuid::Uuid;

use crate::disk::Disk;
use crate::worker::{Held, SimWorker};

const START: Timestamp = Timestamp(1_795_254_600_000);
const WORKERS: usize = 4;
/// Steps with faults; then the faults stop.
const STEPS: u64 = 600;
/// By then everything must have ended.
const STEPS_AFTER: u64 = 40_000;

/// Something on its way.
enum Message {
    Task(Box<Assignment>),
    ToMaster { worker: usize, boot: u64, stream: Option<StreamId>, what: ToMaster },
    ToWorker { worker: WorkerId, stream: StreamId, what: ToWorker },
}

enum ToMaster {
    Register,
    Open,
    Report(Box<Report>),
}

#[derive(Clone)]
enum ToWorker {
    Ack(UnitId, u64),
    Cancel(UnitId, u64),
    Goodbye,
}

/// What was promised about a job.
struct Promise {
    kind: Kind,
    work: Work,
    /// Its user was told that it is cancelled.
    cancelled: bool,
}

pub struct World {
    seed: u64,
    rng: StdRng,
    now: Timestamp,
    core: Core,
    disk: Disk,
    workers: Vec<SimWorker>,
    network: BTreeMap<(Timestamp, u64), Message>,
    next_message: u64,
    next_stream: u64,
    /// Which worker has which open stream at the master.
    streams: BTreeMap<StreamId, usize>,
    promised: BTreeMap<JobId, Promise>,
    /// Units of which a result counted, while its acknowledgement was let out.
    completed: BTreeSet<UnitId>,
    ended: BTreeSet<JobId>,
    faults: bool,
    history: Vec<String>,
}

impl World {
    pub fn new(seed: u64) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let workers = (0..WORKERS).map(|index| SimWorker::new(index, rng.random_range(1..8))).collect();
        Self {
            seed,
            rng,
            now: START,
            core: Core::new(Limits::default()),
            disk: Disk::default(),
            workers,
            network: BTreeMap::new(),
            next_message: 0,
            next_stream: 1,
            streams: BTreeMap::new(),
            promised: BTreeMap::new(),
            completed: BTreeSet::new(),
            ended: BTreeSet::new(),
            faults: true,
            history: Vec::new(),
        }
    }

    /// Runs the seed to its end; panics with the history where an invariant does not hold.
    pub fn run(mut self) {
        for _ in 0..STEPS {
            self.step();
        }
        self.faults = false;
        for worker in &mut self.workers {
            worker.hung = false;
        }
        for _ in 0..STEPS_AFTER {
            if self.ended.len() == self.promised.len() {
                break;
            }
            self.step();
        }
        self.check_end();
    }

    fn step(&mut self) {
        self.now = self.now.after_ms(self.rng.random_range(1..400));
        self.deliver();
        for index in 0..self.workers.len() {
            self.live(index);
        }
        if self.faults {
            self.user();
            self.fault();
        }
        if self.core.next_deadline().is_some_and(|due| due <= self.now) {
            self.input(Input::Tick);
        }
        if let Err(wrong) = self.core.audit() {
            self.fail(&wrong);
        }
    }

    fn fail(&self, what: &str) -> ! {
        let from = self.history.len().saturating_sub(60);
        panic!(
            "seed {}: {what}\nlast of what happened:\n{}\nreplay: FLOTA_SIM_SEED={} cargo test -p flota-master --test simulation",
            self.seed,
            self.history[from..].join("\n"),
            self.seed
        );
    }

    fn note(&mut self, what: String) {
        self.history.push(format!("{:>8} {what}", self.now.since_ms(START)));
    }

    fn chance(&mut self, percent: u32) -> bool {
        self.rng.random_range(0..100) < percent
    }

    fn send(&mut self, delay_ms: u64, message: Message) {
        self.next_message += 1;
        self.network.insert((self.now.after_ms(delay_ms), self.next_message), message);
    }

    fn delay(&mut self) -> u64 {
        if self.faults && self.chance(5) { self.rng.random_range(0..8000) } else { self.rng.random_range(0..200) }
    }

    // The master

    /// One batch of one input: applied, committed, released; each of which can go wrong.
    fn input(&mut self, input: Input) -> bool {
        let at = Moment { now: self.now, entropy: self.rng.random() };
        let mut effects = match self.core.handle(at, input) {
            Ok(effects) => effects,
            Err(_) => return false,
        };
        if self.faults && self.chance(1) {
            self.note("the commit fails".into());
            self.restart();
            return false;
        }
        self.disk.commit(self.core.take_changes());
        self.core.forget_ended();
        if self.faults && self.chance(1) {
            self.note("the master dies between commit and effects".into());
            effects.clear();
            self.restart();
            return true;
        }
        for effect in effects {
            self.release(effect);
        }
        true
    }

    fn restart(&mut self) {
        self.core = self.disk.restore(Limits::default(), self.now);
        self.streams.clear();
        for worker in &mut self.workers {
            worker.stream = None;
        }
        // What ended in the batch whose effects were lost is on the disk all the same.
        let ended: Vec<JobId> = self
            .promised
            .keys()
            .filter(|id| self.disk.job(**id).is_some_and(|job| job.row.state.ended()))
            .copied()
            .collect();
        self.ended.extend(ended);
    }

    fn release(&mut self, effect: Effect) {
        match effect {
            Effect::Publish(assignment) => self.publish(*assignment),
            Effect::Ack { stream, unit, attempt, applied } => {
                if applied {
                    self.note(format!("{unit} attempt {attempt} counts"));
                    self.counts(unit, attempt);
                }
                self.send_to_worker(stream, ToWorker::Ack(unit, attempt));
            }
            Effect::Cancel(stream, unit, attempt) | Effect::TakeBack(stream, unit, attempt) => {
                self.send_to_worker(stream, ToWorker::Cancel(unit, attempt));
            }
            Effect::Goodbye(stream, _) => {
                self.send_to_worker(stream, ToWorker::Goodbye);
                self.streams.remove(&stream);
            }
            Effect::Event { job, event, last, .. } => {
                if let What::State { state, .. } = event.what {
                    self.note(format!("{job} is {}", state.as_str()));
                    if last && !self.ended.insert(job) {
                        self.fail(&format!("job {job} ended twice"));
                    }
                }
            }
            Effect::Ended(_) | Effect::Worker(_) | Effect::Desired(..) | Effect::Attempt(_) | Effect::Hashes(_) => {}
        }
    }

    /// A failure may count again and again, a result of a unit only once.
    fn counts(&mut self, unit: UnitId, attempt: u64) {
        let finished = self.workers.iter().find_map(|worker| worker.finished.get(&(unit, attempt)));
        if finished.is_some_and(|held| !held.fails) && !self.completed.insert(unit) {
            self.fail(&format!("a result of {unit} counted twice"));
        }
    }

    fn publish(&mut self, assignment: Assignment) {
        let stored = self.disk.attempt(assignment.seq, assignment.unit.index);
        if stored != assignment.attempt {
            let unit = assignment.unit;
            self.fail(&format!("{unit} was published as attempt {} but stored is {stored}", assignment.attempt));
        }
        self.note(format!("{} attempt {} to {}", assignment.unit, assignment.attempt, assignment.worker));
        if self.faults && self.chance(5) {
            return;
        }
        if self.faults && self.chance(5) {
            let delay = self.delay();
            self.send(delay, Message::Task(Box::new(assignment.clone())));
        }
        let delay = self.delay();
        self.send(delay, Message::Task(Box::new(assignment)));
    }

    fn send_to_worker(&mut self, stream: StreamId, what: ToWorker) {
        let Some(index) = self.streams.get(&stream) else { return };
        let worker = self.workers[*index].id.clone();
        let delay = self.rng.random_range(0..100);
        self.send(delay, Message::ToWorker { worker, stream, what });
    }

    // The network

    fn deliver(&mut self) {
        while let Some(entry) = self.network.first_entry() {
            if entry.key().0 > self.now {
                return;
            }
            match entry.remove() {
                Message::Task(assignment) => self.take_task(*assignment),
                Message::ToMaster { worker, boot, stream, what } => self.arrives_at_master(worker, boot, stream, what),
                Message::ToWorker { worker, stream, what } => self.worker_hears(&worker, stream, what),
            }
        }
    }

    fn arrives_at_master(&mut self, index: usize, boot: u64, stream: Option<StreamId>, what: ToMaster) {
        if self.workers[index].boot != boot {
            return;
        }
        match what {
            ToMaster::Register => {
                let register = Box::new(self.workers[index].register());
                self.input(Input::Register(register));
            }
            ToMaster::Open => {
                let stream = StreamId(self.next_stream);
                self.next_stream += 1;
                let hello = self.workers[index].hello();
                self.streams.insert(stream, index);
                self.workers[index].stream = Some(stream);
                self.note(format!("{} opens its stream", hello.worker));
                if !self.input(Input::Open(hello, stream)) {
                    self.streams.remove(&stream);
                    self.workers[index].stream = None;
                }
            }
            ToMaster::Report(report) => {
                // A stream is in order and whole as long as it is open.
                if let Some(stream) = stream.filter(|stream| self.streams.contains_key(stream)) {
                    self.input(Input::Report(stream, report));
                }
            }
        }
    }

    fn worker_hears(&mut self, id: &WorkerId, stream: StreamId, what: ToWorker) {
        let Some(worker) = self.workers.iter_mut().find(|worker| worker.id == *id && worker.stream == Some(stream))
        else {
            return;
        };
        match what {
            ToWorker::Ack(unit, attempt) => drop(worker.finished.remove(&(unit, attempt))),
            ToWorker::Cancel(unit, attempt) => drop(worker.held.remove(&(unit, attempt))),
            ToWorker::Goodbye => worker.stream = None,
        }
    }

    // The workers

    fn take_task(&mut self, assignment: Assignment) {
        let Some(index) = self.workers.iter().position(|worker| worker.id == assignment.worker) else { return };
        let key = (assignment.unit, assignment.attempt);
        let work_ms = self.rng.random_range(10..4000);
        let fails = self.faults && self.chance(8);
        let finds = assignment.part.filter(|_| self.chance(3)).map(|(from, _)| from);
        let worker = &mut self.workers[index];
        if worker.held.contains_key(&key) || worker.finished.contains_key(&key) {
            return;
        }
        let held =
            Held { kind: assignment.kind, part: assignment.part, done_at: self.now.after_ms(work_ms), fails, finds };
        worker.held.insert(key, held);
        let started = assignment.unit.index.is_multiple_of(2);
        let report = Report { accepted: vec![(key.0, key.1, started)], ..Report::default() };
        self.report(index, report);
    }

    fn report(&mut self, index: usize, report: Report) {
        let worker = &self.workers[index];
        let (boot, stream) = (worker.boot, worker.stream);
        let what = ToMaster::Report(Box::new(report));
        self.send(1, Message::ToMaster { worker: index, boot, stream, what });
    }

    /// One moment of a worker: connects, finishes what is due, beats.
    fn live(&mut self, index: usize) {
        if self.workers[index].hung {
            return;
        }
        let boot = self.workers[index].boot;
        if self.workers[index].stream.is_none() {
            if self.chance(20) {
                for what in [ToMaster::Open, ToMaster::Register] {
                    self.send(1, Message::ToMaster { worker: index, boot, stream: None, what });
                }
            }
            return;
        }
        let now = self.now;
        let worker = &mut self.workers[index];
        let due: Vec<_> = worker.held.iter().filter(|(_, held)| held.done_at <= now).map(|(key, _)| *key).collect();
        for key in due {
            if let Some(held) = worker.held.remove(&key) {
                worker.finished.insert(key, held);
            }
        }
        if !worker.finished.is_empty() {
            let report = worker.results();
            self.report(index, report);
        }
        if self.chance(30) {
            let report = self.workers[index].heartbeat();
            self.report(index, report);
        }
    }

    // What goes wrong

    fn fault(&mut self) {
        let index = self.rng.random_range(0..self.workers.len());
        match self.rng.random_range(0..400) {
            0..4 => {
                self.note(format!("w{index} dies"));
                let stream = self.workers[index].stream;
                self.workers[index].die();
                if let Some(stream) = stream {
                    self.close(stream);
                }
            }
            4..8 => {
                self.note(format!("w{index} loses its stream"));
                if let Some(stream) = self.workers[index].stream.take() {
                    self.close(stream);
                }
            }
            8..11 => {
                self.note(format!("w{index} hangs"));
                self.workers[index].hung = true;
            }
            11..20 => self.workers[index].hung = false,
            20..22 => {
                self.note("the master restarts".into());
                self.restart();
            }
            22..24 => {
                self.note("the clock jumps".into());
                self.now = self.now.after_ms(20_000);
            }
            24..26 => {
                self.note("the broker forgets everything".into());
                self.network.retain(|_, message| !matches!(message, Message::Task(_)));
            }
            _ => {}
        }
    }

    fn close(&mut self, stream: StreamId) {
        self.streams.remove(&stream);
        self.input(Input::Close(stream));
    }

    // The users

    fn user(&mut self) {
        if self.chance(15) {
            self.submit();
        }
        if self.chance(2)
            && let Some(id) = self.some_live_job()
            && self.input(Input::Cancel(id))
        {
            self.note(format!("{id} is cancelled by its user"));
            if let Some(promise) = self.promised.get_mut(&id) {
                promise.cancelled = true;
            }
        }
        if self.chance(2)
            && let Some(id) = self.some_live_job()
        {
            let priority = self.rng.random_range(0..10);
            self.input(Input::SetPriority(id, priority));
        }
    }

    fn some_live_job(&mut self) -> Option<JobId> {
        let live: Vec<JobId> = self.promised.keys().filter(|id| !self.ended.contains(id)).copied().collect();
        (!live.is_empty()).then(|| live[self.rng.random_range(0..live.len())])
    }

    fn submit(&mut self) {
        let (kind, work) = match self.rng.random_range(0..10) {
            0..6 => (Kind::Echo, Work::Single),
            6..8 => {
                let start = self.rng.random_range(0..100);
                let end = start + self.rng.random_range(1..300);
                (Kind::RandomxSearch, Work::Range { start, end, first: self.chance(40) })
            }
            _ => (Kind::RandomxHash, Work::List(self.rng.random_range(1..100))),
        };
        let dependency = if self.chance(15) { self.some_live_job() } else { None };
        let delayed = self.chance(10);
        let id = JobId(Uuid::from_u128(self.rng.random()));
        let policy = [OnDependencyFailure::Fail, OnDependencyFailure::Cancel, OnDependencyFailure::Continue];
        let on_dependency_failure = policy[self.rng.random_range(0..policy.len())];
        let job = NewJob {
            id,
            fingerprint: None,
            kind,
            payload: Bytes::from_static(b"{}"),
            work,
            model: None,
            randomx_key: None,
            queue: "q".into(),
            project: None,
            priority: self.rng.random_range(0..10),
            max_attempts: self.rng.random_range(1..6),
            timeout: Duration::from_secs(self.rng.random_range(5..100)),
            deadline: None,
            run_at: delayed.then(|| self.now.after_ms(5000)),
            requires: Requires { cores: self.chance(10).then_some(1), ..Requires::default() },
            depends_on: dependency.into_iter().collect(),
            on_dependency_failure,
            labels: BTreeMap::new(),
            cache: false,
            owner: format!("o{}", self.rng.random_range(0..3)),
            api_key: None,
        };
        let dependencies = dependency.map(|id| Dependency { id, ended: None }).into_iter().collect();
        self.note(format!("{id} {kind} is submitted"));
        // Promised only once it is stored; a failed commit answers with an error.
        self.promised.insert(id, Promise { kind, work, cancelled: false });
        if !self.input(Input::Submit { job: Box::new(job), dependencies }) {
            self.promised.remove(&id);
            self.ended.remove(&id);
        }
    }

    // The end

    fn check_end(&mut self) {
        let ids: Vec<JobId> = self.promised.keys().copied().collect();
        for id in ids {
            let Some(stored) = self.disk.job(id) else { self.fail(&format!("job {id} was accepted and is lost")) };
            let promise = &self.promised[&id];
            match stored.row.state {
                JobState::Cancelled | JobState::Failed => {}
                state if promise.cancelled => {
                    self.fail(&format!("job {id} was cancelled and is {}", state.as_str()));
                }
                JobState::Completed => self.check_result(id, promise, stored.row.result.as_deref()),
                state => self.fail(&format!("job {id} did not end: it is {}", state.as_str())),
            }
        }
    }

    fn check_result(&self, id: JobId, promise: &Promise, result: Option<&[u8]>) {
        let Some(result) = result else { self.fail(&format!("job {id} completed without a result")) };
        let json: serde_json::Value = serde_json::from_slice(result).expect("a result is JSON");
        match (promise.kind, promise.work) {
            (Kind::RandomxSearch, Work::Range { start, end, first }) => {
                let whole = serde_json::json!([[start, end]]);
                let found = json["found"].as_array().is_some_and(|found| !found.is_empty());
                if json["covered"] != whole && !(first && found) {
                    self.fail(&format!("job {id} covered {} of {whole}", json["covered"]));
                }
            }
            (Kind::RandomxHash, Work::List(length)) => {
                let expected: Vec<String> = (0..length).map(|input| format!("{input:064x}")).collect();
                if json["hashes"] != serde_json::json!(expected) {
                    self.fail(&format!("job {id} has hashes in another order or number: {}", json["hashes"]));
                }
            }
            _ => {
                if json["value"] != id.to_string() {
                    self.fail(&format!("job {id} has the result of another: {json}"));
                }
            }
        }
    }
}
