//! The tracked client against a real Mosquitto.
#![allow(clippy::unwrap_used)]

mod support;

use std::collections::HashSet;
use std::sync::Arc;

use bytes::Bytes;
use flota_common::mqtt::{Client, Event, Message, PACKET_BYTES_MAX, PublishError};
use support::*;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

#[tokio::test(flavor = "multi_thread")]
async fn every_message_is_acknowledged_across_two_kills_of_the_broker() {
    const MESSAGES: u64 = 30_000;
    let mut broker = Mosquitto::start("allow_anonymous true").await;
    let (client, mut events) = client(&broker.url(), "publisher", &["end"]);
    connected(&mut events).await;
    for i in 0..MESSAGES {
        client.publish("load".into(), i.to_string().into(), true, false).unwrap();
    }
    for kill_at in [3_000, 15_000] {
        until("enough is acknowledged to kill the broker", || client.counters().acknowledged >= kill_at).await;
        broker.kill();
        assert!(client.counters().acknowledged < MESSAGES, "the kill came in the middle");
        broker.restart().await;
    }
    until("all is acknowledged", || client.counters().acknowledged == MESSAGES).await;
    assert!(client.counters().retried > 0, "a kill in the middle leaves unacknowledged ones: {:?}", client.counters());
    client.publish_acknowledged(message("end", "x")).await.unwrap();
    assert_eq!(received(&mut events).await.0, "end", "subscriptions came back with the connection");
}

/// Forwards to the broker; `cut` ends all connections.
async fn flaky(to: u16) -> (u16, Arc<Notify>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let cut = Arc::new(Notify::new());
    let cuts = cut.clone();
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            let cuts = cuts.clone();
            tokio::spawn(async move {
                let mut broker = TcpStream::connect(("127.0.0.1", to)).await.unwrap();
                tokio::select! {
                    _ = copy_bidirectional(&mut client, &mut broker) => {}
                    () = cuts.notified() => {}
                }
            });
        }
    });
    (port, cut)
}

#[tokio::test(flavor = "multi_thread")]
async fn every_message_arrives_at_least_once_over_a_line_that_breaks() {
    const MESSAGES: u64 = 20_000;
    let broker = Mosquitto::start("allow_anonymous true").await;
    let (_subscriber, mut arriving) = client(&broker.url(), "subscriber", &["load"]);
    connected(&mut arriving).await;
    let (probe, _probe_events) = client(&broker.url(), "probe", &[]);
    probe.publish_acknowledged(message("load", "0")).await.unwrap();
    received(&mut arriving).await;

    let (port, cut) = flaky(broker.port).await;
    let (publisher, _events) = client(&format!("mqtt://127.0.0.1:{port}"), "publisher", &[]);
    for i in 0..MESSAGES {
        publisher.publish("load".into(), i.to_string().into(), true, false).unwrap();
    }
    let cutter = async {
        for cut_at in (2_000..MESSAGES).step_by(5_000) {
            until("enough is acknowledged to cut", || publisher.counters().acknowledged >= cut_at).await;
            cut.notify_waiters();
        }
    };
    let reader = async {
        let mut seen = HashSet::new();
        while seen.len() < MESSAGES as usize {
            seen.insert(received(&mut arriving).await.1);
        }
    };
    tokio::join!(cutter, reader);
    until("all is acknowledged", || publisher.counters().acknowledged == MESSAGES).await;
    assert!(publisher.counters().retried > 0);
}

