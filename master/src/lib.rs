//! The coordinator: queue, placement, leases, store, MQTT, gRPC callback, REST, Socket.IO and the page.

pub mod callback;
pub mod core;
pub mod dispatcher;
pub mod handle;
pub mod logs;
pub mod mqtt;
mod ration;
mod running;
mod secret;
pub mod store;
pub mod submit;
pub mod web;

pub use running::{MasterConfig, RunningMaster, StartError};
