//! What a client may subscribe to. The router ends the connection for `$SYS` (which viewers ask for by habit), panics with
//! `$share` in some sessions, and knows no refusal; so such filters are refused here.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use rumqttd::protocol::{QoS, SubAck, Subscribe, SubscribeReasonCode};

/// Takes the place of a refused filter, so that the router's answer has the right length.
const NEVER: &str = "flota-never/published";
const PENDING_MAX: usize = 1024;

/// Which filters of subscriptions that the router has not answered yet are to be refused.
#[derive(Debug, Default)]
pub(super) struct Refusals(Mutex<HashMap<u16, Vec<usize>>>);

impl Refusals {
    /// Replaces what may not be subscribed to and remembers it. QoS 2 becomes QoS 1, as the contract knows no other.
    pub(super) fn on_subscribe(&self, subscribe: &mut Subscribe) {
        let mut refused = Vec::new();
        for (at, filter) in subscribe.filters.iter_mut().enumerate() {
            if filter.path.starts_with('$') || !rumqttc::valid_filter(&filter.path) {
                NEVER.clone_into(&mut filter.path);
                refused.push(at);
            }
            if filter.qos == QoS::ExactlyOnce {
                filter.qos = QoS::AtLeastOnce;
            }
        }
        if !refused.is_empty() {
            let mut pending = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            if pending.len() < PENDING_MAX {
                pending.insert(subscribe.pkid, refused);
            }
        }
    }

    /// Puts the refusals into the router's answer.
    pub(super) fn on_suback(&self, ack: &mut SubAck) {
        let refused = self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&ack.pkid);
        for at in refused.into_iter().flatten() {
            if let Some(code) = ack.return_codes.get_mut(at) {
                *code = SubscribeReasonCode::Failure;
            }
        }
    }
}
