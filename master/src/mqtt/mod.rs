//! The link to the broker.

use bytes::Bytes;
use flota_common::mqtt::Client;

use crate::handle::{PublishError, Publisher};

impl Publisher for Client {
    fn publish(&self, topic: String, payload: Bytes, reliable: bool, retain: bool) -> Result<(), PublishError> {
        Client::publish(self, topic, payload, reliable, retain)
    }
}
