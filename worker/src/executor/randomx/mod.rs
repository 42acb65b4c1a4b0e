//! RandomX on threads of its own: `randomx.hash` and `randomx.search`, in light and in fast mode.
//!
//! [`caches`] and [`datasets`] keep the memory of the last keys, [`engine`] chooses between them, [`crew`] hashes one unit on all
//! threads, [`job`] says what is hashed and what the result is.

mod caches;
mod crew;
mod datasets;
mod engine;
mod job;
mod machine;
mod maker;

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use flota_common::clock;
use flota_proto::mqtt::RandomxState;
use flota_proto::{Algorithm, Kind};
use flota_randomx::{DIGEST_BYTES, Dataset, Error};
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use self::crew::{Computed, Crew, Work};
use self::engine::Engine;
use self::job::Job;
use super::{Context, Executor, Failure, Output, Unit};
use crate::peer::Digests;
use crate::peer::fetch::Peers;

/// How often it is told how far a unit is.
const PROGRESS_EVERY: Duration = Duration::from_millis(500);
/// A cache takes a second or two to make; one that takes so long hangs.
const INIT_MAX: Duration = Duration::from_secs(60);
/// After a cancel the threads end with the hash at hand.
const STOP_GRACE: Duration = Duration::from_millis(900);

/// Which memory RandomX computes from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// Fast where there is memory and enough work for it.
    #[default]
    Auto,
    /// From a cache of 256 MiB.
    Light,
    /// From a dataset of 2080 MiB as soon as it is there.
    Fast,
}

/// How RandomX is computed.
#[derive(Clone, Debug)]
pub struct RandomxConfig {
    /// Which memory it computes from.
    pub mode: Mode,
    /// How many threads hash; without it as many as processors, their caches and the memory are good for.
    pub threads: Option<NonZeroUsize>,
    /// Share of the time that each thread works, 1 to 100.
    pub percent: u8,
    /// Priority of the threads, 0 to 19.
    pub nice: u8,
    /// The processors that they are bound to; empty: none.
    pub cpus: Vec<usize>,
    /// How long a dataset that nobody uses keeps its memory; `None`: for ever.
    pub keep: Option<Duration>,
    /// Where the workers of this host share one dataset; `None`: each has its own.
    pub shared_directory: Option<PathBuf>,
    /// Workers to fetch a dataset from where that is faster than computing it.
    pub peers: Peers,
}

impl Default for RandomxConfig {
    fn default() -> Self {
        Self {
            mode: Mode::Auto,
            threads: None,
            percent: 100,
            nice: 0,
            cpus: Vec::new(),
            keep: Some(Duration::from_secs(10 * 60)),
            shared_directory: None,
            peers: Peers::default(),
        }
    }
}

/// Computes `randomx.hash` and `randomx.search`. Takes no memory until the first unit.
#[derive(Debug)]
pub struct RandomxExecutor {
    engine: Arc<Engine>,
}

impl RandomxExecutor {
    /// An executor without any cache yet.
    #[must_use]
    pub fn new(config: RandomxConfig) -> Self {
        Self { engine: Arc::new(Engine::new(config)) }
    }

    /// Begins `job` on threads of its own; they end soon after `stop`.
    fn spawn(&self, job: Job, stop: CancellationToken) -> std::io::Result<Running> {
        let (sender, done) = oneshot::channel();
        let shared = Arc::new(Shared {
            count: job.count(),
            finds_from: job.finds_from(),
            warm: AtomicBool::new(self.engine.is_warm(job.key())),
            crew: Crew::new(stop, self.engine.rates.clone(), if job.shows_all() { job.count() } else { 0 }),
        });
        let (engine, state) = (self.engine.clone(), shared.clone());
        thread::Builder::new().name("randomx-unit".to_owned()).spawn(move || {
            // Nobody listens any more after a cancel.
            let _ = sender.send(compute(&job, &engine, &state));
        })?;
        Ok(Running { shared, done })
    }

    fn report(&self, shared: &Shared, reported: &mut u64, told: &mut usize, context: &Context) {
        if let Some(start) = shared.finds_from {
            let news = shared.crew.kept_after(*told);
            *told += news.len();
            if !news.is_empty() {
                context.observer.found(news.into_iter().map(|hit| job::found(start, hit)).collect());
            }
        }
        let hashed = shared.crew.hashed();
        // Without a new hash nothing is said: a unit that hangs loses its lease.
        if hashed > *reported {
            *reported = hashed;
            context.observer.progress(hashed as f64 / shared.count as f64, &self.engine.note());
        }
    }

