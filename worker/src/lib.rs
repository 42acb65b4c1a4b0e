//! The agent: takes units over MQTT, computes them, reports by gRPC.
//!
//! The way of a unit: `link` (MQTT) → `intake` → `table` (what is held, pure) → `runner` and `attempt` (execution) →
//! `table` → `callback` (gRPC) → acknowledged. `keeper` and `spool` have what is not acknowledged on disk.

mod attempt;
mod callback;
mod calls;
mod capabilities;
mod config;
mod control;
mod epoch;
pub mod executor;
pub mod health;
pub mod hostile;
mod intake;
mod keeper;
mod link;
mod load;
mod log;
mod neighbour;
pub mod peer;
mod runner;
mod running;
mod spool;
mod status;
mod table;

pub use config::{StartError, WorkerConfig, default_prefetch, default_slots};
pub use neighbour::Neighbour;
pub use running::{RunningWorker, Stopped, Worker};
pub use spool::SpoolError;
