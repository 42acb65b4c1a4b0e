//! How a source is doing: what REST shows, and the part of it that is kept.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use flota_common::clock;
use flota_proto::sources::{BlockState, FoundBlock, SourceCounters, SourceState, SourceWork};
use flota_proto::{Timestamp, WorkerId};
use serde::{Deserialize, Serialize};

/// Blocks remembered.
const BLOCKS_MAX: usize = 50;
/// Reasons told apart.
const REASONS_MAX: usize = 32;
/// Over which time the rate is taken.
const RATE_WINDOW: Duration = Duration::from_secs(60);

/// What is kept of a source across restarts.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Record {
    /// What became of nonces and hashes.
    pub counters: SourceCounters,
    /// Newest first.
    pub blocks: VecDeque<FoundBlock>,
    /// Hashes since the last find that counted.
    pub round_hashes: u64,
    /// When the last one was accepted.
    pub last_accepted_at: Option<Timestamp>,
    /// Blocks found and not yet taken by the node: after a crash they are handed over again.
    pub unsent: Vec<Unsent>,
}

/// A complete block that the node has not answered for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unsent {
    /// Its height.
    pub height: u64,
    /// Its id, hex.
    pub hash: String,
    /// The block, hex.
    pub blob: String,
}

/// What became of a find.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Taken.
    Accepted,
    /// Refused.
    Rejected,
    /// Too late.
    Stale,
    /// Its hash is not what the worker said.
    Invalid,
}

impl Verdict {
    fn as_str(self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::Rejected => "rejected",
            Self::Stale => "stale",
            Self::Invalid => "invalid",
        }
    }
}

/// How a source is doing.
#[derive(Debug)]
pub struct Status(Mutex<Inner>);

#[derive(Debug)]
struct Inner {
    state: SourceState,
    detail: String,
    connected_to: Option<String>,
    work: Option<SourceWork>,
    guests: u32,
    record: Record,
    rate: VecDeque<(Instant, u64)>,
    rate_since: Option<Instant>,
    unsaved: bool,
}

/// What REST shows of it.
#[derive(Clone, Debug)]
#[allow(missing_docs)]
pub struct Shown {
    pub state: SourceState,
    pub detail: String,
    pub connected_to: Option<String>,
    pub work: Option<SourceWork>,
    pub guests: u32,
    pub record: Record,
    pub hashrate: f64,
}

