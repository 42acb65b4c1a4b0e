//! Chooses what a unit is hashed from: the dataset of its key where that is ready, else the cache, while the dataset is built beside
//! it once there is enough work for it.

use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use flota_common::clock;
use flota_proto::mqtt::{HashMode, RandomxState};
use flota_randomx::{DIGEST_BYTES, Dataset, Error, Pages};

use super::super::manners::Manners;
use super::super::rate::Rates;
use super::caches::Caches;
use super::crew::{Back, Crew, Memory, Work};
use super::datasets::Datasets;
use super::maker::Maker;
use super::{Mode, RandomxConfig, machine};
use crate::peer::Digests;

/// How often it is looked whether memory can be given back.
const SWEEP: Duration = Duration::from_secs(10);

/// What all units share.
#[derive(Debug)]
pub struct Engine {
    mode: Mode,
    manners: Manners,
    caches: Arc<Caches>,
    datasets: Arc<Datasets>,
    pub rates: Arc<Rates>,
    last: Mutex<Last>,
    swept: AtomicBool,
}

/// What was computed with last.
#[derive(Clone, Debug, Default)]
struct Last {
    mode: HashMode,
    key: Option<Vec<u8>>,
    pages: Option<Pages>,
    shared: bool,
}

impl Engine {
    pub fn new(config: RandomxConfig) -> Self {
        let threads = config.threads.map_or_else(machine::threads, NonZeroUsize::get);
        let (percent, caches) = (config.percent.clamp(1, 100), Arc::<Caches>::default());
        // The building can't rest: it takes its share of the processors instead.
        let builders = (threads * usize::from(percent)).div_ceil(100);
        Self {
            mode: config.mode,
            manners: Manners { threads, percent, nice: config.nice, cpus: config.cpus },
            datasets: Arc::new(Datasets::new(
                Maker::new(config.shared_directory, config.peers, caches.clone()),
                builders,
                config.keep,
            )),
            caches,
            rates: Arc::default(),
            last: Mutex::default(),
            swept: AtomicBool::new(false),
        }
    }

