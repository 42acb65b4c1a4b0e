//! Results that may be used again: found by kind and payload, bounded in size and age, and shared by jobs that ask the same at the
//! same time. In memory: what is lost with a restart is computed again.

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use bytes::Bytes;
use flota_common::clock;
use flota_proto::rest::JobState;
use flota_proto::{JobId, WorkerId};
use metrics::{counter, gauge};

use super::Dispatcher;
use crate::submit::NewJob;

type Key = [u8; 32];

/// How much is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CacheLimits {
    /// Of results, with what they are found by; 0: none.
    pub bytes: u64,
    /// Since a result was computed.
    pub age: Duration,
}

/// What an entry takes beside its result.
const ENTRY_BYTES: u64 = 200;

/// Jobs that are remembered to have been given one result.
const GIVEN_MAX: usize = 1_000;

struct Entry {
    result: Bytes,
    made: Instant,
    used: u64,
    /// Who computed it.
    workers: Vec<WorkerId>,
    /// Whose result it is too.
    given: Vec<JobId>,
}

/// The results.
#[derive(Default)]
pub struct Cache {
    entries: HashMap<Key, Entry>,
    /// Those used longest ago first.
    order: BTreeMap<u64, Key>,
    turn: u64,
    bytes: u64,
    /// Who computes it now.
    in_work: HashMap<Key, JobId>,
    keys: HashMap<JobId, Key>,
    /// Who waits for what is in work.
    sharing: HashMap<Key, Vec<JobId>>,
}

fn size(result: &Bytes) -> u64 {
    result.len() as u64 + ENTRY_BYTES
}

impl Cache {
    fn get(&mut self, key: &Key, age: Duration, job: JobId) -> Option<Bytes> {
        let now = clock::instant();
        let entry = self.entries.get_mut(key)?;
        if now.saturating_duration_since(entry.made) >= age {
            self.remove(key);
            return None;
        }
        self.order.remove(&entry.used);
        self.turn += 1;
        entry.used = self.turn;
        self.order.insert(self.turn, *key);
        remember(&mut entry.given, job);
        Some(entry.result.clone())
    }

    fn remove(&mut self, key: &Key) {
        if let Some(entry) = self.entries.remove(key) {
            self.order.remove(&entry.used);
            self.bytes -= size(&entry.result);
        }
    }

    fn insert(&mut self, key: Key, result: Bytes, workers: Vec<WorkerId>, limit: u64) {
        self.remove(&key);
        let given = self.sharing.remove(&key).unwrap_or_default();
        // One that takes a quarter of all the room would drive too many others out.
        if size(&result) > limit / 4 {
            return;
        }
        self.turn += 1;
        self.bytes += size(&result);
        self.order.insert(self.turn, key);
        self.entries.insert(key, Entry { result, made: clock::instant(), used: self.turn, workers, given });
        while self.bytes > limit
            && let Some(oldest) = self.order.first_key_value().map(|(_, key)| *key)
        {
            self.remove(&oldest);
        }
    }

    /// What was in work is not known any more.
    pub fn forget_work(&mut self) {
        self.in_work.clear();
        self.keys.clear();
        self.sharing.clear();
    }

    /// Drops what `worker` computed, or helped to; answers with the jobs that were given it.
    pub fn forget_worker(&mut self, worker: &WorkerId) -> Vec<JobId> {
        let theirs = |(_, entry): &(&Key, &Entry)| entry.workers.contains(worker);
        let keys: Vec<Key> = self.entries.iter().filter(theirs).map(|(key, _)| *key).collect();
        let mut given = Vec::new();
        for key in keys {
            given.extend(self.entries.get_mut(&key).map(|entry| std::mem::take(&mut entry.given)).unwrap_or_default());
            self.remove(&key);
        }
        given
    }
}

fn remember(given: &mut Vec<JobId>, job: JobId) {
    if given.len() < GIVEN_MAX {
        given.push(job);
    }
}

