//! RandomX through the library that `randomx-rs` builds and links. The only file of the project with `unsafe`.
//!
//! Our own declarations, because that crate's safe API checks no pointer, refuses empty inputs, has types that can't
//! move to another thread, and leaves the floating-point control register changed.
#![allow(unsafe_code)]

use std::ffi::{c_int, c_uint, c_void};
use std::marker::PhantomData;
use std::ptr::{self, NonNull};
use std::sync::Arc;

// For the library that it links.
use randomx_rs as _;

/// Bytes of a hash.
pub const HASH_BYTES: usize = 32;
/// Bytes of a cache.
pub const CACHE_BYTES: usize = 256 * 1024 * 1024;

const LARGE_PAGES: c_uint = 1;
const JIT: c_uint = 8;

/// Opaque. The library's own struct is of standard layout and begins with the pointer to its memory.
#[repr(C)]
struct RawCache {
    memory: *mut u8,
    _opaque: PhantomData<*mut u8>,
}

#[repr(C)]
struct RawVm {
    _opaque: [u8; 0],
}

unsafe extern "C" {
    fn randomx_get_flags() -> c_uint;
    fn randomx_alloc_cache(flags: c_uint) -> *mut RawCache;
    fn randomx_init_cache(cache: *mut RawCache, key: *const c_void, key_size: usize);
    fn randomx_release_cache(cache: *mut RawCache);
    fn randomx_create_vm(flags: c_uint, cache: *mut RawCache, dataset: *mut c_void) -> *mut RawVm;
    fn randomx_destroy_vm(vm: *mut RawVm);
    #[cfg(test)]
    fn randomx_calculate_hash(vm: *mut RawVm, input: *const c_void, input_size: usize, output: *mut c_void);
    fn randomx_calculate_hash_first(vm: *mut RawVm, input: *const c_void, input_size: usize);
    fn randomx_calculate_hash_next(vm: *mut RawVm, next: *const c_void, next_size: usize, output: *mut c_void);
    fn randomx_calculate_hash_last(vm: *mut RawVm, output: *mut c_void);
    fn fegetenv(environment: *mut FloatEnvironment) -> c_int;
    fn fesetenv(environment: *const FloatEnvironment) -> c_int;
    #[cfg(target_os = "linux")]
    fn madvise(address: *mut c_void, length: usize, advice: c_int) -> c_int;
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

    /// The same without compiling the programs to machine code: slow, for processors and tests without JIT.
    #[must_use]
    pub const fn interpreted(self) -> Self {
        Self(self.0 & !JIT)
    }

    /// Whether programs are compiled to machine code.
    #[must_use]
    pub const fn is_jit(self) -> bool {
        self.0 & JIT != 0
    }
}

/// On what pages the memory lies; operators look for it first, since light mode is half as fast on small ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pages {
    /// Reserved huge pages (`vm.nr_hugepages`).
    Huge,
    /// Small ones that the kernel was asked to merge.
    Transparent,
    /// 4 KiB.
    Small,
}

impl Pages {
    /// For logs.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Huge => "huge",
            Self::Transparent => "transparent huge",
            Self::Small => "4 KiB",
        }
    }
}

/// The memory was not to be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OutOfMemory {
    /// 256 MiB.
    #[error("there is no memory for a RandomX cache of {} MiB", CACHE_BYTES >> 20)]
    Cache,
    /// 2 MiB.
    #[error("there is no memory for a RandomX virtual machine")]
    Vm,
}

/// The 256 MiB that a key expands to; from it a light VM computes hashes. Read-only once made.
#[derive(Debug)]
pub struct Cache {
    raw: NonNull<RawCache>,
    flags: Flags,
    pages: Pages,
}

// SAFETY: the library binds a cache to no thread.
unsafe impl Send for Cache {}
// SAFETY: through a shared reference it is only read (by VMs); `reset` needs the only reference.
unsafe impl Sync for Cache {}

impl Cache {
    /// Allocates a cache on the largest pages to be had and expands `key` into it, about a second of computing.
    ///
    /// # Errors
    /// [`OutOfMemory`]
    pub fn new(flags: Flags, key: &[u8]) -> Result<Self, OutOfMemory> {
        let (raw, pages) = Self::allocate(flags).ok_or(OutOfMemory::Cache)?;
        let mut cache = Self { raw, flags, pages };
        cache.reset(key);
        Ok(cache)
    }

