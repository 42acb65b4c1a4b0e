//! The link against a real Mosquitto, with a stand-in for the dispatcher that reads the commands.
#![allow(clippy::unwrap_used)]

#[path = "../../common/tests/support/mod.rs"]
mod support;

use flota_common::mqtt::{Client, Events, Message};
use flota_master::handle::{Command, Handle};
use flota_master::logs::LogHub;
use flota_master::mqtt::{LinkConfig, connect};
use flota_proto::mqtt::{LogLine, MasterStatus, Presence, WorkerState};
use flota_proto::topics::Topics;
use support::*;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tracing_subscriber::layer::SubscriberExt;

const STATUS: &str = "flota/master/status";

struct Fixture {
    broker: Mosquitto,
    commands: mpsc::Receiver<Command>,
    hub: LogHub,
    stop: CancellationToken,
    publisher: Client,
    link: JoinHandle<()>,
}

fn link_config(url: &str, epoch: u64, boot_id: &str) -> LinkConfig {
    LinkConfig {
        url: url.into(),
        user: None,
        password: None,
        topics: Topics::new("flota").unwrap(),
        grpc_endpoint: "127.0.0.1:50051".into(),
        web_url: "http://127.0.0.1:8888".into(),
        epoch,
        boot_id: boot_id.into(),
    }
}

impl Fixture {
    async fn start() -> Self {
        let broker = Mosquitto::start("allow_anonymous true").await;
        Self::at(broker).await
    }

    async fn at(broker: Mosquitto) -> Self {
        let (handle, commands) = Handle::channel();
        let (hub, stop) = (LogHub::new(), CancellationToken::new());
        let (publisher, link) = connect(link_config(&broker.url(), 3, "boot-a")).unwrap();
        let link = tokio::spawn(link.run(handle, hub.clone(), stop.clone()));
        let mut fixture = Self { broker, commands, hub, stop, publisher, link };
        assert!(matches!(fixture.command().await, Command::BrokerUp));
        fixture
    }

    async fn command(&mut self) -> Command {
        tokio::time::timeout(DEADLINE, self.commands.recv()).await.expect("in time").unwrap()
    }

    /// Someone else at the same broker.
    fn peer(&self, filters: &[&str]) -> (Client, Events) {
        client(&self.broker.url(), "peer", filters)
    }
}

/// The next status of a master.
async fn status(events: &mut Events) -> MasterStatus {
    serde_json::from_slice(&received(events).await.1).unwrap()
}

#[tokio::test]
async fn the_master_is_announced_retained_and_says_farewell() {
    let fixture = Fixture::start().await;
    let (_peer, mut events) = fixture.peer(&[STATUS]);
    let online = status(&mut events).await;
    assert_eq!((online.status, online.epoch, online.boot_id.as_str()), (Presence::Online, 3, "boot-a"));
    assert_eq!(online.grpc_endpoint, "127.0.0.1:50051");
    fixture.stop.cancel();
    fixture.link.await.unwrap();
    let offline = status(&mut events).await;
    assert_eq!((offline.status, offline.boot_id.as_str()), (Presence::Offline, "boot-a"));
    let (_late, mut late) = client(&fixture.broker.url(), "late", &[STATUS]);
    assert_eq!(status(&mut late).await.status, Presence::Offline);
}

