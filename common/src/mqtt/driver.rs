//! The one task that polls the connection. It never publishes, never waits for a reader, and holds the lock only to
//! change the outbox.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rumqttc::{
    ConnectionError, Event as Polled, EventLoop, MqttState, Outgoing, Packet, Publish, QoS, SubAck, SubscribeFilter,
    SubscribeReasonCode,
};
use tracing::{debug, warn};

use super::events::{Deliveries, Event};
use super::outbox::PACKET_IDS;
use super::{Config, Shared, connect};
use crate::clock;

const BACKOFF_MIN: Duration = Duration::from_millis(50);
const BACKOFF_MAX: Duration = Duration::from_secs(5);
/// A connection that lasted this long is no part of a series of failures.
const STABLE: Duration = Duration::from_secs(10);

struct Driver {
    shared: Arc<Shared>,
    eventloop: EventLoop,
    config: Config,
    filters: Vec<SubscribeFilter>,
    deliveries: Deliveries,
    connected_at: Option<Instant>,
    session_present: bool,
    failures: u32,
    /// What was said last, so that an outage is told once and not with every try.
    reason: String,
    farewell: bool,
}

pub(super) async fn run(
    shared: Arc<Shared>,
    eventloop: EventLoop,
    config: Config,
    filters: Vec<SubscribeFilter>,
    deliveries: Deliveries,
) {
    let mut driver = Driver {
        shared: shared.clone(),
        eventloop,
        config,
        filters,
        deliveries,
        connected_at: None,
        session_present: false,
        failures: 0,
        reason: String::new(),
        farewell: false,
    };
    shared.stop.run_until_cancelled(driver.drive()).await;
    shared.outbox().abandon();
    drop(driver);
    shared.ended.cancel();
}

impl Driver {
    async fn drive(&mut self) {
        while !self.farewell {
            match self.eventloop.poll().await {
                Ok(event) => self.on_event(event),
                Err(error) => {
                    self.on_error(&error);
                    let wait = backoff(self.failures);
                    self.failures = self.failures.saturating_add(1);
                    tokio::time::sleep(wait).await;
                }
            }
        }
    }

    fn on_event(&mut self, event: Polled) {
        match event {
            Polled::Incoming(Packet::Publish(publish)) => self.on_message(publish),
            Polled::Incoming(Packet::PubAck(ack)) => self.shared.outbox().on_acknowledged(ack.pkid),
            Polled::Incoming(Packet::ConnAck(ack)) => self.on_connected(ack.session_present),
            Polled::Incoming(Packet::SubAck(ack)) => self.on_subscribed(&ack),
            Polled::Outgoing(Outgoing::Publish(packet_id)) => self.shared.outbox().on_written(packet_id),
            Polled::Outgoing(Outgoing::Disconnect) => self.farewell = true,
            Polled::Incoming(_) | Polled::Outgoing(_) => {}
        }
    }

    fn on_connected(&mut self, session_present: bool) {
        debug!(url = %self.config.url, session_present, "connected to the MQTT broker");
        self.connected_at = Some(clock::instant());
        self.reason.clear();
        self.session_present = session_present;
        self.shared.outbox().on_connected(&self.filters);
        if self.filters.is_empty() {
            self.deliveries.state(Event::Connected { session_present });
        }
    }

    fn on_message(&mut self, Publish { topic, payload, retain, qos, .. }: Publish) {
        let reliable = qos != QoS::AtMostOnce;
        if let Some(dropped) = self.deliveries.message(topic, payload, retain, reliable) {
            warn!(dropped, "the reader of MQTT messages was too slow: some were dropped");
        }
    }

    /// In 3.1.1 a subscription is refused by its return code only.
    fn on_subscribed(&self, ack: &SubAck) {
        self.deliveries.state(Event::Connected { session_present: self.session_present });
        for (filter, code) in self.filters.iter().zip(&ack.return_codes) {
            if *code == SubscribeReasonCode::Failure {
                warn!(filter = filter.path, "the MQTT broker refuses this subscription: check its access rules");
            }
        }
    }

    fn on_error(&mut self, error: &ConnectionError) {
        // What was read before the error is acknowledged already: it would be lost with the state.
        for event in std::mem::take(&mut self.eventloop.state.events) {
            self.on_event(event);
        }
        {
            let mut outbox = self.shared.outbox();
            self.eventloop.clean();
            self.eventloop.pending.clear();
            self.eventloop.state = MqttState::new(PACKET_IDS, false);
            outbox.on_disconnected();
        }
        let connected_at = self.connected_at.take();
        if connected_at.is_some_and(|since| since.elapsed() >= STABLE) {
            self.failures = 0;
        }
        let reason = connect::explain(&self.config, connected_at.is_some(), error);
        if self.reason != reason {
            self.reason.clone_from(&reason);
            self.deliveries.state(Event::Disconnected { reason });
        }
    }
}

/// Doubles to [`BACKOFF_MAX`], half of it by chance, so that a fleet does not come back all at once.
fn backoff(failures: u32) -> Duration {
    let most = BACKOFF_MIN.saturating_mul(1 << failures.min(16)).min(BACKOFF_MAX);
    most.mul_f64(rand::random_range(0.5..1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_backoff_grows_within_its_bounds() {
        for failures in 0..200 {
            let wait = backoff(failures);
            assert!((BACKOFF_MIN / 2..BACKOFF_MAX).contains(&wait), "{failures}: {wait:?}");
        }
        assert!(backoff(30) > BACKOFF_MAX / 3);
    }
}
