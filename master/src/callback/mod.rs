//! The gRPC server that workers report to: from messages to [`Command`](crate::handle::Command)s and back. It parses and
//! authenticates; it decides nothing.

mod auth;
mod parse;
mod parts;
mod report;
mod simple;
mod status;

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use flota_proto::kinds::RANDOMX_KEY_BYTES_MAX;
use flota_proto::simple::worker_callback_server::WorkerCallbackServer as SimpleServer;
use flota_proto::v1::worker_callback_server::{WorkerCallback, WorkerCallbackServer};
use flota_proto::{GRPC_MESSAGE_BYTES_MAX, UnitId, WorkerId, v1};
use futures::{Stream, StreamExt, stream};
use secrecy::{ExposeSecret, SecretString};
use thiserror::Error;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tonic::transport::server::{Router, TcpIncoming};
use tonic::{Request, Response, Status, Streaming};
use tracing::{error, info};

use crate::handle::{Handle, Report};
use crate::ration::Ration;
use auth::Token;
use parts::Memory;

/// A peer that does not answer this long after [`PING_EVERY`] is gone.
const PING_TIMEOUT: Duration = Duration::from_secs(5);
const PING_EVERY: Duration = Duration::from_secs(5);
const STREAM_WINDOW_BYTES: u32 = 2 * 1024 * 1024;
const CONNECTION_WINDOW_BYTES: u32 = 8 * 1024 * 1024;
const CHUNK_BYTES: usize = 512 * 1024;

const _: () = assert!(CHUNK_BYTES < GRPC_MESSAGE_BYTES_MAX);

/// Where to listen and whom to let in.
#[derive(Clone, Debug)]
pub struct CallbackConfig {
    /// The address; port 0 picks a free one.
    pub listen: SocketAddr,
    /// What full workers must present; demanded beyond loopback.
    pub worker_token: Option<SecretString>,
}

/// Why the server did not start. Completes "failed to …".
#[derive(Debug, Error)]
pub enum CallbackError {
    /// Anyone could report results.
    #[error("listen for workers on {0}: beyond this machine FLOTA_WORKER_TOKEN must be set")]
    TokenNeeded(SocketAddr),
    /// The port is taken or the address is not ours.
    #[error("listen for workers on {listen}: {source}; set FLOTA_GRPC_LISTEN to a free address")]
    Bind {
        /// Where.
        listen: SocketAddr,
        /// Why not.
        source: std::io::Error,
    },
}

/// The running server.
#[derive(Debug)]
pub struct Callback {
    addr: SocketAddr,
    server: JoinHandle<()>,
}

impl Callback {
    /// Where it listens.
    #[must_use]
    pub const fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Waits until the token was cancelled and the open calls have ended.
    pub async fn ended(self) {
        let _ = self.server.await;
    }
}

/// What a worker's message reports: for those who throw bytes at it.
#[must_use]
pub fn report_of(message: v1::WorkerMessage) -> Report {
    let mut collector = parse::Collector::default();
    collector.add(message, &mut parts::Parts::default());
    collector.into_report()
}

/// Starts the server; cancelling `stop` ends its streams and then itself.
///
/// # Errors
/// [`CallbackError`] says what to do.
pub async fn start(config: CallbackConfig, handle: Handle, stop: CancellationToken) -> Result<Callback, CallbackError> {
    let CallbackConfig { listen, worker_token } = config;
    if !listen.ip().is_loopback() && worker_token.is_none() {
        return Err(CallbackError::TokenNeeded(listen));
    }
    let failed = |source| CallbackError::Bind { listen, source };
    let listener = TcpListener::bind(listen).await.map_err(failed)?;
    let addr = listener.local_addr().map_err(failed)?;
    let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
    let router = router(handle, worker_token, stop.clone());
    let server = tokio::spawn(async move {
        if let Err(error) = router.serve_with_incoming_shutdown(incoming, stop.cancelled()).await {
            error!(%error, "the gRPC server for workers has ended");
        }
    });
    info!(%addr, "listening for workers");
    Ok(Callback { addr, server })
}

