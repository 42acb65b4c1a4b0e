//! The embedded broker, with the tracked client and with clients that misbehave.
#![allow(clippy::unwrap_used)]

#[path = "../../common/tests/support/mod.rs"]
mod support;

use std::collections::HashSet;
use std::net::SocketAddr;

use bytes::Bytes;
use flota_common::mqtt::{Client, Config, Event, Message, PACKET_BYTES_MAX};
use flota_master::mqtt::broker::{Broker, BrokerConfig, BrokerError};
use support::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

fn open() -> BrokerConfig {
    BrokerConfig { listen: "127.0.0.1:0".parse().unwrap(), user: None, password: None }
}

fn start() -> (Broker, String) {
    let broker = Broker::start(open()).unwrap();
    let url = format!("mqtt://{}", broker.addr());
    (broker, url)
}

/// A CONNECT packet of MQTT 3.1.1 with a clean session and a keepalive of 60 s.
fn connect(client_id: &str) -> Vec<u8> {
    let mut body = b"\x00\x04MQTT\x04\x02\x00\x3c".to_vec();
    body.extend(u16::try_from(client_id.len()).unwrap().to_be_bytes());
    body.extend(client_id.as_bytes());
    let mut packet = vec![0x10, u8::try_from(body.len()).unwrap()];
    packet.extend(body);
    packet
}

/// Sends `bytes` and returns the next four.
async fn answer(addr: SocketAddr, bytes: &[u8]) -> Option<[u8; 4]> {
    let mut stream = TcpStream::connect(addr).await.unwrap();
    stream.write_all(bytes).await.unwrap();
    let mut answer = [0; 4];
    let read = tokio::time::timeout(DEADLINE, stream.read_exact(&mut answer)).await.expect("it answers or closes");
    read.ok().map(|_| answer)
}

#[tokio::test]
async fn all_that_is_published_arrives_in_order_once_for_each_subscriber() {
    const MESSAGES: u64 = 20_000;
    let (_broker, url) = start();
    let (_one, mut one) = client(&url, "one", &["load/+"]);
    let (_two, mut two) = client(&url, "two", &["load/x"]);
    connected(&mut one).await;
    connected(&mut two).await;
    let (publisher, _events) = client(&url, "publisher", &[]);
    publisher.publish_acknowledged(message("load/x", "begin")).await.unwrap();
    assert_eq!((received(&mut one).await.1, received(&mut two).await.1), ("begin".into(), "begin".into()));
    for i in 0..MESSAGES {
        publisher.publish("load/x".into(), i.to_string().into(), true, false).unwrap();
    }
    for i in 0..MESSAGES {
        assert_eq!(
            (received(&mut one).await.1, received(&mut two).await.1),
            (i.to_string().into(), i.to_string().into())
        );
    }
}

#[tokio::test]
async fn strange_client_ids_and_connections_reset_at_once_lock_nobody_out() {
    let (broker, url) = start();
    for _ in 0..20 {
        for id in ["a/b", "a+", "#", "$x", "a/b"] {
            let code = answer(broker.addr(), &connect(id)).await.expect("it is let in");
            assert_eq!(code, [0x20, 2, 0, 0], "{id}");
        }
        let mut stream = TcpStream::connect(broker.addr()).await.unwrap();
        stream.write_all(&connect("reset")).await.unwrap();
        stream.set_zero_linger().unwrap();
        drop(stream);
    }
    let (client, mut events) = client(&url, "after", &["t"]);
    connected(&mut events).await;
    client.publish_acknowledged(message("t", "alive")).await.unwrap();
    assert_eq!(received(&mut events).await.1, "alive");
}

