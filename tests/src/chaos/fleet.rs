//! The fleet that is tried: broker, master and workers as processes, the stand-in for an AI, the master's disk, the workers'
//! networks. What needs root and is not possible is left out and said.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};
use flota_common::clock;
use tokio_util::sync::CancellationToken;

use super::Plan;
use super::disk::Disk;
use super::net::Net;
use super::part::Part;
use crate::fake_gemini::{FakeGemini, Options};
use crate::node::{flota_path, without_settings};
use crate::{Rest, ports, until::until_within};

const TOKEN: &str = "chaos";
/// What lets the clock of a process be set: Debian's package libfaketime.
const FAKETIME: &str = "libfaketimeMT.so.1";

/// All of it.
pub struct Fleet {
    pub broker: Arc<Part>,
    pub master: Arc<Part>,
    pub workers: Vec<Arc<Part>>,
    pub net: Option<Net>,
    pub disk: Option<Disk>,
    /// The file that says how wrong the master's clock is, in seconds.
    pub clock: Option<PathBuf>,
    url: String,
    skipped: Vec<String>,
    ended: Mutex<Vec<String>>,
    _ai: FakeGemini,
}

impl Fleet {
    pub async fn start(plan: &Plan, directory: &Path) -> Result<Self> {
        let mut skipped = Vec::new();
        let net = optional(Net::create(plan.workers), "cutting networks", &mut skipped);
        let data = directory.join("data");
        let disk = optional(Disk::mount(&data), "filling the disk", &mut skipped);
        let clock = optional(fake_clock(directory), "setting the master's clock", &mut skipped);
        let host = net.as_ref().map_or("127.0.0.1".to_owned(), Net::gateway);
        let listen = format!("{host}:0").parse().context("no address")?;
        let ai = FakeGemini::start_with(Options { listen, ..Options::default() }).await?;
        let (mqtt, web, grpc) = (ports::free(), ports::free(), ports::free());
        let broker = Arc::new(broker(directory, mqtt)?);
        let settings = vec![
            ("FLOTA_MQTT_URL", format!("mqtt://{host}:{mqtt}")),
            ("FLOTA_TOKEN", TOKEN.to_owned()),
            ("FLOTA_WORKER_TOKEN", TOKEN.to_owned()),
        ];
        let mut master = settings.clone();
        master.extend([
            ("FLOTA_DATA_DIR", data.display().to_string()),
            ("FLOTA_WEB_LISTEN", format!("127.0.0.1:{web}")),
            ("FLOTA_GRPC_LISTEN", format!("0.0.0.0:{grpc}")),
            ("FLOTA_GRPC_ADVERTISE", format!("{host}:{grpc}")),
            ("FLOTA_STORE_RESERVE", "8MiB".to_owned()),
        ]);
        if let Some((library, file)) = &clock {
            master.extend([
                ("LD_PRELOAD", library.clone()),
                ("FAKETIME_TIMESTAMP_FILE", file.display().to_string()),
                ("FAKETIME_NO_CACHE", "1".to_owned()),
                ("FAKETIME_DONT_FAKE_MONOTONIC", "1".to_owned()),
            ]);
        }
        let master = Arc::new(part("master".into(), "master", directory, master, None));
        let worker = |index: usize| {
            let mut settings = settings.clone();
            settings.extend([
                ("FLOTA_DATA_DIR", directory.join(format!("w{index}")).display().to_string()),
                ("FLOTA_WORKER_ID", format!("w{index}")),
                ("FLOTA_RANDOMX_MODE", "light".to_owned()),
                ("FLOTA_RANDOMX_THREADS", "1".to_owned()),
                ("FLOTA_AI_LOCAL_URL", ai.local_url()),
                ("FLOTA_AI_LOCAL_MODEL", "local-model".to_owned()),
                ("FLOTA_WORKER_SLOTS", "echo=16,ai=8,randomx=1".to_owned()),
            ]);
            let space = net.as_ref().map(|net| net.namespace(index));
            Arc::new(part(format!("w{index}"), "worker", directory, settings, space))
        };
        let workers = (0..plan.workers).map(worker).collect();
        let fleet = Self {
            broker,
            master,
            workers,
            net,
            disk,
            clock: clock.map(|(_, file)| file),
            url: format!("http://127.0.0.1:{web}"),
            skipped,
            ended: Mutex::default(),
            _ai: ai,
        };
        for part in fleet.parts() {
            part.start();
        }
        crate::node::workers_ready(&fleet.waiting_rest().await, plan.workers).await;
        Ok(fleet)
    }

    /// A client, once the master is ready.
    async fn waiting_rest(&self) -> Rest {
        until_within(Duration::from_secs(60), "the master is ready", || async {
            let answer = reqwest::get(format!("{}/readyz", self.url)).await;
            if answer.is_ok_and(|answer| answer.status().is_success()) { Ok(()) } else { Err(self.master.describe()) }
        })
        .await;
        self.rest()
    }