fn router(handle: Handle, worker_token: Option<SecretString>, stop: CancellationToken) -> Router {
    let full = Full {
        handle: handle.clone(),
        token: Arc::new(Token::new(worker_token)),
        stop,
        malformed: Arc::default(),
        memory: Memory::default(),
    };
    tonic::transport::Server::builder()
        .http2_keepalive_interval(Some(PING_EVERY))
        .http2_keepalive_timeout(Some(PING_TIMEOUT))
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .add_service(
            WorkerCallbackServer::new(full)
                .max_decoding_message_size(GRPC_MESSAGE_BYTES_MAX)
                .max_encoding_message_size(GRPC_MESSAGE_BYTES_MAX),
        )
        .add_service(SimpleServer::new(simple::Simple::new(handle)).max_decoding_message_size(GRPC_MESSAGE_BYTES_MAX))
}

/// `flota.v1.WorkerCallback`, for workers that speak the whole protocol.
struct Full {
    handle: Handle,
    token: Arc<Token>,
    stop: CancellationToken,
    malformed: Arc<Ration>,
    memory: Memory,
}

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl WorkerCallback for Full {
    type ReportStream = Answers<v1::MasterMessage>;
    type FetchUnitStream = Answers<v1::FetchUnitChunk>;

    async fn report(
        &self,
        request: Request<Streaming<v1::WorkerMessage>>,
    ) -> Result<Response<Self::ReportStream>, Status> {
        let authenticated = self.token.bearer(request.metadata());
        let messages = request.into_inner();
        let opening = report::Opening {
            handle: self.handle.clone(),
            token: &self.token,
            authenticated,
            stop: self.stop.clone(),
            malformed: self.malformed.clone(),
            memory: self.memory.clone(),
        };
        Ok(Response::new(opening.open(messages).await?))
    }

    async fn fetch_unit(
        &self,
        request: Request<v1::FetchUnitRequest>,
    ) -> Result<Response<Self::FetchUnitStream>, Status> {
        self.token.demand(request.metadata())?;
        let v1::FetchUnitRequest { unit_id, attempt, worker_id } = request.into_inner();
        let (unit, worker) = (unit(&unit_id)?, worker(&worker_id)?);
        let payload = self.handle.fetch_unit(unit, attempt, worker).await.map_err(status::from_refused)?;
        Ok(Response::new(chunks(payload).boxed()))
    }

    async fn lease_credential(
        &self,
        request: Request<v1::LeaseCredentialRequest>,
    ) -> Result<Response<v1::LeaseCredentialResponse>, Status> {
        self.token.demand(request.metadata())?;
        let v1::LeaseCredentialRequest { unit_id, attempt, worker_id } = request.into_inner();
        let (unit, worker) = (unit(&unit_id)?, worker(&worker_id)?);
        let key = self.handle.lease_credential(unit, attempt, worker).await.map_err(status::from_refused)?;
        Ok(Response::new(v1::LeaseCredentialResponse { api_key: key.expose_secret().to_owned() }))
    }

    async fn accepted_digest(
        &self,
        request: Request<v1::AcceptedDigestRequest>,
    ) -> Result<Response<v1::AcceptedDigestResponse>, Status> {
        self.token.demand(request.metadata())?;
        let key = request.into_inner().key;
        if key.len() > RANDOMX_KEY_BYTES_MAX {
            return Err(Status::invalid_argument(format!("key: at most {RANDOMX_KEY_BYTES_MAX} bytes")));
        }
        let digest = self.handle.accepted_digest(key.to_vec()).await.map_err(status::from_refused)?;
        let digest = digest.map_or_else(Bytes::new, |digest| Bytes::copy_from_slice(&digest));
        Ok(Response::new(v1::AcceptedDigestResponse { digest }))
    }
}

/// An empty payload is no chunk.
fn chunks(payload: Bytes) -> impl Stream<Item = Result<v1::FetchUnitChunk, Status>> {
    stream::unfold(payload, |mut rest| async move {
        let chunk = rest.split_to(rest.len().min(CHUNK_BYTES));
        (!chunk.is_empty()).then(|| (Ok(v1::FetchUnitChunk { payload: chunk }), rest))
    })
}

fn unit(text: &str) -> Result<UnitId, Status> {
    text.parse().map_err(|error| Status::invalid_argument(format!("unit_id: {error}")))
}

fn worker(text: &str) -> Result<WorkerId, Status> {
    text.parse().map_err(|error| Status::invalid_argument(format!("worker_id: {error}")))
}
