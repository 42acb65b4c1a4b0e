//! Socket.IO sessions on their way into the store and out of it.

use super::{Dispatcher, Moment};
use crate::aside::Aside;
use crate::handle::Refused;
use crate::session::{Followed, SessionChange, SessionKey};
use crate::store::StoreError;

impl Dispatcher {
    /// Notes what is to be stored in the commit of this batch. What only adds is left out while space is short.
    pub(super) fn session_changes(&mut self, at: Moment, changes: Vec<SessionChange>) {
        let adds = |change: &SessionChange| matches!(change, SessionChange::Begin(_) | SessionChange::Follow(..));
        let short = changes.iter().any(adds) && self.not_accepting().is_some();
        let wanted = changes.into_iter().filter(|change| !(short && adds(change)));
        self.asides.extend(wanted.map(|change| Aside::Session(change, at.now)));
    }

    /// What a session is still to be told, for who knows its secret.
    pub(super) fn session(&mut self, key: SessionKey) -> Result<Vec<Followed>, Refused> {
        let unavailable = |error: StoreError| Refused::Unavailable(format!("failed to {error}"));
        let reader = self.store.own_reader();
        match reader.session_digest(key.id).map_err(unavailable)? {
            Some(digest) if key.fits(&digest) => reader.follows(key.id).map_err(unavailable),
            Some(_) | None => Err(Refused::NotFound(format!("session {}", key.id))),
        }
    }
}
