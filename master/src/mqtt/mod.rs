//! MQTT, the doorbell: the link of the master to its broker, and the broker that `flota up` brings along.

pub mod broker;
mod link;
mod payload;

use bytes::Bytes;
use flota_common::mqtt::Client;

use crate::handle::{PublishError, Publisher};

pub use link::{Link, LinkConfig, connect};

use crate::core::Input;
use flota_proto::topics::Topics;

/// What a message from outside means to the core, if anything: for those who throw bytes at it.
#[must_use]
pub fn understood(topics: &Topics, topic: &str, payload: &[u8]) -> Option<Input> {
    match payload::Ears::new(topics).parse(topic, payload).ok()? {
        payload::Heard::Register(register) => Some(Input::Register(Box::new(register))),
        payload::Heard::Status(status) => Some(Input::Status(status)),
        payload::Heard::Repeated | payload::Heard::Log(_) | payload::Heard::Master(_) => None,
    }
}

impl Publisher for Client {
    fn publish(&self, topic: String, payload: Bytes, reliable: bool, retain: bool) -> Result<(), PublishError> {
        Client::publish(self, topic, payload, reliable, retain)
    }
}
