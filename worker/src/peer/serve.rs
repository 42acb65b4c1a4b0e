//! Gives datasets to other workers.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use flota_proto::v1;
use flota_proto::v1::dataset_peer_server::{DatasetPeer, DatasetPeerServer};
use flota_randomx::Dataset;
use futures::Stream;
use secrecy::{ExposeSecret, SecretString};
use sha2::{Digest, Sha256};
use tokio::net::TcpListener;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tonic::metadata::MetadataMap;
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status};

use super::{CHUNK_BYTES, WINDOW_BYTES};
use crate::executor::Executor;

/// How many are given to at once: each copies two gigabytes through this machine's memory.
const SENDING_MAX: usize = 2;

/// Listens at `listen` until it is dropped; where, and what to run.
///
/// # Errors
/// When the address is not to be had.
pub async fn start(
    listen: SocketAddr,
    token: Option<SecretString>,
    executors: Vec<Arc<dyn Executor>>,
) -> std::io::Result<(SocketAddr, impl Future<Output = ()> + Send)> {
    let listener = TcpListener::bind(listen).await?;
    let address = listener.local_addr()?;
    let peer = Peer { executors, token, room: Arc::new(Semaphore::new(SENDING_MAX)) };
    let router = tonic::transport::Server::builder()
        .initial_stream_window_size(WINDOW_BYTES)
        .initial_connection_window_size(WINDOW_BYTES)
        .add_service(DatasetPeerServer::new(peer));
    let serving = async move {
        let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
        if let Err(error) = router.serve_with_incoming(incoming).await {
            tracing::error!(%error, "no longer gives RandomX datasets to other workers");
        }
    };
    Ok((address, serving))
}

struct Peer {
    executors: Vec<Arc<dyn Executor>>,
    token: Option<SecretString>,
    room: Arc<Semaphore>,
}

impl Peer {
    fn demand_token(&self, metadata: &MetadataMap) -> Result<(), Status> {
        let Some(token) = &self.token else { return Ok(()) };
        let presented = metadata.get("authorization").and_then(|value| value.to_str().ok()).unwrap_or_default();
        // Digests, so that the time of the comparison says nothing about the token.
        let expected = Sha256::digest(format!("Bearer {}", token.expose_secret()));
        if Sha256::digest(presented) == expected {
            Ok(())
        } else {
            Err(Status::unauthenticated(
                "the worker token is missing or wrong: set FLOTA_WORKER_TOKEN to that of the fleet",
            ))
        }
    }
}

/// Piece after piece of a dataset; keeps its place among those that are given to.
struct Pieces {
    dataset: Arc<Dataset>,
    sent: usize,
    _place: OwnedSemaphorePermit,
}

impl Iterator for Pieces {
    type Item = Result<v1::DatasetChunk, Status>;

    fn next(&mut self) -> Option<Self::Item> {
        let left = self.dataset.bytes().get(self.sent..).filter(|left| !left.is_empty())?;
        let piece = &left[..left.len().min(CHUNK_BYTES)];
        self.sent += piece.len();
        Some(Ok(v1::DatasetChunk { payload: Bytes::copy_from_slice(piece) }))
    }
}

#[tonic::async_trait]
impl DatasetPeer for Peer {
    type FetchStream = Pin<Box<dyn Stream<Item = Result<v1::DatasetChunk, Status>> + Send>>;

    async fn fetch(&self, request: Request<v1::FetchDatasetRequest>) -> Result<Response<Self::FetchStream>, Status> {
        self.demand_token(request.metadata())?;
        let key = request.into_inner().key;
        let dataset = self.executors.iter().find_map(|executor| executor.dataset(&key));
        let dataset = dataset.ok_or_else(|| Status::not_found("this worker has no dataset of that key"))?;
        let place = self.room.clone().try_acquire_owned();
        let place = place.map_err(|_| Status::resource_exhausted("this worker gives datasets to others just now"))?;
        // The transport asks for a piece only when the receiver has room for it.
        Ok(Response::new(Box::pin(futures::stream::iter(Pieces { dataset, sent: 0, _place: place }))))
    }
}
