//! What arrives from the broker, on its way to the one reader. The task that polls the connection never waits for the
//! reader: acknowledgements and pings go through the same task, and a reader that awaits an acknowledgement would wait for
//! itself. So the way is bounded, and what does not fit is dropped and counted: QoS 0 when half is taken, QoS 1 when
//! all is. MQTT is the doorbell here; the store and its timeouts bring back what a lost message was about.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use tokio::sync::mpsc;

/// Messages that may wait for the reader.
const MESSAGES_MAX: usize = 16_384;
/// Room that only [`Event::Connected`] and [`Event::Disconnected`] may take.
const STATES_MAX: usize = 64;
/// Bytes of payload that may wait for the reader.
const BYTES_MAX: usize = 64 * 1024 * 1024;

/// What the connection has to tell.
#[derive(Clone, Debug)]
pub enum Event {
    /// The connection is up and the broker has answered the subscriptions: an answer to what is published now arrives.
    Connected {
        /// Whether the broker remembered this client.
        session_present: bool,
    },
    /// There is no connection; the client goes on trying. Said once for each reason.
    Disconnected {
        /// A sentence for people: which broker, what happened, what to do.
        reason: String,
    },
    /// A message of one of the subscriptions.
    Message {
        /// Where.
        topic: String,
        /// What.
        payload: Bytes,
        /// Kept by the broker from before this subscription.
        retained: bool,
    },
}

/// The reader's end.
#[derive(Debug)]
pub struct Events {
    receiver: mpsc::Receiver<Event>,
    bytes: Arc<AtomicUsize>,
}

impl Events {
    /// The next event; `None` when the client has ended. Safe to cancel.
    pub async fn recv(&mut self) -> Option<Event> {
        let event = self.receiver.recv().await;
        self.release(event.as_ref());
        event
    }

    /// The next event, if one has arrived.
    pub fn try_recv(&mut self) -> Option<Event> {
        let event = self.receiver.try_recv().ok();
        self.release(event.as_ref());
        event
    }

    fn release(&self, event: Option<&Event>) {
        if let Some(Event::Message { payload, .. }) = event {
            self.bytes.fetch_sub(payload.len(), Ordering::Relaxed);
        }
    }
}

/// The connection's end.
#[derive(Debug)]
pub(super) struct Deliveries {
    sender: mpsc::Sender<Event>,
    bytes: Arc<AtomicUsize>,
    dropped: u64,
}

pub(super) fn channel() -> (Deliveries, Events) {
    let (sender, receiver) = mpsc::channel(MESSAGES_MAX + STATES_MAX);
    let bytes = Arc::new(AtomicUsize::new(0));
    (Deliveries { sender, bytes: bytes.clone(), dropped: 0 }, Events { receiver, bytes })
}

impl Deliveries {
    /// Delivers a change of the connection. Lost only on a reader that slept through more than [`STATES_MAX`] of them.
    pub(super) fn state(&self, event: Event) {
        let _ = self.sender.try_send(event);
    }

    /// Delivers a message if there is room. Returns how many were dropped since the last one that fitted, when this one
    /// fits again.
    pub(super) fn message(&mut self, topic: String, payload: Bytes, retained: bool, reliable: bool) -> Option<u64> {
        let room = self.sender.capacity().saturating_sub(STATES_MAX);
        let bytes = self.bytes.load(Ordering::Relaxed) + payload.len();
        let share = if reliable { 1 } else { 2 };
        if room <= MESSAGES_MAX - MESSAGES_MAX / share || bytes > BYTES_MAX / share {
            self.dropped += 1;
            return None;
        }
        self.bytes.fetch_add(payload.len(), Ordering::Relaxed);
        let _ = self.sender.try_send(Event::Message { topic, payload, retained });
        Some(std::mem::take(&mut self.dropped)).filter(|dropped| *dropped > 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn deliver(deliveries: &mut Deliveries, reliable: bool, count: usize) {
        for _ in 0..count {
            let _ = deliveries.message("t".into(), Bytes::from_static(b"x"), false, reliable);
        }
    }

    #[test]
    fn a_slow_reader_loses_best_effort_first_and_never_blocks_the_connection() {
        let (mut deliveries, mut events) = channel();
        deliver(&mut deliveries, false, MESSAGES_MAX);
        deliver(&mut deliveries, true, 10);
        let mut taken = 0;
        while let Some(Event::Message { .. }) = events.try_recv() {
            taken += 1;
        }
        assert_eq!(taken, MESSAGES_MAX / 2 + 10);
        deliver(&mut deliveries, true, 2 * MESSAGES_MAX);
        deliveries.state(Event::Disconnected { reason: "gone".into() });
        let mut last = None;
        while let Some(event) = events.try_recv() {
            last = Some(event);
        }
        assert!(matches!(last, Some(Event::Disconnected { .. })), "a change of state always has room");
        let said = deliveries.message("t".into(), Bytes::new(), false, true);
        assert_eq!(said, Some(MESSAGES_MAX as u64), "what was dropped is said once there is room");
    }

    #[test]
    fn waiting_payloads_are_bounded_in_bytes() {
        let (mut deliveries, mut events) = channel();
        let payload = Bytes::from(vec![0; 256 * 1024]);
        for _ in 0..1000 {
            let _ = deliveries.message("t".into(), payload.clone(), false, true);
        }
        let mut bytes = 0;
        while let Some(Event::Message { payload, .. }) = events.try_recv() {
            bytes += payload.len();
        }
        assert_eq!(bytes, BYTES_MAX);
    }
}
