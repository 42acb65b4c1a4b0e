//! The 2080 MiB that a cache expands to.
#![allow(unsafe_code)]

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::Duration;

use flota_common::clock;

use crate::digest;
use crate::ffi::RawDataset;
use crate::region::Region;
#[cfg(target_os = "linux")]
use crate::shared::InUse;
use crate::vector::Vectorised;
use crate::{Cache, DATASET_BYTES, DIGEST_BYTES, Error, ITEM_BYTES, ITEMS, Method, Pages};

/// What a thread computes before it looks whether to go on: 2 MiB, one huge page.
const CHUNK: usize = 32_768;

/// The 2080 MiB that a cache expands to; from it a fast VM computes hashes. Read-only once made.
#[derive(Debug)]
pub struct Dataset {
    region: Region,
    raw: RawDataset,
    largest: Pages,
    pages: Pages,
    origin: Origin,
    digest: OnceLock<[u8; DIGEST_BYTES]>,
    #[cfg(target_os = "linux")]
    file: Option<InUse>,
}

/// Who made a dataset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// This process.
    Computed,
    /// Another process of this host, which shares it.
    Mapped,
    /// Another host, from which it was received.
    Received,
}

// SAFETY: the struct for the library points into the region, which is only read once the dataset is made.
unsafe impl Send for Dataset {}
// SAFETY: as above.
unsafe impl Sync for Dataset {}

/// A dataset that is being built: how, and how far it is. Shared with whoever watches or stops it.
#[derive(Debug)]
pub struct Build {
    /// How many threads compute; at least one does.
    pub threads: usize,
    /// Pages no larger than these.
    pub largest: Pages,
    /// How items are computed; where that is not possible the library does it.
    pub method: Method,
    stop: AtomicBool,
    next: AtomicUsize,
    done: AtomicUsize,
}

impl Build {
    /// On the largest pages to be had.
    #[must_use]
    pub fn new(threads: usize) -> Self {
        Self::with(threads, Pages::Huge)
    }

    /// On pages no larger than `largest`.
    #[must_use]
    pub fn with(threads: usize, largest: Pages) -> Self {
        let zero = || AtomicUsize::new(0);
        let method = Method::best();
        Self { threads, largest, method, stop: AtomicBool::new(false), next: zero(), done: zero() }
    }

    /// Ends it early: within a twentieth of a second.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::SeqCst);
    }

    /// From 0 to 1.
    #[must_use]
    pub fn fraction(&self) -> f64 {
        self.done.load(Ordering::Relaxed) as f64 / ITEMS as f64
    }

    /// What was done so far counts no more.
    pub fn begin_again(&self) {
        self.next.store(0, Ordering::SeqCst);
        self.done.store(0, Ordering::Relaxed);
    }

    /// Nothing is left to compute: it was there already.
    #[cfg(target_os = "linux")]
    pub(crate) fn finish(&self) {
        self.done.store(ITEMS, Ordering::Relaxed);
    }

    /// `items` more are there.
    pub(crate) fn progressed(&self, items: usize) {
        self.done.fetch_add(items, Ordering::Relaxed);
    }

    pub(crate) fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::SeqCst)
    }
}

impl Dataset {
    /// Allocates a dataset and computes it from `cache` on the threads of `build`: some 10 to 45 s on two cores.
    ///
    /// # Errors
    /// [`Error::DatasetMemory`], [`Error::Threads`], [`Error::Stopped`]
    pub fn build(cache: &Arc<Cache>, build: &Build) -> Result<Self, Error> {
        let region = Region::new(DATASET_BYTES, build.largest).ok_or(Error::DatasetMemory)?;
        compute(cache, build, &region)?;
        Ok(Self::of(region, build.largest, Origin::Computed))
    }

    /// How long [`Dataset::build`] will take, by a few thousand items that this thread computes.
    #[must_use]
    pub fn estimate(cache: &Arc<Cache>, build: &Build) -> Duration {
        const SAMPLE: usize = 8192;
        let mut items = vec![0_u8; SAMPLE * ITEM_BYTES];
        let vectorised = Vectorised::new(cache, build.method);
        let begun = clock::instant();
        // SAFETY: the places of the first items are the vector.
        unsafe { write_items(cache, vectorised.as_ref(), items.as_mut_ptr(), 0, SAMPLE) };
        begun.elapsed().mul_f64(ITEMS as f64 / SAMPLE as f64 / build.threads.max(1) as f64)
    }

    /// Over memory that holds all items.
    pub(crate) fn of(region: Region, largest: Pages, origin: Origin) -> Self {
        let pages = region.pages();
        let raw = RawDataset { memory: region.memory().as_ptr(), dealloc: std::ptr::null_mut() };
        Self {
            region,
            raw,
            largest,
            pages,
            origin,
            digest: OnceLock::new(),
            #[cfg(target_os = "linux")]
            file: None,
        }
    }

