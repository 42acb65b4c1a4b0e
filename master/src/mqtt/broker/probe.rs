//! Whether the broker lets clients in: a CONNECT of our own.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::BytesMut;
use rumqttd::protocol::v4::V4;
use rumqttd::protocol::{Connect, ConnectReturnCode, Disconnect, DisconnectReasonCode, Login, Packet, Protocol};
use secrecy::ExposeSecret;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::server::Account;

const ANSWER_WITHIN: Duration = Duration::from_secs(2);
/// Always the same: the router remembers every id that it has seen.
const CLIENT_ID: &str = "flota-broker-probe";

pub(super) async fn admitted(addr: SocketAddr, account: Option<&Account>) -> bool {
    tokio::time::timeout(ANSWER_WITHIN, connect(addr, account))
        .await
        .is_ok_and(|answer| answer.is_some_and(|code| code))
}

async fn connect(addr: SocketAddr, account: Option<&Account>) -> Option<bool> {
    let mut stream = TcpStream::connect(addr).await.ok()?;
    let connect = Connect { keep_alive: 10, client_id: CLIENT_ID.to_owned(), clean_session: true };
    let login = account
        .map(|account| Login { username: account.user.clone(), password: account.password.expose_secret().to_owned() });
    write(&mut stream, Packet::Connect(connect, None, None, None, login)).await?;
    let mut answer = [0; 4];
    stream.read_exact(&mut answer).await.ok()?;
    let packet = V4.read_mut(&mut BytesMut::from(&answer[..]), answer.len()).ok()?;
    let farewell = Disconnect { reason_code: DisconnectReasonCode::NormalDisconnection };
    write(&mut stream, Packet::Disconnect(farewell, None)).await?;
    Some(matches!(packet, Packet::ConnAck(ack, _) if ack.code == ConnectReturnCode::Success))
}

async fn write(stream: &mut TcpStream, packet: Packet) -> Option<()> {
    let mut buffer = BytesMut::new();
    V4.write(packet, &mut buffer).ok()?;
    stream.write_all(&buffer).await.ok()
}
