//! The workers: what they offer, what they hold, and which of them has room.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;

use flota_proto::mqtt::{Capabilities, Load, RandomxState, Register, WorkerState, WorkerStatus};
use flota_proto::{Algorithm, Class, Kind, Timestamp, UnitId, WorkerId};

use super::digests::DATASET_DIGEST_BYTES;
use super::job::Seq;
use super::queue::Shape;
use super::standing::{Aside, Recent, Standing};
use crate::handle::StreamId;

/// Stands for a worker.
pub type WorkerIdx = u32;

/// What the operator wants of a worker; survives restarts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Desired {
    /// Take nothing new.
    pub drain: bool,
    /// Also hand back what runs.
    pub paused: bool,
}

/// A worker, whether it is there or not.
#[derive(Debug)]
pub struct Worker {
    /// Its identifier.
    pub id: WorkerId,
    /// Speaks the simple protocol.
    pub simple: bool,
    /// Of which process.
    pub boot_id: String,
    /// What it is written in.
    pub language: String,
    /// Of the program.
    pub version: String,
    /// It has registered with this master.
    pub registered: bool,
    /// Its open stream.
    pub stream: Option<StreamId>,
    /// How many units of a class run at once.
    pub slots: BTreeMap<Class, u32>,
    /// How many may wait beyond them.
    pub prefetch: BTreeMap<Class, u32>,
    /// What it can compute.
    pub kinds: BTreeSet<Kind>,
    /// Models that it serves.
    pub models: BTreeSet<String>,
    /// What its machine offers.
    pub capabilities: Capabilities,
    /// What its operator says of it.
    pub labels: BTreeMap<String, String>,
    /// What the operator wants.
    pub desired: Desired,
    /// A simple worker that let a unit time out, or said `offline`: nothing more until it speaks again.
    pub silent: bool,
    /// A simple worker's last `offline`.
    pub left: Option<Left>,
    /// A full worker that did not accept what was published to it gets nothing until then.
    pub muted_until: Option<Timestamp>,
    /// How many dispatches in a row it did not accept.
    pub unanswered: u32,
    /// A simple worker was asked something that was cancelled since: it is busy with it.
    pub owes: Option<Owed>,
    /// Another process of this id registered, and has not opened its stream.
    pub replaced: bool,
    /// Its own last word on its state.
    pub reported: Option<WorkerState>,
    /// Units that it has.
    pub held: BTreeSet<(Seq, u32)>,
    /// How many of them are checked by the master, and so take no slot.
    pub checking: u32,
    /// What the master thinks of it.
    pub standing: Standing,
    /// Units of live jobs that it completed lately, oldest first: computed again should it turn out to lie.
    pub recent: VecDeque<Recent>,
    /// How many of each class, without those that are checked.
    pub held_by_class: BTreeMap<Class, u32>,
    /// How busy its machine is.
    pub load: Load,
    /// RandomX hashes a second, by its own word.
    pub hashrate: f64,
    /// Hashes a second of each algorithm, by its own word.
    pub algorithms: BTreeMap<Algorithm, f64>,
    /// How it stands with RandomX, by its own word.
    pub randomx: Option<Box<RandomxState>>,
    /// RandomX keys (hex) for which it is warm.
    pub warm_keys: BTreeSet<Arc<str>>,
    /// RandomX keys and digests of datasets that it computed itself, by its own word.
    pub computed: Vec<(Vec<u8>, [u8; DATASET_DIGEST_BYTES])>,
    /// Hashes a second of each algorithm, measured over its units.
    pub speeds: BTreeMap<Algorithm, f64>,
    /// Since when its stream is up.
    pub connected_at: Option<Timestamp>,
    /// When it was last heard of.
    pub last_seen_at: Timestamp,
    /// Where it stands in [`Fleet::room`].
    room: BTreeMap<Class, RoomKey>,
    /// Whether this batch changed what is stored.
    pub dirty: bool,
}

/// A question that was cancelled while a simple worker had it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owed {
    /// Which unit.
    pub unit: UnitId,
    /// The fencing token.
    pub attempt: u64,
    /// When it was assigned.
    pub assigned_at: Timestamp,
    /// When its time has passed.
    pub until: Timestamp,
}

