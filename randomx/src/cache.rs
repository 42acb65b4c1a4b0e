//! The 256 MiB that a key expands to.
#![allow(unsafe_code)]

use std::ptr::NonNull;

use crate::ffi::{self, Flags, RawCache, RawDataset};
use crate::float::FloatGuard;
use crate::{CACHE_BYTES, Error, ITEM_BYTES, ITEMS, Pages, pages};

/// The 256 MiB that a key expands to; from it a light VM computes hashes. Read-only once made.
#[derive(Debug)]
pub struct Cache {
    raw: NonNull<RawCache>,
    flags: Flags,
    largest: Pages,
    pages: Pages,
    key: Vec<u8>,
}

// SAFETY: the library binds a cache to no thread.
unsafe impl Send for Cache {}
// SAFETY: through a shared reference it is only read (by VMs and by the building of datasets); `reset` needs the only reference.
unsafe impl Sync for Cache {}

impl Cache {
    /// Allocates a cache on the largest pages to be had and expands `key` into it, about a second of computing.
    ///
    /// # Errors
    /// [`Error::CacheMemory`]
    pub fn new(key: &[u8]) -> Result<Self, Error> {
        Self::with(Flags::detect(), Pages::Huge, key)
    }

    /// The same for given flags, on pages no larger than `largest`.
    ///
    /// # Errors
    /// [`Error::CacheMemory`]
    pub fn with(flags: Flags, largest: Pages, key: &[u8]) -> Result<Self, Error> {
        // Where the system allows no memory that can be written and executed, there is still the interpreter.
        let (raw, flags, pages) = Self::allocate(flags, largest)
            .or_else(|| Self::allocate(flags.interpreted(), largest))
            .ok_or(Error::CacheMemory)?;
        let mut cache = Self { raw, flags, largest, pages, key: Vec::new() };
        cache.reset(key);
        Ok(cache)
    }

    fn allocate(flags: Flags, largest: Pages) -> Option<(NonNull<RawCache>, Flags, Pages)> {
        if largest == Pages::Huge {
            // SAFETY: any flags are valid; null says that it was not possible.
            let huge = NonNull::new(unsafe { ffi::randomx_alloc_cache(flags.bits() | ffi::LARGE_PAGES) });
            if let Some(raw) = huge {
                return Some((raw, flags, Pages::Huge));
            }
        }
        // SAFETY: as above.
        let raw = NonNull::new(unsafe { ffi::randomx_alloc_cache(flags.bits()) })?;
        if largest > Pages::Small {
            // SAFETY: the struct begins with the pointer to its memory (a test checks it against the linked version).
            pages::ask_for_transparent(unsafe { raw.as_ref().memory }, CACHE_BYTES);
        }
        Some((raw, flags, Pages::Small))
    }

    /// Expands another key into the same memory.
    pub fn reset(&mut self, key: &[u8]) {
        let _environment = FloatGuard::save();
        // SAFETY: the cache is valid and, through `&mut`, used by no VM; the key is read for its length only.
        unsafe { ffi::randomx_init_cache(self.raw.as_ptr(), key.as_ptr().cast(), key.len()) };
        self.key = key.to_vec();
        if self.pages < Pages::Huge {
            let middle = self.memory().wrapping_add(CACHE_BYTES / 2);
            self.pages = if pages::are_merged(middle) { Pages::Transparent } else { Pages::Small };
        }
    }

    /// What it was made from.
    #[must_use]
    pub fn key(&self) -> &[u8] {
        &self.key
    }

    /// The pages it lies on.
    #[must_use]
    pub fn pages(&self) -> Pages {
        self.pages
    }

    /// Whether programs are compiled to machine code.
    #[must_use]
    pub fn is_jit(&self) -> bool {
        self.flags.is_jit()
    }

    /// Item `index` of the dataset of this key, computed from the cache.
    ///
    /// # Panics
    /// When `index` is not below [`ITEMS`].
    #[must_use]
    pub fn item(&self, index: usize) -> [u8; ITEM_BYTES] {
        assert!(index < ITEMS, "a dataset has {ITEMS} items");
        let mut item = [0; ITEM_BYTES];
        // SAFETY: the library writes one item where item `index` would lie, which is the array.
        unsafe { self.write_items(item.as_mut_ptr().wrapping_sub(index * ITEM_BYTES), index, 1) };
        item
    }

    /// Writes `count` items from `start` on, each to its place in the dataset at `dataset`.
    ///
    /// # Safety
    /// The places of these items must be valid for writes, and nobody else may use them meanwhile.
    pub(crate) unsafe fn write_items(&self, dataset: *mut u8, start: usize, count: usize) {
        let mut raw = RawDataset { memory: dataset, dealloc: std::ptr::null_mut() };
        let _environment = FloatGuard::save();
        // SAFETY: the cache is initialised and only read; of the dataset the library reads the pointer.
        unsafe { ffi::randomx_init_dataset(&raw mut raw, self.raw.as_ptr(), start as _, count as _) };
    }

    pub(crate) fn raw(&self) -> NonNull<RawCache> {
        self.raw
    }

    pub(crate) fn flags(&self) -> Flags {
        self.flags
    }

    pub(crate) fn largest(&self) -> Pages {
        self.largest
    }

    pub(crate) fn memory(&self) -> *const u8 {
        // SAFETY: see `allocate`.
        unsafe { self.raw.as_ref().memory }
    }
}

impl Drop for Cache {
    fn drop(&mut self) {
        // SAFETY: it was allocated by the library and is released once; VMs hold it by `Arc` and so are gone.
        unsafe { ffi::randomx_release_cache(self.raw.as_ptr()) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cache_begins_with_the_pointer_to_its_memory() {
        let cache = Cache::new(b"test key 000").unwrap();
        // SAFETY: the cache is initialised; the words lie within its 256 MiB if the layout is as assumed.
        let word = |index: usize| unsafe { cache.memory().cast::<u64>().add(index).read_unaligned() };
        // From the library's own tests (src/tests/tests.cpp, "Cache initialization").
        assert_eq!(word(0), 0x191e_0e1d_23c0_2186);
        assert_eq!(word(1_568_413), 0xf1b6_2fe6_210b_f8b1);
        assert_eq!(word(33_554_431), 0x1f47_f056_d05c_d99b);
    }

    #[test]
    fn items_are_those_of_the_reference() {
        let first = |item: [u8; ITEM_BYTES]| u64::from_le_bytes(std::array::from_fn(|index| item[index]));
        for flags in [Flags::detect(), Flags::detect().interpreted()] {
            let cache = Cache::with(flags, Pages::Small, b"test key 000").unwrap();
            // From the library's own tests ("Dataset initialization").
            assert_eq!(first(cache.item(0)), 0x6805_88a8_5ae2_22db);
            assert_eq!(first(cache.item(10_000_000)), 0x7943_a1f6_186f_fb72);
            assert_eq!(first(cache.item(20_000_000)), 0x9035_244d_7180_95e1);
            assert_eq!(first(cache.item(30_000_000)), 0x145a_5091_f785_3099);
        }
    }
}
