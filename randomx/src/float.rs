//! The floating-point environment of the thread: hashing changes the rounding mode and flushes denormals.
#![allow(unsafe_code)]

use std::ffi::c_int;

/// Room for C's `fenv_t` of every platform (32 bytes on x86-64, 8 on AArch64).
#[repr(C, align(16))]
struct FloatEnvironment([u8; 256]);

unsafe extern "C" {
    fn fegetenv(environment: *mut FloatEnvironment) -> c_int;
    fn fesetenv(environment: *const FloatEnvironment) -> c_int;
}

/// Puts the floating-point environment (MXCSR on x86-64) back when dropped: the thread may compute something else afterwards.
pub struct FloatGuard(FloatEnvironment);

impl FloatGuard {
    pub fn save() -> Self {
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
