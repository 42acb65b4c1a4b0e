//! The datasets of the last keys. One that another process of this host shares is taken at once. Else one is built when it is worth
//! its time and there is memory for it, on threads beside those that go on hashing in light mode. It is freed when nobody used it for
//! long or its memory is needed.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use flota_common::clock;
use flota_randomx::{Build, DATASET_BYTES, DIGEST_BYTES, Dataset, Error, Origin, thread as own_thread};

use super::machine;
use super::maker::Maker;

/// After so many hashes of a key its dataset is worth building: in light mode they take about as long as that does.
pub const WORTH: u64 = 1_000;
/// One in use, and the next.
const DATASETS_MAX: usize = 2;
/// How many keys the demand is counted for.
const COUNTED_MAX: usize = 16;
/// After a failure it is not tried again for this long.
const REST: Duration = Duration::from_secs(60);
/// How many digests of datasets that were computed here are remembered.
const COMPUTED_MAX: usize = 4;
/// The lowest priority.
const IDLE_NICE: u8 = 19;
/// Below this much free memory an unused dataset goes at once.
const SCARCE_BYTES: u64 = 256 << 20;

/// The datasets of the last keys.
#[derive(Debug)]
pub struct Datasets {
    pub maker: Maker,
    threads: usize,
    /// How long one that nobody uses keeps its memory.
    keep: Option<Duration>,
    held: AtomicBool,
    /// So that two units with one key don't map its dataset twice.
    adopting: Mutex<()>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    ready: Vec<Entry>,
    building: Option<Building>,
    /// Hashes asked for, by key, oldest first.
    demand: Vec<(Vec<u8>, u64)>,
    rest_until: Option<Instant>,
    /// Keys and digests of what was computed here, oldest first.
    computed: VecDeque<(Vec<u8>, [u8; DIGEST_BYTES])>,
}

#[derive(Debug)]
struct Entry {
    key: Vec<u8>,
    used: Instant,
    dataset: Arc<Dataset>,
}

#[derive(Debug)]
struct Building {
    key: Vec<u8>,
    build: Arc<Build>,
}

impl Datasets {
    /// None yet; builds on `threads`.
    pub fn new(maker: Maker, threads: usize, keep: Option<Duration>) -> Self {
        let (held, adopting) = (AtomicBool::new(false), Mutex::default());
        Self { maker, threads, keep, held, adopting, state: Mutex::default() }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic while the lock was held leaves these values whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The dataset of `key`, if it is ready.
    pub fn get(&self, key: &[u8]) -> Option<Arc<Dataset>> {
        let mut state = self.lock();
        let entry = state.ready.iter_mut().find(|entry| entry.key == key)?;
        entry.used = clock::instant();
        Some(entry.dataset.clone())
    }

    /// Whether the dataset of `key` is ready.
    pub fn is_ready(&self, key: &[u8]) -> bool {
        self.lock().ready.iter().any(|entry| entry.key == key)
    }

    /// The keys of those that are ready.
    pub fn keys(&self) -> Vec<Vec<u8>> {
        self.lock().ready.iter().map(|entry| entry.key.clone()).collect()
    }

    /// Keys and digests of the last that were computed here.
    pub fn computed(&self) -> Vec<(Vec<u8>, [u8; DIGEST_BYTES])> {
        self.lock().computed.iter().cloned().collect()
    }

    /// Takes over the dataset of `key` where another process of this host has it: sooner done than a cache is made. Whether it is
    /// ready now.
    pub fn adopt(&self, key: &[u8]) -> bool {
        let _alone = self.adopting.lock().unwrap_or_else(PoisonError::into_inner);
        if self.is_ready(key) {
            return true;
        }
        let building = self.lock().building.as_ref().is_some_and(|building| building.key == key);
        if building || self.held.load(Ordering::SeqCst) {
            return false;
        }
        let begun = clock::instant();
        let adopted = self.maker.adopt(key, self.threads);
        adopted.map(|dataset| self.add(&mut self.lock(), key, dataset, begun)).is_some()
    }

    fn add(&self, state: &mut State, key: &[u8], dataset: Dataset, begun: Instant) -> Arc<Dataset> {
        tracing::info!(
            init_ms = begun.elapsed().as_millis() as u64,
            pages = dataset.pages().as_str(),
            threads = self.threads,
            shared = dataset.is_shared(),
            "RandomX dataset is ready"
        );
        let dataset = Arc::new(dataset);
        state.ready.push(Entry { key: key.to_vec(), used: clock::instant(), dataset: dataset.clone() });
        dataset
    }

    /// What is being built, and how far it is.
    pub fn progress(&self) -> Option<(Vec<u8>, f64)> {
        self.lock().building.as_ref().map(|building| (building.key.clone(), building.build.fraction()))
    }

    /// A unit of `hashes` with `key` has come. Whether its dataset has become worth its time.
    pub fn note(&self, key: &[u8], hashes: u64) -> bool {
        let demand = &mut self.lock().demand;
        let before = demand.iter().position(|(counted, _)| counted == key).map_or(0, |at| demand.remove(at).1);
        if demand.len() >= COUNTED_MAX {
            demand.remove(0);
        }
        let now = before.saturating_add(hashes);
        demand.push((key.to_vec(), now));
        now >= WORTH
    }

    /// Begins to build the dataset of `key` unless it is ready, another is being built, or there is no memory. Says what it did.
    pub fn want(self: &Arc<Self>, key: &[u8]) -> &'static str {
        let now = clock::instant();
        let mut state = self.lock();
        if state.ready.iter().any(|entry| entry.key == key) {
            return "its dataset is ready";
        }
        if let Some(building) = &state.building {
            return if building.key == key { "its dataset is being built" } else { "another dataset is being built" };
        }
        if self.held.load(Ordering::SeqCst) {
            return "the worker is held back";
        }
        if state.rest_until.is_some_and(|until| now < until) {
            return "the last try failed, it rests for a minute";
        }
        if !self.maker.is_shared() && !state.make_room() {
            state.rest_until = Some(now + REST);
            tracing::info!(
                needed_mib = DATASET_BYTES >> 20,
                free_mib = machine::free_bytes() >> 20,
                "not enough memory for a RandomX dataset: hashing in light mode"
            );
            return "there is not enough memory for its dataset";
        }
        let build = Arc::new(Build::new(self.threads));
        let (datasets, owned, shared) = (self.clone(), key.to_vec(), build.clone());
        let builder = thread::Builder::new().name("randomx-builder".to_owned());
        if builder.spawn(move || datasets.build(&owned, &shared)).is_err() {
            return "the system gives no thread";
        }
        state.building = Some(Building { key: key.to_vec(), build });
        "its dataset is being built now"
    }

