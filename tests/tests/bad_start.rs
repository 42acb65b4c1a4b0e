//! What keeps Flota from starting is said by name, with what to do, and nothing is lost.

use std::fs;
use std::net::TcpListener;
use std::process::Command;

use flota_tests::{Mosquitto, Node, node::workers_ready, ports};

/// Starts `node` and gives what it printed, once it has ended with a failure.
async fn refused(mut node: Node) -> String {
    node.spawn();
    let status = node.process().ended().await;
    let log = node.log();
    assert!(!status.success(), "it was to fail:\n{log}");
    assert!(status.code().is_some(), "it was killed by a signal:\n{log}");
    assert!(!log.contains("panicked"), "{log}");
    log
}

fn says(log: &str, words: &[&str]) {
    for word in words {
        assert!(log.contains(word), "'{word}' is not in:\n{log}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_that_was_set_and_is_taken() {
    let node = Node::up();
    let port = node.web_port;
    let _taken = TcpListener::bind(("127.0.0.1", port)).expect("failed to take the port");
    says(&refused(node).await, &[&port.to_string(), "FLOTA_WEB_LISTEN"]);

    let node = Node::up();
    let port = node.grpc_port;
    let _taken = TcpListener::bind(("127.0.0.1", port)).expect("failed to take the port");
    says(&refused(node).await, &[&port.to_string(), "FLOTA_GRPC_LISTEN"]);

    let node = Node::up();
    let port = node.mqtt_port;
    let _taken = TcpListener::bind(("127.0.0.1", port)).expect("failed to take the port");
    says(&refused(node).await, &[&port.to_string(), "FLOTA_MQTT_LISTEN"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn ports_that_nobody_set_fall_back_to_free_ones_and_the_start_says_so() {
    // Whether or not somebody else has them: they are taken now.
    let _taken: Vec<_> = [8888, 50051, 1883].map(|port| TcpListener::bind(("127.0.0.1", port))).into_iter().collect();
    let mut node = Node::up().without("FLOTA_WEB_LISTEN").without("FLOTA_GRPC_LISTEN").without("FLOTA_MQTT_LISTEN");
    node.spawn();
    let line = node.process().printed("http://127.0.0.1:").await;
    assert!(!line.contains(":8888"), "{line}");
    says(&node.log(), &["8888"]);
    assert!(node.process().status().is_none(), "{}", node.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_is_not_there_is_named_and_waited_for() {
    let port = ports::free();
    let mut master = Node::master(&format!("mqtt://127.0.0.1:{port}"));
    master.spawn();
    master.process().printed(&format!("127.0.0.1:{port}")).await;
    assert!(master.process().status().is_none(), "it was to go on trying:\n{}", master.log());
    let lines = master.log().lines().filter(|line| line.contains(&port.to_string())).count();
    assert!(lines < 50, "it was to say so now and then, not {lines} times");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_data_directory_that_is_a_file_or_cannot_be_made() {
    let node = Node::up();
    let file = node.directory().join("a-file");
    fs::write(&file, "").expect("failed to write");
    let path = file.display().to_string();
    says(&refused(node.with("FLOTA_DATA_DIR", &path)).await, &[&path]);
    says(&refused(Node::up().with("FLOTA_DATA_DIR", "/proc/flota")).await, &["/proc/flota"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_corrupt_database_is_refused_and_left_as_it_is() {
    let node = Node::up();
    fs::create_dir_all(node.data_dir()).expect("failed to make the data directory");
    let database = node.data_dir().join("flota.db");
    let rubbish = "this is no database ".repeat(1_000);
    fs::write(&database, &rubbish).expect("failed to write");
    let mut node = node;
    node.spawn();
    let status = node.process().ended().await;
    assert!(!status.success(), "{}", node.log());
    says(&node.log(), &[&database.display().to_string()]);
    assert!(!node.log().contains("panicked"), "{}", node.log());
    assert_eq!(fs::read_to_string(&database).ok(), Some(rubbish), "what was there may be all that somebody has");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_of_a_newer_flota_is_refused_with_both_versions() {
    let mut node = Node::up().start().await;
    let rest = node.rest();
    workers_ready(&rest, 1).await;
    let job = rest.echo("kept", 0).await;
    rest.completed(&job).await;
    assert!(node.stop().await.success(), "{}", node.log());
    let version = set_schema(&node, 9_999);
    node.spawn();
    assert!(!node.process().ended().await.success(), "{}", node.log());
    says(&node.log(), &["9999", "newer"]);
    assert!(!node.log().contains("panicked"), "{}", node.log());

    assert_eq!(set_schema(&node, version), 9_999, "what is newer was to be left as it is");
    node.start_again().await;
    assert_eq!(rest.job(&job).await["state"], "completed");
}

/// Sets the schema's version in the database, and gives the one before.
fn set_schema(node: &Node, version: u32) -> u32 {
    let program = "import sqlite3, sys\n\
        db = sqlite3.connect(sys.argv[1], isolation_level=None)\n\
        print(db.execute('PRAGMA user_version').fetchone()[0])\n\
        db.execute(f'PRAGMA user_version = {int(sys.argv[2])}')\n";
    let mut python = Command::new("python3");
    python.args(["-c", program]).arg(node.data_dir().join("flota.db")).arg(version.to_string());
    let output = python.output().expect("failed to start python3");
    assert!(output.status.success(), "{output:?}");
    String::from_utf8_lossy(&output.stdout).trim().parse().expect("no version")
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_workers_with_one_id_the_newest_stays_and_the_other_ends_with_an_error() {
    let broker = Mosquitto::start().await;
    let master = Node::master(&broker.url()).start().await;
    let rest = master.rest();
    let old = Node::worker("twin", &broker.url()).start().await;
    workers_ready(&rest, 1).await;
    let new = Node::worker("twin", &broker.url()).start().await;
    let status = old.process().ended().await;
    assert!(!status.success(), "{}", old.log());
    says(&old.log(), &["twin"]);
    assert!(new.process().status().is_none(), "{}", new.log());
    workers_ready(&rest, 1).await;
    rest.completed(&rest.echo("for the newest", 0).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn settings_that_are_unknown_or_wrong_are_named_with_what_is_allowed() {
    says(&refused(Node::up().with("FLOTA_COLOUR", "red")).await, &["FLOTA_COLOUR"]);
    says(&refused(Node::up().with("FLOTA_WORKER_SLOTS", "dance=1")).await, &["FLOTA_WORKER_SLOTS", "dance"]);
    says(&refused(Node::up().with("FLOTA_WEB_LISTEN", "everywhere")).await, &["FLOTA_WEB_LISTEN", "everywhere"]);
    says(&refused(Node::up().with("FLOTA_RANDOMX_MODE", "warp")).await, &["FLOTA_RANDOMX_MODE", "warp", "light"]);
    let exposed = Node::up();
    let listen = format!("0.0.0.0:{}", exposed.web_port);
    says(&refused(exposed.with("FLOTA_WEB_LISTEN", listen)).await, &["FLOTA_TOKEN"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_line_says_that_no_fleet_is_there() {
    let node = Node::up();
    let output = node.cli().args(["jobs", "list"]).output().expect("failed to start flota");
    assert_eq!(output.status.code(), Some(3), "{output:?}");
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(text.contains(&node.web_port.to_string()), "{text}");
    let usage = node.cli().args(["jobs", "dance"]).output().expect("failed to start flota");
    assert_eq!(usage.status.code(), Some(2), "{usage:?}");
}