impl Owed {
    /// Whether it is this attempt.
    pub fn is(&self, unit: UnitId, attempt: u64) -> bool {
        (self.unit, self.attempt) == (unit, attempt)
    }
}

/// A simple worker's `offline`, by which what it had said before is known where that comes later.
///
/// By the worker's own clock, so for a while only: that may be set back. A last will was written when its worker connected, so nothing is
/// held to be older than that; a registration always counts, whatever the clock of its process says.
#[derive(Clone, Copy, Debug)]
pub struct Left {
    /// When that was, as the worker says.
    pub said: Timestamp,
    /// Until when messages may be late.
    pub until: Timestamp,
}

/// Results of one worker that are checked at the same time; one with more gets nothing new until then.
const CHECKING_MAX: u32 = 8;

/// `(0 for a free slot, 1 for prefetch; load in permille; stronger first; who)`
type RoomKey = (u8, u32, Reverse<u32>, WorkerIdx);

/// Slots of a class that are believed of one worker.
const SLOTS_MAX: u32 = 4096;
/// Workers looked at before one that is warm for the key is given up on.
const WARM_SEARCH_MAX: usize = 64;
/// How long a simple worker that said nothing is kept where others want its place: that is no sign that it is gone.
const SIMPLE_QUIET_MS: u64 = 60 * 60_000;
/// How late a simple worker's word may be: it says it by the way, sometimes many seconds after.
const LATE_MS: u64 = 60_000;
/// Where there is no worker to be forgotten, none is looked for again before.
const FULL_MS: u64 = 1_000;
/// One of so many is forgotten where the bound is reached, so that they are not looked through for each that comes.
const FORGOTTEN_PART: usize = 64;

impl Worker {
    fn new(id: WorkerId, now: Timestamp) -> Self {
        Self {
            id,
            simple: false,
            boot_id: String::new(),
            language: String::new(),
            version: String::new(),
            registered: false,
            stream: None,
            slots: BTreeMap::new(),
            prefetch: BTreeMap::new(),
            kinds: BTreeSet::new(),
            models: BTreeSet::new(),
            capabilities: Capabilities::default(),
            labels: BTreeMap::new(),
            desired: Desired::default(),
            silent: false,
            left: None,
            muted_until: None,
            unanswered: 0,
            owes: None,
            replaced: false,
            reported: None,
            held: BTreeSet::new(),
            checking: 0,
            standing: Standing::default(),
            recent: VecDeque::new(),
            held_by_class: BTreeMap::new(),
            load: Load::default(),
            hashrate: 0.0,
            algorithms: BTreeMap::new(),
            randomx: None,
            warm_keys: BTreeSet::new(),
            computed: Vec::new(),
            speeds: BTreeMap::new(),
            connected_at: None,
            last_seen_at: now,
            room: BTreeMap::new(),
            dirty: false,
        }
    }

    /// Takes over what it says of itself.
    pub fn describe(&mut self, register: Register) {
        self.simple = register.protocol.is_none();
        self.language = register.language;
        self.version = register.version;
        self.registered = true;
        self.hears();
        self.reported = None;
        self.dirty |= self.simple;
        if self.simple {
            self.slots = BTreeMap::from([(Class::Ai, 1)]);
            self.prefetch = BTreeMap::new();
            self.kinds = BTreeSet::from([Kind::AiChat]);
            self.models = BTreeSet::new();
            return;
        }
        self.boot_id = register.boot_id;
        self.slots = bounded(register.slots);
        self.prefetch = bounded(register.prefetch);
        self.kinds = register.kinds.into_iter().collect();
        self.models = register.models.into_iter().collect();
        self.capabilities = register.capabilities;
        self.labels = register.labels;
    }

    /// It speaks, or accepted something: it hears its topic.
    pub fn hears(&mut self) {
        self.silent = false;
        self.left = None;
        self.muted_until = None;
        self.unanswered = 0;
    }

    /// A simple worker says something of itself. Answers whether that changed it.
    pub fn simple_says(&mut self, status: &WorkerStatus, now: Timestamp) -> bool {
        let silent = status.status == WorkerState::Offline;
        if !silent && self.is_late(status.timestamp, now) {
            return false;
        }
        let changed = self.silent != silent;
        self.silent = silent;
        self.left = silent.then(|| Left { said: status.timestamp, until: now.after_ms(LATE_MS) });
        self.last_seen_at = now;
        self.dirty |= changed;
        changed
    }

