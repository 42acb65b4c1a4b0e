//! A real Mosquitto on a free port, and waiting without sleeping through fixed times.
#![allow(dead_code, missing_docs, clippy::unwrap_used)]

use std::io::Write;
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use bytes::Bytes;
use flota_common::mqtt::{Client, Config, Event, Events, Message, Subscription};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

pub const DEADLINE: Duration = Duration::from_secs(60);

pub struct Mosquitto {
    dir: TempDir,
    pub port: u16,
    process: Option<Child>,
}

impl Mosquitto {
    /// Starts one with `extra` lines of configuration.
    pub async fn start(extra: &str) -> Self {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let dir = TempDir::new().unwrap();
        let mut config = std::fs::File::create(dir.path().join("mosquitto.conf")).unwrap();
        writeln!(config, "listener {port} 127.0.0.1\nset_tcp_nodelay true\nmax_packet_size 262144").unwrap();
        writeln!(config, "max_inflight_messages 100\nmax_queued_messages 100000\n{extra}").unwrap();
        let mut broker = Self { dir, port, process: None };
        broker.restart().await;
        broker
    }

    pub async fn restart(&mut self) {
        self.kill();
        let program = ["/usr/sbin/mosquitto", "/usr/local/sbin/mosquitto", "/opt/homebrew/sbin/mosquitto"]
            .into_iter()
            .find(|path| std::path::Path::new(path).exists())
            .unwrap_or("mosquitto");
        let process = Command::new(program)
            .arg("-c")
            .arg(self.dir.path().join("mosquitto.conf"))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("mosquitto is needed for this test: apt-get install mosquitto");
        self.process = Some(process);
        let port = self.port;
        until("mosquitto listens", || std::net::TcpStream::connect(("127.0.0.1", port)).is_ok()).await;
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            let _ = process.kill();
            let _ = process.wait();
        }
    }

    pub fn url(&self) -> String {
        format!("mqtt://127.0.0.1:{}", self.port)
    }
}

impl Drop for Mosquitto {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Polls until `reached`, or fails with what was waited for.
pub async fn until(what: &str, mut reached: impl FnMut() -> bool) {
    let polling = async {
        while !reached() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(DEADLINE, polling).await.unwrap_or_else(|_| panic!("not within {DEADLINE:?}: {what}"));
}

pub fn config(url: &str, id: &str, filters: &[&str]) -> Config {
    Config {
        url: url.into(),
        user: None,
        password: None,
        client_id: id.into(),
        clean_session: true,
        will: None,
        subscriptions: filters.iter().map(|filter| Subscription::reliable((*filter).into())).collect(),
    }
}

pub fn client(url: &str, id: &str, filters: &[&str]) -> (Client, Events) {
    Client::start(config(url, id, filters), CancellationToken::new()).unwrap()
}

pub fn message(topic: &str, payload: impl Into<Bytes>) -> Message {
    Message { topic: topic.into(), payload: payload.into(), retain: false }
}

pub async fn next(events: &mut Events) -> Event {
    tokio::time::timeout(DEADLINE, events.recv()).await.expect("an event in time").expect("the client lives")
}

pub async fn connected(events: &mut Events) {
    while !matches!(next(events).await, Event::Connected { .. }) {}
}

/// The next message.
pub async fn received(events: &mut Events) -> (String, Bytes, bool) {
    loop {
        if let Event::Message { topic, payload, retained } = next(events).await {
            return (topic, payload, retained);
        }
    }
}