#[tokio::test]
async fn garbage_and_packets_out_of_place_end_only_their_own_connection() {
    let (broker, url) = start();
    let (survivor, mut events) = client(&url, "survivor", &["t"]);
    connected(&mut events).await;
    let after_connect = |bytes: &[u8]| [&connect("rude")[..], bytes].concat();
    let cases = [
        b"GET / HTTP/1.1\r\n\r\n".to_vec(),
        vec![0xff; 64],
        vec![0x30, 0xff, 0xff, 0xff, 0x7f],
        b"\x10\x10\x00\x06MQIsdp\x03\x02\x00\x3c\x00\x02xx".to_vec(),
        after_connect(&connect("twice")),
        after_connect(b"\x30\x03\x00\x01#"),
        after_connect(b"\x30\x02\x00\x00"),
        after_connect(b"\x40\x02\x00\x07"),
        after_connect(b"\x82\x03\x00\x01\x00"),
        after_connect(b"\x20\x02\x00\x00"),
    ];
    for bytes in cases {
        let mut stream = TcpStream::connect(broker.addr()).await.unwrap();
        stream.write_all(&bytes).await.unwrap();
        let mut rest = Vec::new();
        let ended = tokio::time::timeout(DEADLINE, stream.read_to_end(&mut rest)).await;
        assert!(ended.is_ok(), "the broker closes: {bytes:02x?}");
    }
    survivor.publish_acknowledged(message("t", "alive")).await.unwrap();
    assert_eq!(received(&mut events).await.1, "alive");
    assert!(events.try_recv().is_none(), "its connection was never lost");
}

#[tokio::test]
async fn forbidden_subscriptions_are_refused_and_the_others_granted() {
    let (broker, _url) = start();
    let mut stream = TcpStream::connect(broker.addr()).await.unwrap();
    let filters: [(&[u8], u8); 5] = [(b"a", 0), (b"$SYS/#", 0), (b"$share/g/a", 1), (b"a/#/b", 1), (b"b", 2)];
    let mut body = vec![0, 7];
    for (filter, qos) in filters {
        body.extend([0, u8::try_from(filter.len()).unwrap()]);
        body.extend(filter);
        body.push(qos);
    }
    let subscribe = [&connect("viewer")[..], &[0x82, u8::try_from(body.len()).unwrap()], &body].concat();
    stream.write_all(&subscribe).await.unwrap();
    let mut answers = [0; 4 + 4 + 5];
    tokio::time::timeout(DEADLINE, stream.read_exact(&mut answers)).await.unwrap().unwrap();
    assert_eq!(answers, [0x20, 2, 0, 0, 0x90, 7, 0, 7, 0, 0x80, 0x80, 0x80, 1]);
}

#[tokio::test]
async fn the_newer_of_two_clients_with_one_id_stays_after_the_will_of_the_older() {
    let (broker, url) = start();
    let (_watcher, mut watched) = client(&url, "watcher", &["status"]);
    connected(&mut watched).await;
    let mut older = config(&url, "twin", &[]);
    older.will = Some(message("status", "dead"));
    let stop = CancellationToken::new();
    let (_older, mut older) = Client::start(older, stop.clone()).unwrap();
    connected(&mut older).await;
    assert_eq!(answer(broker.addr(), &connect("twin")).await.unwrap(), [0x20, 2, 0, 0]);
    assert_eq!(received(&mut watched).await.1, "dead");
    assert!(matches!(next(&mut older).await, Event::Disconnected { .. }));
    stop.cancel();
}