    fn allocate(flags: Flags) -> Option<(NonNull<RawCache>, Pages)> {
        // SAFETY: any flags are valid; null says that it was not possible.
        let huge = NonNull::new(unsafe { randomx_alloc_cache(flags.0 | LARGE_PAGES) });
        if let Some(raw) = huge {
            return Some((raw, Pages::Huge));
        }
        // SAFETY: as above.
        let raw = NonNull::new(unsafe { randomx_alloc_cache(flags.0 & !LARGE_PAGES) })?;
        // SAFETY: the struct begins with the pointer to its memory (a test checks it against the linked version).
        let memory = unsafe { raw.as_ref().memory };
        Some((raw, ask_for_huge_pages(memory, CACHE_BYTES)))
    }

    /// Expands another key into the same memory.
    pub fn reset(&mut self, key: &[u8]) {
        let _environment = FloatGuard::save();
        // SAFETY: the cache is valid and, through `&mut`, used by no VM; the key is read for its length only.
        unsafe { randomx_init_cache(self.raw.as_ptr(), key.as_ptr().cast(), key.len()) };
    }

    /// The pages it lies on.
    #[must_use]
    pub fn pages(&self) -> Pages {
        self.pages
    }
}

impl Drop for Cache {
    fn drop(&mut self) {
        // SAFETY: it was allocated by the library and is released once; VMs hold it by `Arc` and so are gone.
        unsafe { randomx_release_cache(self.raw.as_ptr()) };
    }
}

#[cfg(target_os = "linux")]
fn ask_for_huge_pages(memory: *mut u8, bytes: usize) -> Pages {
    const MADV_HUGEPAGE: c_int = 14;
    const PAGE: usize = 4096;
    let skip = memory.align_offset(PAGE);
    if memory.is_null() || skip >= bytes {
        return Pages::Small;
    }
    // SAFETY: the range lies within the allocation; the advice changes no contents.
    let answer = unsafe { madvise(memory.wrapping_add(skip).cast(), (bytes - skip) / PAGE * PAGE, MADV_HUGEPAGE) };
    if answer == 0 { Pages::Transparent } else { Pages::Small }
}

#[cfg(not(target_os = "linux"))]
fn ask_for_huge_pages(_memory: *mut u8, _bytes: usize) -> Pages {
    Pages::Small
}

/// One virtual machine: computes hashes one after the other, on any one thread at a time.
#[derive(Debug)]
pub struct Vm {
    raw: NonNull<RawVm>,
    // Keeps the memory that the VM reads.
    _cache: Arc<Cache>,
}

// SAFETY: the library binds a VM to no thread; `&mut` keeps it to one at a time.
unsafe impl Send for Vm {}

impl Vm {
    /// A VM that computes from `cache` (light mode), with large pages and JIT where they are to be had.
    ///
    /// # Errors
    /// [`OutOfMemory`]
    pub fn light(cache: Arc<Cache>) -> Result<Self, OutOfMemory> {
        let flags = cache.flags;
        let ladder = [flags.0 | LARGE_PAGES, flags.0, flags.interpreted().0];
        let create = |flags| {
            // SAFETY: the cache is initialised and has JIT whenever the flags have; light mode takes no dataset.
            NonNull::new(unsafe { randomx_create_vm(flags, cache.raw.as_ptr(), ptr::null_mut()) })
        };
        let raw = ladder.into_iter().find_map(create).ok_or(OutOfMemory::Vm)?;
        Ok(Self { raw, _cache: cache })
    }

    /// The hash of `input`: what the pipelined hashes are checked against.
    #[cfg(test)]
    pub fn hash(&mut self, input: &[u8]) -> [u8; HASH_BYTES] {
        let _environment = FloatGuard::save();
        let mut hash = [0; HASH_BYTES];
        // SAFETY: the VM is valid and only used here; input and output are valid for their lengths.
        unsafe {
            randomx_calculate_hash(self.raw.as_ptr(), input.as_ptr().cast(), input.len(), hash.as_mut_ptr().cast());
        }
        hash
    }

