//! The threads that hash one unit: each has a VM and takes the next index from a shared counter, so that none waits
//! for another and what was taken is, without gaps, what was hashed.

use std::collections::VecDeque;
use std::panic::resume_unwind;
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use flota_common::clock;
use flota_randomx::{Batch, Cache, Dataset, Error, HASH_BYTES, Vm};
use tokio_util::sync::CancellationToken;

use super::super::manners::Manners;
use super::super::rate::Rates;

/// How long a thread hashes before it tells how far it is. It looks whether to stop after every hash.
const BATCH: Duration = Duration::from_millis(200);
/// The same where it rests between batches: the shares of work and rest are felt.
const THROTTLED_BATCH: Duration = Duration::from_millis(50);

/// Hashes of numbered inputs.
pub trait Work: Send + Sync {
    /// Indices run from 0 to here.
    fn count(&self) -> u64;
    /// The input at `index`. `buffer` belongs to the thread and keeps what was left in it by the call before.
    fn input<'a>(&'a self, index: u64, buffer: &'a mut Vec<u8>) -> &'a [u8];
    /// What a hash is worth.
    fn judge(&self, hash: &[u8; HASH_BYTES]) -> Verdict;
    /// Whether the result says something of every hash.
    fn shows_all(&self) -> bool {
        false
    }
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

/// What the hashes are computed from.
#[derive(Clone, Debug)]
pub enum Memory {
    /// 256 MiB.
    Light(Arc<Cache>),
    /// 2080 MiB.
    Fast(Arc<Dataset>),
}

impl Memory {
    fn vm(&self) -> Result<Vm, Error> {
        match self {
            Self::Light(cache) => Vm::light(cache),
            Self::Fast(dataset) => Vm::fast(dataset),
        }
    }
}

/// What the threads of one unit share.
#[derive(Debug)]
pub struct Crew {
    taken: AtomicU64,
    hashed: AtomicU64,
    enough: AtomicBool,
    kept: Mutex<Vec<(u64, [u8; HASH_BYTES])>>,
    /// The two highest bytes of each hash by index, the highest first, where they are wanted.
    tops: Vec<AtomicU16>,
    stop: CancellationToken,
    rates: Arc<Rates>,
}

/// What was computed.
#[derive(Debug, PartialEq, Eq)]
pub struct Computed {
    /// By index.
    pub kept: Vec<(u64, [u8; HASH_BYTES])>,
    /// The two highest bytes of each hash, the highest first, by index; empty where they are not wanted.
    pub tops: Vec<u8>,
    /// Every index below it was hashed, once, and no other.
    pub hashed: u64,
}

/// Why the threads came back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Back {
    /// Nothing is left to do.
    Done,
    /// They were told to leave this memory.
    Left,
    /// They were told to stop.
    Stopped,
}

impl Crew {
    /// Nothing is computed yet; `stop` ends it early. Something of each of the first `shown` hashes is kept.
    pub fn new(stop: CancellationToken, rates: Arc<Rates>, shown: u64) -> Self {
        Self {
            taken: AtomicU64::new(0),
            hashed: AtomicU64::new(0),
            enough: AtomicBool::new(false),
            kept: Mutex::default(),
            tops: (0..shown).map(|_| AtomicU16::new(0)).collect(),
            stop,
            rates,
        }
    }

    /// How many hashes are computed so far.
    pub fn hashed(&self) -> u64 {
        self.hashed.load(Ordering::Relaxed)
    }

    /// What was kept behind the first `known`, in the order of its coming.
    pub fn kept_after(&self, known: usize) -> Vec<(u64, [u8; HASH_BYTES])> {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.get(known..).unwrap_or_default().to_vec()
    }