    pub fn rest(&self) -> Rest {
        Rest::with_token(&self.url, TOKEN)
    }

    pub fn parts(&self) -> impl Iterator<Item = &Arc<Part>> {
        [&self.broker, &self.master].into_iter().chain(&self.workers)
    }

    pub fn skipped(&self) -> Vec<String> {
        self.skipped.clone()
    }

    pub fn ended_by_themselves(&self) -> Vec<String> {
        self.ended.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Starts again what ended by itself, as a service manager would, and keeps it in mind.
    pub async fn supervise(self: Arc<Self>, stop: CancellationToken) {
        while !stop.is_cancelled() {
            for part in self.parts() {
                // Looked at while no fault has it.
                if !part.take() {
                    continue;
                }
                if !part.runs() {
                    let mut ended = self.ended.lock().unwrap_or_else(PoisonError::into_inner);
                    ended.push(format!("{} ended: {}", part.name(), part.describe()));
                    part.start();
                }
                part.give_back();
            }
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    }

    /// Everything runs and nothing is wrong any more.
    pub async fn heal_all(&self) {
        if let Some(disk) = &self.disk {
            disk.free();
        }
        if let Some(file) = &self.clock {
            let _ = std::fs::write(file, "+0");
        }
        for (index, part) in self.workers.iter().enumerate() {
            if let Some(net) = &self.net {
                net.heal(index);
            }
            part.signal("CONT");
        }
        for part in self.parts() {
            part.signal("CONT");
            part.start();
        }
        let rest = self.waiting_rest().await;
        for part in &self.workers {
            // One that was set aside because it failed so often is wanted again.
            let path = format!("/workers/{}/resume", part.name());
            let _ = rest.try_send(rest.request(reqwest::Method::POST, &path)).await;
        }
    }

    /// Waits until no job lives any more.
    pub async fn settled(&self, most: Duration) -> Result<Duration, String> {
        let begun = clock::instant();
        let rest = self.rest();
        loop {
            let fleet = rest.try_send(rest.request(reqwest::Method::GET, "/fleet")).await;
            let jobs = fleet.map(|answer| answer.body["jobs"].clone()).unwrap_or_default();
            let live = |state: &str| jobs[state].as_u64().unwrap_or(0);
            let left: u64 = ["blocked", "scheduled", "pending", "assigned", "computing"].map(live).iter().sum();
            if jobs.is_object() && left == 0 {
                return Ok(begun.elapsed());
            }
            if begun.elapsed() > most {
                return Err(format!("{left} jobs still live: {jobs}"));
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }
}

fn optional<T>(made: Result<T>, what: &str, skipped: &mut Vec<String>) -> Option<T> {
    made.map_err(|error| {
        eprintln!("chaos: SKIPPED on this machine: {what}: {error:#}");
        skipped.push(format!("{what} ({error:#})"));
    })
    .ok()
}

fn part(
    name: String,
    role: &'static str,
    directory: &Path,
    settings: Vec<(&'static str, String)>,
    space: Option<String>,
) -> Part {
    let home = directory.to_owned();
    Part::new(name, directory.to_owned(), move || {
        let program = flota_path();
        let mut command = match &space {
            Some(space) => {
                let path = format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap_or_default());
                let mut command = Command::new("ip");
                command.env("PATH", path).args(["netns", "exec", space]).arg(&program);
                command
            }
            None => Command::new(&program),
        };
        without_settings(&mut command);
        command
            .arg(role)
            .envs(settings.iter().map(|(name, value)| (name, value)))
            .env("HOME", &home)
            .current_dir(&home);
        command
    })
}

fn broker(directory: &Path, port: u16) -> Result<Part> {
    let config = directory.join("mosquitto.conf");
    let text = format!(
        "listener {port} 0.0.0.0\nallow_anonymous true\npersistence false\nset_tcp_nodelay true\n\
         max_inflight_messages 100\nmax_queued_messages 20000\nmax_packet_size 262144\n"
    );
    std::fs::write(&config, text).context("can't write mosquitto.conf")?;
    Ok(Part::new("mosquitto".into(), directory.to_owned(), move || {
        let path = format!("{}:/usr/sbin", std::env::var("PATH").unwrap_or_default());
        let mut command = Command::new("mosquitto");
        command.env("PATH", path).arg("-c").arg(&config);
        command
    }))
}

/// The library that changes what a process takes for the time, and the file that says by how much.
fn fake_clock(directory: &Path) -> Result<(String, PathBuf)> {
    let places = ["/usr/lib/x86_64-linux-gnu/faketime", "/usr/lib/aarch64-linux-gnu/faketime", "/usr/lib/faketime"];
    let library = places.iter().map(|place| Path::new(place).join(FAKETIME)).find(|path| path.exists());
    let library = library.context("libfaketime is not installed")?;
    let file = directory.join("clock");
    std::fs::write(&file, "+0")?;
    Ok((library.display().to_string(), file))
}
