//! The world of one seed: a master over a disk, workers, users, a network that loses and doubles, and things that go
//! wrong.

use std::collections::{BTreeMap, BTreeSet};

use flota_master::core::{Assignment, Core, Effect, Input, Limits, Verify};
use flota_master::handle::{Report, StreamId, WorkerControl};
use flota_proto::{JobId, Timestamp, UnitId, WorkerId};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::disk::Disk;
use crate::master::{Answer, Watch};
use crate::order::Passed;
use crate::real::Real;
use crate::simple::SimpleWorker;
use crate::trouble::{Knobs, Trouble};
use crate::users::Promise;
use crate::worker::SimWorker;

const START: Timestamp = Timestamp(1_795_254_600_000);
const WORKERS: usize = 4;
const SIMPLE_WORKERS: usize = 2;
/// Steps with faults; then the faults stop.
pub const STEPS: u64 = 600;
/// By then everything must have ended.
const STEPS_AFTER: u64 = 40_000;
/// Each so many seeds run over the real store too.
const REAL_EVERY: u64 = 16;

/// Something on its way.
pub enum Message {
    Task(Box<Assignment>),
    ToMaster {
        worker: usize,
        boot: u64,
        stream: Option<StreamId>,
        what: ToMaster,
    },
    ToWorker {
        worker: WorkerId,
        stream: StreamId,
        what: ToWorker,
    },
    /// What the broker or a simple worker tells the master.
    Said(Box<Input>),
    /// What the operator wants of a worker.
    Wanted(WorkerId, WorkerControl),
}

pub enum ToMaster {
    Register,
    Open,
    Report(Box<Report>),
}

#[derive(Clone)]
pub enum ToWorker {
    Ack(UnitId, u64),
    Cancel(UnitId, u64),
    Goodbye,
}

pub struct World {
    pub seed: u64,
    pub rng: StdRng,
    /// The time as it passes.
    pub now: Timestamp,
    /// How wrong the master's clock is.
    pub clock_ms: i64,
    pub limits: Limits,
    knobs: Knobs,
    step: u64,
    /// How many troubles of a sort came in this step.
    came: BTreeMap<Trouble, u32>,
    pub core: Core,
    pub disk: Disk,
    pub real: Option<Real>,
    /// Nothing can be stored before.
    pub full_until: Timestamp,
    /// Effects and answers of the batch in work.
    pub effects: Vec<Effect>,
    pub answers: Vec<Answer>,
    pub workers: Vec<SimWorker>,
    pub simple: Vec<SimpleWorker>,
    pub network: BTreeMap<(Timestamp, u64), Message>,
    next_message: u64,
    pub next_stream: u64,
    /// Which worker has which open stream at the master.
    pub streams: BTreeMap<StreamId, usize>,
    pub promised: BTreeMap<JobId, Promise>,
    pub submitted: Vec<JobId>,
    /// Units of which a result counted, while its acknowledgement was let out.
    pub completed: BTreeSet<UnitId>,
    /// The newest attempt of a unit that was published.
    pub newest: BTreeMap<UnitId, u64>,
    pub ended: BTreeSet<JobId>,
    /// The last event told of a job.
    pub told: BTreeMap<JobId, u64>,
    /// The last text told of an attempt, and whether its master is the one that is there.
    pub texts: BTreeMap<(JobId, u64), (u64, bool)>,
    pub watches: BTreeMap<JobId, Watch>,
    pub passed: Passed,
    /// Attempts of which a worker said that they had ended, when they had not: their acknowledgement proves nothing.
    pub lied: BTreeSet<(UnitId, u64)>,
    pub faults: bool,
    history: Vec<String>,
}

fn chance_of(seed: u64, step: u64, part: u64) -> StdRng {
    let mut key = [0; 32];
    for (bytes, number) in key.chunks_exact_mut(8).zip([seed, step, part]) {
        bytes.copy_from_slice(&number.to_le_bytes());
    }
    StdRng::from_seed(key)
}

impl World {
    pub fn new(seed: u64, limits: Limits, knobs: Knobs) -> Self {
        let mut rng = chance_of(seed, 0, 0);
        // Every second master looks at what it is told.
        let verify = if seed % 2 == 1 { Verify::Samples } else { limits.verify };
        let limits = Limits { verify, ..limits };
        let workers = (0..WORKERS).map(|index| SimWorker::new(index, rng.random_range(1..8))).collect();
        Self {
            seed,
            rng,
            now: START,
            clock_ms: 0,
            limits,
            knobs,
            step: 0,
            came: BTreeMap::new(),
            core: Core::new(limits),
            disk: Disk::default(),
            real: seed.is_multiple_of(REAL_EVERY).then(Real::new),
            full_until: START,
            effects: Vec::new(),
            answers: Vec::new(),
            workers,
            simple: (0..SIMPLE_WORKERS).map(SimpleWorker::new).collect(),
            network: BTreeMap::new(),
            next_message: 0,
            next_stream: 1,
            streams: BTreeMap::new(),
            promised: BTreeMap::new(),
            submitted: Vec::new(),
            completed: BTreeSet::new(),
            newest: BTreeMap::new(),
            ended: BTreeSet::new(),
            told: BTreeMap::new(),
            texts: BTreeMap::new(),
            watches: BTreeMap::new(),
            passed: Passed::new(),
            lied: BTreeSet::new(),
            faults: true,
            history: Vec::new(),
        }
    }