    /// A simple worker left, and had said this before.
    fn is_late(&self, said: Timestamp, now: Timestamp) -> bool {
        said.0 > 0 && self.left.is_some_and(|left| said <= left.said && now < left.until)
    }

    /// There: registered and, for full workers, reachable on its stream.
    pub fn online(&self) -> bool {
        self.registered && if self.simple { !self.silent } else { self.stream.is_some() }
    }

    /// May be given work.
    pub fn ready(&self) -> bool {
        let wanted = !self.desired.drain && !self.desired.paused && !self.hands_back();
        let trusted = self.standing.quarantine.is_none() && self.checking < CHECKING_MAX;
        self.online() && wanted && trusted && self.muted_until.is_none() && self.owes.is_none()
    }

    /// What keeps it from work, other than the work that it has.
    fn aside(&self) -> Option<Aside> {
        match self.state() {
            WorkerState::Quarantined => Some(Aside::Quarantined),
            WorkerState::Paused => Some(Aside::Paused),
            WorkerState::Draining => Some(Aside::Draining),
            WorkerState::Idle | WorkerState::Busy | WorkerState::Offline => {
                self.muted_until.is_some().then_some(Aside::Muted)
            }
        }
    }

    /// Neither there nor holding anything, and the operator wants nothing of it. Simple workers come with a new id each
    /// time, and nobody says that the old ones are gone.
    fn may_be_forgotten(&self, now: Timestamp) -> bool {
        let remembered = self.desired != Desired::default() || self.standing.worth_keeping();
        let quiet = !self.online() || self.simple && now.since_ms(self.last_seen_at) >= SIMPLE_QUIET_MS;
        quiet && self.stream.is_none() && self.held.is_empty() && self.owes.is_none() && !remembered
    }

    fn hands_back(&self) -> bool {
        !self.simple && matches!(self.reported, Some(WorkerState::Paused | WorkerState::Draining))
    }

    /// A guest takes no units: it computes what its own connection gives it.
    fn computes_by_itself(&self) -> bool {
        self.slots.is_empty() && self.hashrate > 0.0
    }

    /// What it does, as shown.
    pub fn state(&self) -> WorkerState {
        if !self.online() {
            WorkerState::Offline
        } else if self.standing.quarantine.is_some() {
            WorkerState::Quarantined
        } else if self.desired.paused || (self.hands_back() && self.reported == Some(WorkerState::Paused)) {
            WorkerState::Paused
        } else if self.desired.drain || self.hands_back() {
            WorkerState::Draining
        } else if self.held.is_empty() && !self.computes_by_itself() {
            WorkerState::Idle
        } else {
            WorkerState::Busy
        }
    }

    /// Compute power before a speed is measured: cores, half as much again with AES.
    pub fn power(&self) -> f64 {
        let aes = self.capabilities.features.iter().any(|feature| feature == "aes");
        f64::from(self.capabilities.cores.max(1)) * if aes { 1.5 } else { 1.0 }
    }

    /// Answers questions that name no model and bring no key.
    pub fn serves_chat(&self) -> bool {
        self.kinds.contains(&Kind::AiChat) && (self.simple || self.models.iter().any(|model| model != DEMO_MODEL))
    }

    /// 0 where the dataset of a RandomX key is ready, 1 where it is otherwise warm for it, else 2.
    fn coldness(&self, key: &Arc<str>) -> u8 {
        let dataset = self.randomx.as_ref().is_some_and(|state| state.datasets.iter().any(|have| **have == **key));
        if dataset { 0 } else { 2 - u8::from(self.warm_keys.contains(key)) }
    }

    /// Units of a class that it has.
    pub fn held_of(&self, class: Class) -> u32 {
        self.held_by_class.get(&class).copied().unwrap_or(0)
    }

