//! One process of Flota: `flota up`, `flota master` or `flota worker`, which can be killed and started again as it was.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use crate::{Process, Rest, ports, until};

/// A part of Flota with its data directory, settings and ports.
#[derive(Debug)]
pub struct Node {
    /// Where REST and the page are; nothing there for a worker.
    pub web_port: u16,
    /// Where workers report to.
    pub grpc_port: u16,
    /// Where the embedded broker of `flota up` is.
    pub mqtt_port: u16,
    role: &'static str,
    settings: BTreeMap<String, String>,
    // Before its directory: it ends first, and its log is read then.
    process: Option<Process>,
    directory: TempDir,
}

impl Node {
    /// `flota up` on free ports.
    #[must_use]
    pub fn up() -> Self {
        let node = Self::new("up");
        let mqtt = node.mqtt_port;
        node.with("FLOTA_MQTT_LISTEN", format!("127.0.0.1:{mqtt}"))
    }

    /// `flota master` at the broker of `mqtt_url`.
    #[must_use]
    pub fn master(mqtt_url: &str) -> Self {
        Self::new("master").with("FLOTA_MQTT_URL", mqtt_url)
    }

    /// `flota worker` with the name `id` at the broker of `mqtt_url`.
    #[must_use]
    pub fn worker(id: &str, mqtt_url: &str) -> Self {
        Self::new("worker").with("FLOTA_MQTT_URL", mqtt_url).with("FLOTA_WORKER_ID", id)
    }

    fn new(role: &'static str) -> Self {
        let directory = TempDir::new().expect("failed to make a data directory");
        let (web_port, grpc_port) = (ports::free(), ports::free());
        let node = Self {
            web_port,
            grpc_port,
            mqtt_port: ports::free(),
            role,
            settings: BTreeMap::new(),
            process: None,
            directory,
        };
        let data = node.data_dir().display().to_string();
        let node = node.with("FLOTA_DATA_DIR", data).with("FLOTA_RANDOMX_MODE", "light");
        if role == "worker" {
            return node;
        }
        node.with("FLOTA_WEB_LISTEN", format!("127.0.0.1:{web_port}"))
            .with("FLOTA_GRPC_LISTEN", format!("127.0.0.1:{grpc_port}"))
    }

    /// Sets an environment variable of the process.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl Into<String>) -> Self {
        self.settings.insert(name.to_owned(), value.into());
        self
    }

    /// Takes a setting of the harness away, so that the default holds.
    #[must_use]
    pub fn without(mut self, name: &str) -> Self {
        self.settings.remove(name);
        self
    }

    /// Where it keeps its data.
    #[must_use]
    pub fn data_dir(&self) -> PathBuf {
        self.directory.path().join("data")
    }

    /// A directory that lives as long as the node.
    #[must_use]
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// Starts the process, without waiting for anything.
    pub fn spawn(&mut self) {
        let mut command = flota();
        command
            .arg(self.role)
            .envs(&self.settings)
            .env("HOME", self.directory.path())
            .current_dir(self.directory.path());
        self.process = Some(Process::start(&format!("flota-{}", self.role), self.directory.path(), &mut command));
    }

    /// Starts the process and waits until it is of use: a worker when it runs, the others when `/readyz` says so.
    ///
    /// # Panics
    /// When it ends or is not ready within the deadline.
    pub async fn start(mut self) -> Self {
        self.start_again().await;
        self
    }

    /// As [`Node::start`], for one that was killed.
    ///
    /// # Panics
    /// When it ends or is not ready within the deadline.
    pub async fn start_again(&mut self) {
        self.spawn();
        if self.role == "worker" {
            return;
        }
        let url = format!("{}/readyz", self.url());
        let process = self.process();
        until("flota is ready", || async {
            assert!(process.status().is_none(), "it ended at its start; {}", process.describe());
            let answer = reqwest::get(&url).await.map_err(|e| format!("{e:?}"))?;
            if answer.status().is_success() { Ok(()) } else { Err(process.describe()) }
        })
        .await;
    }

    /// The running process.
    ///
    /// # Panics
    /// Before the first start.
    #[must_use]
    pub fn process(&self) -> &Process {
        self.process.as_ref().expect("the node was not started")
    }

    /// What it has printed, over all its starts.
    #[must_use]
    pub fn log(&self) -> String {
        self.process.as_ref().map(Process::log).unwrap_or_default()
    }

    /// `kill -9`.
    pub fn kill(&self) {
        self.process().kill();
    }

    /// Sends SIGTERM and waits for its end.
    ///
    /// # Panics
    /// When it goes on beyond the deadline.
    pub async fn stop(&self) -> std::process::ExitStatus {
        self.process().signal("TERM");
        self.process().ended().await
    }

    /// A client of its REST.
    #[must_use]
    pub fn rest(&self) -> Rest {
        Rest::new(&self.url())
    }

    /// Where the page is.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.web_port)
    }

    /// The `flota` command as a client of this node.
    #[must_use]
    pub fn cli(&self) -> Command {
        let mut command = flota();
        command.env("FLOTA_URL", self.url()).env("HOME", self.directory.path()).current_dir(self.directory.path());
        command
    }

    /// `mosquitto_sub` at its embedded broker.
    ///
    /// # Panics
    /// When it can't be started.
    pub async fn subscribe(&self, topic: &str) -> Process {
        crate::mosquitto::subscribe(self.mqtt_port, topic, self.directory()).await
    }

    /// Keeps the directory for a look after the test, where `FLOTA_KEEP_LOGS` is set.
    fn keep(&mut self) {
        if std::env::var_os("FLOTA_KEEP_LOGS").is_some() {
            self.directory.disable_cleanup(true);
            eprintln!("kept: {}", self.directory.path().display());
        }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.keep();
    }
}

/// The `flota` that is tested, with none of the environment's own settings.
///
/// # Panics
/// When it was not built.
#[must_use]
pub fn flota() -> Command {
    let mut command = Command::new(flota_path());
    without_settings(&mut command);
    command
}

/// Where the `flota` is that is tested.
///
/// # Panics
/// When it was not built.
#[must_use]
pub fn flota_path() -> PathBuf {
    let path = std::env::var_os("FLOTA_BIN").map_or_else(built, PathBuf::from);
    assert!(
        path.is_file(),
        "there is no {}: build it with `cargo build --bin flota` (make e2e does), or name another by FLOTA_BIN",
        path.display()
    );
    path
}

/// Takes the environment's own settings away from a process to be started.
pub fn without_settings(command: &mut Command) {
    for (name, _) in std::env::vars_os() {
        let name = name.to_string_lossy().into_owned();
        if name.starts_with("FLOTA_") || name == "GEMINI_API_KEY" || name == "RUST_LOG" {
            command.env_remove(name);
        }
    }
}

fn built() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/debug/flota")
}

/// Waits until `count` workers are connected at the master of `rest`.
///
/// # Panics
/// After the deadline, with the workers that there are.
pub async fn workers_ready(rest: &Rest, count: usize) {
    until(&format!("{count} workers are connected"), || async {
        let workers = rest.get("/workers").await.body;
        let ready = workers["items"].as_array().is_some_and(|items| {
            items.iter().filter(|w| w["status"] != "offline" && !w["connected_at"].is_null()).count() >= count
        });
        if ready { Ok(()) } else { Err(workers) }
    })
    .await;
}
