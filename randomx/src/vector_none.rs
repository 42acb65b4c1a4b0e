//! Where there is no AVX the library computes dataset items.
#![allow(unsafe_code)]

use std::sync::Arc;

use crate::Cache;

/// How dataset items are computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// By the library, one at a time.
    Library,
}

impl Method {
    /// Best first.
    pub const LADDER: [Self; 1] = [Self::Library];

    /// The library.
    #[must_use]
    pub fn best() -> Self {
        Self::Library
    }

    /// Whether this processor can.
    #[must_use]
    pub fn is_supported(self) -> bool {
        true
    }

    /// `library`
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        "library"
    }
}

impl std::fmt::Display for Method {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// There are none.
#[derive(Debug)]
pub enum Vectorised {}

impl Vectorised {
    /// None.
    pub fn new(_cache: &Arc<Cache>, _method: Method) -> Option<Self> {
        None
    }

    /// Never called.
    ///
    /// # Safety
    /// There is no value to call it with.
    pub unsafe fn write_items(&self, _dataset: *mut u8, _start: usize, _count: usize) {
        match *self {}
    }
}
