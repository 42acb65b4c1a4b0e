//! The contract of Flota as code: identifiers, topics, MQTT payloads, REST shapes, job kinds and gRPC messages.
//!
//! Every name that another program may hold on to is spelt here and nowhere else.

pub mod chain;
pub mod conversations;
pub mod hashing;
pub mod hexbytes;
pub mod ids;
pub mod kinds;
pub mod mqtt;
mod objects;
pub mod rest;
pub mod socket;
pub mod sources;
pub mod time;
pub mod topics;

pub use hashing::Algorithm;
pub use hexbytes::HexBytes;
pub use ids::{JobId, UnitId, WorkerId};
pub use kinds::{Class, Kind};
pub use time::Timestamp;

/// The gRPC messages and services between full workers and the master (`proto/flota/v1/`).
#[allow(missing_docs, clippy::all)]
pub mod v1 {
    tonic::include_proto!("flota.v1");
}

/// The unary call of simple workers (`proto/worker/worker.proto`).
#[allow(missing_docs, clippy::all)]
pub mod simple {
    tonic::include_proto!("worker");
}

/// The version of the Report stream that this build speaks.
pub const PROTOCOL: u32 = 1;
/// How long a lease lasts without a heartbeat.
pub const LEASE_MS: u64 = 15_000;
/// How often a worker sends a heartbeat.
pub const HEARTBEAT_MS: u64 = 5_000;
/// How long a published unit may wait for its acceptance.
pub const DISPATCH_TIMEOUT_MS: u64 = 5_000;
/// The largest MQTT packet; units above it travel by gRPC.
pub const MQTT_PAYLOAD_BYTES_MAX: usize = 256 * 1024;
/// The largest gRPC message on the Report stream.
pub const GRPC_MESSAGE_BYTES_MAX: usize = 1024 * 1024;
/// The largest REST body.
pub const BODY_BYTES_MAX: usize = 32 * 1024 * 1024;

const _: () = assert!(LEASE_MS >= 3 * HEARTBEAT_MS);
const _: () = assert!(MQTT_PAYLOAD_BYTES_MAX < GRPC_MESSAGE_BYTES_MAX);

impl v1::Attempt {
    /// The attempt `attempt` of `unit`.
    #[must_use]
    pub fn of(unit: UnitId, attempt: u64) -> Self {
        Self { unit_id: unit.to_string(), attempt }
    }
}
