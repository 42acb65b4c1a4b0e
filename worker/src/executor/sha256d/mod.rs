//! `sha256d.hash` and `sha256d.search`: SHA-256 twice, as Bitcoin hashes its block headers, on threads of its own.

mod hasher;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use flota_common::clock;
use flota_proto::kinds::{
    Find, Found, HashPayload, HashResult, PROOF_GROUPS_MAX, Payload, SearchPayload, SearchResult, wins,
};
use flota_proto::{Algorithm, Kind};
use sha2::{Digest, Sha256};
use tokio::sync::oneshot;

use self::hasher::Hasher;
use super::manners::Manners;
use super::rate::Rates;
use super::{Context, Executor, Failure, Output, Unit};

/// How often it is told how far a unit is.
const PROGRESS_EVERY: Duration = Duration::from_millis(500);
/// How long a thread hashes before it tells how far it is, and rests where it has to.
const BATCH: Duration = Duration::from_millis(50);
/// Nonces that a thread takes at a time: what shares a place in the proof.
const STEP: u64 = Algorithm::Sha256d.proof_step();
/// More finds than this have no place in one result.
const FINDS_MAX: usize = 1 << 13;

/// Computes `sha256d.hash` and `sha256d.search`.
#[derive(Debug)]
pub struct Sha256dExecutor {
    manners: Arc<Manners>,
    rates: Arc<Rates>,
}

impl Sha256dExecutor {
    /// An executor whose threads behave so.
    #[must_use]
    pub fn new(manners: Manners) -> Self {
        Self { manners: Arc::new(manners), rates: Arc::default() }
    }
}

/// What is hashed.
#[derive(Debug)]
enum Job {
    Hash(HashPayload),
    /// With what each thread begins with.
    Search(SearchPayload, Hasher),
}

impl Job {
    fn of(payload: Payload) -> Option<Self> {
        match payload {
            Payload::Hash(payload) => Some(Self::Hash(payload)),
            Payload::Search(search) => {
                let hasher = Hasher::new(&search.blob, usize::try_from(search.nonce_offset).ok()?);
                Some(Self::Search(search, hasher))
            }
            Payload::Chat(_) | Payload::Embed(_) | Payload::Echo(_) => None,
        }
    }

    fn count(&self) -> u64 {
        match self {
            Self::Hash(payload) => payload.inputs.len() as u64,
            Self::Search(search, _) => search.count(),
        }
    }

    /// What a thread takes at a time, so many.
    fn groups(&self) -> u64 {
        match self {
            Self::Hash(payload) => payload.inputs.len() as u64,
            Self::Search(search, _) => search.count().div_ceil(STEP),
        }
    }
}

/// A hash and what it is of: an input's index or a nonce.
type Kept = (u64, [u8; 32]);

/// A unit, as its threads and its watcher share it.
struct Crew {
    job: Job,
    taken: AtomicU64,
    hashed: AtomicU64,
    /// Whoever waits wants no more.
    stop: AtomicBool,
    /// What was found is enough.
    enough: AtomicBool,
    kept: Mutex<Vec<Kept>>,
    /// The proof by group; empty where it would be too large.
    tops: Vec<AtomicU16>,
}

impl Crew {
    fn new(job: Job) -> Self {
        let shown = if matches!(job, Job::Search(..)) && job.groups() <= PROOF_GROUPS_MAX { job.groups() } else { 0 };
        Self {
            job,
            taken: AtomicU64::new(0),
            hashed: AtomicU64::new(0),
            stop: AtomicBool::new(false),
            enough: AtomicBool::new(false),
            kept: Mutex::default(),
            tops: (0..shown).map(|_| AtomicU16::new(0)).collect(),
        }
    }

    /// Computes all of it, on the calling thread and others; returns when all have ended.
    fn run(&self, manners: &Manners, rates: &Rates) {
        let threads = usize::try_from(self.job.groups()).unwrap_or(usize::MAX).min(manners.threads);
        rates.begin(clock::instant());
        thread::scope(|scope| {
            for index in 1..threads {
                let member = move || self.member(index, manners, rates);
                // Where no more threads are to be had, there are fewer.
                let _ = thread::Builder::new().name("sha256d".to_owned()).spawn_scoped(scope, member);
            }
            self.member(0, manners, rates);
        });
    }

