//! Memory for machine code that is written and run in turn.
#![allow(unsafe_code)]

use std::ptr::{self, NonNull};

/// Machine code that is replaced again and again, by the one who runs it.
#[derive(Debug)]
pub struct Code {
    memory: NonNull<u8>,
    bytes: usize,
}

// SAFETY: it is plain memory, bound to no thread.
unsafe impl Send for Code {}

impl Code {
    /// `None` where the system allows no memory that can be written and run.
    pub fn new(bytes: usize) -> Option<Self> {
        let access = libc::PROT_READ | libc::PROT_WRITE | libc::PROT_EXEC;
        // SAFETY: a new mapping of no file at an address of the kernel's choice.
        let memory =
            unsafe { libc::mmap(ptr::null_mut(), bytes, access, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, -1, 0) };
        let memory = (memory != libc::MAP_FAILED).then(|| NonNull::new(memory.cast()))??;
        Some(Self { memory, bytes })
    }

    pub fn address(&self) -> u64 {
        self.memory.addr().get() as u64
    }

    /// Replaces what is there and runs it.
    ///
    /// # Safety
    /// It must be a function without arguments that keeps what the System V convention says, and may do what it does.
    pub unsafe fn run(&mut self, code: &[u8]) {
        assert!(code.len() <= self.bytes, "there is room for it");
        // SAFETY: the mapping has room; what is in it is a function of this kind, and x86 sees its own stores to code.
        unsafe {
            ptr::copy_nonoverlapping(code.as_ptr(), self.memory.as_ptr(), code.len());
            let function: unsafe extern "sysv64" fn() = std::mem::transmute(self.memory.as_ptr());
            function();
        }
    }
}

impl Drop for Code {
    fn drop(&mut self) {
        // SAFETY: it was mapped with this length, and only `run` runs it.
        unsafe { libc::munmap(self.memory.as_ptr().cast(), self.bytes) };
    }
}
