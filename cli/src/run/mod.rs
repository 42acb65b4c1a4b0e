//! The commands that run a fleet or a part of one. Settings become configurations in `parts`.

mod banner;
pub mod master;
pub mod parts;
pub mod ports;
mod signals;
pub mod up;
pub mod worker;

use tokio::runtime::Runtime;

use crate::failure::Failure;

/// With several threads.
pub fn runtime() -> Result<Runtime, Failure> {
    let built = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    built.map_err(|error| Failure::Failed(format!("the system gives no threads: {error}")))
}