    /// One thread.
    fn member(&self, index: usize, manners: &Manners, rates: &Rates) {
        manners.take_on(index);
        let mut hasher = match &self.job {
            Job::Search(_, hasher) => Some(hasher.clone()),
            Job::Hash(_) => None,
        };
        while !self.ended() {
            let begun = clock::instant();
            let mut hashed = 0;
            while !self.ended() && begun.elapsed() < BATCH {
                hashed += self.take(hasher.as_mut());
            }
            rates.add(clock::instant(), index, hashed);
            manners.rest(begun.elapsed(), || self.ended());
        }
    }

    fn ended(&self) -> bool {
        let over = self.stop.load(Ordering::Relaxed) || self.enough.load(Ordering::Relaxed);
        over || self.taken.load(Ordering::Relaxed) >= self.job.groups()
    }

    /// Takes the next group and hashes it to its end. Answers how many hashes that were.
    fn take(&self, hasher: Option<&mut Hasher>) -> u64 {
        let group = self.taken.fetch_add(1, Ordering::SeqCst);
        if group >= self.job.groups() {
            return 0;
        }
        let hashed = match (&self.job, hasher) {
            (Job::Search(search, _), Some(hasher)) => self.search(search, hasher, group),
            (Job::Search(..), None) => 0,
            (Job::Hash(payload), _) => {
                let input = usize::try_from(group).ok().and_then(|index| payload.inputs.get(index));
                let hash = Sha256::digest(Sha256::digest(input.map_or(&[][..], |input| input)));
                self.keep(&[(group, hash.into())]);
                1
            }
        };
        self.hashed.fetch_add(hashed, Ordering::SeqCst);
        hashed
    }

    fn search(&self, search: &SearchPayload, hasher: &mut Hasher, group: u64) -> u64 {
        let from = search.nonce_start + group * STEP;
        let to = (from + STEP).min(search.nonce_end);
        let (mut top, mut won) = ([0; 2], Vec::new());
        for nonce in from..to {
            let hash = hasher.hash(nonce as u32);
            (top[0], top[1]) = (top[0] ^ hash[31], top[1] ^ hash[30]);
            if wins(&hash, &search.target) {
                won.push((nonce, hash));
            }
        }
        if let Some(place) = usize::try_from(group).ok().and_then(|group| self.tops.get(group)) {
            place.store(u16::from_be_bytes(top), Ordering::SeqCst);
        }
        if !won.is_empty() {
            let kept = self.keep(&won);
            if search.find == Find::First || kept > FINDS_MAX {
                self.enough.store(true, Ordering::SeqCst);
            }
        }
        to - from
    }

    /// Answers how many are kept now.
    fn keep(&self, news: &[Kept]) -> usize {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.extend_from_slice(news);
        kept.len()
    }

    /// What was kept behind the first `known`, in the order of its coming.
    fn kept_after(&self, known: usize) -> Vec<Kept> {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.get(known..).unwrap_or_default().to_vec()
    }

    /// The output, once all threads have ended.
    fn output(&self) -> Result<Output, Failure> {
        let mut kept = self.kept_after(0);
        kept.sort_unstable();
        let hashes = self.hashed.load(Ordering::SeqCst);
        let json = match &self.job {
            Job::Hash(_) => {
                let hashes = kept.into_iter().map(|(_, hash)| hash.to_vec().into()).collect();
                serde_json::to_vec(&HashResult { hashes, mode: String::new(), covered: Vec::new() })
            }
            Job::Search(search, _) => serde_json::to_vec(&self.search_result(search, kept)?),
        };
        let json = json.map_err(|error| Failure::permanent("internal", error.to_string()))?;
        Ok(Output { json: Bytes::from(json), hashes })
    }

