//! The broker that `flota up` and the tests bring along: rumqttd's router behind an acceptor of our own.
//!
//! rumqttd's own `Server` is not used: it locks everybody out after two client ids that it does not like, can check ids only
//! of clients with an account, leaves Nagle's algorithm on, and takes a dead client for alive while it sends to it.
//! Deployments use Mosquitto.

mod filters;
mod probe;
mod server;
mod session;

use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

use secrecy::SecretString;
use thiserror::Error;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tracing::{error, info};

use server::{Account, Server};

/// How often the broker is asked whether it still lets clients in.
const PROBE_EVERY: Duration = Duration::from_secs(5);

/// Where to listen and whom to let in.
#[derive(Clone, Debug)]
pub struct BrokerConfig {
    /// The address; port 0 picks a free one.
    pub listen: SocketAddr,
    /// The one account; without it everybody on this machine may come.
    pub user: Option<String>,
    /// Its password.
    pub password: Option<SecretString>,
}

/// Why the broker did not start. Completes "failed to …".
#[derive(Debug, Error)]
pub enum BrokerError {
    /// Anyone could publish tasks.
    #[error(
        "start the embedded broker on {0}: beyond this machine FLOTA_MQTT_USER and FLOTA_MQTT_PASSWORD must be set"
    )]
    AccountNeeded(SocketAddr),
    /// One without the other.
    #[error("start the embedded broker: FLOTA_MQTT_USER and FLOTA_MQTT_PASSWORD belong together, but only one is set")]
    HalfAnAccount,
    /// The port is taken or the address is not ours.
    #[error("start the embedded broker on {listen}: {source}; set FLOTA_MQTT_LISTEN to a free address")]
    Bind {
        /// Where.
        listen: SocketAddr,
        /// Why not.
        source: std::io::Error,
    },
    /// The machine gives no thread.
    #[error("start the embedded broker: {0}")]
    Thread(std::io::Error),
}

/// The running broker. It ends when this is dropped or [`Broker::stop`]ped.
#[derive(Debug)]
pub struct Broker {
    addr: SocketAddr,
    stop: CancellationToken,
    watchdog: JoinHandle<()>,
}

impl Broker {
    /// Starts it on threads of its own, and a watchdog that starts it anew should it stop letting clients in.
    ///
    /// # Errors
    /// [`BrokerError`] says what to do.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn start(config: BrokerConfig) -> Result<Self, BrokerError> {
        let BrokerConfig { listen, user, password } = config;
        let account = match (user, password) {
            (Some(user), Some(password)) => Some(Account { user, password }),
            (None, None) => None,
            (Some(_), None) | (None, Some(_)) => return Err(BrokerError::HalfAnAccount),
        };
        if !listen.ip().is_loopback() && account.is_none() {
            return Err(BrokerError::AccountNeeded(listen));
        }
        let failed = |source| BrokerError::Bind { listen, source };
        // Bound here and passed on, so that a taken port is an error and a restart cannot lose it to another program.
        let listener = TcpListener::bind(listen).map_err(failed)?;
        listener.set_nonblocking(true).map_err(failed)?;
        let addr = listener.local_addr().map_err(failed)?;
        let server = Server::start(&listener, account.clone()).map_err(BrokerError::Thread)?;
        let stop = CancellationToken::new();
        let watchdog = tokio::spawn(watch(listener, addr, account, server, stop.clone()));
        info!(%addr, "the embedded MQTT broker listens");
        Ok(Self { addr, stop, watchdog })
    }

    /// Where it listens.
    #[must_use]
    pub const fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Closes all connections and the listener.
    pub async fn stop(mut self) {
        self.stop.cancel();
        let _ = (&mut self.watchdog).await;
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// Asks regularly, and at once when the server suspects its router, whether a client gets in; if not, a new server takes
/// over the listener. Retained messages are lost then; the clients come back and say again what stands.
async fn watch(
    listener: TcpListener,
    addr: SocketAddr,
    account: Option<Account>,
    mut server: Server,
    stop: CancellationToken,
) {
    loop {
        tokio::select! {
            () = stop.cancelled() => break,
            () = tokio::time::sleep(PROBE_EVERY) => {}
            () = server.suspected() => {}
        }
        if probe::admitted(addr, account.as_ref()).await {
            continue;
        }
        error!(%addr, "the embedded MQTT broker lets nobody in: starting it anew");
        server.stop();
        match Server::start(&listener, account.clone()) {
            Ok(started) => server = started,
            Err(error) => error!(%error, "the embedded MQTT broker could not be started anew"),
        }
    }
    server.stop();
}

#[cfg(test)]
mod tests;
