//! The web side of the master: REST, server-sent events, Socket.IO, metrics and the page, on one listener. Turns
//! requests into calls of the [`Handle`] and answers into JSON; decides nothing itself.

mod batch;
mod conversations;
mod events;
mod extract;
mod fleet;
mod guard;
mod health;
mod history;
mod jobs;
mod logs;
pub mod metrics;
mod openapi;
mod page;
mod parameters;
mod problem;
mod refused;
mod router;
mod socket;
mod sources;
mod submit;
mod usage;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::serve::ListenerExt;
use metrics_exporter_prometheus::PrometheusHandle;
use secrecy::SecretString;
use thiserror::Error;
use tokio::net::TcpListener;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::handle::Handle;
use crate::logs::LogHub;
use crate::sources::Sources;

/// How long requests may go on after the stop.
const GRACE: Duration = Duration::from_secs(5);

/// What the web side is told at start.
#[derive(Clone, Debug)]
pub struct WebConfig {
    /// Where to listen; port 0 picks a free one.
    pub listen: SocketAddr,
    /// What clients must know; an empty one is none.
    pub token: Option<SecretString>,
    /// Pages of other origins that may use the API, as `https://host[:port]`.
    pub allowed_origins: Vec<String>,
    /// Browsers, and other clients of Socket.IO, that are connected at once.
    pub browsers_max: usize,
    /// Event streams and calls that wait, open at once.
    pub streams_max: usize,
    /// Of the program.
    pub version: String,
    /// Where the tasks of the web side are counted, so that the stop can wait for them.
    pub tasks: TaskTracker,
}

/// Why the web side does not start. Completes "failed to start the web side: …".
#[derive(Debug, Error)]
pub enum WebError {
    /// Everybody could use the fleet.
    #[error(
        "{0} can be reached from other machines, which needs a token: set FLOTA_TOKEN, or listen on 127.0.0.1 \
         (FLOTA_WEB_LISTEN)"
    )]
    TokenMissing(SocketAddr),
    /// The address can't be had.
    #[error("can't listen on {address}: {source}. Set FLOTA_WEB_LISTEN to another address or port")]
    Listen {
        /// Which.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
}

impl WebError {
    /// Whether another port may help.
    #[must_use]
    pub fn is_port_taken(&self) -> bool {
        matches!(self, Self::Listen { source, .. } if source.kind() == io::ErrorKind::AddrInUse)
    }
}

/// What every handler may use.
struct App {
    handle: Handle,
    guard: Arc<guard::Guard>,
    logs: LogHub,
    metrics: metrics::Metrics,
    sessions: socket::Sessions,
    history: history::History,
    streams: Arc<Semaphore>,
    stop: CancellationToken,
    tasks: TaskTracker,
    sources: Sources,
}

impl App {
    /// A place among the event streams and the calls that wait, held until it is dropped.
    ///
    /// # Errors
    /// 503 when all are taken.
    fn stream_place(&self) -> Result<OwnedSemaphorePermit, problem::Failure> {
        self.streams.clone().try_acquire_owned().map_err(|_| {
            let detail = "too many event streams and waiting calls are open (FLOTA_STREAMS_MAX)";
            let failure =
                problem::Failure::new(axum::http::StatusCode::SERVICE_UNAVAILABLE, "too_many_streams", detail);
            failure.retry_after(5)
        })
    }
}

/// Starts to serve and answers with the address, whose port is the real one. Ends when `stop` is cancelled.
///
/// # Errors
/// When the listener would be open to everybody, or can't be had.
pub async fn start(
    config: WebConfig,
    handle: Handle,
    sources: Sources,
    logs: LogHub,
    prometheus: PrometheusHandle,
    stop: CancellationToken,
) -> Result<SocketAddr, WebError> {
    let guard = Arc::new(guard::Guard::new(config.token.as_ref(), &config.allowed_origins));
    if !guard.has_token() && !config.listen.ip().is_loopback() {
        return Err(WebError::TokenMissing(config.listen));
    }
    let failed = |source| WebError::Listen { address: config.listen, source };
    let listener = TcpListener::bind(config.listen).await.map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    let app = Arc::new(App {
        handle,
        guard,
        logs,
        metrics: metrics::Metrics::new(prometheus, config.version),
        sessions: socket::Sessions::new(config.browsers_max),
        history: history::History::default(),
        streams: Arc::new(Semaphore::new(config.streams_max.min(Semaphore::MAX_PERMITS))),
        stop: stop.clone(),
        tasks: config.tasks.clone(),
        sources,
    });
    config.tasks.spawn(serve(listener, app));
    Ok(address)
}

async fn serve(listener: TcpListener, app: Arc<App>) {
    let (layer, io) = socket::build(&app);
    app.tasks.spawn(socket::tick::run(app.clone(), io.clone()));
    app.tasks.spawn(history::run(app.clone()));
    let listener = listener.tap_io(|stream| {
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "could not set TCP_NODELAY");
        }
    });
    let (stop, closing) = (app.stop.clone(), app.clone());
    let server = axum::serve(listener, router::build(&app, layer)).with_graceful_shutdown({
        let stop = stop.clone();
        async move {
            stop.cancelled().await;
            // The library does not say of each that it has gone.
            closing.handle.keep_sessions(closing.sessions.told()).await;
            io.close().await;
        }
    });
    let end = async {
        stop.cancelled().await;
        tokio::time::sleep(GRACE).await;
    };
    tokio::select! {
        served = server => if let Err(error) = served {
            tracing::error!(%error, "the web side stopped");
        },
        () = end => tracing::debug!("requests were cut off at the end of the grace period"),
    }
}
