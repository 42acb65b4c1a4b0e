//! `flota bench stop`: from the request to cancel a job, or to pause its worker, until none of the worker's threads hashes any more.
//! In a fleet of its own within this process: a worker elsewhere could not say at what instant its threads ended.

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use flota_common::clock;
use flota_common::config::{Broker, Settings, Sources};
use flota_master::logs::LogHub;
use flota_proto::mqtt::{HashMode, RandomxState};
use flota_proto::rest::Job;
use flota_proto::{Algorithm, Kind};
use flota_randomx::Dataset;
use flota_worker::executor::randomx::{Mode, RandomxConfig, RandomxExecutor};
use flota_worker::executor::{Context, Executor, Failure as Failed, Output, Unit};
use flota_worker::{RunningWorker, Worker, WorkerConfig};
use serde::Serialize;
use serde_json::json;
use tokio::sync::watch;

use super::dataset::{KEY, endless_search};
use super::latency::Percentiles;
use crate::api::Api;
use crate::args::StopBench;
use crate::failure::Failure;
use crate::output::{Hue, Out};
use crate::run;
use crate::run::master::Started;
use crate::run::ports::Fallback;

const WORKER: &str = "bench";
/// A dataset takes that long on small machines.
const READY_WITHIN: Duration = Duration::from_secs(600);
const STOPS_WITHIN: Duration = Duration::from_secs(30);
/// A thread that has not begun anew by then has stopped.
const SETTLED: Duration = Duration::from_millis(60);

#[derive(Debug, Serialize)]
struct Line {
    mode: &'static str,
    request: &'static str,
    threads: u32,
    latency: Percentiles,
}

pub async fn run(out: &Out, args: StopBench) -> Result<(), Failure> {
    let speaker = *out;
    // A runtime with several threads, as a worker has, off this one.
    let measured = tokio::task::spawn_blocking(move || run::runtime()?.block_on(measure(&speaker, &args)));
    print(out, &measured.await.map_err(|error| Failure::Failed(error.to_string()))??)
}

async fn measure(out: &Out, args: &StopBench) -> Result<Vec<Line>, Failure> {
    let mut lines = Vec::new();
    for (name, mode) in [("light", Mode::Light), ("fast", Mode::Fast)] {
        if args.mode.as_ref().is_some_and(|wanted| wanted != name) {
            continue;
        }
        let fleet = Fleet::start(args, mode).await?;
        out.note(format!("{name}: getting ready"));
        let measured = fleet.measure(out, args, name).await;
        fleet.shutdown().await;
        lines.extend(measured?);
    }
    Ok(lines)
}

/// Executes as the real one, and tells when.
struct Probe {
    inner: RandomxExecutor,
    /// How many units run, and since when that many.
    running: watch::Sender<(u32, Instant)>,
}

/// Counts a unit as long as it lives, however it ends.
struct Runs<'a>(&'a watch::Sender<(u32, Instant)>);

impl<'a> Runs<'a> {
    fn begin(running: &'a watch::Sender<(u32, Instant)>) -> Self {
        running.send_modify(|(count, since)| (*count, *since) = (*count + 1, clock::instant()));
        Self(running)
    }
}

impl Drop for Runs<'_> {
    fn drop(&mut self) {
        self.0.send_modify(|(count, since)| (*count, *since) = (count.saturating_sub(1), clock::instant()));
    }
}

#[async_trait]
impl Executor for Probe {
    fn kinds(&self) -> &[Kind] {
        self.inner.kinds()
    }

    fn randomx(&self) -> Option<RandomxState> {
        self.inner.randomx()
    }

    fn dataset(&self, key: &[u8]) -> Option<Arc<Dataset>> {
        self.inner.dataset(key)
    }

    fn rate(&self) -> Option<(Algorithm, f64)> {
        self.inner.rate()
    }

    fn hold(&self, held: bool) {
        self.inner.hold(held);
    }

    async fn execute(&self, unit: Unit, context: Context) -> Result<Output, Failed> {
        let _runs = Runs::begin(&self.running);
        // Comes back when all its threads have ended.
        self.inner.execute(unit, context).await
    }
}

struct Fleet {
    api: Api,
    master: Started,
    worker: RunningWorker,
    probe: Arc<Probe>,
    mode: Mode,
    _directory: tempfile::TempDir,
}

impl Fleet {
    async fn start(args: &StopBench, mode: Mode) -> Result<Self, Failure> {
        let directory = tempfile::Builder::new().prefix("flota-bench-").tempdir()?;
        let settings = settings(directory.path(), None)?;
        let master = run::master::start(&settings, &Broker::Embedded, Fallback::Free, LogHub::new()).await?;
        let url = format!("http://{}", master.banner(&settings).web);
        let api = Api::new(&self::settings(directory.path(), Some(url))?)?;
        let threads = args.threads.and_then(|threads| std::num::NonZeroUsize::new(threads.into()));
        let inner = RandomxExecutor::new(RandomxConfig { mode, threads, ..RandomxConfig::default() });
        let probe = Arc::new(Probe { inner, running: watch::channel((0, clock::instant())).0 });
        let id = WORKER.parse().map_err(|error| Failure::Failed(format!("{error}")))?;
        let config = WorkerConfig::new(id, &master.broker_url, directory.path().to_owned());
        let worker = Worker::start(config, vec![probe.clone()]).await;
        let worker = worker.map_err(|error| Failure::Failed(format!("failed to start the worker: {error}")))?;
        Ok(Self { api, master, worker, probe, mode, _directory: directory })
    }

    async fn shutdown(self) {
        self.worker.shutdown().await;
        self.master.shutdown().await;
    }

