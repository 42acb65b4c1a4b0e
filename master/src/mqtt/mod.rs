//! MQTT, the doorbell: the link of the master to its broker, and the broker that `flota up` brings along.

pub mod broker;
mod link;
mod payload;

use bytes::Bytes;
use flota_common::mqtt::Client;

use crate::handle::{PublishError, Publisher};

pub use link::{Link, LinkConfig, connect};

impl Publisher for Client {
    fn publish(&self, topic: String, payload: Bytes, reliable: bool, retain: bool) -> Result<(), PublishError> {
        Client::publish(self, topic, payload, reliable, retain)
    }
}
