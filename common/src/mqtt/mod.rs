//! The tracked MQTT 3.1.1 client of master, worker and command. What was published reliably is repeated until the broker
//! has acknowledged it, across reconnects; subscriptions are renewed with every connection.
//!
//! A thin layer over rumqttc, which by itself forgets unsent messages when a session is new and calls a message sent when
//! it is queued. The rules are in `outbox.rs` (no I/O), the one task that polls the connection in `driver.rs`.

mod connect;
mod driver;
mod events;
mod outbox;

use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use secrecy::SecretString;
use thiserror::Error;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use outbox::Outbox;

pub use connect::{ConfigError, random_client_id};
pub use events::{Event, Events};
pub use outbox::Counters;

/// The largest packet (topic and payload and up to seven bytes around them), at both ends.
pub const PACKET_BYTES_MAX: usize = flota_proto::MQTT_PAYLOAD_BYTES_MAX;
/// How long [`Client::shutdown`] waits for the last acknowledgements.
pub const SHUTDOWN_GRACE: Duration = Duration::from_secs(2);

/// What a client needs to know.
#[derive(Clone, Debug)]
pub struct Config {
    /// `mqtt://host[:1883]` or `mqtts://host[:8883]`, without user and password.
    pub url: String,
    /// The account at the broker.
    pub user: Option<String>,
    /// Its password.
    pub password: Option<SecretString>,
    /// Of two connections with one id the broker closes the older.
    pub client_id: String,
    /// Whether the broker forgets this client when it goes.
    pub clean_session: bool,
    /// What the broker publishes when the connection ends without [`Client::shutdown`].
    pub will: Option<Message>,
    /// Renewed with every connection.
    pub subscriptions: Vec<Subscription>,
}

/// One message to publish with QoS 1.
#[derive(Clone, Debug)]
pub struct Message {
    /// Without wildcards.
    pub topic: String,
    /// What it says.
    pub payload: Bytes,
    /// Whether the broker keeps it for later subscribers.
    pub retain: bool,
}

/// One topic filter to receive.
#[derive(Clone, Debug)]
pub struct Subscription {
    /// May hold `+` and `#`.
    pub filter: String,
    /// QoS 1, else 0.
    pub reliable: bool,
}

impl Subscription {
    /// QoS 1.
    #[must_use]
    pub fn reliable(filter: String) -> Self {
        Self { filter, reliable: true }
    }

    /// QoS 0.
    #[must_use]
    pub fn best_effort(filter: String) -> Self {
        Self { filter, reliable: false }
    }
}

/// Why a message was not queued. Completes "failed to publish: …".
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum PublishError {
    /// The bounded queue is full.
    #[error("the queue to the broker is full")]
    QueueFull,
    /// Larger than a packet may be.
    #[error("the message is larger than 256 KiB")]
    TooLarge,
    /// The link has ended.
    #[error("the link to the broker has ended")]
    Closed,
}

/// The way to the broker; cheap to clone.
#[derive(Clone, Debug)]
pub struct Client {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    outbox: Mutex<Outbox>,
    /// Ends the task at once, without farewell.
    stop: CancellationToken,
    /// The task has ended.
    ended: CancellationToken,
}

impl Shared {
    fn outbox(&self) -> MutexGuard<'_, Outbox> {
        self.outbox.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Client {
    /// Starts the task that keeps the connection. It tries for ever; the first failure is an [`Event::Disconnected`] that
    /// says what to do. Cancelling `stop` ends it at once, so that the broker publishes the will.
    ///
    /// # Errors
    /// When the configuration can never work.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn start(config: Config, stop: CancellationToken) -> Result<(Self, Events), ConfigError> {
        let options = connect::options(&config)?;
        let filters = connect::filters(&config)?;
        let (requests, eventloop) = outbox::event_loop(options);
        let (deliveries, events) = events::channel();
        let shared =
            Arc::new(Shared { outbox: Mutex::new(Outbox::new(requests)), stop, ended: CancellationToken::new() });
        tokio::spawn(driver::run(shared.clone(), eventloop, config, filters, deliveries));
        Ok((Self { shared }, events))
    }

    /// Queues a message and returns at once. With `reliable` it is QoS 1 and repeated until the broker has acknowledged
    /// it; without, it is QoS 0 and dropped when there is no connection or too much waits.
    ///
    /// # Errors
    /// When the bounded queue is full, the message too large, or the client has ended.
    pub fn publish(&self, topic: String, payload: Bytes, reliable: bool, retain: bool) -> Result<(), PublishError> {
        let message = Message { topic, payload, retain };
        let mut outbox = self.shared.outbox();
        if reliable { outbox.publish(message, None) } else { outbox.publish_best_effort(message) }
    }

    /// Queues a QoS 1 message at once; the future resolves when the broker has acknowledged it.
    ///
    /// # Errors
    /// As [`Client::publish`], and when the client ends before the acknowledgement.
    pub fn publish_acknowledged(
        &self,
        message: Message,
    ) -> impl Future<Output = Result<(), PublishError>> + Send + use<> {
        let (done, acknowledged) = oneshot::channel();
        let queued = self.shared.outbox().publish(message, Some(done));
        async move {
            queued?;
            acknowledged.await.map_err(|_| PublishError::Closed)
        }
    }

    /// What became of the messages so far.
    #[must_use]
    pub fn counters(&self) -> Counters {
        self.shared.outbox().counters
    }

    /// Whether there is a connection now.
    #[must_use]
    pub fn connected(&self) -> bool {
        self.shared.outbox().connected()
    }

    /// Ends in order: nothing more is taken, `last` is published behind what waits, and after its acknowledgement (or
    /// [`SHUTDOWN_GRACE`], or at once without a connection) the connection is closed so that no will is published.
    pub async fn shutdown(&self, last: Vec<Message>) {
        let pending: Vec<_> = last.into_iter().map(|message| self.publish_acknowledged(message)).collect();
        let connected = {
            let mut outbox = self.shared.outbox();
            outbox.close();
            outbox.connected()
        };
        if connected {
            let _ = tokio::time::timeout(SHUTDOWN_GRACE, futures::future::join_all(pending)).await;
            self.shared.outbox().disconnect();
            let _ = tokio::time::timeout(SHUTDOWN_GRACE, self.shared.ended.cancelled()).await;
        }
        self.shared.stop.cancel();
        self.shared.ended.cancelled().await;
    }
}