    /// Hashes what is left of `work` on up to `threads` threads until `leave` says so, and returns when all have ended.
    ///
    /// # Errors
    /// [`Error`] when not one thread could begin.
    pub fn run(
        &self,
        work: &dyn Work,
        memory: &Memory,
        manners: &Manners,
        leave: &(dyn Fn() -> bool + Sync),
    ) -> Result<Back, Error> {
        let left = work.count().saturating_sub(self.taken.load(Ordering::SeqCst));
        let threads = usize::try_from(left).unwrap_or(usize::MAX).clamp(1, manners.threads.max(1));
        self.rates.begin(clock::instant());
        let ends: Vec<Result<(), Error>> = thread::scope(|scope| {
            let begin = |index| {
                let member = move || Member { crew: self, work, manners, index }.run(memory, leave);
                thread::Builder::new().name("randomx".to_owned()).spawn_scoped(scope, member).ok()
            };
            let members: Vec<_> = (0..threads).filter_map(begin).collect();
            members.into_iter().map(|member| member.join().unwrap_or_else(|panic| resume_unwind(panic))).collect()
        });
        // A thread without a VM took nothing: the others did its part.
        if ends.iter().all(Result::is_err) {
            return Err(ends.into_iter().find_map(Result::err).unwrap_or(Error::Threads));
        }
        let taken = self.taken.load(Ordering::SeqCst);
        let done = self.enough.load(Ordering::SeqCst) || taken >= work.count();
        // Whoever is told to stop leaves the last that it took.
        let gave_up = self.hashed() < taken.min(work.count());
        Ok(match done {
            true if !gave_up => Back::Done,
            _ if self.stop.is_cancelled() => Back::Stopped,
            _ => Back::Left,
        })
    }

    /// What all runs together computed.
    pub fn computed(&self, count: u64) -> Computed {
        let mut kept = std::mem::take(&mut *self.kept.lock().unwrap_or_else(PoisonError::into_inner));
        kept.sort_unstable();
        let hashed = self.hashed();
        let taken = self.taken.load(Ordering::SeqCst).min(count);
        assert_eq!(hashed, taken, "every index that was taken was hashed");
        let tops = self.tops.iter().take(usize::try_from(hashed).unwrap_or(usize::MAX));
        let tops = tops.flat_map(|top| top.load(Ordering::SeqCst).to_be_bytes()).collect();
        Computed { kept, tops, hashed }
    }

    fn ended(&self, count: u64) -> bool {
        let enough = self.enough.load(Ordering::SeqCst) || self.stop.is_cancelled();
        enough || self.taken.load(Ordering::SeqCst) >= count
    }
}

/// One thread.
struct Member<'a> {
    crew: &'a Crew,
    work: &'a dyn Work,
    manners: &'a Manners,
    index: usize,
}

impl Member<'_> {
    fn run(&self, memory: &Memory, leave: &dyn Fn() -> bool) -> Result<(), Error> {
        self.manners.take_on(self.index);
        let mut vm = memory.vm()?;
        let mut buffer = Vec::new();
        while !self.ended() && !leave() {
            let begun = clock::instant();
            let throttled = self.manners.rest_after(Duration::from_secs(1)) > Duration::ZERO;
            let until = begun + if throttled { THROTTLED_BATCH } else { BATCH };
            let mut turn = Turn { member: self, buffer: &mut buffer, hashed: 0, open: VecDeque::new(), until };
            vm.run(&mut turn);
            let now = clock::instant();
            self.crew.rates.add(now, self.index, turn.hashed);
            self.manners.rest(now.saturating_duration_since(begun), || self.ended());
        }
        Ok(())
    }

    fn ended(&self) -> bool {
        self.crew.ended(self.work.count())
    }
}

/// One batch of one thread.
struct Turn<'a> {
    member: &'a Member<'a>,
    buffer: &'a mut Vec<u8>,
    hashed: u64,
    /// Taken and not yet hashed.
    open: VecDeque<u64>,
    until: Instant,
}

impl Batch for Turn<'_> {
    fn next(&mut self) -> Option<&[u8]> {
        let Member { crew, work, .. } = self.member;
        if self.member.ended() || clock::instant() >= self.until {
            return None;
        }
        let index = crew.taken.fetch_add(1, Ordering::SeqCst);
        if index >= work.count() {
            return None;
        }
        self.open.push_back(index);
        Some(work.input(index, self.buffer))
    }

    fn gives_up(&self) -> bool {
        self.member.crew.stop.is_cancelled()
    }

    fn hashed(&mut self, hash: [u8; HASH_BYTES]) {
        let Member { crew, work, .. } = self.member;
        let Some(index) = self.open.pop_front() else { return };
        self.hashed += 1;
        crew.hashed.fetch_add(1, Ordering::Relaxed);
        if let Some(top) = usize::try_from(index).ok().and_then(|index| crew.tops.get(index)) {
            top.store(u16::from_be_bytes([hash[31], hash[30]]), Ordering::SeqCst);
        }
        let verdict = work.judge(&hash);
        if verdict != Verdict::Skip {
            crew.kept.lock().unwrap_or_else(PoisonError::into_inner).push((index, hash));
        }
        if verdict == Verdict::KeepAndStop {
            crew.enough.store(true, Ordering::SeqCst);
        }
    }
}