#[tokio::test]
async fn a_client_that_keeps_silent_is_dead_though_it_is_sent_to() {
    let (broker, url) = start();
    let (watcher, mut watched) = client(&url, "watcher", &["status"]);
    connected(&mut watched).await;
    // Keepalive 1 s, a will on `status`, and a subscription to `noise`.
    let body = b"\x00\x04MQTT\x04\x06\x00\x01\x00\x06silent\x00\x06status\x00\x04dead";
    let mut packet = vec![0x10, u8::try_from(body.len()).unwrap()];
    packet.extend(body);
    packet.extend(b"\x82\x0a\x00\x01\x00\x05noise\x00");
    let mut silent = TcpStream::connect(broker.addr()).await.unwrap();
    silent.write_all(&packet).await.unwrap();
    let noise = async {
        loop {
            watcher.publish("noise".into(), Bytes::from_static(b"x"), false, false).unwrap();
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    };
    tokio::select! {
        () = noise => {}
        died = received(&mut watched) => assert_eq!(died.1, "dead"),
    }
}

#[tokio::test]
async fn retained_messages_are_kept_for_those_who_come_later_all_of_them() {
    const WORKERS: usize = 300;
    let (_broker, url) = start();
    let (publisher, _events) = client(&url, "publisher", &[]);
    for i in 0..WORKERS {
        let topic = format!("workers/{i}/state");
        publisher.publish_acknowledged(Message { retain: true, ..message(&topic, "idle") }).await.unwrap();
    }
    let best_effort = flota_common::mqtt::Subscription::best_effort("workers/+/state".into());
    let viewer = Config { subscriptions: vec![best_effort], ..config(&url, "viewer", &[]) };
    let (_viewer, mut events) = Client::start(viewer, CancellationToken::new()).unwrap();
    let mut seen = HashSet::new();
    while seen.len() < WORKERS {
        let (topic, _, retained) = received(&mut events).await;
        assert!(retained);
        seen.insert(topic);
    }
}

#[tokio::test]
async fn the_largest_packet_passes_and_a_larger_one_ends_its_connection() {
    let (broker, url) = start();
    let (client, mut events) = client(&url, "large", &["t"]);
    connected(&mut events).await;
    let most = PACKET_BYTES_MAX - "t".len() - 9;
    client.publish_acknowledged(message("t", vec![7; most])).await.unwrap();
    assert_eq!(received(&mut events).await.1.len(), most);
    let mut stream = TcpStream::connect(broker.addr()).await.unwrap();
    stream.write_all(&connect("larger")).await.unwrap();
    stream.write_all(b"\x30\x81\x80\x10\x00\x01t").await.unwrap();
    let mut rest = Vec::new();
    tokio::time::timeout(DEADLINE, stream.read_to_end(&mut rest)).await.unwrap().unwrap();
    assert_eq!(rest, [0x20, 2, 0, 0]);
}

#[tokio::test]
async fn an_account_is_demanded_where_one_is_set() {
    let account = |user: &str, password: &str| BrokerConfig {
        user: Some(user.into()),
        password: Some(password.to_owned().into()),
        ..open()
    };
    let broker = Broker::start(account("me", "secret")).unwrap();
    let url = format!("mqtt://{}", broker.addr());
    let right =
        Config { user: Some("me".into()), password: Some("secret".to_owned().into()), ..config(&url, "right", &[]) };
    let (_right, mut events) = Client::start(right, CancellationToken::new()).unwrap();
    connected(&mut events).await;
    let wrong =
        Config { password: Some("Secret".to_owned().into()), user: Some("me".into()), ..config(&url, "wrong", &[]) };
    for refused in [wrong, config(&url, "stranger", &[])] {
        let (_refused, mut events) = Client::start(refused, CancellationToken::new()).unwrap();
        let Event::Disconnected { reason } = next(&mut events).await else { panic!("it is not let in") };
        assert!(reason.contains("FLOTA_MQTT_PASSWORD") && !reason.contains("ecret"), "{reason}");
    }
}

#[tokio::test]
async fn a_broker_for_others_wants_an_account_and_a_taken_port_is_named() {
    let public = BrokerConfig { listen: "0.0.0.0:0".parse().unwrap(), ..open() };
    assert!(matches!(Broker::start(public), Err(BrokerError::AccountNeeded(_))));
    let half = BrokerConfig { user: Some("me".into()), ..open() };
    assert!(matches!(Broker::start(half), Err(BrokerError::HalfAnAccount)));
    let (broker, _url) = start();
    let error = Broker::start(BrokerConfig { listen: broker.addr(), ..open() }).unwrap_err().to_string();
    assert!(error.contains(&broker.addr().to_string()) && error.contains("FLOTA_MQTT_LISTEN"), "{error}");
}

#[tokio::test]
async fn stopping_closes_all_and_frees_the_port() {
    let (broker, url) = start();
    let addr = broker.addr();
    let (_client, mut events) = client(&url, "left", &[]);
    connected(&mut events).await;
    broker.stop().await;
    assert!(matches!(next(&mut events).await, Event::Disconnected { .. }));
    until("the port is free", || std::net::TcpListener::bind(addr).is_ok()).await;
    let _again = Broker::start(BrokerConfig { listen: addr, ..open() }).unwrap();
    connected(&mut events).await;
}
