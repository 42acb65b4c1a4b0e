//! The coordinator: queue, placement, leases, store, MQTT, gRPC callback, REST, Socket.IO and the page.

pub mod handle;
pub mod mqtt;
pub mod submit;
