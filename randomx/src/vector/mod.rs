//! Computes many dataset items at once: the eight superscalar programs of a key are compiled to AVX-512 (eight items an
//! instruction) or AVX2 (four), the rest is intrinsics. The library computes one item at a time.
//!
//! [`programs`] reads the programs from the library's cache, [`encode`] writes instructions, [`compile`] translates the programs,
//! [`run`] carries the items through them. What comes out is compared with the library's items before it is used.
#![allow(unsafe_code)]

mod code;
mod compile;
mod encode;
mod programs;
mod run;

use std::sync::Arc;

use crate::{Cache, ITEM_BYTES, ITEMS};

use self::code::Code;
use self::programs::Programs;
use self::run::Runner;

/// How many items of a cache are compared with the library's before the compiled programs are used.
const COMPARED: usize = 96;

/// How dataset items are computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// By the library, one at a time.
    Library,
    /// Four at a time.
    Avx2,
    /// Eight at a time.
    Avx512,
}

impl Method {
    /// Best first.
    pub const LADDER: [Self; 3] = [Self::Avx512, Self::Avx2, Self::Library];

    /// The fastest that this processor can.
    #[must_use]
    pub fn best() -> Self {
        Self::LADDER.into_iter().find(|method| method.is_supported()).unwrap_or(Self::Library)
    }

    /// Whether this processor can.
    #[must_use]
    pub fn is_supported(self) -> bool {
        match self {
            Self::Library => true,
            Self::Avx2 => is_x86_feature_detected!("avx2"),
            Self::Avx512 => is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512dq"),
        }
    }

    /// `library`, `avx2` or `avx512`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Library => "library",
            Self::Avx2 => "avx2",
            Self::Avx512 => "avx512",
        }
    }
}

impl std::fmt::Display for Method {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The compiled programs of a cache.
#[derive(Debug)]
pub struct Vectorised {
    cache: Arc<Cache>,
    runner: Runner,
}

impl Vectorised {
    /// `None` where the processor can't, where the library's cache does not look as it should, or where the system allows no machine
    /// code of one's own: then the library computes.
    pub fn new(cache: &Arc<Cache>, method: Method) -> Option<Self> {
        if method == Method::Library || !method.is_supported() {
            return None;
        }
        let programs = Programs::read(cache)?;
        let compiled = compile::compile(&programs, method == Method::Avx512);
        let code = Code::new(&compiled.bytes)?;
        let runner = Runner::new(code, compiled, &programs);
        let made = Self { cache: cache.clone(), runner };
        made.agrees_with_the_library().then_some(made)
    }

    fn agrees_with_the_library(&self) -> bool {
        let mut items = vec![0_u8; COMPARED * ITEM_BYTES];
        let middle = ITEMS / 2;
        [0, middle, ITEMS - COMPARED].into_iter().all(|start| {
            self.fill(&mut items, start);
            items.chunks(ITEM_BYTES).zip(start..).all(|(item, index)| *item == self.cache.item(index))
        })
    }

    /// Writes the items from `start` on to `items`.
    fn fill(&self, items: &mut [u8], start: usize) {
        let first = items.as_mut_ptr().wrapping_sub(start * ITEM_BYTES);
        // SAFETY: the places of these items are the slice.
        unsafe { self.write_items(first, start, items.len() / ITEM_BYTES) };
    }

    /// Writes `count` items from `start` on, each to its place in the dataset at `dataset`.
    ///
    /// # Safety
    /// The places of these items must be valid for writes, and nobody else may use them meanwhile.
    pub unsafe fn write_items(&self, dataset: *mut u8, start: usize, count: usize) {
        let step = self.runner.items();
        if count < step {
            // SAFETY: as the caller promises.
            return unsafe { self.cache.write_items(dataset, start, count) };
        }
        let end = start + count;
        let mut at = start;
        while at < end {
            // The last step goes back a little rather than past the end.
            let from = at.min(end - step);
            // SAFETY: these items lie within those that the caller promises; the processor was asked when `self` was made.
            unsafe { self.runner.write(self.cache.memory(), dataset.wrapping_add(from * ITEM_BYTES), from) };
            at += step;
        }
        // The stores went past the processor's caches: from here other threads see them.
        // SAFETY: every processor of this architecture has it.
        unsafe { std::arch::x86_64::_mm_sfence() };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Many items of several keys, at odd places and of odd numbers.
    fn check(method: Method) {
        if !method.is_supported() {
            println!("skipped: this processor has no {}", method.as_str());
            return;
        }
        for key in [b"test key 000".as_slice(), b"test key 001", b"", b"\xff\x00\x80 another"] {
            let cache = Arc::new(Cache::new(key).unwrap());
            let vectorised = Vectorised::new(&cache, method).expect("it agrees with the library");
            for (start, count) in [(0, 1000), (1, 33), (9_999_999, 31), (20_000_003, 257), (ITEMS - 300, 300)] {
                let mut items = vec![0_u8; count * ITEM_BYTES];
                vectorised.fill(&mut items, start);
                for (item, index) in items.chunks(ITEM_BYTES).zip(start..) {
                    assert_eq!(*item, cache.item(index), "item {index} of key {key:?} by {}", method.as_str());
                }
            }
        }
    }

    #[test]
    fn items_by_avx512_are_the_librarys() {
        check(Method::Avx512);
    }

    #[test]
    fn items_by_avx2_are_the_librarys() {
        check(Method::Avx2);
    }
}
