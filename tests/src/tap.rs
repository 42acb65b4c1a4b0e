//! A TCP relay that keeps every byte of both directions: what really went over a connection.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// A relay that runs until it is dropped.
#[derive(Debug)]
pub struct Tap {
    /// Where it listens on loopback.
    pub port: u16,
    bytes: Arc<Mutex<Vec<u8>>>,
    server: JoinHandle<()>,
}

impl Tap {
    /// Relays to `target` on loopback.
    ///
    /// # Panics
    /// When it can't listen.
    pub async fn before(target: u16) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("failed to listen");
        let port = listener.local_addr().expect("no address").port();
        let bytes = Arc::new(Mutex::new(Vec::new()));
        let kept = bytes.clone();
        let server = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(relay(client, target, kept.clone()));
            }
        });
        Self { port, bytes, server }
    }

    /// Everything that went through so far.
    #[must_use]
    pub fn bytes(&self) -> Vec<u8> {
        self.bytes.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for Tap {
    fn drop(&mut self) {
        self.server.abort();
    }
}

async fn relay(client: TcpStream, target: u16, kept: Arc<Mutex<Vec<u8>>>) {
    let Ok(server) = TcpStream::connect(("127.0.0.1", target)).await else { return };
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    tokio::join!(copy(from_client, to_server, kept.clone()), copy(from_server, to_client, kept));
}

async fn copy(mut from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin, kept: Arc<Mutex<Vec<u8>>>) {
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(count) = from.read(&mut buffer).await {
        kept.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(&buffer[..count]);
        if count == 0 || to.write_all(&buffer[..count]).await.is_err() {
            break;
        }
    }
    let _ = to.shutdown().await;
}
