//! Which messages wait, which the connection has, and which the broker still has to acknowledge. No I/O: it only hands
//! requests to rumqttc's queue, which always has room for what the limits here let through.

use std::collections::VecDeque;

use bytes::Bytes;
use futures::FutureExt;
use rumqttc::{AsyncClient, EventLoop, MqttOptions, QoS, SubscribeFilter};
use tokio::sync::oneshot;

use super::{Message, PACKET_BYTES_MAX, PublishError};

/// Messages that the broker may have without having acknowledged them.
pub(super) const INFLIGHT_MAX: usize = 100;
/// rumqttc takes packet ids in a circle of this size; subscriptions take some, so it is larger than [`INFLIGHT_MAX`].
pub(super) const PACKET_IDS: u16 = 120;
/// QoS 0 messages that may wait for the connection.
const BEST_EFFORT_MAX: usize = 1_000;
/// Reliable messages that may wait.
const WAITING_MAX: usize = 50_000;
/// Their bytes.
const WAITING_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Fixed header, length of the topic and packet id.
const PACKET_OVERHEAD_BYTES: usize = 9;

const _: () = assert!(INFLIGHT_MAX < PACKET_IDS as usize);

/// What became of the messages: each is counted once as queued and once at its end, and each repetition.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Reliable ones that the broker has.
    pub acknowledged: u64,
    /// Repetitions after a lost connection.
    pub retried: u64,
    /// QoS 0 ones that were written.
    pub sent: u64,
    /// QoS 0 ones that were not, because there was no connection or too much waited.
    pub dropped: u64,
    /// Reliable ones that were not taken: the queue full, too large, or ended.
    pub refused: u64,
}

/// Counts in [`Counters`] and in the metric that the contract names.
macro_rules! count {
    ($outbox:expr, $outcome:ident, $by:expr) => {{
        $outbox.counters.$outcome += $by;
        metrics::counter!("flota_mqtt_publishes_total", "outcome" => stringify!($outcome)).increment($by);
    }};
}

#[derive(Debug)]
struct Tracked {
    message: Message,
    done: Option<oneshot::Sender<()>>,
}

#[derive(Debug)]
pub(super) struct Outbox {
    requests: AsyncClient,
    connected: bool,
    closed: bool,
    waiting: VecDeque<Tracked>,
    waiting_bytes: usize,
    /// With rumqttc, without a packet id yet; written in this order.
    handed: VecDeque<Tracked>,
    /// Written; acknowledged mostly in this order.
    inflight: VecDeque<(u16, Tracked)>,
    best_effort_handed: usize,
    pub(super) counters: Counters,
}

/// rumqttc's two halves with a queue that holds all that an [`Outbox`] may hand over.
pub(super) fn event_loop(options: MqttOptions) -> (AsyncClient, EventLoop) {
    const SUBSCRIPTIONS_AND_DISCONNECT: usize = 8;
    let (requests, mut eventloop) =
        AsyncClient::new(options, INFLIGHT_MAX + BEST_EFFORT_MAX + SUBSCRIPTIONS_AND_DISCONNECT);
    eventloop.network_options.set_tcp_nodelay(true);
    (requests, eventloop)
}

impl Outbox {
    pub(super) fn new(requests: AsyncClient) -> Self {
        Self {
            requests,
            connected: false,
            closed: false,
            waiting: VecDeque::new(),
            waiting_bytes: 0,
            handed: VecDeque::new(),
            inflight: VecDeque::new(),
            best_effort_handed: 0,
            counters: Counters::default(),
        }
    }

    pub(super) const fn connected(&self) -> bool {
        self.connected
    }