    /// Runs the seed to its end; panics with the history where an invariant does not hold.
    pub fn run(mut self) {
        for _ in 0..self.knobs.steps {
            self.step();
        }
        self.stop_faults();
        for _ in 0..STEPS_AFTER {
            if self.all_ended() {
                break;
            }
            self.step();
        }
        self.check_end();
    }

    fn step(&mut self) {
        self.step += 1;
        self.came.clear();
        self.by_chance_of(1);
        self.now = self.now.after_ms(self.rng.random_range(1..400));
        self.deliver();
        for index in 0..self.workers.len() {
            self.by_chance_of(10 + index as u64);
            self.live(index);
        }
        for index in 0..self.simple.len() {
            self.by_chance_of(20 + index as u64);
            self.live_simple(index);
        }
        if self.faults {
            self.by_chance_of(2);
            if self.may(Trouble::UsersDoThings) {
                self.user();
            }
            self.by_chance_of(3);
            self.fault();
        }
        self.by_chance_of(4);
        if self.core.next_deadline().is_some_and(|due| due <= self.clock()) {
            self.input(Input::Tick);
        }
        self.commit();
        if let Err(wrong) = self.core.audit() {
            self.fail(&wrong);
        }
    }

    pub fn fail(&self, what: &str) -> ! {
        let from = if self.knobs.whole { 0 } else { self.history.len().saturating_sub(60) };
        panic!(
            "seed {} ({}): {}\nwhat happened, with milliseconds from the start:\n{}\nreplay: FLOTA_SIM_SEED={} cargo test -p flota-master --test simulation",
            self.seed,
            self.knobs.describe(),
            self.named(what),
            self.named(&self.history[from..].join("\n")),
            self.seed
        );
    }

    /// Jobs by short names, in the order of their coming.
    fn named(&self, text: &str) -> String {
        let names = self.submitted.iter().enumerate();
        names.fold(text.to_owned(), |text, (n, id)| text.replace(&id.to_string(), &format!("job{}", n + 1)))
    }

    /// What the master's clock says.
    pub fn clock(&self) -> Timestamp {
        Timestamp(self.now.0.saturating_add_signed(self.clock_ms))
    }

    pub fn set_clock(&mut self, by_ms: i64) {
        self.note(format!("the clock is set by {by_ms} ms"));
        self.clock_ms += by_ms;
        self.input(Input::ClockSet(by_ms));
    }

    /// What happens by chance in this part of this step is the same whatever happened before, or a history without some of its
    /// trouble would be quite another one.
    pub fn by_chance_of(&mut self, part: u64) -> StdRng {
        std::mem::replace(&mut self.rng, chance_of(self.seed, self.step, part))
    }

    pub fn note(&mut self, what: String) {
        self.history.push(format!("{:>8} {what}", self.now.since_ms(START)));
    }

    pub fn chance(&mut self, percent: u32) -> bool {
        self.rng.random_range(0..100) < percent
    }

    /// Whether some trouble comes now, which it does so often.
    pub fn trouble(&mut self, which: Trouble, percent: u32) -> bool {
        self.chance(percent) && self.may(which)
    }

    /// Whether a trouble that was chosen may come.
    pub fn may(&mut self, which: Trouble) -> bool {
        if !self.faults {
            return false;
        }
        let nth = self.came.entry(which).or_default();
        *nth += 1;
        self.knobs.lets((self.step, which, *nth))
    }

    pub fn send(&mut self, delay_ms: u64, message: Message) {
        self.next_message += 1;
        self.network.insert((self.now.after_ms(delay_ms), self.next_message), message);
    }

    pub fn delay(&mut self) -> u64 {
        if self.trouble(Trouble::MessagesAreLate, 5) {
            self.rng.random_range(0..8000)
        } else {
            self.rng.random_range(0..200)
        }
    }

    fn deliver(&mut self) {
        while let Some(entry) = self.network.first_entry() {
            if entry.key().0 > self.now {
                return;
            }
            match entry.remove() {
                Message::Task(assignment) if assignment.simple => self.ask_simple(&assignment),
                Message::Task(assignment) => self.take_task(*assignment),
                Message::ToMaster { worker, boot, stream, what } => self.master_hears(worker, boot, stream, what),
                Message::ToWorker { worker, stream, what } => self.worker_hears(&worker, stream, what),
                Message::Said(input) => drop(self.input(*input)),
                Message::Wanted(worker, control) => self.worker_wanted(&worker, control),
            }
        }
    }
}
