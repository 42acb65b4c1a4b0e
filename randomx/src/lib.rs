//! RandomX (v1, `rx/0`): [`Cache`], [`Dataset`] and [`Vm`] over the library that `randomx-rs` builds and links.
//!
//! A key expands into a [`Cache`] of 256 MiB, from which a VM hashes slowly ([`Vm::light`]), or, at about six times the speed,
//! from a [`Dataset`] of 2080 MiB that is computed from the cache ([`Vm::fast`]). This crate is the only one of the project with
//! `unsafe`; what it offers is safe, and every failure is an [`Error`].

mod cache;
mod dataset;
mod digest;
mod error;
mod ffi;
mod float;
#[cfg(target_arch = "x86_64")]
mod machine;
mod pages;
mod receive;
mod region;
#[cfg(target_os = "linux")]
mod shared;
pub mod thread;
#[cfg(target_arch = "x86_64")]
mod vector;
#[cfg(not(target_arch = "x86_64"))]
#[path = "vector_none.rs"]
mod vector;
mod vm;

pub use cache::Cache;
pub use dataset::{Build, Dataset, Origin};
pub use digest::DIGEST_BYTES;
pub use error::Error;
pub use ffi::Flags;
pub use pages::Pages;
pub use receive::Incoming;
pub use vector::Method;
pub use vm::{Batch, Vm};

/// Bytes of a hash.
pub const HASH_BYTES: usize = 32;
/// Bytes of a cache.
pub const CACHE_BYTES: usize = 256 * 1024 * 1024;
/// Bytes of one item of a dataset.
pub const ITEM_BYTES: usize = 64;
/// Items of a dataset.
pub const ITEMS: usize = 34_078_719;
/// Bytes of a dataset.
pub const DATASET_BYTES: usize = ITEMS * ITEM_BYTES;
/// Bytes of the scratchpad that each VM has.
pub const SCRATCHPAD_BYTES: usize = 2 * 1024 * 1024;
