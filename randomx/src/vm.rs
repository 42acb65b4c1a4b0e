//! The virtual machine that hashes.
#![allow(unsafe_code)]

use std::ffi::c_uint;
use std::ptr::{self, NonNull};
use std::sync::Arc;
#[cfg(target_arch = "x86_64")]
use std::sync::OnceLock;

use crate::ffi::{self, Flags, RawVm};
use crate::float::FloatGuard;
#[cfg(target_arch = "x86_64")]
use crate::machine::Machine;
use crate::{Cache, Dataset, Error, HASH_BYTES, Pages};

/// One virtual machine: computes hashes one after the other, on any one thread at a time.
#[derive(Debug)]
pub struct Vm(Kind);

#[derive(Debug)]
enum Kind {
    #[cfg(target_arch = "x86_64")]
    Own(Box<Machine>),
    Library(Library),
}

/// A machine of the library.
#[derive(Debug)]
struct Library {
    raw: NonNull<RawVm>,
    // Keeps the memory that the VM reads.
    _memory: Memory,
}

#[derive(Debug)]
enum Memory {
    Cache { _cache: Arc<Cache> },
    Dataset { _dataset: Arc<Dataset> },
}

// SAFETY: the library binds a VM to no thread; `&mut` keeps it to one at a time.
unsafe impl Send for Library {}

impl Vm {
    /// A VM that computes from `cache` (light mode), compiled where the cache is, on large pages where they are to be had.
    ///
    /// # Errors
    /// [`Error::VmMemory`]
    pub fn light(cache: &Arc<Cache>) -> Result<Self, Error> {
        let create = |flags| {
            // SAFETY: the cache is initialised and has JIT whenever the flags have; light mode takes no dataset.
            NonNull::new(unsafe { ffi::randomx_create_vm(flags, cache.raw().as_ptr(), ptr::null_mut()) })
        };
        let raw = ladder(cache.flags(), cache.largest()).into_iter().flatten().find_map(create);
        let memory = Memory::Cache { _cache: cache.clone() };
        Ok(Self(Kind::Library(Library { raw: raw.ok_or(Error::VmMemory)?, _memory: memory })))
    }

    /// A VM that reads `dataset` (fast mode): our own where this processor and system allow it and it agrees with the library's,
    /// else the library's.
    ///
    /// # Errors
    /// [`Error::VmMemory`]
    pub fn fast(dataset: &Arc<Dataset>) -> Result<Self, Error> {
        match Self::own(dataset) {
            Some(own) => Ok(own),
            None => Self::fast_with(Flags::detect(), dataset),
        }
    }

    /// Our own, if there is one here. Whether it agrees with the library's is asked once.
    #[cfg(target_arch = "x86_64")]
    pub(crate) fn own(dataset: &Arc<Dataset>) -> Option<Self> {
        static AGREES: OnceLock<bool> = OnceLock::new();
        let mut machine = Machine::new(dataset, crate::machine::lanes())?;
        let agrees = || {
            let library = Self::fast_with(Flags::detect(), dataset);
            library.is_ok_and(|mut library| hashes(|batch| library.run(batch)) == hashes(|batch| machine.run(batch)))
        };
        let agrees = *AGREES.get_or_init(agrees);
        agrees.then(|| Self(Kind::Own(Box::new(machine))))
    }

    #[cfg(not(target_arch = "x86_64"))]
    fn own(_dataset: &Arc<Dataset>) -> Option<Self> {
        None
    }

    /// The library's (fast mode), for given flags.
    ///
    /// # Errors
    /// [`Error::VmMemory`]
    pub fn fast_with(flags: Flags, dataset: &Arc<Dataset>) -> Result<Self, Error> {
        let create = |flags| {
            // SAFETY: the dataset is complete, lives as long as the VM and is only read; fast mode takes no cache.
            NonNull::new(unsafe { ffi::randomx_create_vm(flags, ptr::null_mut(), dataset.raw()) })
        };
        let raw = ladder(flags.fast(), dataset.largest()).into_iter().flatten().find_map(create);
        let memory = Memory::Dataset { _dataset: dataset.clone() };
        Ok(Self(Kind::Library(Library { raw: raw.ok_or(Error::VmMemory)?, _memory: memory })))
    }

    /// Whether it is our own rather than the library's.
    #[must_use]
    pub fn is_own(&self) -> bool {
        !matches!(self.0, Kind::Library(_))
    }

    /// The hash of `input`.
    pub fn hash(&mut self, input: &[u8]) -> [u8; HASH_BYTES] {
        match &mut self.0 {
            #[cfg(target_arch = "x86_64")]
            Kind::Own(machine) => {
                let mut one = One { input: Some(input), hash: [0; HASH_BYTES] };
                machine.run(&mut one);
                one.hash
            }
            Kind::Library(library) => library.hash(input),
        }
    }

    /// Hashes what `batch` gives until it gives nothing, a few inputs at a time. Each hash goes to `batch` in order.
    /// No floating-point arithmetic in `batch`: the rounding mode may be changed meanwhile.
    pub fn run(&mut self, batch: &mut impl Batch) {
        match &mut self.0 {
            #[cfg(target_arch = "x86_64")]
            Kind::Own(machine) => machine.run(batch),
            Kind::Library(library) => library.run(batch),
        }
    }
}

impl Library {
    fn hash(&mut self, input: &[u8]) -> [u8; HASH_BYTES] {
        let _environment = FloatGuard::save();
        let mut hash = [0; HASH_BYTES];
        // SAFETY: the VM is valid and only used here; input and output are valid for their lengths.
        unsafe {
            ffi::randomx_calculate_hash(
                self.raw.as_ptr(),
                input.as_ptr().cast(),
                input.len(),
                hash.as_mut_ptr().cast(),
            );
        }
        hash
    }