impl Status {
    /// Of a source that does not run, with what is kept of it.
    pub fn new(record: Record) -> Self {
        Self(Mutex::new(Inner {
            state: SourceState::Stopped,
            detail: String::new(),
            connected_to: None,
            work: None,
            guests: 0,
            record,
            rate: VecDeque::new(),
            rate_since: None,
            unsaved: false,
        }))
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change<T>(&self, change: impl FnOnce(&mut Record) -> T) -> T {
        let mut inner = self.lock();
        inner.unsaved = true;
        change(&mut inner.record)
    }

    /// It is in `state`; answers whether that is news.
    pub fn set(&self, state: SourceState, detail: &str) -> bool {
        let mut inner = self.lock();
        let news = inner.state != state || inner.detail != detail;
        inner.state = state;
        detail.clone_into(&mut inner.detail);
        if state == SourceState::Stopped {
            inner.connected_to = None;
            inner.rate_since = None;
            inner.rate.clear();
        }
        news
    }

    /// It has a connection to `name`.
    pub fn connected(&self, name: &str) {
        let mut inner = self.lock();
        inner.connected_to = Some(name.to_owned());
        inner.record.counters.connects += 1;
        inner.unsaved = true;
    }

    /// It has none.
    pub fn disconnected(&self) {
        self.lock().connected_to = None;
    }

    /// The fleet computes `work` from now on, or nothing.
    pub fn works_on(&self, work: Option<SourceWork>) {
        let mut inner = self.lock();
        if work.is_some() {
            inner.record.counters.jobs += 1;
            inner.unsaved = true;
            inner.rate_since.get_or_insert(clock::instant());
            inner.state = SourceState::Mining;
            inner.detail.clear();
        }
        inner.work = work;
    }

    /// A stock miner came, or went.
    pub fn guests(&self, change: i32) {
        let mut inner = self.lock();
        inner.guests = inner.guests.saturating_add_signed(change);
    }

    /// Hashes that counted.
    pub fn hashed(&self, hashes: u64) {
        let mut inner = self.lock();
        let now = clock::instant();
        inner.rate.push_back((now, hashes));
        while inner.rate.front().is_some_and(|(at, _)| now.saturating_duration_since(*at) > RATE_WINDOW) {
            inner.rate.pop_front();
        }
        inner.record.counters.hashes = inner.record.counters.hashes.saturating_add(hashes);
        inner.record.round_hashes = inner.record.round_hashes.saturating_add(hashes);
        inner.unsaved = true;
    }

    /// Hashes in vain.
    pub fn wasted(&self, hashes: u64) {
        self.change(|record| {
            record.counters.wasted_hashes = record.counters.wasted_hashes.saturating_add(hashes);
        });
    }

    /// A winning nonce came.
    pub fn found(&self) {
        self.change(|record| record.counters.found += 1);
    }

    /// What became of one; `reason` where it was refused.
    pub fn judged(&self, verdict: Verdict, reason: &str) {
        metrics::counter!("flota_shares_total", "outcome" => verdict.as_str()).increment(1);
        self.change(|record| {
            let counters = &mut record.counters;
            match verdict {
                Verdict::Accepted => {
                    counters.accepted += 1;
                    record.round_hashes = 0;
                    record.last_accepted_at = Some(clock::now());
                }
                Verdict::Rejected => counters.rejected += 1,
                Verdict::Stale => counters.stale += 1,
                Verdict::Invalid => counters.invalid += 1,
            }
            let known = counters.reasons.contains_key(reason) || counters.reasons.len() < REASONS_MAX;
            if verdict != Verdict::Accepted {
                let reason = if known { reason } else { "other" };
                *counters.reasons.entry(reason.to_owned()).or_default() += 1;
            }
        });
    }

    /// A block was found and is about to be handed over.
    pub fn block_found(&self, unsent: Unsent, worker: Option<WorkerId>) {
        self.change(|record| {
            record.blocks.push_front(FoundBlock {
                height: unsent.height,
                hash: unsent.hash.clone(),
                state: BlockState::Submitted,
                worker_id: worker,
                found_at: clock::now(),
            });
            record.blocks.truncate(BLOCKS_MAX);
            record.unsent.push(unsent);
        });
    }

    /// The node has answered for a block; one that it refused is none.
    pub fn block_sent(&self, hash: &str, taken: bool) {
        self.change(|record| {
            record.unsent.retain(|unsent| unsent.hash != hash);
            if !taken {
                record.blocks.retain(|block| block.hash != hash);
            }
        });
    }

    /// Blocks that the node has not answered for.
    pub fn unsent(&self) -> Vec<Unsent> {
        self.lock().record.unsent.clone()
    }

    /// Blocks from `height` on that the node took.
    pub fn blocks_since(&self, height: u64) -> Vec<FoundBlock> {
        let inner = self.lock();
        let sent = |block: &&FoundBlock| !inner.record.unsent.iter().any(|unsent| unsent.hash == block.hash);
        inner.record.blocks.iter().filter(|block| block.height >= height).filter(sent).cloned().collect()
    }

    /// A block is in `state` now; answers whether that is news.
    pub fn block_is(&self, hash: &str, state: BlockState) -> bool {
        self.change(|record| {
            let Some(block) = record.blocks.iter_mut().find(|block| block.hash == hash) else { return false };
            let before = std::mem::replace(&mut block.state, state);
            let counters = &mut record.counters;
            match before {
                BlockState::Submitted => {}
                BlockState::Confirmed => counters.blocks = counters.blocks.saturating_sub(1),
                BlockState::Orphaned => counters.orphaned = counters.orphaned.saturating_sub(1),
            }
            match state {
                BlockState::Submitted => {}
                BlockState::Confirmed => counters.blocks += 1,
                BlockState::Orphaned => counters.orphaned += 1,
            }
            before != state
        })
    }

    /// What is to be kept, if it changed since it was last asked for.
    pub fn take_unsaved(&self) -> Option<Record> {
        let mut inner = self.lock();
        std::mem::take(&mut inner.unsaved).then(|| inner.record.clone())
    }

    /// It could not be kept.
    pub fn still_unsaved(&self) {
        self.lock().unsaved = true;
    }

    /// What REST shows.
    pub fn shown(&self) -> Shown {
        let mut inner = self.lock();
        let now = clock::instant();
        inner.rate.retain(|(at, _)| now.saturating_duration_since(*at) <= RATE_WINDOW);
        let hashes: u64 = inner.rate.iter().map(|(_, hashes)| hashes).sum();
        let worked = inner.rate_since.map_or(RATE_WINDOW, |since| now.saturating_duration_since(since));
        let seconds = worked.clamp(Duration::from_secs(1), RATE_WINDOW).as_secs_f64();
        Shown {
            state: inner.state,
            detail: inner.detail.clone(),
            connected_to: inner.connected_to.clone(),
            work: inner.work.clone(),
            guests: inner.guests,
            record: inner.record.clone(),
            hashrate: hashes as f64 / seconds,
        }
    }
}
