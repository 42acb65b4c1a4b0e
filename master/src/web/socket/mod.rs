//! Socket.IO on the default namespace: who may connect, and one inbox a socket, so that what a client sends is done in
//! its order (the library alone would run every event at once).

mod answer;
mod follow;
mod incoming;
mod logs;
mod session;
pub mod tick;

use std::sync::Arc;

use flota_proto::socket as names;
use serde_json::Value;
use socketioxide::SocketIo;
use socketioxide::extract::{AckSender, SocketRef, TryData};
use socketioxide::handler::ConnectHandler;
use socketioxide::layer::SocketIoLayer;
use socketioxide::socket::DisconnectReason;
use tokio::sync::mpsc;

use self::incoming::{Connection, Incoming, Packet, Reply};
pub use self::session::Sessions;
use super::{App, guard};
use crate::session::SessionChange;

/// Packets that wait for a client. The ping waits with them: a client further behind is cut off.
const BUFFER_PACKETS: usize = 1024;
/// The largest message from a client.
const MESSAGE_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Events of one client that wait for their turn.
const INBOX: usize = 256;

/// The layer that answers below `/socket.io/`, and the way to its clients.
pub fn build(app: &Arc<App>) -> (SocketIoLayer, SocketIo) {
    let (layer, io) = SocketIo::builder()
        .max_buffer_size(BUFFER_PACKETS)
        .max_payload(MESSAGE_BYTES_MAX as u64)
        .ws_max_message_size(MESSAGE_BYTES_MAX)
        .ws_max_frame_size(MESSAGE_BYTES_MAX)
        .build_layer();
    let admitting = app.clone();
    let admit = move |socket: SocketRef, TryData(auth): TryData<Value>| {
        let admitted = admit(&admitting, &socket, auth.ok().as_ref());
        std::future::ready(admitted)
    };
    io.ns("/", connected.with(admit));
    (layer, io)
}

/// Runs before the client is told that it is connected: what it sends next already finds its handler.
fn admit(app: &Arc<App>, socket: &SocketRef, auth: Option<&Value>) -> Result<(), String> {
    let headers = &socket.req_parts().headers;
    app.guard.check_origin(headers)?;
    let token = auth.and_then(|auth| auth.get("token")).and_then(Value::as_str);
    if !app.guard.token_fits(token.or_else(|| guard::bearer(headers))) {
        return Err("unauthorized: the token is missing or wrong; send it as auth: {token}".into());
    }
    let (inbox, events) = mpsc::channel(INBOX);
    let connection = Connection::new(app.clone(), socket.id, events);
    socket.on_fallback(move |socket: SocketRef, packet: Packet, ack: AckSender| {
        let incoming = Incoming { reply: Reply::new(socket, ack, &packet), packet };
        if let Err(error) = inbox.try_send(incoming) {
            error.into_inner().refuse_busy();
        }
        std::future::ready(())
    });
    let leaving = connection.clone();
    socket.on_disconnect(move |reason: DisconnectReason| {
        leaving.left(reason);
        std::future::ready(())
    });
    socket.extensions.insert(connection);
    Ok(())
}

async fn connected(socket: SocketRef) {
    let Some(connection) = socket.extensions.remove::<Arc<Connection>>() else { return };
    let Some((session, secret)) = connection.begin(&socket) else {
        // Full of sessions that are all in use: whoever comes later finds room again.
        let _ = socket.disconnect();
        return;
    };
    let told = socket.emit(names::SESSION_ID, &session.id().to_string());
    if let Err(error) = told.and_then(|()| socket.emit(names::SESSION_SECRET, &secret)) {
        tracing::debug!(%error, "a socket closed while it connected");
    }
    connection.keep(SessionChange::Begin(session.key)).await;
    connection.run(socket).await;
}