    fn room_key(&self, idx: WorkerIdx, class: Class) -> Option<RoomKey> {
        let slots = self.slots.get(&class).copied().unwrap_or(0);
        let prefetch = self.prefetch.get(&class).copied().unwrap_or(0);
        let held = self.held_of(class);
        if !self.ready() || slots == 0 || held >= slots.saturating_add(prefetch) {
            return None;
        }
        let load = u32::try_from(u64::from(held) * 1000 / u64::from(slots)).unwrap_or(u32::MAX);
        Some((u8::from(held >= slots), load, Reverse((self.power() * 2.0) as u32), idx))
    }
}

/// The model that answers without any AI, plainly labelled.
pub const DEMO_MODEL: &str = "demo";

/// All workers.
#[derive(Debug, Default)]
pub struct Fleet {
    workers: BTreeMap<WorkerIdx, Worker>,
    by_id: HashMap<WorkerId, WorkerIdx>,
    by_stream: HashMap<StreamId, WorkerIdx>,
    next: WorkerIdx,
    room: BTreeMap<Class, BTreeSet<RoomKey>>,
    /// Workers that are there and answer questions that name no model and bring no key.
    chat_servers: BTreeSet<WorkerIdx>,
    /// The last of them went.
    chat_gone: bool,
    simple_take_keys: bool,
    workers_max: usize,
    /// It is full, and nobody is looked for to be forgotten before.
    full_until: Option<Timestamp>,
    /// What the store need not keep any more.
    pub forgotten: Vec<WorkerId>,
}

impl Fleet {
    /// Without workers; with `simple_take_keys` questions with a key of the user's may go to simple ones.
    pub fn new(simple_take_keys: bool, workers_max: usize) -> Self {
        Self { simple_take_keys, workers_max, ..Self::default() }
    }

    /// The worker with this id, new if it was never heard of; `None` where there is no room for it.
    pub fn admit(&mut self, id: &WorkerId, now: Timestamp) -> Option<WorkerIdx> {
        let known = self.by_id.contains_key(id);
        let room = known || self.workers.len() < self.workers_max || self.make_room(now);
        room.then(|| self.enter(id, now))
    }

    /// The same of one that must be known, as something depends on it.
    pub fn enter(&mut self, id: &WorkerId, now: Timestamp) -> WorkerIdx {
        if let Some(idx) = self.by_id.get(id) {
            return *idx;
        }
        let idx = self.next;
        self.next = self.next.wrapping_add(1);
        self.workers.insert(idx, Worker::new(id.clone(), now));
        self.by_id.insert(id.clone(), idx);
        idx
    }

    /// The clock was set: how long it was full says nothing.
    pub fn look_again(&mut self) {
        self.full_until = None;
    }

    /// Forgets those that are gone longest.
    fn make_room(&mut self, now: Timestamp) -> bool {
        if self.full_until.is_some_and(|until| now < until) {
            return false;
        }
        let quiet = self.workers.iter().filter(|(_, worker)| worker.may_be_forgotten(now));
        let mut gone: Vec<_> = quiet.map(|(idx, worker)| (worker.online(), worker.last_seen_at, *idx)).collect();
        gone.sort_unstable();
        gone.truncate((self.workers_max / FORGOTTEN_PART).max(1));
        self.full_until = gone.is_empty().then(|| now.after_ms(FULL_MS));
        for (.., idx) in &gone {
            // Takes it out of where there is room.
            self.update(*idx, |worker| worker.registered = false);
            if let Some(worker) = self.workers.remove(idx) {
                self.by_id.remove(&worker.id);
                self.forgotten.push(worker.id);
            }
        }
        !gone.is_empty()
    }

    /// By number.
    pub fn get(&self, idx: WorkerIdx) -> Option<&Worker> {
        self.workers.get(&idx)
    }

    /// By id.
    pub fn find(&self, id: &WorkerId) -> Option<WorkerIdx> {
        self.by_id.get(id).copied()
    }

    /// By stream.
    pub fn of_stream(&self, stream: StreamId) -> Option<WorkerIdx> {
        self.by_stream.get(&stream).copied()
    }

    /// All, in the order of their coming.
    pub fn iter(&self) -> impl Iterator<Item = (WorkerIdx, &Worker)> {
        self.workers.iter().map(|(idx, worker)| (*idx, worker))
    }

