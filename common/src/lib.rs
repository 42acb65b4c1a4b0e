//! What master, worker and command share: clock, configuration, MQTT client, log.

pub mod clock;
pub mod mqtt;
