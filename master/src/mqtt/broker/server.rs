//! One life of the broker: a router, a thread with its connections, and the door.

use std::collections::HashMap;
use std::io;
use std::net::TcpListener;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use flota_common::mqtt::PACKET_BYTES_MAX;
use rumqttd::local::{LinkBuilder, LinkRx, LinkTx};
use rumqttd::{Notification, Router, RouterConfig};
use secrecy::SecretString;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::session;
use crate::secret;

const CONNECTIONS_MAX: usize = 10_000;
/// Of one topic filter: what a subscriber may be behind before it loses messages.
const SEGMENT_BYTES: usize = 1024 * 1024;
const SEGMENTS_MAX: usize = 10;
/// Also bounds how many retained messages a wildcard subscription without QoS is given.
const OUTGOING_PACKETS_MAX: u64 = 10_000;
/// Between attempts to accept when the machine has no file descriptors left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

const _: () = assert!(PACKET_BYTES_MAX < SEGMENT_BYTES);

/// The one account.
#[derive(Clone, Debug)]
pub(super) struct Account {
    pub(super) user: String,
    pub(super) password: SecretString,
}

/// A connection to the router. The type of the router's channel cannot be named outside its crate.
type Connect = dyn Fn(&str, bool) -> Option<(LinkTx, LinkRx, Notification)> + Send + Sync;

/// What the connections of one life share.
pub(super) struct House {
    pub(super) account: Option<Account>,
    connect: Box<Connect>,
    present: Mutex<HashMap<String, Arc<Presence>>>,
    suspicion: Notify,
}

/// A client that is connected: of two with one id the older has to go, and is gone before the newer comes in.
#[derive(Debug, Default)]
pub(super) struct Presence {
    pub(super) leave: CancellationToken,
    left: CancellationToken,
}

/// The running life.
pub(super) struct Server {
    house: Arc<House>,
    stop: CancellationToken,
}

impl Server {
    pub(super) fn start(listener: &TcpListener, account: Option<Account>) -> io::Result<Self> {
        let listener = listener.try_clone()?;
        let house = Arc::new(House { account, connect: router(), present: Mutex::default(), suspicion: Notify::new() });
        let stop = CancellationToken::new();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (at_door, until) = (house.clone(), stop.clone());
        std::thread::Builder::new().name("mqtt-broker".into()).spawn(move || {
            runtime.block_on(until.run_until_cancelled(accept(listener, at_door)));
        })?;
        Ok(Self { house, stop })
    }

    /// Returns when a client could not be connected to the router.
    pub(super) async fn suspected(&self) {
        self.house.suspicion.notified().await;
    }

    #[cfg(test)]
    pub(super) fn house(&self) -> &Arc<House> {
        &self.house
    }

    /// Closes the door and all connections.
    pub(super) fn stop(&self) {
        self.stop.cancel();
    }
}

fn router() -> Box<Connect> {
    let config = RouterConfig {
        max_connections: CONNECTIONS_MAX,
        max_outgoing_packet_count: OUTGOING_PACKETS_MAX,
        max_segment_size: SEGMENT_BYTES,
        max_segment_count: SEGMENTS_MAX,
        ..RouterConfig::default()
    };
    let router = Router::new(0, config).spawn();
    Box::new(move |client_id, clean_session| {
        LinkBuilder::new(client_id, router.clone()).clean_session(clean_session).build().ok()
    })
}

async fn accept(listener: TcpListener, house: Arc<House>) {
    let listener = match tokio::net::TcpListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => return warn!(%error, "the embedded MQTT broker cannot listen"),
    };
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => {
                let house = house.clone();
                tokio::spawn(async move {
                    let ended = session::serve(stream, house).await;
                    debug!(%peer, cause = ?ended, "an MQTT connection has ended");
                });
            }
            Err(error) => {
                warn!(%error, "the embedded MQTT broker cannot accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

impl House {
    /// Whether these are the account's.
    pub(super) fn lets_in(&self, user: &str, password: &str) -> bool {
        use secrecy::ExposeSecret;
        self.account.as_ref().is_none_or(|account| {
            secret::same(&account.user, user) & secret::same(account.password.expose_secret(), password)
        })
    }

    /// Sends an older client of this id away, waits until it has gone, and takes its place.
    pub(super) async fn enter(self: &Arc<Self>, client_id: &str) -> Guest {
        loop {
            let older = {
                let mut present = self.present.lock().unwrap_or_else(PoisonError::into_inner);
                match present.get(client_id) {
                    Some(older) => older.clone(),
                    None => {
                        let presence = Arc::new(Presence::default());
                        present.insert(client_id.to_owned(), presence.clone());
                        return Guest { house: self.clone(), client_id: client_id.to_owned(), presence };
                    }
                }
            };
            older.leave.cancel();
            older.left.cancelled().await;
        }
    }

    /// Connects a client to the router.
    pub(super) fn connect(&self, client_id: &str, clean_session: bool) -> Option<(LinkTx, LinkRx, Notification)> {
        let connected = (self.connect)(client_id, clean_session);
        if connected.is_none() {
            self.suspicion.notify_one();
        }
        connected
    }
}

/// A client's place, given back when dropped.
pub(super) struct Guest {
    house: Arc<House>,
    client_id: String,
    pub(super) presence: Arc<Presence>,
}

impl Drop for Guest {
    fn drop(&mut self) {
        self.house.present.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.client_id);
        self.presence.left.cancel();
    }
}
