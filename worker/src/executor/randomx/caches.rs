//! The caches of the last keys, shared between units. A cache takes 256 MiB: it is made when first needed, at most
//! two are kept, and one that nobody used for some minutes is freed.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use flota_common::clock;
use flota_randomx::{Cache, Error};

/// How many keys are kept warm.
pub const CACHES_MAX: usize = 2;
/// After this time without use a cache is freed.
pub const IDLE: Duration = Duration::from_secs(5 * 60);

/// The caches of the last keys.
#[derive(Debug, Default)]
pub struct Caches {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    entries: Vec<Entry>,
    /// Somebody looks for idle ones from time to time.
    swept: bool,
}

#[derive(Debug)]
struct Entry {
    key: Vec<u8>,
    used: Instant,
    slot: Arc<Slot>,
}

/// Locked while the cache is made, so that two units with one key make it once.
type Slot = Mutex<Option<Arc<Cache>>>;

impl Caches {
    /// The cache of `key`; makes it where it is missing, which takes about a second of this thread.
    ///
    /// # Errors
    /// [`Error::CacheMemory`]
    pub fn get(&self, key: &[u8]) -> Result<Arc<Cache>, Error> {
        let (slot, evicted) = self.slot(key);
        let mut slot = lock(&slot);
        if let Some(cache) = slot.as_ref() {
            return Ok(cache.clone());
        }
        let begun = clock::instant();
        let made = match evicted.and_then(Arc::into_inner) {
            Some(mut cache) => {
                cache.reset(key);
                cache
            }
            None => Cache::new(key)?,
        };
        tracing::info!(
            init_ms = begun.elapsed().as_millis() as u64,
            pages = made.pages().as_str(),
            jit = made.is_jit(),
            "RandomX cache is ready"
        );
        let cache = Arc::new(made);
        *slot = Some(cache.clone());
        Ok(cache)
    }

    /// The slot of `key`, and the cache that had to go for it.
    fn slot(&self, key: &[u8]) -> (Arc<Slot>, Option<Arc<Cache>>) {
        let entries = &mut lock(&self.state).entries;
        let used = clock::instant();
        if let Some(entry) = entries.iter_mut().find(|entry| entry.key == key) {
            entry.used = used;
            return (entry.slot.clone(), None);
        }
        let oldest = (0..entries.len()).min_by_key(|index| entries[*index].used);
        let evicted = oldest.filter(|_| entries.len() >= CACHES_MAX).map(|index| entries.swap_remove(index));
        let slot = Arc::new(Slot::default());
        entries.push(Entry { key: key.to_vec(), used, slot: slot.clone() });
        // One that is being made right now is left to its maker.
        (slot, evicted.and_then(|entry| entry.slot.try_lock().ok().and_then(|mut slot| slot.take())))
    }

    /// The keys whose caches are ready, in hex.
    #[must_use]
    pub fn keys(&self) -> Vec<String> {
        let ready = |entry: &&Entry| entry.slot.try_lock().is_ok_and(|slot| slot.is_some());
        lock(&self.state).entries.iter().filter(ready).map(|entry| hex::encode(&entry.key)).collect()
    }

    /// Whether the cache of `key` is ready.
    #[must_use]
    pub fn is_warm(&self, key: &[u8]) -> bool {
        lock(&self.state)
            .entries
            .iter()
            .any(|entry| entry.key == key && entry.slot.try_lock().is_ok_and(|s| s.is_some()))
    }

    /// A unit with `key` ended: from now it is idle.
    pub fn released(&self, key: &[u8]) {
        if let Some(entry) = lock(&self.state).entries.iter_mut().find(|entry| entry.key == key) {
            entry.used = clock::instant();
        }
    }

    /// Frees idle caches when their time has come, on a task that ends when none is left. Call it within a runtime.
    pub fn keep_swept(self: &Arc<Self>) {
        if std::mem::replace(&mut lock(&self.state).swept, true) {
            return;
        }
        let caches = Arc::downgrade(self);
        tokio::spawn(async move {
            while let Some(wait) = caches.upgrade().and_then(|caches| caches.sweep(clock::instant())) {
                tokio::time::sleep(wait).await;
            }
        });
    }

    /// Frees what was not used for [`IDLE`] at `now`; when to look again, or `None` when nothing is left.
    fn sweep(&self, now: Instant) -> Option<Duration> {
        let state = &mut *lock(&self.state);
        for entry in state.entries.iter_mut().filter(|entry| entry.in_use()) {
            entry.used = now;
        }
        let idle = |entry: &Entry| now.saturating_duration_since(entry.used);
        state.entries.retain(|entry| idle(entry) < IDLE);
        let next = state.entries.iter().map(|entry| IDLE.saturating_sub(idle(entry))).min();
        state.swept = next.is_some();
        next
    }
}

impl Entry {
    fn in_use(&self) -> bool {
        // Locked: it is being made.
        self.slot.try_lock().map_or(true, |slot| slot.as_ref().is_some_and(|cache| Arc::strong_count(cache) > 1))
    }
}

/// A panic while a lock was held leaves these values whole.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_with_one_key_share_a_cache_and_the_oldest_of_three_keys_goes() {
        let caches = Caches::default();
        let first = caches.get(b"1").unwrap();
        assert!(Arc::ptr_eq(&first, &caches.get(b"1").unwrap()));
        drop(first);
        drop(caches.get(b"2").unwrap());
        drop(caches.get(b"1").unwrap());
        drop(caches.get(b"3").unwrap());
        let mut keys = caches.keys();
        keys.sort();
        assert_eq!(keys, ["31", "33"]);
    }

    #[test]
    fn a_cache_in_use_outlives_its_place() {
        let caches = Caches::default();
        let first = caches.get(b"test key 000").unwrap();
        drop(caches.get(b"2").unwrap());
        drop(caches.get(b"3").unwrap());
        let hash = flota_randomx::Vm::light(&first).unwrap().hash(b"This is a test");
        assert_eq!(hex::encode(hash), "639183aae1bf4c9a35884cb46b09cad9175f04efd7684e7262a0ac1c2f0b4e3f");
    }

    #[test]
    fn idle_caches_are_freed() {
        let caches = Caches::default();
        let cache = caches.get(b"1").unwrap();
        let now = clock::instant();
        assert_eq!(caches.sweep(now + 2 * IDLE), Some(IDLE), "one in use is kept");
        let held = Arc::downgrade(&cache);
        drop(cache);
        caches.released(b"1");
        assert!(caches.sweep(now).is_some_and(|wait| wait <= IDLE));
        assert!(held.upgrade().is_some());
        assert_eq!(caches.sweep(clock::instant() + IDLE), None);
        assert!(held.upgrade().is_none());
        assert!(caches.keys().is_empty());
    }
}