    /// One input is prepared while the one before is finished.
    fn run(&mut self, batch: &mut impl Batch) {
        let _environment = FloatGuard::save();
        let vm = self.raw.as_ptr();
        let mut hash = [0; HASH_BYTES];
        let Some(first) = batch.next() else { return };
        // SAFETY: the VM is valid and only used here; the input is read before the call returns.
        unsafe { ffi::randomx_calculate_hash_first(vm, first.as_ptr().cast(), first.len()) };
        while let Some(next) = batch.next() {
            // SAFETY: as above, after a `first`; the output has room for a hash.
            unsafe {
                ffi::randomx_calculate_hash_next(vm, next.as_ptr().cast(), next.len(), hash.as_mut_ptr().cast());
            }
            batch.hashed(hash);
        }
        if batch.gives_up() {
            // The next `first` begins anew.
            return;
        }
        // SAFETY: as above; ends what `first` began.
        unsafe { ffi::randomx_calculate_hash_last(vm, hash.as_mut_ptr().cast()) };
        batch.hashed(hash);
    }
}

/// What to try, best first: scratchpad on large pages, on small ones, and without memory that can be written and executed.
fn ladder(flags: Flags, largest: Pages) -> [Option<c_uint>; 3] {
    let large = (largest == Pages::Huge).then_some(flags.bits() | ffi::LARGE_PAGES);
    [large, Some(flags.bits()), Some(flags.interpreted().bits())]
}

impl Drop for Library {
    fn drop(&mut self) {
        // SAFETY: it was created by the library and is destroyed once.
        unsafe { ffi::randomx_destroy_vm(self.raw.as_ptr()) };
    }
}

/// What [`Vm::run`] hashes. A hash comes after the next input was taken.
pub trait Batch {
    /// The next input, or the end of the batch.
    fn next(&mut self) -> Option<&[u8]>;
    /// The hash of the oldest input that has none yet.
    fn hashed(&mut self, hash: [u8; HASH_BYTES]);
    /// Whether inputs that have no hash yet need none any more, which saves their time. Asked at the end at the latest.
    fn gives_up(&self) -> bool {
        false
    }
}

/// A batch of one.
#[cfg(target_arch = "x86_64")]
struct One<'a> {
    input: Option<&'a [u8]>,
    hash: [u8; HASH_BYTES],
}

#[cfg(target_arch = "x86_64")]
impl Batch for One<'_> {
    fn next(&mut self) -> Option<&[u8]> {
        self.input.take()
    }
    fn hashed(&mut self, hash: [u8; HASH_BYTES]) {
        self.hash = hash;
    }
}

/// A few hashes by a machine, to compare it with another.
#[cfg(target_arch = "x86_64")]
fn hashes(run: impl FnOnce(&mut Few)) -> Vec<[u8; HASH_BYTES]> {
    let mut few = Few { taken: 0, hashes: Vec::new() };
    run(&mut few);
    few.hashes
}

#[cfg(target_arch = "x86_64")]
struct Few {
    taken: u8,
    hashes: Vec<[u8; HASH_BYTES]>,
}

#[cfg(target_arch = "x86_64")]
impl Batch for Few {
    fn next(&mut self) -> Option<&[u8]> {
        const COMPARED: u8 = 7;
        self.taken += 1;
        (self.taken <= COMPARED).then(|| std::slice::from_ref(&self.taken))
    }
    fn hashed(&mut self, hash: [u8; HASH_BYTES]) {
        self.hashes.push(hash);
    }
}

#[cfg(all(test, target_arch = "x86_64"))]
mod tests {
    use super::*;

    fn mxcsr() -> u32 {
        let mut value = 0_u32;
        // SAFETY: stores the register into `value`.
        unsafe { std::arch::asm!("stmxcsr [{}]", in(reg) &raw mut value, options(nostack)) };
        value
    }

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

    /// Gives up after its second input.
    struct Quitter(Vec<[u8; HASH_BYTES]>, u32);

    impl Batch for Quitter {
        fn next(&mut self) -> Option<&[u8]> {
            self.1 += 1;
            (self.1 <= 2).then_some(b"input")
        }
        fn hashed(&mut self, hash: [u8; HASH_BYTES]) {
            self.0.push(hash);
        }
        fn gives_up(&self) -> bool {
            true
        }
    }

    #[test]
    fn a_batch_that_gives_up_leaves_its_last_input_unhashed_and_the_machine_usable() {
        let mut vm = Vm::light(&Arc::new(Cache::new(b"key").unwrap())).unwrap();
        let hash = vm.hash(b"input");
        for _ in 0..2 {
            let mut quitter = Quitter(Vec::new(), 0);
            vm.run(&mut quitter);
            assert_eq!(quitter.0, [hash]);
        }
        assert_eq!(vm.hash(b"input"), hash);
    }

    #[test]
    fn a_batch_leaves_the_floating_point_control_register_as_it_was() {
        let mut vm = Vm::light(&Arc::new(Cache::new(b"key").unwrap())).unwrap();
        let before = mxcsr();
        let mut spy = Spy(0, Vec::new());
        vm.run(&mut spy);
        assert_eq!(mxcsr(), before);
        assert!(spy.1.iter().any(|during| *during != before), "the library changes it, else this proves nothing");
        vm.hash(b"input");
        assert_eq!(mxcsr(), before);
    }
}
