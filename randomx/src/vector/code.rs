//! Memory that holds machine code: written once, then read and executed only.
#![allow(unsafe_code)]

use std::ptr::{self, NonNull};

/// Machine code.
#[derive(Debug)]
pub struct Code {
    memory: NonNull<u8>,
    bytes: usize,
}

// SAFETY: nobody writes to it once it is made.
unsafe impl Send for Code {}
// SAFETY: as above.
unsafe impl Sync for Code {}

impl Code {
    /// `None` where the system allows no code of one's own.
    pub fn new(code: &[u8]) -> Option<Self> {
        let (access, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
        // SAFETY: a new mapping of no file at an address of the kernel's choice.
        let memory = unsafe { libc::mmap(ptr::null_mut(), code.len(), access, flags, -1, 0) };
        let memory: NonNull<u8> = (memory != libc::MAP_FAILED).then(|| NonNull::new(memory.cast()))??;
        let made = Self { memory, bytes: code.len() };
        // SAFETY: the mapping is that large, new, and writable until the next call.
        let executable = unsafe {
            ptr::copy_nonoverlapping(code.as_ptr(), memory.as_ptr(), code.len());
            libc::mprotect(memory.as_ptr().cast(), code.len(), libc::PROT_READ | libc::PROT_EXEC)
        };
        (executable == 0).then_some(made)
    }

    /// Where the code at `offset` begins.
    pub fn at(&self, offset: usize) -> *const u8 {
        assert!(offset < self.bytes, "it lies within the code");
        self.memory.as_ptr().wrapping_add(offset)
    }
}

impl Drop for Code {
    fn drop(&mut self) {
        // SAFETY: it was mapped with this length; whoever runs the code holds it.
        unsafe { libc::munmap(self.memory.as_ptr().cast(), self.bytes) };
    }
}
