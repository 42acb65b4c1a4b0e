//! What master, worker and command share: clock, configuration, MQTT client, log.

pub mod clock;
pub mod config;
pub mod logging;
pub mod mqtt;