    async fn measure(&self, out: &Out, args: &StopBench, mode: &'static str) -> Result<Vec<Line>, Failure> {
        let job = self.submit().await?;
        self.hashes().await?;
        self.request(&format!("/jobs/{}/cancel", job.id)).await?;
        let threads = self.probe.randomx().map_or(0, |state| state.threads);
        let mut lines = Vec::new();
        for request in ["cancel", "pause"] {
            let bar = out.bar(args.rounds, &format!("{mode}, {request} {{bar:32.cyan}} {{percent:>3}} %  {{elapsed}}"));
            let mut times = Vec::new();
            for round in 0..args.rounds {
                times.push(if request == "cancel" { self.cancel(round).await? } else { self.pause(round).await? });
                bar.inc(1);
            }
            bar.finish_and_clear();
            let latency = Percentiles::of(times).ok_or_else(|| Failure::Failed("not one round".into()))?;
            lines.push(Line { mode, request, threads, latency });
        }
        Ok(lines)
    }

    async fn submit(&self) -> Result<Job, Failure> {
        let body = json!({"kind": "randomx.search", "cache": false, "payload": endless_search()});
        self.api.json(self.api.post_raw("/jobs", body.to_string())).await
    }

    async fn request(&self, path: &str) -> Result<(), Failure> {
        let _: serde_json::Value = self.api.json(self.api.post_raw(path, "{}")).await?;
        Ok(())
    }

    /// A job that is cancelled while it is hashed.
    async fn cancel(&self, round: u64) -> Result<Duration, Failure> {
        let job = self.submit().await?;
        self.runs(round).await?;
        let asked = clock::instant();
        self.request(&format!("/jobs/{}/cancel", job.id)).await?;
        self.stops(asked).await
    }

    /// A worker that is paused while it hashes.
    async fn pause(&self, round: u64) -> Result<Duration, Failure> {
        let job = self.submit().await?;
        self.runs(round).await?;
        let asked = clock::instant();
        self.request(&format!("/workers/{WORKER}/pause")).await?;
        let took = self.stops(asked).await?;
        self.request(&format!("/jobs/{}/cancel", job.id)).await?;
        self.request(&format!("/workers/{WORKER}/resume")).await?;
        Ok(took)
    }

    /// Waits until it computes in the mode that is to be measured.
    async fn hashes(&self) -> Result<(), Failure> {
        let ready = async {
            let there = || match self.mode {
                Mode::Fast => self.probe.dataset(KEY).is_some(),
                Mode::Light | Mode::Auto => self.probe.randomx().is_some_and(|state| state.mode == HashMode::Light),
            };
            while !there() || self.probe.rate().is_none_or(|(_, rate)| rate <= 0.0) {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        let late = || Failure::Failed("the worker did not begin to hash in time; FLOTA_LOG=info says more".into());
        tokio::time::timeout(READY_WITHIN, ready).await.map_err(|_| late())
    }

    /// Waits until a unit runs, and then a while that is another each time, so that no point within a hash is preferred.
    async fn runs(&self, round: u64) -> Result<(), Failure> {
        let mut running = self.probe.running.subscribe();
        let late = || Failure::Failed("no unit began in time".into());
        let begun = tokio::time::timeout(STOPS_WITHIN, running.wait_for(|(count, _)| *count > 0)).await;
        begun.map_err(|_| late())?.map_err(|_| late())?;
        tokio::time::sleep(Duration::from_millis(100 + round * 37 % 200)).await;
        Ok(())
    }

    /// How long after `asked` the last thread ended. A unit that ended by itself may have been followed by another one.
    async fn stops(&self, asked: Instant) -> Result<Duration, Failure> {
        let mut running = self.probe.running.subscribe();
        let late = || Failure::Failed(format!("it still hashes after {STOPS_WITHIN:?}"));
        loop {
            let ended = tokio::time::timeout(STOPS_WITHIN, running.wait_for(|(count, _)| *count == 0)).await;
            let (_, at) = *ended.map_err(|_| late())?.map_err(|_| late())?;
            tokio::time::sleep(SETTLED).await;
            if *running.borrow() == (0, at) {
                return Ok(at.saturating_duration_since(asked));
            }
        }
    }
}

/// Of a fleet that nobody else meets, whatever this process's environment says.
fn settings(directory: &std::path::Path, url: Option<String>) -> Result<Settings, Failure> {
    let mut flags = vec![("data_dir".to_owned(), directory.display().to_string()), ("verify".into(), "off".into())];
    let listeners = ["web_listen", "grpc_listen", "mqtt_listen"];
    flags.extend(listeners.map(|name| (name.to_owned(), "127.0.0.1:0".to_owned())));
    flags.extend(url.map(|url| ("url".to_owned(), url)));
    Ok(Settings::load(&Sources { document: Some(String::new()), flags, ..Sources::default() })?)
}

fn print(out: &Out, lines: &[Line]) -> Result<(), Failure> {
    if out.json {
        return out.json(&lines);
    }
    let mut table = out.table(&["MODE", "REQUEST", "ROUNDS", "P50", "P99", "AT MOST"]);
    for Line { mode, request, latency, .. } in lines {
        let ms = |time: f64| format!("{time:.1} ms");
        let (rounds, most) = (latency.samples.to_string(), ms(latency.max_ms));
        let cells = [(*mode).to_owned(), (*request).to_owned(), rounds, ms(latency.p50_ms), ms(latency.p99_ms), most];
        table.add_row(cells.map(|cell| out.cell(Hue::Plain, cell)));
    }
    out.line(table)?;
    let threads = lines.first().map_or(0, |line| line.threads);
    out.line(format!("{threads} threads; from the request over REST until the last thread has ended"))
}
