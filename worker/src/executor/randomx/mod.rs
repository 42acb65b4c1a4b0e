//! RandomX on threads of its own: `randomx.hash` and `randomx.search`, in light mode.
//!
//! [`caches`] keeps the memory of the last keys, [`crew`] hashes one unit on all threads,
//! [`job`] says what is hashed and what the result is.

mod caches;
mod crew;
mod job;
mod rate;

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use flota_common::clock;
use flota_proto::Kind;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use self::caches::Caches;
use self::crew::{Computed, Crew, Unfinished, Work};
use self::job::Job;
use self::rate::Rate;
use super::{Context, Executor, Failure, Output, Unit};

/// How often it is told how far a unit is.
const PROGRESS_EVERY: Duration = Duration::from_millis(500);
/// A cache takes a second or two to make; one that takes so long hangs.
const INIT_MAX: Duration = Duration::from_secs(60);
/// After a cancel the threads end with the hash at hand.
const STOP_GRACE: Duration = Duration::from_millis(900);

/// How RandomX is computed.
#[derive(Clone, Copy, Debug, Default)]
pub struct RandomxConfig {
    /// How many threads hash; without it one a core.
    pub threads: Option<NonZeroUsize>,
}

/// Computes `randomx.hash` and `randomx.search`. Takes no memory until the first unit.
#[derive(Debug)]
pub struct RandomxExecutor {
    threads: usize,
    caches: Arc<Caches>,
    rate: Arc<Rate>,
}

impl RandomxExecutor {
    /// An executor without any cache yet.
    #[must_use]
    pub fn new(config: RandomxConfig) -> Self {
        let threads = config.threads.or_else(|| thread::available_parallelism().ok());
        Self {
            threads: threads.map_or(1, NonZeroUsize::get),
            caches: Arc::new(Caches::default()),
            rate: Arc::default(),
        }
    }

    /// Begins `job` on threads of its own; they end soon after `stop`.
    fn spawn(&self, job: Job, stop: CancellationToken) -> std::io::Result<Running> {
        let (sender, done) = oneshot::channel();
        let shared = Arc::new(Shared {
            count: job.count(),
            warm: AtomicBool::new(self.caches.is_warm(job.key())),
            crew: Crew::new(stop, self.rate.clone()),
        });
        let (caches, threads, state) = (self.caches.clone(), self.threads, shared.clone());
        thread::Builder::new().name("randomx-unit".to_owned()).spawn(move || {
            // Nobody listens any more after a cancel.
            let _ = sender.send(compute(&job, &caches, threads, &state));
        })?;
        Ok(Running { shared, done })
    }

    fn report(&self, shared: &Shared, reported: &mut u64, context: &Context) {
        let hashed = shared.crew.hashed();
        // Without a new hash nothing is said: a unit that hangs loses its lease.
        if hashed > *reported {
            *reported = hashed;
            let note = format!("{:.0} H/s", self.hashrate_now());
            context.observer.progress(hashed as f64 / shared.count as f64, &note);
        }
    }

    fn hashrate_now(&self) -> f64 {
        self.rate.per_second(clock::instant())
    }

    async fn watch(&self, mut running: Running, context: &Context) -> Result<Output, Failure> {
        let shared = running.shared.clone();
        let begun = clock::instant();
        let mut ticks = tokio::time::interval(PROGRESS_EVERY);
        let mut reported = 0;
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
                self.report(&shared, &mut reported, context);
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
fn compute(job: &Job, caches: &Caches, threads: usize, shared: &Shared) -> Result<Output, Failure> {
    let computed = caches.get(job.key()).map_err(Unfinished::from).and_then(|cache| {
        shared.warm.store(true, Ordering::SeqCst);
        shared.crew.run(job, &cache, threads)
    });
    caches.released(job.key());
    output(job, computed)
}

fn output(job: &Job, computed: Result<Computed, Unfinished>) -> Result<Output, Failure> {
    let computed = computed.map_err(|unfinished| match unfinished {
        Unfinished::Stopped => Failure::cancelled(),
        Unfinished::OutOfMemory(error) => Failure::transient(
            "out_of_memory",
            format!("{error}; free some on this worker, or take it out with FLOTA_WORKER_SLOTS=randomx=0"),
        ),
    })?;
    let hashes = computed.hashed;
    let json = job.result(computed).map_err(|error| Failure::permanent("internal", error.to_string()))?;
    Ok(Output { json: Bytes::from(json), hashes })
}

#[async_trait]
impl Executor for RandomxExecutor {
    fn kinds(&self) -> &[Kind] {
        &[Kind::RandomxHash, Kind::RandomxSearch]
    }

    fn warm_keys(&self) -> Vec<String> {
        self.caches.keys()
    }

    fn hashrate(&self) -> f64 {
        self.hashrate_now()
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
        self.caches.keep_swept();
        result
    }
}

#[cfg(test)]
mod tests;
