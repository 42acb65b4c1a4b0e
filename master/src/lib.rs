//! The coordinator: queue, placement, leases, store, MQTT, gRPC callback, REST, Socket.IO and the page.

pub mod aside;
pub mod callback;
pub mod conversation;
pub mod core;
pub mod dispatcher;
pub mod handle;
pub mod ledger;
pub mod logs;
pub mod mqtt;
mod ration;
mod running;
pub mod seal;
mod secret;
pub mod session;
pub mod sources;
pub mod store;
pub mod submit;
pub mod tokens;
pub mod verifier;
pub mod web;

pub use running::{MasterConfig, RunningMaster, StartError};
