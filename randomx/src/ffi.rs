//! The library's functions and structs, as declared in its `randomx.h` (v1.2), and what its flags mean.
//!
//! Our own declarations, because the safe API of `randomx-rs` checks no pointer, refuses empty inputs, has types that can't
//! move to another thread, builds a dataset on one thread and leaves the floating-point control register changed.
#![allow(unsafe_code)]

use std::ffi::{c_uint, c_ulong, c_void};
use std::marker::PhantomData;

// For the library that it links.
use randomx_rs as _;

pub const LARGE_PAGES: c_uint = 1;
const FULL_MEM: c_uint = 4;
const JIT: c_uint = 8;

/// Opaque. The library's own struct is of standard layout and begins with the pointer to its memory.
#[repr(C)]
pub struct RawCache {
    pub memory: *mut u8,
    _opaque: PhantomData<*mut u8>,
}

/// The whole of the library's struct; functions that use a dataset read the pointer only, `dealloc` is for its own release.
#[repr(C)]
#[derive(Debug)]
pub struct RawDataset {
    pub memory: *mut u8,
    pub dealloc: *mut c_void,
}

#[repr(C)]
pub struct RawVm {
    _opaque: [u8; 0],
}

unsafe extern "C" {
    fn randomx_get_flags() -> c_uint;
    pub fn randomx_alloc_cache(flags: c_uint) -> *mut RawCache;
    pub fn randomx_init_cache(cache: *mut RawCache, key: *const c_void, key_size: usize);
    pub fn randomx_release_cache(cache: *mut RawCache);
    pub fn randomx_init_dataset(dataset: *mut RawDataset, cache: *mut RawCache, start: c_ulong, count: c_ulong);
    #[cfg(test)]
    pub fn randomx_dataset_item_count() -> c_ulong;
    #[cfg(test)]
    pub fn randomx_get_dataset_memory(dataset: *mut RawDataset) -> *mut c_void;
    pub fn randomx_create_vm(flags: c_uint, cache: *mut RawCache, dataset: *mut RawDataset) -> *mut RawVm;
    pub fn randomx_destroy_vm(vm: *mut RawVm);
    pub fn randomx_calculate_hash(vm: *mut RawVm, input: *const c_void, input_size: usize, output: *mut c_void);
    pub fn randomx_calculate_hash_first(vm: *mut RawVm, input: *const c_void, input_size: usize);
    pub fn randomx_calculate_hash_next(vm: *mut RawVm, next: *const c_void, next_size: usize, output: *mut c_void);
    pub fn randomx_calculate_hash_last(vm: *mut RawVm, output: *mut c_void);
}

/// How the library computes on this processor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flags(c_uint);

impl Flags {
    /// The fastest that this processor can do: JIT, AES and Argon2 as detected.
    #[must_use]
    pub fn detect() -> Self {
        // SAFETY: takes nothing and only asks the processor.
        Self(unsafe { randomx_get_flags() })
    }

    /// The same without compiling the programs to machine code: slow, for processors and systems without JIT.
    #[must_use]
    pub const fn interpreted(self) -> Self {
        Self(self.0 & !JIT)
    }

    /// Whether programs are compiled to machine code.
    #[must_use]
    pub const fn is_jit(self) -> bool {
        self.0 & JIT != 0
    }

    pub(crate) const fn bits(self) -> c_uint {
        self.0 & !LARGE_PAGES
    }

    pub(crate) const fn fast(self) -> Self {
        Self(self.0 | FULL_MEM)
    }
}