    /// Hashes `work`; `warm` is called when the hashing can begin. The mode that it ended in, or `None` if it was stopped.
    ///
    /// # Errors
    /// [`Error`] when there is no memory.
    pub fn compute(
        self: &Arc<Self>,
        work: &dyn Work,
        key: &[u8],
        crew: &Crew,
        warm: &dyn Fn(),
    ) -> Result<Option<&'static str>, Error> {
        let worth = self.datasets.note(key, work.count());
        let ready = self.mode != Mode::Light && self.datasets.adopt(key);
        if !ready && (self.mode == Mode::Fast || self.mode == Mode::Auto && worth) {
            self.datasets.want(key);
        }
        loop {
            let memory = self.memory(key)?;
            warm();
            let (back, mode) = match &memory {
                Memory::Fast(_) => (crew.run(work, &memory, &self.manners, &|| false), "fast"),
                Memory::Light(_) => (self.light(work, key, crew, &memory), "light"),
            };
            drop(memory);
            self.caches.released(key);
            match back? {
                Back::Done => return Ok(Some(mode)),
                Back::Stopped => return Ok(None),
                Back::Left => {}
            }
        }
    }

    /// In light mode until the dataset is ready; while it is built that goes first.
    fn light(&self, work: &dyn Work, key: &[u8], crew: &Crew, memory: &Memory) -> Result<Back, Error> {
        let building = || self.datasets.progress().is_some();
        if building() {
            let over = || self.datasets.is_ready(key) || !building();
            crew.run(work, memory, &self.manners.lowered(), &over)
        } else {
            crew.run(work, memory, &self.manners, &|| self.datasets.is_ready(key) || building())
        }
    }

    fn memory(&self, key: &[u8]) -> Result<Memory, Error> {
        let memory = match self.datasets.get(key) {
            Some(dataset) => Memory::Fast(dataset),
            None => {
                let begun = clock::instant();
                let warm = self.caches.is_warm(key);
                let cache = self.caches.get(key)?;
                if !warm {
                    self.rates.exclude(clock::instant(), begun.elapsed());
                }
                Memory::Light(cache)
            }
        };
        let (mode, pages, shared) = match &memory {
            Memory::Fast(dataset) => (HashMode::Fast, dataset.pages(), dataset.is_shared()),
            Memory::Light(cache) => (HashMode::Light, cache.pages(), false),
        };
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) =
            Last { mode, key: Some(key.to_vec()), pages: Some(pages), shared };
        Ok(memory)
    }

    /// Whether work with `key` can begin at once.
    pub fn is_warm(&self, key: &[u8]) -> bool {
        self.datasets.is_ready(key) || self.caches.is_warm(key)
    }

    /// Keys that work can begin with at once, those with a dataset first.
    pub fn warm_keys(&self) -> Vec<String> {
        let mut keys: Vec<String> = self.datasets.keys().iter().map(hex::encode).collect();
        for key in self.caches.keys() {
            if !keys.contains(&key) {
                keys.push(key);
            }
        }
        keys
    }

    /// Work with `key` will come.
    pub fn prepare(self: &Arc<Self>, key: &[u8]) -> &'static str {
        if self.mode == Mode::Light { "this worker computes in light mode" } else { self.datasets.want(key) }
    }

    /// The dataset of `key`, if it is ready.
    pub fn dataset(&self, key: &[u8]) -> Option<Arc<Dataset>> {
        self.datasets.get(key)
    }

    /// Keys and digests of the last datasets that were computed here.
    pub fn computed(&self) -> Vec<(Vec<u8>, [u8; DIGEST_BYTES])> {
        self.datasets.computed()
    }

    /// Whom to ask which digest a dataset must have that another worker gives.
    pub fn trust(&self, digests: Arc<dyn Digests>) {
        // The first: a worker has one master.
        let _ = self.datasets.maker.digests.set(digests);
    }

    pub fn hold(&self, held: bool) {
        self.datasets.hold(held);
    }

    /// What stands beside a unit's progress.
    pub fn note(&self) -> String {
        let rate = self.rates.now();
        match self.datasets.progress() {
            Some((_, fraction)) => format!("{rate:.0} H/s, dataset {:.0} %", fraction * 100.0),
            None => format!("{rate:.0} H/s"),
        }
    }

    pub fn state(&self) -> RandomxState {
        let now = clock::instant();
        let last = self.last.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let datasets: Vec<String> = self.datasets.keys().iter().map(hex::encode).collect();
        let building = self.datasets.progress();
        let idle = datasets.is_empty() && building.is_none() && self.caches.keys().is_empty();
        RandomxState {
            mode: if idle { HashMode::Idle } else { last.mode },
            key: last.key.filter(|_| !idle).map(hex::encode),
            pages: last.pages.filter(|_| !idle).map(|pages| pages.to_string()),
            preparing: building.as_ref().map(|(key, _)| hex::encode(key)),
            progress: building.map(|(_, fraction)| (fraction * 1000.0).round() / 1000.0),
            datasets,
            shared: last.shared && !idle,
            threads: u32::try_from(self.manners.threads).unwrap_or(u32::MAX),
            hashrates: self.rates.all(now),
            thread_hashrates: self.rates.each(now),
            held_back: None,
        }
    }

    /// Gives memory back when its time has come, on a task that ends when none is left. Call it within a runtime.
    pub fn keep_swept(self: &Arc<Self>) {
        self.caches.keep_swept();
        if self.swept.swap(true, Ordering::SeqCst) {
            return;
        }
        let engine = Arc::downgrade(self);
        tokio::spawn(async move {
            loop {
                tokio::time::sleep(SWEEP).await;
                let Some(engine) = engine.upgrade() else { return };
                if !engine.datasets.sweep(clock::instant()) {
                    engine.swept.store(false, Ordering::SeqCst);
                    return;
                }
            }
        });
    }
}