    fn build(&self, key: &[u8], build: &Build) {
        let begun = clock::instant();
        let made = self.maker.make(key, build);
        let mut state = self.lock();
        state.building = None;
        match made {
            Ok(dataset) => {
                let dataset = self.add(&mut state, key, dataset, begun);
                drop(state);
                if dataset.origin() == Origin::Computed {
                    self.note_digest(key, &dataset);
                }
            }
            Err(Error::Stopped) => tracing::info!("the building of a RandomX dataset was stopped"),
            Err(error) => {
                state.rest_until = Some(clock::instant() + REST);
                tracing::warn!(%error, "hashing in light mode: failed to build a RandomX dataset");
            }
        }
    }

    /// For those who fetch it: it is used already meanwhile.
    fn note_digest(&self, key: &[u8], dataset: &Dataset) {
        own_thread::lower_priority(IDLE_NICE);
        let digest = dataset.digest(1);
        let mut state = self.lock();
        state.computed.retain(|(known, _)| known != key);
        if state.computed.len() >= COMPUTED_MAX {
            state.computed.pop_front();
        }
        state.computed.push_back((key.to_vec(), digest));
    }

    /// With `held` nothing is built, and what is being built is given up.
    pub fn hold(&self, held: bool) {
        self.held.store(held, Ordering::SeqCst);
        if held && let Some(building) = &self.lock().building {
            building.build.stop();
        }
    }

    /// Frees what was not used for long, and all that is unused when memory is scarce. Whether something is left.
    pub fn sweep(&self, now: Instant) -> bool {
        let scarce = machine::free_bytes() < SCARCE_BYTES;
        let state = &mut *self.lock();
        for entry in state.ready.iter_mut().filter(|entry| entry.in_use()) {
            entry.used = now;
        }
        let keeps = |entry: &Entry| {
            let fresh = self.keep.is_none_or(|keep| now.saturating_duration_since(entry.used) < keep);
            entry.in_use() || fresh && !(scarce && entry.is_private())
        };
        let before = state.ready.len();
        state.ready.retain(keeps);
        if state.ready.len() < before {
            tracing::info!(scarce, "freed a RandomX dataset that nobody used");
        }
        state.building.is_some() || !state.ready.is_empty()
    }
}

impl State {
    /// Frees unused datasets, oldest first, until there is room for another.
    fn make_room(&mut self) -> bool {
        loop {
            if self.ready.len() < DATASETS_MAX && has_room() {
                return true;
            }
            let unused = self.ready.iter().enumerate().filter(|(_, entry)| !entry.in_use());
            let Some(oldest) = unused.min_by_key(|(_, entry)| entry.used).map(|(index, _)| index) else { return false };
            drop(self.ready.remove(oldest));
        }
    }
}

fn has_room() -> bool {
    let needed = DATASET_BYTES as u64;
    machine::free_huge_bytes() >= needed || machine::free_bytes() >= needed
}

impl Entry {
    fn in_use(&self) -> bool {
        Arc::strong_count(&self.dataset) > 1
    }

    fn is_private(&self) -> bool {
        !self.dataset.is_shared()
    }
}