    async fn watch(&self, mut running: Running, context: &Context) -> Result<Output, Failure> {
        let shared = running.shared.clone();
        let begun = clock::instant();
        let mut ticks = tokio::time::interval(PROGRESS_EVERY);
        let (mut reported, mut told) = (0, 0);
        if !shared.warm.load(Ordering::SeqCst) {
            context.observer.progress(0.0, "preparing the RandomX cache of this key");
        }
        loop {
            tokio::select! {
                biased;
                done = &mut running.done => return finished(done),
                () = context.cancel.cancelled() => break,
                _ = ticks.tick() => {}
            }
            if shared.warm.load(Ordering::SeqCst) {
                self.report(&shared, &mut reported, &mut told, context);
            } else if begun.elapsed() < INIT_MAX {
                context.observer.alive();
            }
        }
        // The next unit should find the cores free; a cache that is being made can't be stopped and stays warm.
        if shared.warm.load(Ordering::SeqCst) {
            let _ = tokio::time::timeout(STOP_GRACE, &mut running.done).await;
        }
        Err(Failure::cancelled())
    }
}

/// What the thread of a unit and its watcher share.
struct Shared {
    count: u64,
    /// Of a search: its first nonce. What is kept is told at once.
    finds_from: Option<u64>,
    warm: AtomicBool,
    crew: Crew,
}

struct Running {
    shared: Arc<Shared>,
    done: oneshot::Receiver<Result<Output, Failure>>,
}

fn finished(done: Result<Result<Output, Failure>, oneshot::error::RecvError>) -> Result<Output, Failure> {
    done.unwrap_or_else(|_| Err(Failure::transient("internal", "the RandomX threads ended without a result")))
}

/// The whole unit, on a thread that may block.
fn compute(job: &Job, engine: &Arc<Engine>, shared: &Shared) -> Result<Output, Failure> {
    let warm = || shared.warm.store(true, Ordering::SeqCst);
    let outcome = engine.compute(job, job.key(), &shared.crew, &warm).map_err(|error| no_memory(&error))?;
    let Some(mode) = outcome else { return Err(Failure::cancelled()) };
    output(job, shared.crew.computed(job.count()), mode)
}

fn no_memory(error: &Error) -> Failure {
    let help = "free some on this worker, or take it out with FLOTA_WORKER_SLOTS=randomx=0";
    Failure::transient("out_of_memory", format!("{error}; {help}"))
}

fn output(job: &Job, computed: Computed, mode: &'static str) -> Result<Output, Failure> {
    let hashes = computed.hashed;
    let json = job.result(computed, mode).map_err(|error| Failure::permanent("internal", error.to_string()))?;
    Ok(Output { json: Bytes::from(json), hashes })
}

#[async_trait]
impl Executor for RandomxExecutor {
    fn kinds(&self) -> &[Kind] {
        &[Kind::Hash(Algorithm::Randomx), Kind::Search(Algorithm::Randomx)]
    }

    fn warm_keys(&self) -> Vec<String> {
        self.engine.warm_keys()
    }

    fn rate(&self) -> Option<(Algorithm, f64)> {
        Some((Algorithm::Randomx, self.engine.rates.now()))
    }

    fn randomx(&self) -> Option<RandomxState> {
        Some(self.engine.state())
    }

    fn prepare(&self, key: &[u8]) -> Option<String> {
        let said = self.engine.prepare(key).to_owned();
        self.engine.keep_swept();
        Some(said)
    }

    fn dataset(&self, key: &[u8]) -> Option<Arc<Dataset>> {
        self.engine.dataset(key)
    }

    fn computed_datasets(&self) -> Vec<(Vec<u8>, [u8; DIGEST_BYTES])> {
        self.engine.computed()
    }

    fn trust(&self, digests: Arc<dyn Digests>) {
        self.engine.trust(digests);
    }

    fn hold(&self, held: bool) {
        self.engine.hold(held);
    }

    async fn execute(&self, unit: Unit, context: Context) -> Result<Output, Failure> {
        let kind = unit.kind;
        let job = Job::of(unit.payload).ok_or_else(|| {
            Failure::permanent("unsupported", format!("the RandomX executor does not compute {kind}"))
        })?;
        let stop = context.cancel.child_token();
        // Also when the future is dropped.
        let _stop = stop.clone().drop_guard();
        let running = self.spawn(job, stop).map_err(|error| {
            Failure::transient("out_of_threads", format!("the worker can't start a thread for RandomX: {error}"))
        })?;
        let result = self.watch(running, &context).await;
        self.engine.keep_swept();
        result
    }
}

#[cfg(test)]
mod tests;
