//! One client's connection: from CONNECT to its end. Reading and writing go on independently, so that a client that sends
//! much and one that takes little cannot block each other.

use std::fmt::Write as _;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use flota_common::mqtt::PACKET_BYTES_MAX;
use futures::FutureExt;
use rumqttd::Notification;
use rumqttd::local::{LinkRx, LinkTx};
use rumqttd::protocol::v4::V4;
use rumqttd::protocol::{
    ConnAck, Connect, ConnectReturnCode, Disconnect, DisconnectReasonCode, Error as ProtocolError, LastWill, Login,
    Packet, Protocol, Publish,
};
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tracing::warn;

use super::filters::Refusals;
use super::server::House;

/// Until then a client must have said who it is.
const CONNECT_WITHIN: Duration = Duration::from_secs(5);
/// A client that takes nothing for so long is gone.
const WRITE_WITHIN: Duration = Duration::from_secs(30);
/// Packets handed to the router at once.
const BATCH_MAX: usize = 100;
const BUFFER_BYTES: usize = 16 * 1024;
/// Written at once.
const WRITE_BYTES: usize = 64 * 1024;
const CLIENT_ID_BYTES_MAX: usize = 1024;

/// Why a connection ended.
#[derive(Debug, Error)]
pub(super) enum Ended {
    #[error("the client said farewell")]
    Farewell,
    #[error("a newer connection has the same client id")]
    Replaced,
    #[error("refused: {0:?}")]
    Refused(ConnectReturnCode),
    #[error("no packet in time")]
    Silent,
    #[error("no MQTT 3.1.1: {0}")]
    Protocol(#[from] ProtocolError),
    #[error("a packet that no client may send now")]
    Unexpected,
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error("the router ended it")]
    Router,
}

pub(super) async fn serve(mut stream: TcpStream, house: Arc<House>) -> Ended {
    match admit(&mut stream, &house).await {
        Ok(admitted) => admitted.serve(stream, &house).await,
        Err(ended) => ended,
    }
}

/// A client that may come in, and what it has already sent.
struct Admitted {
    client_id: String,
    connect: Connect,
    will: Option<LastWill>,
    read: BytesMut,
}

async fn admit(stream: &mut TcpStream, house: &House) -> Result<Admitted, Ended> {
    stream.set_nodelay(true)?;
    let mut read = BytesMut::with_capacity(BUFFER_BYTES);
    let first = tokio::time::timeout(CONNECT_WITHIN, packet(stream, &mut read)).await.map_err(|_| Ended::Silent)?;
    let first = match first {
        Err(Ended::Protocol(ProtocolError::InvalidProtocolLevel(_) | ProtocolError::InvalidProtocol)) => {
            return refuse(stream, ConnectReturnCode::RefusedProtocolVersion).await;
        }
        first => first?,
    };
    let Packet::Connect(connect, _, will, _, login) = first else { return Err(Ended::Unexpected) };
    let Login { username, password } =
        login.unwrap_or_else(|| Login { username: String::new(), password: String::new() });
    if !house.lets_in(&username, &password) {
        return refuse(stream, ConnectReturnCode::BadUserNamePassword).await;
    }
    let nameless = connect.client_id.is_empty();
    if connect.client_id.len() > CLIENT_ID_BYTES_MAX || (nameless && !connect.clean_session) {
        return refuse(stream, ConnectReturnCode::ClientIdentifierNotValid).await;
    }
    let client_id = if nameless { format!("%{}", uuid::Uuid::new_v4().simple()) } else { plain(&connect.client_id) };
    Ok(Admitted { client_id, connect, will, read })
}

async fn refuse<T>(stream: &mut TcpStream, code: ConnectReturnCode) -> Result<T, Ended> {
    let mut buffer = BytesMut::new();
    V4.write(Packet::ConnAck(ConnAck { session_present: false, code }, None), &mut buffer)?;
    stream.write_all(&buffer).await?;
    Err(Ended::Refused(code))
}

/// The router refuses ids with some characters; for it they are written otherwise, and no client is refused.
fn plain(client_id: &str) -> String {
    client_id.chars().fold(String::with_capacity(client_id.len()), |mut plain, c| {
        match c {
            '+' | '#' | '$' | '/' | '%' => {
                let _ = write!(plain, "%{:02x}", u32::from(c));
            }
            c => plain.push(c),
        }
        plain
    })
}

impl Admitted {
    async fn serve(self, stream: TcpStream, house: &Arc<House>) -> Ended {
        let Self { client_id, connect, will, read } = self;
        let guest = house.enter(&client_id).await;
        let Some((mut to_router, from_router, connack)) = house.connect(&client_id, connect.clean_session) else {
            let mut stream = stream;
            return match refuse(&mut stream, ConnectReturnCode::ServiceUnavailable).await {
                Ok(()) => Ended::Farewell,
                Err(ended) => ended,
            };
        };
        let refusals = Refusals::default();
        let (mut input, mut output) = stream.into_split();
        let served = async {
            // Before anything else, also when the client's next packet ends the connection.
            answer(&mut output, connack, &refusals).await?;
            tokio::select! {
                ended = receive(&mut input, read, &mut to_router, &connect, &refusals) => ended,
                ended = send(output, from_router, &refusals) => ended,
            }
        };
        let ended = tokio::select! {
            ended = served => ended,
            () = guest.presence.leave.cancelled() => Err(Ended::Replaced),
        };
        let ended = ended.err().unwrap_or(Ended::Farewell);
        if let (Some(will), false) = (will, matches!(ended, Ended::Farewell)) {
            let last = Publish::new(will.topic, will.message, will.retain);
            let _ = to_router.send(Packet::Publish(last, None)).await;
        }
        let _ = to_router.send(farewell()).await;
        ended
    }
}

