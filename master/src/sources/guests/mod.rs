//! The Stratum server: a stock miner joins the fleet as a guest. It gets a part of the nonces that nobody else has, what it
//! sends is computed once more, and it shows among the workers and in all totals.

mod guest;
mod share;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use secrecy::{ExposeSecret, SecretString};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, info};

use self::guest::Guest;
use super::offers::{GUESTS_FROM, Offers};
use crate::handle::Handle;

/// Connections at once, also of those that have not logged in.
const CONNECTIONS_MAX: usize = 1024;

/// What the server is told at start.
pub struct GuestConfig {
    /// Where it listens; port 0 picks a free one.
    pub listen: SocketAddr,
    /// What miners must give as their password.
    pub token: Option<SecretString>,
    /// Where its tasks are counted.
    pub tasks: TaskTracker,
}

/// What all guests share.
pub(super) struct House {
    handle: Handle,
    offers: Offers,
    token: Option<SecretString>,
    names: Mutex<BTreeSet<String>>,
    slices: Mutex<BTreeSet<u8>>,
}

/// Lets miners in until `stop`; answers with the address.
///
/// # Errors
/// When it would be open to everybody, or there is no such address.
pub async fn start(
    config: GuestConfig,
    handle: Handle,
    offers: Offers,
    stop: CancellationToken,
) -> Result<SocketAddr, String> {
    let GuestConfig { listen, token, tasks } = config;
    if token.is_none() && !listen.ip().is_loopback() {
        return Err(format!(
            "listen for miners at {listen}: it can be reached from other machines, which needs FLOTA_WORKER_TOKEN (or listen on 127.0.0.1)"
        ));
    }
    let listener = TcpListener::bind(listen).await;
    let listener =
        listener.map_err(|error| format!("listen for miners at {listen} (FLOTA_STRATUM_LISTEN): {error}"))?;
    let address = listener.local_addr().map_err(|error| error.to_string())?;
    info!("stock miners may join at stratum+tcp://{address}");
    let house = House { handle, offers, token, names: Mutex::default(), slices: Mutex::default() };
    tasks.spawn(serve(listener, Arc::new(house), tasks.clone(), stop));
    Ok(address)
}

async fn serve(listener: TcpListener, house: Arc<House>, tasks: TaskTracker, stop: CancellationToken) {
    let room = Arc::new(tokio::sync::Semaphore::new(CONNECTIONS_MAX));
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        let Ok((stream, from)) = accepted else {
            // Out of files: others will close theirs.
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
            continue;
        };
        let Ok(place) = room.clone().try_acquire_owned() else {
            debug!("a miner at {from} was turned away: there are {CONNECTIONS_MAX}");
            continue;
        };
        let (house, stop) = (house.clone(), stop.clone());
        tasks.spawn(async move {
            let _place = place;
            tokio::select! {
                () = stop.cancelled() => {}
                () = receive(stream, from, &house) => {}
            }
        });
    }
}

async fn receive(stream: TcpStream, from: SocketAddr, house: &House) {
    let _ = stream.set_nodelay(true);
    match Guest::enter(stream, house).await {
        Ok(mut guest) => {
            info!(worker_id = %guest.id(), "guest {} has come from {from}", guest.id());
            let reason = guest.stay().await;
            info!(worker_id = %guest.id(), "guest {} has gone: {reason}", guest.id());
        }
        Err(reason) => info!("a miner at {from} was turned away: {reason}"),
    }
}

impl House {
    fn admits(&self, password: &str) -> bool {
        self.token.as_ref().is_none_or(|token| crate::secret::same(token.expose_secret(), password))
    }

    /// A name that no other guest has now.
    fn name(&self, wanted: &str) -> String {
        let mut names = lock(&self.names);
        let plain = |c: char| if c.is_ascii_alphanumeric() || "-_.".contains(c) { c } else { '-' };
        let base: String = wanted.chars().take(48).map(plain).collect();
        let base = format!("guest-{}", if base.is_empty() { "miner" } else { &base });
        let free = |name: &String| !names.contains(name);
        let numbered = (2..=CONNECTIONS_MAX + 1).map(|number| format!("{base}-{number}"));
        let name = std::iter::once(base.clone()).chain(numbered).find(free).unwrap_or(base);
        names.insert(name.clone());
        name
    }

    /// A top byte of the nonce that no other guest has now.
    fn slice(&self) -> Option<u8> {
        let mut slices = lock(&self.slices);
        let first = (GUESTS_FROM >> 24) as u8;
        let free = (first..=u8::MAX).find(|slice| !slices.contains(slice))?;
        slices.insert(free);
        Some(free)
    }

    fn leave(&self, name: &str, slice: u8) {
        lock(&self.names).remove(name);
        lock(&self.slices).remove(&slice);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
