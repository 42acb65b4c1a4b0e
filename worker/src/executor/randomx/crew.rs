//! The threads that hash one unit: each has a VM and takes the next index from a shared counter, so that none waits
//! for another and what was taken is, without gaps, what was hashed.

use std::collections::VecDeque;
use std::panic::resume_unwind;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use flota_common::clock;
use flota_randomx::{Batch, Cache, Error, HASH_BYTES, Vm};
use tokio_util::sync::CancellationToken;

use super::rate::Rate;

/// How long a thread hashes before it tells how far it is. It looks whether to stop after every hash.
const BATCH: Duration = Duration::from_millis(200);

/// Hashes of numbered inputs.
pub trait Work: Send + Sync {
    /// Indices run from 0 to here.
    fn count(&self) -> u64;
    /// The input at `index`. `buffer` belongs to the thread and keeps what was left in it by the call before.
    fn input<'a>(&'a self, index: u64, buffer: &'a mut Vec<u8>) -> &'a [u8];
    /// What a hash is worth.
    fn judge(&self, hash: &[u8; HASH_BYTES]) -> Verdict;
}

/// What to do with a hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Only count it.
    Skip,
    /// It belongs to the result.
    Keep,
    /// It belongs to the result and is enough.
    KeepAndStop,
}

/// What the threads of one unit share.
#[derive(Debug)]
pub struct Crew {
    taken: AtomicU64,
    hashed: AtomicU64,
    enough: AtomicBool,
    stop: CancellationToken,
    rate: Arc<Rate>,
}

/// What was computed.
#[derive(Debug, PartialEq, Eq)]
pub struct Computed {
    /// By index.
    pub kept: Vec<(u64, [u8; HASH_BYTES])>,
    /// Every index below it was hashed, once, and no other.
    pub hashed: u64,
}

/// Why the threads did not finish.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unfinished {
    /// Not one thread could begin.
    #[error(transparent)]
    OutOfMemory(#[from] Error),
    /// They were told to stop.
    #[error("the attempt was cancelled")]
    Stopped,
}

impl Crew {
    /// Nothing is computed yet; `stop` ends it early.
    pub fn new(stop: CancellationToken, rate: Arc<Rate>) -> Self {
        Self { taken: AtomicU64::new(0), hashed: AtomicU64::new(0), enough: AtomicBool::new(false), stop, rate }
    }

    /// How many hashes are computed so far.
    pub fn hashed(&self) -> u64 {
        self.hashed.load(Ordering::Relaxed)
    }

    /// Hashes `work` on up to `threads` threads, and returns when all have ended.
    ///
    /// # Errors
    /// [`Unfinished`]
    pub fn run(&self, work: &dyn Work, cache: &Arc<Cache>, threads: usize) -> Result<Computed, Unfinished> {
        let threads = usize::try_from(work.count()).unwrap_or(usize::MAX).clamp(1, threads.max(1));
        self.rate.begin(clock::instant());
        let shares: Vec<_> = thread::scope(|scope| {
            let member = || self.member(work, cache);
            let named = || thread::Builder::new().name("randomx".to_owned());
            let members: Vec<_> = (0..threads).filter_map(|_| named().spawn_scoped(scope, member).ok()).collect();
            members.into_iter().map(|member| member.join().unwrap_or_else(|panic| resume_unwind(panic))).collect()
        });
        self.collect(work.count(), shares)
    }

    fn collect(&self, count: u64, shares: Vec<Result<Share, Error>>) -> Result<Computed, Unfinished> {
        // A thread without a VM took nothing: the others did its part.
        if shares.iter().all(Result::is_err) {
            return Err(shares.into_iter().find_map(Result::err).unwrap_or(Error::VmMemory).into());
        }
        let mut all = Computed { kept: Vec::new(), hashed: 0 };
        for share in shares.into_iter().flatten() {
            all.kept.extend(share.kept);
            all.hashed += share.hashed;
        }
        all.kept.sort_unstable();
        let taken = self.taken.load(Ordering::SeqCst).min(count);
        assert_eq!(all.hashed, taken, "every index that was taken was hashed");
        if taken < count && !self.enough.load(Ordering::SeqCst) { Err(Unfinished::Stopped) } else { Ok(all) }
    }

    /// One thread.
    fn member(&self, work: &dyn Work, cache: &Arc<Cache>) -> Result<Share, Error> {
        let mut vm = Vm::light(cache)?;
        let mut share = Share::default();
        let mut buffer = Vec::new();
        while !self.ended(work.count()) {
            let before = share.hashed;
            let until = clock::instant() + BATCH;
            vm.run(&mut Turn {
                crew: self,
                work,
                buffer: &mut buffer,
                share: &mut share,
                open: VecDeque::new(),
                until,
            });
            self.rate.add(clock::instant(), share.hashed - before);
        }
        Ok(share)
    }

    fn ended(&self, count: u64) -> bool {
        let enough = self.enough.load(Ordering::SeqCst) || self.stop.is_cancelled();
        enough || self.taken.load(Ordering::SeqCst) >= count
    }
}

/// What one thread computed.
#[derive(Debug, Default)]
struct Share {
    kept: Vec<(u64, [u8; HASH_BYTES])>,
    hashed: u64,
}

/// One batch of one thread.
struct Turn<'a> {
    crew: &'a Crew,
    work: &'a dyn Work,
    buffer: &'a mut Vec<u8>,
    share: &'a mut Share,
    /// Taken and not yet hashed: at most two.
    open: VecDeque<u64>,
    until: Instant,
}

impl Batch for Turn<'_> {
    fn next(&mut self) -> Option<&[u8]> {
        if self.crew.ended(self.work.count()) || clock::instant() >= self.until {
            return None;
        }
        let index = self.crew.taken.fetch_add(1, Ordering::SeqCst);
        if index >= self.work.count() {
            return None;
        }
        self.open.push_back(index);
        Some(self.work.input(index, self.buffer))
    }

    fn hashed(&mut self, hash: [u8; HASH_BYTES]) {
        let Some(index) = self.open.pop_front() else { return };
        self.share.hashed += 1;
        self.crew.hashed.fetch_add(1, Ordering::Relaxed);
        match self.work.judge(&hash) {
            Verdict::Skip => {}
            Verdict::Keep => self.share.kept.push((index, hash)),
            Verdict::KeepAndStop => {
                self.share.kept.push((index, hash));
                self.crew.enough.store(true, Ordering::SeqCst);
            }
        }
    }
}
