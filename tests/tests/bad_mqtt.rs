//! Malformed messages on every topic and stream change nothing and stop nobody.

use flota_tests::{Mosquitto, Node, node::workers_ready};
use serde_json::json;

/// What is no message of ours, in any topic.
fn rubbish() -> Vec<Vec<u8>> {
    let deep = "[".repeat(50_000).into_bytes();
    let texts: [&[u8]; 12] = [
        b"",
        b"not json",
        b"{",
        b"null",
        b"[]",
        b"5",
        b"\"text\"",
        b"{}",
        b"{\"worker_id\": 5}",
        b"{\"worker_id\": \"a/b\", \"status\": \"idle\"}",
        b"{\"worker_id\": \"w1\", \"status\": \"dancing\", \"timestamp\": \"now\", \"slots\": [], \"units\": {}}",
        b"\xff\xfe\x00\x80",
    ];
    let mut all: Vec<Vec<u8>> = texts.iter().map(|text| text.to_vec()).collect();
    all.push(deep);
    all.push(vec![b'x'; 250_000]);
    all
}

#[tokio::test(flavor = "multi_thread")]
async fn malformed_messages_on_every_topic_are_dropped_and_the_fleet_works_on() {
    let broker = Mosquitto::start().await;
    let master = Node::master(&broker.url()).start().await;
    let worker = Node::worker("w1", &broker.url()).start().await;
    let rest = master.rest();
    workers_ready(&rest, 1).await;
    let topics = [
        "flota/workers/register",
        "flota/workers/status",
        "flota/workers/w1/state",
        "flota/workers/nobody/state",
        "flota/workers/w1/tasks",
        "flota/workers/w1/control",
        "flota/control",
        "flota/jobs/status",
        "flota/logs",
        "flota/something/else",
    ];
    for topic in topics {
        for payload in rubbish() {
            broker.publish(topic, &payload);
        }
    }
    // From an epoch before the first, and a command that nobody knows from this one.
    let control = |epoch: u64, command: &str| {
        let body = json!({"command_id": "x", "epoch": epoch, "issued_at_ms": 1, "expires_at_ms": 9_999_999_999_999_u64,
            "command": command, "args": {}});
        broker.publish("flota/workers/w1/control", body.to_string().as_bytes());
    };
    control(0, "stop");
    control(1, "dance");

    for value in 0..20 {
        rest.completed(&rest.echo(value, 0).await).await;
    }
    for node in [&master, &worker] {
        assert!(node.process().status().is_none(), "{}", node.log());
        assert!(!node.log().contains("panicked"), "{}", node.log());
    }
    let workers = rest.get("/workers").await.body;
    assert_eq!(workers["items"].as_array().map(Vec::len), Some(1), "{workers}");
    assert_eq!(workers["items"][0]["worker_id"], "w1");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_false_master_status_does_not_lead_a_worker_away() {
    let broker = Mosquitto::start().await;
    let master = Node::master(&broker.url()).start().await;
    let worker = Node::worker("w1", &broker.url()).start().await;
    let rest = master.rest();
    workers_ready(&rest, 1).await;
    let old = json!({"status": "online", "grpc_endpoint": "127.0.0.1:1", "web_url": "", "version": "0", "epoch": 0,
        "boot_id": "0", "timestamp": 1});
    broker.publish("flota/master/status", old.to_string().as_bytes());
    for payload in rubbish() {
        broker.publish("flota/master/status", &payload);
    }
    rest.completed(&rest.echo("here", 0).await).await;
    assert!(worker.process().status().is_none(), "{}", worker.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn rubbish_on_the_grpc_port_and_the_embedded_broker_harms_nobody() {
    use tokio::io::AsyncWriteExt;
    let fleet = Node::up().start().await;
    let rest = fleet.rest();
    workers_ready(&rest, 1).await;
    let pieces: [&[u8]; 4] = [b"", b"GET / HTTP/1.1\r\n\r\n", &[0xff; 4096], b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0"];
    for port in [fleet.grpc_port, fleet.mqtt_port, fleet.web_port] {
        for piece in pieces {
            let mut stream = tokio::net::TcpStream::connect(("127.0.0.1", port)).await.expect("nothing listens");
            // The other side may hang up in the middle: that is an answer too.
            let _ = stream.write_all(piece).await;
        }
    }
    rest.completed(&rest.echo("still here", 0).await).await;
    assert!(fleet.process().status().is_none() && !fleet.log().contains("panicked"), "{}", fleet.log());
}
