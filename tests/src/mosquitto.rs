//! A real Mosquitto, and its command line client as the second opinion on what is published.

use std::process::Command;

use tempfile::TempDir;

use crate::{Process, ports, until};

/// A broker on a port of its own.
#[derive(Debug)]
pub struct Mosquitto {
    /// Where it listens.
    pub port: u16,
    process: Process,
    directory: TempDir,
}

impl Mosquitto {
    /// Starts one without accounts.
    ///
    /// # Panics
    /// When it can't be started.
    pub async fn start() -> Self {
        let directory = TempDir::new().expect("failed to make a directory for mosquitto");
        let port = ports::free();
        let config = format!(
            "listener {port} 127.0.0.1\nallow_anonymous true\npersistence false\nset_tcp_nodelay true\n\
             max_inflight_messages 100\nmax_queued_messages 20000\nmax_packet_size 262144\n"
        );
        std::fs::write(directory.path().join("mosquitto.conf"), config).expect("failed to write mosquitto.conf");
        let process = run(&directory);
        let broker = Self { port, directory, process };
        broker.listening().await;
        broker
    }

    /// `mqtt://…`
    #[must_use]
    pub fn url(&self) -> String {
        format!("mqtt://127.0.0.1:{}", self.port)
    }

    /// `kill -9`.
    pub fn kill(&self) {
        self.process.kill();
    }

    /// Starts it again on the same port.
    ///
    /// # Panics
    /// When it can't be started.
    pub async fn start_again(&mut self) {
        self.process = run(&self.directory);
        self.listening().await;
    }

    async fn listening(&self) {
        until("mosquitto listens", || tokio::net::TcpStream::connect(("127.0.0.1", self.port))).await;
    }

    /// `mosquitto_sub -v` on `topic`: `Process::printed` gives its lines. It is subscribed when this returns.
    ///
    /// # Panics
    /// When it can't be started.
    pub async fn subscribe(&self, topic: &str) -> Process {
        subscribe(self.port, topic, self.directory.path()).await
    }

    /// `mosquitto_pub` of `payload` to `topic`, QoS 1.
    ///
    /// # Panics
    /// When it is not published.
    pub fn publish(&self, topic: &str, payload: &[u8]) {
        publish(self.port, topic, payload, self.directory.path());
    }
}

/// `mosquitto_sub -v` at the broker on `port`, subscribed when this returns; what comes is printed into `directory`.
///
/// # Panics
/// When it can't be started.
pub async fn subscribe(port: u16, topic: &str, directory: &std::path::Path) -> Process {
    let name = format!("mosquitto_sub-{}", uuid::Uuid::new_v4().simple());
    let line = Process::start(
        &name,
        directory,
        // Line by line, although nobody looks: else it keeps what it has to say until it has a page of it.
        Command::new("stdbuf").args([
            "-oL",
            "mosquitto_sub",
            "-d",
            "-v",
            "-q",
            "1",
            "-p",
            &port.to_string(),
            "-t",
            topic,
        ]),
    );
    line.printed("Subscribed").await;
    line
}

/// `mosquitto_pub` of `payload` to `topic` at the broker on `port`, QoS 1.
///
/// # Panics
/// When it is not published.
pub fn publish(port: u16, topic: &str, payload: &[u8], directory: &std::path::Path) {
    let file = directory.join(format!("payload-{}", uuid::Uuid::new_v4().simple()));
    std::fs::write(&file, payload).expect("failed to write a payload");
    let status = Command::new("mosquitto_pub")
        .args(["-q", "1", "-p", &port.to_string(), "-t", topic, "-f"])
        .arg(&file)
        .status()
        .expect("failed to start mosquitto_pub");
    assert!(status.success(), "mosquitto_pub to {topic} answered {status}");
}

fn run(directory: &TempDir) -> Process {
    // Debian keeps it in a directory that is not in everybody's PATH.
    let path = format!("{}:/usr/sbin", std::env::var("PATH").unwrap_or_default());
    Process::start(
        "mosquitto",
        directory.path(),
        Command::new("mosquitto").env("PATH", path).arg("-c").arg(directory.path().join("mosquitto.conf")),
    )
}