impl Dispatcher {
    /// Gives a new job the result of an earlier one, or the job that is computing it.
    pub(super) fn look_up(&mut self, job: &mut NewJob) {
        let Some(key) = job.cache_key.filter(|_| self.config.cache.bytes > 0) else { return };
        let outcome = if !job.depends_on.is_empty() || job.run_at.is_some() {
            // It is to run later, with what is there then.
            return;
        } else if let Some(result) = self.cache.get(&key, self.config.cache.age, job.id) {
            job.ready = Some(result);
            "hit"
        } else if let Some(other) = self.cache.in_work.get(&key) {
            job.shares = Some(*other);
            remember(self.cache.sharing.entry(key).or_default(), job.id);
            job.on_dependency_failure = flota_proto::rest::OnDependencyFailure::Continue;
            "shared"
        } else {
            "miss"
        };
        counter!("flota_cache_total", "outcome" => outcome).increment(1);
    }

    /// Notes who computes what, of jobs that the core has accepted.
    pub(super) fn note_work(&mut self, id: JobId, key: Option<Key>, alone: bool) {
        if let Some(key) = key.filter(|_| alone && self.config.cache.bytes > 0) {
            self.cache.in_work.entry(key).or_insert(id);
            self.cache.keys.insert(id, key);
        }
    }

    /// Keeps the result of a job that ended and is stored.
    pub(super) fn keep_result(&mut self, id: JobId) {
        let Some(key) = self.cache.keys.remove(&id) else { return };
        if self.cache.in_work.get(&key) == Some(&id) {
            self.cache.in_work.remove(&key);
        }
        let workers = self.core.job_view(id).filter(|job| job.state == JobState::Completed).map(|job| job.workers);
        // One that was caught in this very batch.
        let workers = workers.filter(|workers| !workers.iter().any(|worker| self.core.is_set_aside(worker)));
        let found = self.core.job_result(id).zip(workers);
        if found.is_none() {
            self.cache.sharing.remove(&key);
        }
        if let Some((result, workers)) = found {
            self.cache.insert(key, result, workers, self.config.cache.bytes);
            #[allow(clippy::cast_precision_loss)]
            gauge!("flota_cache_bytes").set(self.cache.bytes as f64);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    fn key(number: u8) -> Key {
        [number; 32]
    }

    #[test]
    fn what_was_used_longest_ago_goes_first_and_nothing_outgrows_the_room() {
        let mut cache = Cache::default();
        let result = Bytes::from(vec![0; 800]);
        let limit = 4 * size(&result);
        for number in 0..4 {
            cache.insert(key(number), result.clone(), Vec::new(), limit);
        }
        assert!(cache.get(&key(0), HOUR, JobId::generate()).is_some());
        cache.insert(key(4), result.clone(), Vec::new(), limit);
        assert!(
            cache.get(&key(1), HOUR, JobId::generate()).is_none()
                && cache.get(&key(0), HOUR, JobId::generate()).is_some()
        );
        cache.insert(key(5), Bytes::from(vec![0; 900]), Vec::new(), limit);
        assert!(cache.get(&key(5), HOUR, JobId::generate()).is_none(), "too large to keep");
        cache.insert(key(0), result, Vec::new(), limit);
        assert_eq!((cache.entries.len(), cache.order.len(), cache.bytes), (4, 4, limit));
    }

    #[test]
    fn a_result_that_is_too_old_is_none() {
        let mut cache = Cache::default();
        cache.insert(key(1), Bytes::from_static(b"1"), Vec::new(), 1_000_000);
        assert!(cache.get(&key(1), Duration::ZERO, JobId::generate()).is_none());
        assert_eq!((cache.entries.len(), cache.order.len(), cache.bytes), (0, 0, 0));
    }

    #[test]
    fn what_a_liar_computed_is_forgotten_with_the_names_of_those_who_got_it() {
        let mut cache = Cache::default();
        let worker = |name: &str| name.parse::<WorkerId>().unwrap();
        let (first, second) = (JobId::generate(), JobId::generate());
        cache.sharing.insert(key(1), vec![first]);
        cache.insert(key(1), Bytes::from_static(b"1"), vec![worker("honest"), worker("liar")], 1_000_000);
        cache.insert(key(2), Bytes::from_static(b"2"), vec![worker("honest")], 1_000_000);
        cache.get(&key(1), HOUR, second);
        assert_eq!(cache.forget_worker(&worker("liar")), [first, second]);
        assert!(cache.get(&key(1), HOUR, first).is_none() && cache.get(&key(2), HOUR, first).is_some());
        assert!(cache.forget_worker(&worker("liar")).is_empty() && cache.sharing.is_empty());
    }
}