fn farewell() -> Packet {
    Packet::Disconnect(Disconnect { reason_code: DisconnectReasonCode::NormalDisconnection }, None)
}

/// From the client to the router, as many packets at once as have arrived. Ends with the client's farewell.
async fn receive(
    input: &mut (impl AsyncRead + Unpin),
    mut read: BytesMut,
    to_router: &mut LinkTx,
    connect: &Connect,
    refusals: &Refusals,
) -> Result<(), Ended> {
    let silence = match connect.keep_alive {
        0 => Duration::MAX,
        seconds => Duration::from_secs(u64::from(seconds)) * 3 / 2,
    };
    loop {
        let mut next = Some(tokio::time::timeout(silence, packet(input, &mut read)).await.map_err(|_| Ended::Silent)??);
        let mut batch = Vec::new();
        let mut over = false;
        while let Some(mut packet) = next.take() {
            over = matches!(packet, Packet::Disconnect(..));
            if over {
                break;
            }
            check(&mut packet, refusals)?;
            batch.push(packet);
            if batch.len() < BATCH_MAX {
                next = framed(&mut read)?;
            }
        }
        hand_over(batch, to_router).await?;
        if over {
            return Ok(());
        }
    }
}

/// The router is told once for all of them.
async fn hand_over(mut batch: Vec<Packet>, to_router: &mut LinkTx) -> Result<(), Ended> {
    if let Some(last) = batch.pop() {
        to_router.buffer().extend(batch);
        to_router.send(last).await.map_err(|_| Ended::Router)?;
    }
    Ok(())
}

fn check(packet: &mut Packet, refusals: &Refusals) -> Result<(), Ended> {
    match packet {
        Packet::Publish(publish, _) => {
            let topic = std::str::from_utf8(&publish.topic).unwrap_or_default();
            if topic.is_empty() || !rumqttc::valid_topic(topic) { Err(Ended::Unexpected) } else { Ok(()) }
        }
        Packet::Subscribe(subscribe, _) => {
            refusals.on_subscribe(subscribe);
            Ok(())
        }
        Packet::Unsubscribe(..)
        | Packet::PubAck(..)
        | Packet::PubRec(..)
        | Packet::PubRel(..)
        | Packet::PubComp(..)
        | Packet::PingReq(_) => Ok(()),
        Packet::Connect(..)
        | Packet::ConnAck(..)
        | Packet::PingResp(_)
        | Packet::SubAck(..)
        | Packet::UnsubAck(..)
        | Packet::Disconnect(..) => Err(Ended::Unexpected),
    }
}

async fn answer(
    output: &mut (impl AsyncWrite + Unpin),
    connack: Notification,
    refusals: &Refusals,
) -> Result<(), Ended> {
    let mut buffer = BytesMut::new();
    encode(connack, &mut buffer, refusals)?;
    Ok(output.write_all(&buffer).await?)
}

/// From the router to the client, as much at once as is there.
async fn send(mut output: impl AsyncWrite + Unpin, mut from_router: LinkRx, refusals: &Refusals) -> Result<(), Ended> {
    let mut buffer = BytesMut::with_capacity(BUFFER_BYTES);
    loop {
        let mut unscheduled = false;
        let mut over = false;
        let mut pending = Some(from_router.next().await);
        while let Some(notification) = pending.take() {
            // A wake-up without news is none.
            if let Some(notification) = notification.map_err(|_| Ended::Router)? {
                over |= matches!(notification, Notification::Disconnect(..));
                unscheduled |= !encode(notification, &mut buffer, refusals)?;
            }
            if buffer.len() < WRITE_BYTES && !over {
                pending = from_router.next().now_or_never();
            }
        }
        tokio::time::timeout(WRITE_WITHIN, output.write_all(&buffer)).await.map_err(|_| Ended::Silent)??;
        buffer.clear();
        if over {
            return Err(Ended::Unexpected);
        }
        if unscheduled {
            from_router.wake().await.map_err(|_| Ended::Router)?;
        }
    }
}

/// False when the router has stopped sending until it is woken.
fn encode(notification: Notification, buffer: &mut BytesMut, refusals: &Refusals) -> Result<bool, Ended> {
    let packet = match notification {
        Notification::Unschedule => return Ok(false),
        // No 3.1.1 broker sends DISCONNECT.
        Notification::Disconnect(..) => return Ok(true),
        notification => match Option::<Packet>::from(notification) {
            // 3.1.1 has no properties; the encoder panics on them.
            Some(Packet::Publish(publish, _)) => Packet::Publish(publish, None),
            Some(Packet::SubAck(mut ack, _)) => {
                refusals.on_suback(&mut ack);
                Packet::SubAck(ack, None)
            }
            Some(packet) => packet,
            None => {
                warn!("the router of the embedded MQTT broker said something unknown");
                return Ok(true);
            }
        },
    };
    V4.write(packet, buffer)?;
    Ok(true)
}

/// The next packet. Safe to cancel: what was read stays in `read`.
async fn packet(input: &mut (impl AsyncRead + Unpin), read: &mut BytesMut) -> Result<Packet, Ended> {
    loop {
        if let Some(packet) = framed(read)? {
            return Ok(packet);
        }
        if input.read_buf(read).await? == 0 {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
        }
    }
}

/// The next packet, if it has arrived completely.
fn framed(read: &mut BytesMut) -> Result<Option<Packet>, ProtocolError> {
    match V4.read_mut(read, PACKET_BYTES_MAX) {
        Ok(packet) => Ok(Some(packet)),
        Err(ProtocolError::InsufficientBytes(_)) => Ok(None),
        Err(error) => Err(error),
    }
}