    pub(super) fn publish(&mut self, message: Message, done: Option<oneshot::Sender<()>>) -> Result<(), PublishError> {
        let checked = self.admit(&message).and_then(|()| {
            let full =
                self.waiting.len() >= WAITING_MAX || self.waiting_bytes + message.payload.len() > WAITING_BYTES_MAX;
            if full { Err(PublishError::QueueFull) } else { Ok(()) }
        });
        if let Err(error) = checked {
            count!(self, refused, 1);
            return Err(error);
        }
        self.waiting_bytes += message.payload.len();
        self.waiting.push_back(Tracked { message, done });
        self.hand_over();
        Ok(())
    }

    pub(super) fn publish_best_effort(&mut self, message: Message) -> Result<(), PublishError> {
        if let Err(error) = self.admit(&message) {
            count!(self, refused, 1);
            return Err(error);
        }
        if self.connected && self.best_effort_handed < BEST_EFFORT_MAX {
            self.best_effort_handed += 1;
            self.request(message, QoS::AtMostOnce);
        } else {
            count!(self, dropped, 1);
        }
        Ok(())
    }

    fn admit(&self, message: &Message) -> Result<(), PublishError> {
        if self.closed {
            Err(PublishError::Closed)
        } else if message.topic.len() + message.payload.len() + PACKET_OVERHEAD_BYTES > PACKET_BYTES_MAX {
            Err(PublishError::TooLarge)
        } else {
            Ok(())
        }
    }

    /// Gives rumqttc as many of the waiting as may be unacknowledged at once.
    fn hand_over(&mut self) {
        while self.connected && self.handed.len() + self.inflight.len() < INFLIGHT_MAX {
            let Some(tracked) = self.waiting.pop_front() else { return };
            self.waiting_bytes -= tracked.message.payload.len();
            self.request(tracked.message.clone(), QoS::AtLeastOnce);
            self.handed.push_back(tracked);
        }
    }

    fn request(&self, Message { topic, payload, retain }: Message, qos: QoS) {
        let queued = self.requests.publish_bytes(topic, qos, retain, payload).now_or_never();
        debug_assert!(matches!(queued, Some(Ok(()))), "the queue has room for all that may be handed over");
    }

    /// A connection is up: renews the subscriptions, then hands over what waits.
    pub(super) fn on_connected(&mut self, subscriptions: &[SubscribeFilter]) {
        self.connected = true;
        if !subscriptions.is_empty() {
            let queued = self.requests.subscribe_many(subscriptions.iter().cloned()).now_or_never();
            debug_assert!(matches!(queued, Some(Ok(()))), "filters were checked and the queue has room");
        }
        self.hand_over();
    }

    /// rumqttc wrote a publish; a QoS 0 one has the packet id 0.
    pub(super) fn on_written(&mut self, packet_id: u16) {
        if packet_id == 0 {
            self.best_effort_handed = self.best_effort_handed.saturating_sub(1);
            count!(self, sent, 1);
        } else if let Some(tracked) = self.handed.pop_front() {
            self.inflight.push_back((packet_id, tracked));
        }
    }

    /// The broker has acknowledged a publish.
    pub(super) fn on_acknowledged(&mut self, packet_id: u16) {
        let Some(at) = self.inflight.iter().position(|(id, _)| *id == packet_id) else { return };
        if let Some((_, tracked)) = self.inflight.remove(at) {
            count!(self, acknowledged, 1);
            if let Some(done) = tracked.done {
                let _ = done.send(());
            }
        }
        self.hand_over();
    }

    /// The connection is gone: what is unacknowledged waits again, in its order, before the rest.
    pub(super) fn on_disconnected(&mut self) {
        self.connected = false;
        count!(self, dropped, self.best_effort_handed as u64);
        count!(self, retried, self.inflight.len() as u64);
        self.best_effort_handed = 0;
        let unacknowledged = self.inflight.drain(..).map(|(_, tracked)| tracked).chain(self.handed.drain(..));
        for tracked in unacknowledged.collect::<Vec<_>>().into_iter().rev() {
            self.waiting_bytes += tracked.message.payload.len();
            self.waiting.push_front(tracked);
        }
    }