    /// Hashes what `batch` gives, one input prepared while the one before is finished, until it gives nothing. Each
    /// hash goes to `batch` in order. No floating-point arithmetic in `batch`: the rounding mode is changed meanwhile.
    pub fn run(&mut self, batch: &mut impl Batch) {
        let _environment = FloatGuard::save();
        let vm = self.raw.as_ptr();
        let mut hash = [0; HASH_BYTES];
        let Some(first) = batch.next() else { return };
        // SAFETY: the VM is valid and only used here; the input is read before the call returns.
        unsafe { randomx_calculate_hash_first(vm, first.as_ptr().cast(), first.len()) };
        while let Some(next) = batch.next() {
            // SAFETY: as above, after a `first`; the output has room for a hash.
            unsafe { randomx_calculate_hash_next(vm, next.as_ptr().cast(), next.len(), hash.as_mut_ptr().cast()) };
            batch.hashed(hash);
        }
        // SAFETY: as above; ends what `first` began.
        unsafe { randomx_calculate_hash_last(vm, hash.as_mut_ptr().cast()) };
        batch.hashed(hash);
    }
}

impl Drop for Vm {
    fn drop(&mut self) {
        // SAFETY: it was created by the library and is destroyed once.
        unsafe { randomx_destroy_vm(self.raw.as_ptr()) };
    }
}

/// What [`Vm::run`] hashes. A hash comes after the next input was taken.
pub trait Batch {
    /// The next input, or the end of the batch.
    fn next(&mut self) -> Option<&[u8]>;
    /// The hash of the oldest input that has none yet.
    fn hashed(&mut self, hash: [u8; HASH_BYTES]);
}

/// Room for C's `fenv_t` of every platform (32 bytes on x86-64, 8 on AArch64).
#[repr(C, align(16))]
struct FloatEnvironment([u8; 256]);

/// Puts the floating-point environment (MXCSR on x86-64) back when dropped: hashing changes the rounding mode and
/// flushes denormals, and the thread may compute something else afterwards.
struct FloatGuard(FloatEnvironment);

impl FloatGuard {
    fn save() -> Self {
        let mut environment = FloatEnvironment([0; 256]);
        // SAFETY: the buffer is larger and better aligned than any platform's `fenv_t`.
        unsafe { fegetenv(&raw mut environment) };
        Self(environment)
    }
}

