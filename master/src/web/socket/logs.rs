//! The fleet's log lines for the sockets that asked for them.

use std::sync::Arc;
use std::time::Duration;

use flota_proto::mqtt::LogLine;
use flota_proto::socket::{self as names, LogEntry};
use socketioxide::extract::SocketRef;
use socketioxide::{SendError, SocketError};
use tokio::sync::broadcast::{self, error::RecvError};
use tokio_util::sync::CancellationToken;

/// A client that is behind gets nothing for this long, then how much it has missed.
const FULL_PAUSE: Duration = Duration::from_millis(500);

/// The recent lines as they are acknowledged.
pub fn entries(lines: &[Arc<LogLine>]) -> Vec<LogEntry> {
    lines.iter().map(|line| LogEntry::from(&**line)).collect()
}

/// Sends every line to `socket` until it is closed or the master stops.
pub async fn forward(lines: broadcast::Receiver<Arc<LogLine>>, socket: SocketRef, stop: CancellationToken) {
    tokio::select! {
        () = forward_all(lines, socket) => {}
        () = stop.cancelled() => {}
    }
}

async fn forward_all(mut lines: broadcast::Receiver<Arc<LogLine>>, socket: SocketRef) {
    let mut dropped = 0;
    loop {
        let line = match lines.recv().await {
            Ok(line) => line,
            Err(RecvError::Lagged(missed)) => {
                dropped += missed;
                continue;
            }
            Err(RecvError::Closed) => return,
        };
        let entry = LogEntry { dropped, ..LogEntry::from(&*line) };
        match socket.emit(names::LOG, &entry) {
            Ok(()) => dropped = 0,
            Err(SendError::Socket(SocketError::InternalChannelFull)) => {
                dropped += 1;
                tokio::time::sleep(FULL_PAUSE).await;
            }
            Err(_) => return,
        }
    }
}
