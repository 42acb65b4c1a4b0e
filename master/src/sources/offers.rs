//! What running sources have to be computed, for miners that are no workers of this fleet.

use std::collections::BTreeMap;
use std::sync::Arc;

use flota_proto::kinds::{Found, NONCE_END_MAX};
use flota_proto::{JobId, WorkerId};
use tokio::sync::{mpsc, watch};

use super::desk::{Account, Work};

/// From this nonce on a work is for guests, each of which has a top byte of its own; below it for workers.
pub const GUESTS_FROM: u64 = 0xc000_0000;
/// Finds of guests that may wait for one source.
pub const FINDS_MAX: usize = 256;

/// A winning nonce that a guest found.
#[derive(Debug)]
pub struct GuestFind {
    /// Of which work: the fleet's job for it.
    pub job: JobId,
    /// Who.
    pub worker: WorkerId,
    /// What.
    pub found: Found,
}

/// A source's newest work.
#[derive(Clone)]
pub struct Offer {
    /// Whose.
    pub account: Account,
    /// The fleet's job for it.
    pub job: JobId,
    /// What is searched.
    pub work: Arc<Work>,
    /// Where finds go.
    pub finds: mpsc::Sender<GuestFind>,
}

/// The newest work of each source, by its name.
#[derive(Clone)]
pub struct Offers(Arc<watch::Sender<BTreeMap<String, Offer>>>);

impl Default for Offers {
    fn default() -> Self {
        Self(Arc::new(watch::Sender::new(BTreeMap::new())))
    }
}

impl Offers {
    /// A source has this to be computed now.
    pub fn put(&self, offer: Offer) {
        self.0.send_modify(|offers| drop(offers.insert(offer.account.id.clone(), offer)));
    }

    /// A source has nothing any more.
    pub fn take(&self, source: &str) {
        self.0.send_if_modified(|offers| offers.remove(source).is_some());
    }

    /// Sees every change.
    pub fn watch(&self) -> watch::Receiver<BTreeMap<String, Offer>> {
        self.0.subscribe()
    }
}

/// The nonces of `work` that workers search, and whether guests have the rest. A pool in NiceHash mode leaves too few
/// to be shared.
pub fn divide((from, to): (u64, u64)) -> ((u64, u64), bool) {
    let whole = (from, to) == (0, NONCE_END_MAX);
    if whole { ((0, GUESTS_FROM), true) } else { ((from, to), false) }
}