impl Drop for FloatGuard {
    fn drop(&mut self) {
        // SAFETY: the buffer was filled by `fegetenv`.
        unsafe { fesetenv(&raw const self.0) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const E: &str = "0b0b98bea7e805e0010a2126d287a2a0cc833d312cb786385a7c2f9de69d25537f584a9bc9977b00000000666fd8753bf61a8631f12984e3fd44f4014eca629276817b56f32e9b68bd82f416";
    const C: &[u8] = b"sed do eiusmod tempor incididunt ut labore et dolore magna aliqua";

    struct List {
        inputs: Vec<Vec<u8>>,
        taken: usize,
        hashes: Vec<String>,
    }

    impl Batch for List {
        fn next(&mut self) -> Option<&[u8]> {
            self.taken += 1;
            self.inputs.get(self.taken - 1).map(Vec::as_slice)
        }
        fn hashed(&mut self, hash: [u8; HASH_BYTES]) {
            self.hashes.push(hex::encode(hash));
        }
    }

    fn piped(vm: &mut Vm, inputs: &[&[u8]]) -> Vec<String> {
        let mut list = List { inputs: inputs.iter().map(|i| i.to_vec()).collect(), taken: 0, hashes: Vec::new() };
        vm.run(&mut list);
        list.hashes
    }

    /// The vectors of `guide/randomx.md`, one by one and pipelined.
    fn check_vectors(flags: Flags) {
        let e = hex::decode(E).unwrap();
        let first: [(&[u8], &str); 3] = [
            (b"This is a test", "639183aae1bf4c9a35884cb46b09cad9175f04efd7684e7262a0ac1c2f0b4e3f"),
            (b"Lorem ipsum dolor sit amet", "300a0adb47603dedb42228ccb2b211104f4da45af709cd7547cd049e9489c969"),
            (C, "c36d4ed4191e617309867ed66a443be4075014e2b061bcdaf9ce7b721d2b77a8"),
        ];
        let second: [(&[u8], &str); 2] = [
            (C, "e9ff4503201c0c2cca26d285c93ae883f9b1d30c9eb240b820756f2d5a7905fc"),
            (&e, "c56414121acda1713c2f2a819d8ae38aed7c80c35c2a769298d34f03833cd5f1"),
        ];
        let mut cache = Arc::new(Cache::new(flags, b"test key 000").unwrap());
        for (key, vectors) in [(b"test key 000", &first[..]), (b"test key 001", &second[..])] {
            Arc::get_mut(&mut cache).unwrap().reset(key);
            let mut vm = Vm::light(cache.clone()).unwrap();
            for (input, hash) in vectors {
                assert_eq!(hex::encode(vm.hash(input)), *hash);
            }
            let inputs: Vec<&[u8]> = vectors.iter().map(|(input, _)| *input).collect();
            let hashes: Vec<&str> = vectors.iter().map(|(_, hash)| *hash).collect();
            assert_eq!(piped(&mut vm, &inputs), hashes);
        }
    }

    #[test]
    fn the_reference_vectors_hold_with_compiled_programs() {
        let flags = Flags::detect();
        assert!(cfg!(not(target_arch = "x86_64")) || flags.is_jit());
        check_vectors(flags);
    }

    #[test]
    fn the_reference_vectors_hold_with_interpreted_programs() {
        check_vectors(Flags::detect().interpreted());
    }

    #[test]
    fn a_cache_begins_with_the_pointer_to_its_memory() {
        let cache = Cache::new(Flags::detect(), b"test key 000").unwrap();
        // SAFETY: the cache is initialised; the words lie within its 256 MiB if the layout is as assumed.
        let word = |index: usize| unsafe { cache.raw.as_ref().memory.cast::<u64>().add(index).read_unaligned() };
        // From the library's own tests (src/tests/tests.cpp, "Cache initialization").
        assert_eq!(word(0), 0x191e_0e1d_23c0_2186);
        assert_eq!(word(1_568_413), 0xf1b6_2fe6_210b_f8b1);
        assert_eq!(word(33_554_431), 0x1f47_f056_d05c_d99b);
    }

    #[test]
    fn an_empty_key_and_an_empty_input_are_valid() {
        let mut vm = Vm::light(Arc::new(Cache::new(Flags::detect(), b"").unwrap())).unwrap();
        let alone = hex::encode(vm.hash(b""));
        assert_eq!(piped(&mut vm, &[b"", b"x", b""]), [alone.clone(), hex::encode(vm.hash(b"x")), alone]);
        assert!(piped(&mut vm, &[]).is_empty());
    }

    #[cfg(target_arch = "x86_64")]
    fn mxcsr() -> u32 {
        let mut value = 0_u32;
        // SAFETY: stores the register into `value`.
        unsafe { std::arch::asm!("stmxcsr [{}]", in(reg) &raw mut value, options(nostack)) };
        value
    }

    #[test]
    #[cfg(target_arch = "x86_64")]
    fn a_batch_leaves_the_floating_point_control_register_as_it_was() {
        struct Spy(u32, Vec<u32>);
        impl Batch for Spy {
            fn next(&mut self) -> Option<&[u8]> {
                self.0 += 1;
                (self.0 <= 3).then_some(b"input")
            }
            fn hashed(&mut self, _: [u8; HASH_BYTES]) {
                self.1.push(mxcsr());
            }
        }
        let mut vm = Vm::light(Arc::new(Cache::new(Flags::detect(), b"key").unwrap())).unwrap();
        let before = mxcsr();
        let mut spy = Spy(0, Vec::new());
        vm.run(&mut spy);
        assert_eq!(mxcsr(), before);
        assert!(spy.1.iter().any(|during| *during != before), "the library changes it, else this proves nothing");
        vm.hash(b"input");
        assert_eq!(mxcsr(), before);
    }
}