    /// Changes a worker and puts it where its room now is.
    pub fn update<T>(&mut self, idx: WorkerIdx, change: impl FnOnce(&mut Worker) -> T) -> Option<T> {
        let worker = self.workers.get_mut(&idx)?;
        let stream = worker.stream;
        let answer = change(worker);
        if worker.stream != stream {
            if let Some(stream) = stream {
                self.by_stream.remove(&stream);
            }
            if let Some(stream) = worker.stream {
                self.by_stream.insert(stream, idx);
            }
        }
        // Also one that is left alone for a while: others would only say that they can't.
        if worker.online() && worker.serves_chat() {
            self.chat_servers.insert(idx);
        } else if self.chat_servers.remove(&idx) {
            self.chat_gone |= self.chat_servers.is_empty();
        }
        for class in Class::ALL {
            Self::place(&mut self.room, worker, idx, class);
        }
        Some(answer)
    }

    /// It was heard of.
    pub fn touch(&mut self, idx: WorkerIdx, now: Timestamp) {
        if let Some(worker) = self.workers.get_mut(&idx) {
            worker.last_seen_at = now;
        }
    }

    /// It was heard of in a way that proves that it hears too.
    pub fn heard(&mut self, idx: WorkerIdx, now: Timestamp) {
        let Some(worker) = self.workers.get_mut(&idx) else { return };
        worker.last_seen_at = now;
        if worker.silent || worker.muted_until.is_some() || worker.unanswered > 0 {
            self.update(idx, Worker::hears);
        }
    }

    /// Adds a unit to what a worker has.
    pub fn hold(&mut self, idx: WorkerIdx, class: Class, unit: (Seq, u32)) {
        if let Some(worker) = self.workers.get_mut(&idx)
            && worker.held.insert(unit)
        {
            *worker.held_by_class.entry(class).or_default() += 1;
            Self::place(&mut self.room, worker, idx, class);
        }
    }

    /// Takes a unit away from a worker; `checking` when its result was being checked.
    pub fn release(&mut self, idx: WorkerIdx, class: Class, unit: (Seq, u32), checking: bool) {
        if let Some(worker) = self.workers.get_mut(&idx)
            && worker.held.remove(&unit)
        {
            let count = if checking { &mut worker.checking } else { worker.held_by_class.entry(class).or_default() };
            *count = count.saturating_sub(1);
            // Room for other classes may depend on it too.
            let classes: &[Class] = if checking { &Class::ALL } else { &[class] };
            for class in classes {
                Self::place(&mut self.room, worker, idx, *class);
            }
        }
    }

    /// The worker has done its part of a unit, whose result is now checked: its slot is free.
    pub fn check(&mut self, idx: WorkerIdx, class: Class) {
        self.update(idx, |worker| {
            let held = worker.held_by_class.entry(class).or_default();
            *held = held.saturating_sub(1);
            worker.checking += 1;
        });
    }

    fn place(room: &mut BTreeMap<Class, BTreeSet<RoomKey>>, worker: &mut Worker, idx: WorkerIdx, class: Class) {
        let key = worker.room_key(idx, class);
        if worker.room.get(&class) == key.as_ref() {
            return;
        }
        let room = room.entry(class).or_default();
        if let Some(old) = worker.room.remove(&class) {
            room.remove(&old);
        }
        if let Some(key) = key {
            room.insert(key);
            worker.room.insert(class, key);
        }
    }

    /// Whether any worker has room for the class.
    pub fn has_room(&self, class: Class) -> bool {
        self.room.get(&class).is_some_and(|room| !room.is_empty())
    }