#[tokio::test]
async fn workers_are_heard_and_nonsense_is_left_out_with_a_warning() {
    let mut fixture = Fixture::start().await;
    let _logging = tracing::subscriber::set_default(tracing_subscriber::registry().with(fixture.hub.layer()));
    let (peer, _events) = fixture.peer(&[]);
    let send = |topic: &str, payload: &str| peer.publish_acknowledged(message(topic, payload.to_owned()));
    for nonsense in ["", "{", "[]", "null", "\u{0}", r#"{"worker_id":"a/b"}"#, r#"{"worker_id":7}"#] {
        for topic in ["register", "status", "w1/state"] {
            send(&format!("flota/workers/{topic}"), nonsense).await.unwrap();
        }
        send("flota/logs", nonsense).await.unwrap();
        send(STATUS, nonsense).await.unwrap();
    }
    send("flota/workers/register", r#"{"worker_id":"w1","status":"idle","timestamp":1}"#).await.unwrap();
    send("flota/workers/status", r#"{"worker_id":"w1","status":"busy","timestamp":2}"#).await.unwrap();
    send("flota/workers/w1/state", r#"{"worker_id":"w1","status":"busy"}"#).await.unwrap();
    send("flota/workers/w1/state", r#"{"worker_id":"w1","status":"offline","boot_id":"b"}"#).await.unwrap();

    let Command::Registered(register) = fixture.command().await else { panic!("a registration") };
    assert_eq!(register.worker_id.as_str(), "w1");
    let Command::Status(busy) = fixture.command().await else { panic!("a status") };
    assert_eq!(busy.status, WorkerState::Busy);
    let Command::Status(offline) = fixture.command().await else { panic!("a death") };
    assert_eq!((offline.status, offline.boot_id.as_str()), (WorkerState::Offline, "b"));
    let warnings: Vec<_> = fixture.hub.recent().iter().map(|line| line.message.clone()).collect();
    assert!(warnings.iter().any(|said| said.contains("malformed") && said.contains("flota/workers/")), "{warnings:?}");
}

#[tokio::test]
async fn a_broker_that_comes_back_is_told_again() {
    let mut fixture = Fixture::start().await;
    fixture.broker.restart().await;
    assert!(matches!(fixture.command().await, Command::BrokerUp));
    let (_peer, mut events) = fixture.peer(&[STATUS]);
    assert_eq!(status(&mut events).await.status, Presence::Online);
}

#[tokio::test]
async fn lines_of_others_are_kept_and_our_own_are_published_once() {
    let fixture = Fixture::start().await;
    let _logging = tracing::subscriber::set_default(tracing_subscriber::registry().with(fixture.hub.layer()));
    let (peer, mut events) = fixture.peer(&["flota/logs"]);
    connected(&mut events).await;
    peer.publish_acknowledged(message("peer-is-subscribed", "x")).await.unwrap();
    tracing::info!(target: "flota_master::test", "the master says something");
    let line: LogLine = serde_json::from_slice(&received(&mut events).await.1).unwrap();
    assert_eq!((line.source.as_str(), line.message.as_str()), ("master", "the master says something"));
    let simple = r#"{"timestamp":1,"source":"py-1","message":"a simple worker says something"}"#;
    peer.publish_acknowledged(message("flota/logs", simple)).await.unwrap();
    let said = |text: &str| fixture.hub.recent().iter().filter(|line| line.message == text).count();
    until("the line of the other arrived", || said("a simple worker says something") == 1).await;
    assert_eq!(said("the master says something"), 1, "the line that came back is not doubled");
}

#[tokio::test]
async fn an_old_masters_farewell_is_corrected_and_a_newer_master_is_left_alone() {
    let fixture = Fixture::start().await;
    let (_peer, mut events) = fixture.peer(&[STATUS]);
    assert_eq!(status(&mut events).await.boot_id, "boot-a");
    let (_old, link) = connect(link_config(&fixture.broker.url(), 2, "boot-old")).unwrap();
    let stop = CancellationToken::new();
    let old = tokio::spawn(link.run(Handle::channel().0, LogHub::new(), stop.clone()));
    assert_eq!(status(&mut events).await.boot_id, "boot-old");
    let corrected = status(&mut events).await;
    assert_eq!((corrected.status, corrected.boot_id.as_str()), (Presence::Online, "boot-a"));
    stop.cancel();
    old.await.unwrap();
    assert_eq!(status(&mut events).await.boot_id, "boot-old");
    let corrected = status(&mut events).await;
    assert_eq!((corrected.status, corrected.boot_id.as_str()), (Presence::Online, "boot-a"));
    let newer = MasterStatus { epoch: 9, boot_id: "boot-new".into(), ..corrected };
    let payload = serde_json::to_vec(&newer).unwrap();
    fixture.publisher.publish_acknowledged(Message { retain: true, ..message(STATUS, payload) }).await.unwrap();
    assert_eq!(status(&mut events).await.boot_id, "boot-new");
    let (peer, _) = client(&fixture.broker.url(), "fence", &[]);
    peer.publish_acknowledged(message(STATUS, serde_json::to_vec(&newer).unwrap())).await.unwrap();
    assert_eq!(status(&mut events).await.boot_id, "boot-new", "nobody answered in between");
}

#[tokio::test]
async fn a_broker_whose_rules_swallow_what_the_master_says_is_named() {
    let rules = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(rules.path(), "topic read flota/#\n").unwrap();
    std::fs::set_permissions(rules.path(), std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let acl = format!("allow_anonymous true\nacl_file {}\nuser root", rules.path().display());
    let broker = Mosquitto::start(&acl).await;
    let (handle, _commands) = Handle::channel();
    let (hub, stop) = (LogHub::new(), CancellationToken::new());
    let _logging = tracing::subscriber::set_default(tracing_subscriber::registry().with(hub.layer()));
    let (_publisher, link) = connect(link_config(&broker.url(), 3, "boot-a")).unwrap();
    tokio::spawn(link.run(handle, hub.clone(), stop));
    let said = || hub.recent().iter().any(|line| line.message.contains("read and write access to flota/#"));
    until("the missing permission is said", said).await;
}