#[tokio::test]
async fn a_broker_that_is_not_there_is_named_once_and_found_when_it_comes() {
    let mut broker = Mosquitto::start("allow_anonymous true").await;
    broker.kill();
    let (client, mut events) = client(&broker.url(), "early", &[]);
    let Event::Disconnected { reason } = next(&mut events).await else { panic!("no connection is possible") };
    assert!(reason.contains(&broker.url()) && reason.contains("FLOTA_MQTT_URL"), "{reason}");
    let waiting = tokio::spawn(client.publish_acknowledged(message("t", "x")));
    client.publish("t".into(), Bytes::new(), false, false).unwrap();
    assert_eq!(client.counters().dropped, 1, "best effort does not wait for a connection");
    broker.restart().await;
    assert!(matches!(next(&mut events).await, Event::Connected { .. }), "the same failure is told once");
    waiting.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_refused_account_is_said_with_what_to_do() {
    // With a listener of its own, Mosquitto 2 refuses those without an account.
    let broker = Mosquitto::start("").await;
    let (_client, mut events) = client(&broker.url(), "stranger", &[]);
    let Event::Disconnected { reason } = next(&mut events).await else { panic!("no account, no connection") };
    assert!(reason.contains("FLOTA_MQTT_USER"), "{reason}");
}

#[tokio::test]
async fn shutdown_says_farewell_after_all_that_waits_and_no_will_is_published() {
    let broker = Mosquitto::start("allow_anonymous true").await;
    let (_watcher, mut watched) = client(&broker.url(), "watcher", &["status", "work"]);
    connected(&mut watched).await;
    let mut leaving = config(&broker.url(), "leaving", &[]);
    leaving.will = Some(message("status", "dead"));
    let (client, mut events) = Client::start(leaving, CancellationToken::new()).unwrap();
    connected(&mut events).await;
    for _ in 0..1_000 {
        client.publish("work".into(), Bytes::from_static(b"w"), true, false).unwrap();
    }
    client.shutdown(vec![Message { retain: true, ..message("status", "offline") }]).await;
    assert_eq!(client.publish("work".into(), Bytes::new(), true, false), Err(PublishError::Closed));
    let mut work = 0;
    loop {
        match received(&mut watched).await {
            (topic, ..) if topic == "work" => work += 1,
            (_, payload, _) => break assert_eq!(payload, "offline"),
        }
    }
    assert_eq!(work, 1_000, "the farewell is behind what was queued before");
    // The broker has handled the end of that connection before it lets the same id in again.
    let (_again, mut events) = support::client(&broker.url(), "leaving", &["fence"]);
    connected(&mut events).await;
    _again.publish_acknowledged(message("status", "fence")).await.unwrap();
    assert_eq!(received(&mut watched).await.1, "fence", "no will came in between");
}

#[tokio::test]
async fn a_hard_end_lets_the_broker_publish_the_will() {
    let broker = Mosquitto::start("allow_anonymous true").await;
    let (_watcher, mut watched) = client(&broker.url(), "watcher", &["status"]);
    connected(&mut watched).await;
    let mut dying = config(&broker.url(), "dying", &[]);
    dying.will = Some(message("status", "dead"));
    let stop = CancellationToken::new();
    let (client, mut events) = Client::start(dying, stop.clone()).unwrap();
    connected(&mut events).await;
    stop.cancel();
    assert_eq!(received(&mut watched).await.1, "dead");
    while next_or_end(&mut events).await {}
    assert_eq!(client.publish_acknowledged(message("t", "x")).await, Err(PublishError::Closed));
}

async fn next_or_end(events: &mut flota_common::mqtt::Events) -> bool {
    tokio::time::timeout(DEADLINE, events.recv()).await.expect("the channel ends").is_some()
}

#[tokio::test]
async fn the_largest_message_passes_and_a_larger_one_is_refused_before_it_can_break_the_connection() {
    let broker = Mosquitto::start("allow_anonymous true").await;
    let (client, mut events) = client(&broker.url(), "large", &["t"]);
    connected(&mut events).await;
    let most = PACKET_BYTES_MAX - "t".len() - 9;
    client.publish_acknowledged(message("t", vec![7; most])).await.unwrap();
    assert_eq!(received(&mut events).await.1.len(), most);
    let larger = client.publish_acknowledged(message("t", vec![7; most + 1])).await;
    assert_eq!(larger, Err(PublishError::TooLarge));
}

#[tokio::test]
async fn retained_messages_are_marked() {
    let broker = Mosquitto::start("allow_anonymous true").await;
    let (client, _events) = client(&broker.url(), "first", &[]);
    client.publish_acknowledged(Message { retain: true, ..message("status", "kept") }).await.unwrap();
    let (_late, mut late) = support::client(&broker.url(), "late", &["status"]);
    assert_eq!(received(&mut late).await, ("status".into(), Bytes::from_static(b"kept"), true));
    client.publish_acknowledged(message("status", "live")).await.unwrap();
    assert_eq!(received(&mut late).await, ("status".into(), Bytes::from_static(b"live"), false));
}