    /// Workers with a free slot for the class, most idle first.
    pub fn with_free_slot(&self, class: Class) -> impl Iterator<Item = WorkerIdx> + '_ {
        self.room.get(&class).into_iter().flatten().take_while(|key| key.0 == 0).map(|key| key.3)
    }

    /// How many workers may be given work of the class.
    pub fn ready_count(&self, class: Class) -> usize {
        self.room.get(&class).map_or(0, BTreeSet::len)
    }

    /// The best worker with room for the shape: a free slot before prefetch, then warm for its key, then least loaded,
    /// then strongest.
    pub fn best_for(&self, shape: &Shape) -> Option<WorkerIdx> {
        let room = self.room.get(&shape.kind.class())?;
        let mut fitting = room.iter().filter(|key| self.workers.get(&key.3).is_some_and(|w| self.fits(w, shape)));
        let first = fitting.next()?;
        let Some(key) = &shape.randomx_key else { return Some(first.3) };
        let coldness = |idx: WorkerIdx| self.workers.get(&idx).map_or(2, |worker| worker.coldness(key));
        let same_level = fitting.take(WARM_SEARCH_MAX).take_while(|other| other.0 == first.0);
        // Of several alike the first, which is least loaded.
        std::iter::once(first).chain(same_level).map(|room| room.3).min_by_key(|idx| coldness(*idx))
    }

    /// Whether a worker that is there could take the shape when it has room.
    pub fn fits(&self, worker: &Worker, shape: &Shape) -> bool {
        worker.kinds.contains(&shape.kind) && fits_requires(worker, shape) && self.fits_model(worker, shape)
    }

    fn fits_model(&self, worker: &Worker, shape: &Shape) -> bool {
        if shape.kind.class() != Class::Ai {
            return true;
        }
        match (&shape.model, shape.credential) {
            (_, true) if worker.simple => self.simple_take_keys && shape.model.is_none(),
            (_, true) => true,
            (Some(model), false) => worker.models.contains(model),
            // Where nobody serves it, an executor says so at once rather than that the question waits for ever.
            (None, false) => worker.serves_chat() || self.chat_servers.is_empty(),
        }
    }

    /// Whether a worker that is there could take the shape, had it room and were it not set aside.
    pub fn any_fits(&self, shape: &Shape) -> bool {
        self.workers.values().any(|worker| worker.online() && self.fits(worker, shape))
    }

    /// What keeps the workers that are there and could take the shape from any work, with how many it keeps; nothing where one of
    /// them is only busy.
    pub fn set_aside(&self, shape: &Shape) -> BTreeMap<Aside, usize> {
        let mut counts = BTreeMap::new();
        for worker in self.workers.values().filter(|worker| worker.online() && self.fits(worker, shape)) {
            match worker.aside() {
                Some(aside) => *counts.entry(aside).or_default() += 1,
                None => return BTreeMap::new(),
            }
        }
        counts
    }

    /// Whether any worker that has registered, there or not, could take the shape.
    pub fn any_may_fit(&self, shape: &Shape) -> bool {
        self.workers.values().any(|worker| worker.registered && self.fits(worker, shape))
    }

    /// Whether the last worker went that answers questions which name no model.
    pub fn take_chat_gone(&mut self) -> bool {
        std::mem::take(&mut self.chat_gone)
    }

    /// Checks that the order of room agrees with the workers.
    pub fn audit(&self) -> Result<(), String> {
        let mut room: BTreeMap<Class, BTreeSet<RoomKey>> = BTreeMap::new();
        for (idx, worker) in &self.workers {
            for class in Class::ALL {
                if let Some(key) = worker.room_key(*idx, class) {
                    room.entry(class).or_default().insert(key);
                }
            }
        }
        let kept: BTreeMap<_, _> =
            self.room.iter().filter(|(_, keys)| !keys.is_empty()).map(|(c, keys)| (*c, keys.clone())).collect();
        super::audit::same("room of workers", &kept, &room)
    }

    /// Whether any worker is there.
    pub fn any_online(&self) -> bool {
        self.workers.values().any(Worker::online)
    }
}

fn bounded(counts: BTreeMap<Class, u32>) -> BTreeMap<Class, u32> {
    counts.into_iter().map(|(class, count)| (class, count.min(SLOTS_MAX))).collect()
}

fn fits_requires(worker: &Worker, shape: &Shape) -> bool {
    let requires = &shape.requires;
    let offers = &worker.capabilities;
    requires.cores.is_none_or(|cores| offers.cores >= cores)
        && requires.memory_mib.is_none_or(|memory| offers.memory_mib >= memory)
        && requires.features.iter().all(|feature| offers.features.contains(feature))
        && requires.labels.iter().all(|(name, value)| worker.labels.get(name) == Some(value))
        && requires.worker_id.as_ref().is_none_or(|id| *id == worker.id)
}