    fn search_result(&self, search: &SearchPayload, mut kept: Vec<Kept>) -> Result<SearchResult, Failure> {
        match search.find {
            Find::First => kept.truncate(1),
            Find::All if kept.len() > FINDS_MAX => {
                let message = format!("more than {FINDS_MAX} nonces of this unit win: ask for a lower target");
                return Err(Failure::permanent("result_too_large", message));
            }
            Find::All => {}
        }
        // Every group that was taken was hashed.
        let groups = self.taken.load(Ordering::SeqCst).min(self.job.groups());
        let end = search.nonce_start.saturating_add(groups * STEP).min(search.nonce_end);
        let covered = if groups == 0 { Vec::new() } else { vec![[search.nonce_start, end]] };
        let tops = self.tops.iter().take(usize::try_from(groups).unwrap_or(usize::MAX));
        let proof: Vec<u8> = tops.flat_map(|top| top.load(Ordering::SeqCst).to_be_bytes()).collect();
        let hashes_computed = self.hashed.load(Ordering::SeqCst);
        Ok(SearchResult { found: kept.iter().map(found).collect(), hashes_computed, covered, proof: proof.into() })
    }
}

fn found((nonce, hash): &Kept) -> Found {
    Found { nonce: *nonce, hash: hash.to_vec().into() }
}

/// Says how far a unit is until it has ended.
async fn watch(
    crew: &Crew,
    rates: &Rates,
    mut done: oneshot::Receiver<Result<Output, Failure>>,
    context: &Context,
) -> Result<Output, Failure> {
    let tells = matches!(&crew.job, Job::Search(search, _) if search.find == Find::All);
    let mut ticks = tokio::time::interval(PROGRESS_EVERY);
    let (mut reported, mut told) = (0, 0);
    loop {
        tokio::select! {
            biased;
            done = &mut done => {
                return done.unwrap_or_else(|_| Err(Failure::transient("internal", "the threads ended without a result")));
            }
            () = context.cancel.cancelled() => break,
            _ = ticks.tick() => {}
        }
        let news = if tells { crew.kept_after(told) } else { Vec::new() };
        told += news.len();
        if !news.is_empty() {
            context.observer.found(news.iter().map(found).collect());
        }
        let hashed = crew.hashed.load(Ordering::SeqCst);
        // Without a new hash nothing is said: a unit that hangs loses its lease.
        if hashed > reported {
            reported = hashed;
            let note = format!("{:.2} MH/s", rates.now() / 1e6);
            context.observer.progress(hashed as f64 / crew.job.count() as f64, &note);
        }
    }
    // The next unit should find the cores free; a group is over within milliseconds.
    crew.stop.store(true, Ordering::SeqCst);
    let _ = done.await;
    Err(Failure::cancelled())
}

/// Stops the threads, also when the future of a unit is dropped.
struct StopOnDrop(Arc<Crew>);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.0.stop.store(true, Ordering::SeqCst);
    }
}

#[async_trait]
impl Executor for Sha256dExecutor {
    fn kinds(&self) -> &[Kind] {
        &[Kind::Hash(Algorithm::Sha256d), Kind::Search(Algorithm::Sha256d)]
    }

    fn rate(&self) -> Option<(Algorithm, f64)> {
        Some((Algorithm::Sha256d, self.rates.now()))
    }

    async fn execute(&self, unit: Unit, context: Context) -> Result<Output, Failure> {
        let kind = unit.kind;
        let unsupported = || Failure::permanent("unsupported", format!("the sha256d executor does not compute {kind}"));
        let crew = Arc::new(Crew::new(Job::of(unit.payload).ok_or_else(unsupported)?));
        let _stop = StopOnDrop(crew.clone());
        let (sender, done) = oneshot::channel();
        let (shared, manners, rates) = (crew.clone(), self.manners.clone(), self.rates.clone());
        let compute = move || {
            shared.run(&manners, &rates);
            // Nobody listens any more after a cancel.
            let _ = sender.send(shared.output());
        };
        thread::Builder::new().name("sha256d".to_owned()).spawn(compute).map_err(|error| {
            Failure::transient("out_of_threads", format!("the worker can't start a thread for sha256d: {error}"))
        })?;
        watch(&crew, &self.rates, done, &context).await
    }
}

#[cfg(test)]
mod tests;