    /// The same, with the digest of its bytes.
    #[cfg(target_os = "linux")]
    pub(crate) fn digested(self, digest: [u8; DIGEST_BYTES]) -> Self {
        Self { digest: OnceLock::from(digest), ..self }
    }

    /// The same, with the file that the memory belongs to.
    #[cfg(target_os = "linux")]
    pub(crate) fn in_use(self, file: InUse) -> Self {
        Self { file: Some(file), ..self }
    }

    /// The digest of its bytes, computed on up to `threads` threads the first time.
    #[must_use]
    pub fn digest(&self, threads: usize) -> [u8; DIGEST_BYTES] {
        *self.digest.get_or_init(|| digest::of(self.bytes(), threads))
    }

    /// Who made it.
    #[must_use]
    pub fn origin(&self) -> Origin {
        self.origin
    }

    /// The pages it lies on.
    #[must_use]
    pub fn pages(&self) -> Pages {
        self.pages
    }

    /// Whether other processes of this host use the same memory.
    #[must_use]
    pub fn is_shared(&self) -> bool {
        #[cfg(target_os = "linux")]
        return self.file.is_some();
        #[cfg(not(target_os = "linux"))]
        false
    }

    /// Its bytes.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        // SAFETY: the region is that large, initialised, and not written to any more.
        unsafe { std::slice::from_raw_parts(self.region.memory().as_ptr(), DATASET_BYTES) }
    }

    /// For the library, which takes it as mutable but only reads it.
    pub(crate) fn raw(&self) -> *mut RawDataset {
        (&raw const self.raw).cast_mut()
    }

    pub(crate) fn largest(&self) -> Pages {
        self.largest
    }
}

pub(crate) fn compute(cache: &Arc<Cache>, build: &Build, region: &Region) -> Result<(), Error> {
    let vectorised = Vectorised::new(cache, build.method);
    let member = || fill(cache, vectorised.as_ref(), build, region);
    thread::scope(|scope| {
        let named = || thread::Builder::new().name("randomx-dataset".to_owned());
        let begun = (0..build.threads.max(1)).filter_map(|_| named().spawn_scoped(scope, member).ok()).count();
        if begun == 0 { Err(Error::Threads) } else { Ok(()) }
    })?;
    if build.is_stopped() { Err(Error::Stopped) } else { Ok(()) }
}

/// One thread: takes chunk after chunk.
fn fill(cache: &Cache, vectorised: Option<&Vectorised>, build: &Build, region: &Region) {
    let dataset = region.memory().as_ptr();
    while !build.is_stopped() {
        let start = build.next.fetch_add(CHUNK, Ordering::SeqCst);
        if start >= ITEMS {
            return;
        }
        let count = CHUNK.min(ITEMS - start);
        // SAFETY: the region has room for all items, and each chunk is given to one thread once.
        unsafe { write_items(cache, vectorised, dataset, start, count) };
        build.progressed(count);
    }
}

/// Writes `count` items from `start` on, each to its place in the dataset at `dataset`.
///
/// # Safety
/// The places of these items must be valid for writes, and nobody else may use them meanwhile.
unsafe fn write_items(cache: &Cache, vectorised: Option<&Vectorised>, dataset: *mut u8, start: usize, count: usize) {
    // SAFETY: as the caller promises.
    unsafe {
        match vectorised {
            Some(vectorised) => vectorised.write_items(dataset, start, count),
            None => cache.write_items(dataset, start, count),
        }
    }
}

const _: () = assert!(DATASET_BYTES == 2_181_038_016 && DATASET_BYTES.is_multiple_of(ITEM_BYTES));

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ffi;

    #[test]
    fn the_library_agrees_on_the_layout_and_the_number_of_items() {
        let mut byte = 0_u8;
        let mut raw = RawDataset { memory: &raw mut byte, dealloc: std::ptr::null_mut() };
        // SAFETY: both only read what they are given.
        unsafe {
            assert_eq!(ffi::randomx_dataset_item_count() as usize, ITEMS);
            assert_eq!(ffi::randomx_get_dataset_memory(&raw mut raw).cast(), &raw mut byte);
        }
    }

    #[test]
    fn a_building_that_is_stopped_gives_no_dataset() {
        let cache = Arc::new(Cache::new(b"test key 000").unwrap());
        let build = Build::with(2, Pages::Small);
        build.stop();
        assert_eq!(Dataset::build(&cache, &build).unwrap_err(), Error::Stopped);
        assert_eq!(build.fraction(), 0.0);
    }
}
