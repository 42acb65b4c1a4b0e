//! The agent: takes units over MQTT, computes them, reports by gRPC.

pub mod executor;