    /// Takes nothing more.
    pub(super) fn close(&mut self) {
        self.closed = true;
    }

    /// Says farewell behind what was handed over.
    pub(super) fn disconnect(&mut self) {
        let _ = self.requests.disconnect().now_or_never();
    }

    /// Nobody will write any of it: whoever awaits an acknowledgement learns that.
    pub(super) fn abandon(&mut self) {
        self.closed = true;
        self.connected = false;
        self.waiting.clear();
        self.waiting_bytes = 0;
        self.handed.clear();
        self.inflight.clear();
    }
}

impl From<(&str, &'static str)> for Message {
    fn from((topic, payload): (&str, &'static str)) -> Self {
        Self { topic: topic.to_owned(), payload: Bytes::from_static(payload.as_bytes()), retain: false }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outbox() -> (Outbox, EventLoop) {
        let (requests, eventloop) = event_loop(MqttOptions::new("test", "localhost", 1));
        (Outbox::new(requests), eventloop)
    }

    fn payloads(outbox: &Outbox) -> Vec<&[u8]> {
        outbox.waiting.iter().map(|tracked| &tracked.message.payload[..]).collect()
    }

    #[test]
    fn unacknowledged_messages_wait_again_in_their_order() {
        let (mut outbox, _eventloop) = outbox();
        outbox.on_connected(&[]);
        for payload in ["a", "b", "c", "d"] {
            outbox.publish(("t", payload).into(), None).unwrap();
        }
        outbox.on_written(1);
        outbox.on_written(2);
        outbox.on_written(3);
        outbox.on_acknowledged(2);
        outbox.on_disconnected();
        outbox.publish(("t", "e").into(), None).unwrap();
        assert_eq!(payloads(&outbox), [b"a", b"c", b"d", b"e"]);
        assert_eq!(outbox.counters, Counters { acknowledged: 1, retried: 2, ..Counters::default() });
    }

    #[test]
    fn no_more_than_the_limit_is_in_flight_and_each_acknowledgement_makes_room() {
        let (mut outbox, _eventloop) = outbox();
        outbox.on_connected(&[]);
        for _ in 0..INFLIGHT_MAX + 5 {
            outbox.publish(("t", "x").into(), None).unwrap();
        }
        assert_eq!((outbox.handed.len(), outbox.waiting.len()), (INFLIGHT_MAX, 5));
        outbox.on_written(1);
        outbox.on_acknowledged(1);
        assert_eq!((outbox.handed.len(), outbox.inflight.len(), outbox.waiting.len()), (INFLIGHT_MAX, 0, 4));
    }

    #[test]
    fn the_queue_is_bounded_and_says_so() {
        let (mut outbox, _eventloop) = outbox();
        for _ in 0..WAITING_MAX {
            outbox.publish(("t", "x").into(), None).unwrap();
        }
        assert_eq!(outbox.publish(("t", "x").into(), None), Err(PublishError::QueueFull));
        let large = Message { topic: "t".into(), payload: vec![0; PACKET_BYTES_MAX].into(), retain: false };
        assert_eq!(outbox.publish(large, None), Err(PublishError::TooLarge));
        assert_eq!(outbox.counters.refused, 2);
    }

    #[test]
    fn best_effort_is_dropped_without_a_connection_and_counted() {
        let (mut outbox, _eventloop) = outbox();
        outbox.publish_best_effort(("t", "x").into()).unwrap();
        assert_eq!(outbox.counters.dropped, 1);
        outbox.on_connected(&[]);
        for _ in 0..BEST_EFFORT_MAX + 3 {
            outbox.publish_best_effort(("t", "x").into()).unwrap();
        }
        assert_eq!(outbox.counters.dropped, 4);
        outbox.on_written(0);
        outbox.on_disconnected();
        assert_eq!(outbox.counters.dropped, 4 + BEST_EFFORT_MAX as u64 - 1);
        assert_eq!(outbox.counters.sent, 1);
    }
}
