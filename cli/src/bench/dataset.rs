//! `flota bench dataset`: how soon a worker has a dataset that it computes, gets from another worker, or shares with another process.
//! Each is done by a process of its own, as it would be in a fleet; this one holds the dataset that the others are given.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use flota_common::clock;
use flota_proto::kinds::{Find, Found, Payload, SearchPayload};
use flota_proto::{Algorithm, HexBytes, JobId, Kind, UnitId};
use flota_randomx::{Build, Cache, Dataset, Origin};
use flota_worker::executor::randomx::{Mode, RandomxConfig, RandomxExecutor};
use flota_worker::executor::{Context, Executor, Observer, Unit};
use flota_worker::peer::fetch::Peers;
use flota_worker::peer::serve;
use serde::{Deserialize, Serialize};
use tokio::process::Command;
use tokio_util::sync::CancellationToken;

use crate::args::{DatasetBench, Take};
use crate::failure::Failure;
use crate::output::{Hue, Out};

pub const KEY: &[u8] = b"flota bench";
/// A dataset that takes longer is not worth waiting for.
const PATIENCE: Duration = Duration::from_secs(600);
const LOOK: Duration = Duration::from_millis(2);

/// One dataset in one process.
#[derive(Debug, Serialize, Deserialize)]
struct Taken {
    /// From asking for it until a unit could be hashed with it.
    ready_seconds: f64,
    /// `computed`, `received` or `mapped`: what it came to.
    origin: String,
    pages: String,
}

/// How it was taken, in each round.
#[derive(Debug, Serialize)]
struct Way {
    how: &'static str,
    rounds: Vec<Taken>,
}

#[derive(Debug, Serialize)]
struct Report {
    threads: usize,
    shared_directory: PathBuf,
    ways: Vec<Way>,
}

pub async fn run(out: &Out, args: DatasetBench) -> Result<(), Failure> {
    let threads = args.threads.map_or_else(|| std::thread::available_parallelism().map_or(1, usize::from), usize::from);
    match &args.take {
        Some(Take::Received(address)) => {
            let address = address.clone();
            let receiving = tokio::task::spawn_blocking(move || receive(threads, address));
            out.json(&receiving.await.map_err(|error| Failure::Failed(error.to_string()))??)
        }
        Some(Take::Computed) => out.json(&take(&executor(threads, None)).await?),
        Some(Take::Mapped(directory)) => out.json(&take(&executor(threads, Some(directory.clone()))).await?),
        None => print(out, &measure(out, &args, threads).await?),
    }
}

fn executor(threads: usize, shared_directory: Option<PathBuf>) -> Arc<RandomxExecutor> {
    let threads = std::num::NonZeroUsize::new(threads);
    let config = RandomxConfig { mode: Mode::Fast, threads, shared_directory, ..RandomxConfig::default() };
    Arc::new(RandomxExecutor::new(config))
}

impl Taken {
    fn new(ready: Duration, dataset: &Dataset) -> Self {
        let origin = match dataset.origin() {
            Origin::Computed => "computed",
            Origin::Received => "received",
            Origin::Mapped => "mapped",
        };
        Self { ready_seconds: ready.as_secs_f64(), origin: origin.to_owned(), pages: dataset.pages().to_string() }
    }
}

/// As a worker does, but however long it takes: a worker gives up on a link that is slower than its processors.
fn receive(threads: usize, address: String) -> Result<Taken, Failure> {
    let begun = clock::instant();
    let cache = Cache::new(KEY).map_err(|error| Failure::Failed(error.to_string()))?;
    let peers = Peers { addresses: vec![address], token: None };
    match peers.fetch(&cache, PATIENCE, &Build::new(threads), None) {
        Ok(dataset) => Ok(Taken::new(begun.elapsed(), &dataset)),
        Err(error) => Err(Failure::Failed(error.map_or_else(String::new, |error| format!("failed to {error}")))),
    }
}

/// Asks for the dataset and waits for it.
async fn take(executor: &RandomxExecutor) -> Result<Taken, Failure> {
    let begun = clock::instant();
    let said = executor.prepare(KEY).unwrap_or_default();
    loop {
        if let Some(dataset) = executor.dataset(KEY) {
            return Ok(Taken::new(begun.elapsed(), &dataset));
        }
        let working = executor.randomx().is_some_and(|state| state.preparing.is_some());
        // Between the end of the making and this look it may have become ready.
        if begun.elapsed() > PATIENCE || !working && executor.dataset(KEY).is_none() {
            return Err(Failure::Failed(format!("there is no dataset: {said}; FLOTA_LOG=info says more")));
        }
        tokio::time::sleep(LOOK).await;
    }
}

async fn measure(out: &Out, args: &DatasetBench, threads: usize) -> Result<Report, Failure> {
    let base = args.shared_dir.clone().unwrap_or_else(|| PathBuf::from("/dev/shm"));
    let directory = tempfile::Builder::new().prefix("flota-bench-").tempdir_in(base)?;
    let mut ways = vec![repeat(out, args, threads, "computed", &Take::Computed).await?];
    out.note("computing the one that the others are given");
    let shared = Take::Mapped(directory.path().to_owned());
    let holder = executor(threads, Some(directory.path().to_owned()));
    take(&holder).await?;
    let listen = ([127, 0, 0, 1], 0).into();
    let (address, serving) = serve::start(listen, None, vec![holder.clone()]).await?;
    let serving = tokio::spawn(serving);
    ways.push(repeat(out, args, threads, "received over loopback", &Take::Received(address.to_string())).await?);
    serving.abort();
    ways.push(repeat(out, args, threads, "mapped", &shared).await?);
    let stop = CancellationToken::new();
    let hashing = tokio::spawn(hash(holder, stop.clone()));
    ways.push(repeat(out, args, threads, "mapped while its maker hashes", &shared).await?);
    stop.cancel();
    let _ = hashing.await;
    Ok(Report { threads, shared_directory: directory.path().to_owned(), ways })
}

/// Keeps all threads of this process busy until `stop`.
async fn hash(executor: Arc<RandomxExecutor>, stop: CancellationToken) {
    let unit = Unit {
        id: UnitId { job: JobId::generate(), index: 0 },
        attempt: 1,
        kind: Kind::Search(Algorithm::Randomx),
        payload: Payload::Search(endless_search()),
        failures: 0,
        timeout: PATIENCE,
        credential: None,
        own_key_only: false,
    };
    let _ = executor.execute(unit, Context { cancel: stop, observer: Arc::new(Nobody) }).await;
}

/// Finds nothing in all the nonces that there are.
pub fn endless_search() -> SearchPayload {
    SearchPayload {
        key: Some(HexBytes(KEY.to_vec())),
        blob: HexBytes(vec![7; 76]),
        nonce_offset: 39,
        nonce_start: 0,
        nonce_end: 1 << 32,
        target: HexBytes(vec![0; 32]),
        find: Find::All,
    }
}

struct Nobody;

impl Observer for Nobody {
    fn progress(&self, _: f64, _: &str) {}
    fn delta(&self, _: &str) {}
    fn found(&self, _: Vec<Found>) {}
    fn alive(&self) {}
}

async fn repeat(
    out: &Out,
    args: &DatasetBench,
    threads: usize,
    how: &'static str,
    take: &Take,
) -> Result<Way, Failure> {
    let mut rounds = Vec::new();
    for round in 1..=args.rounds {
        out.note(format!("{how}, {round} of {}", args.rounds));
        let taken = in_a_process(threads, take).await?;
        if taken.origin != take.name() {
            return Err(Failure::Failed(format!("{how}: the dataset was {} instead", taken.origin)));
        }
        rounds.push(taken);
    }
    Ok(Way { how, rounds })
}

async fn in_a_process(threads: usize, take: &Take) -> Result<Taken, Failure> {
    let program = std::env::current_exe()?;
    let mut command = Command::new(&program);
    command.args(["--json", "bench", "dataset", "--threads", &threads.to_string(), "--take", &take.to_string()]);
    command.stdin(Stdio::null()).stderr(Stdio::inherit()).kill_on_drop(true);
    let output = command.output().await?;
    serde_json::from_slice(&output.stdout).map_err(|_| failed(&program, &output.stdout))
}

fn failed(program: &Path, said: &[u8]) -> Failure {
    Failure::Failed(format!("{} gave no dataset: {}", program.display(), String::from_utf8_lossy(said).trim()))
}

fn print(out: &Out, report: &Report) -> Result<(), Failure> {
    if out.json {
        return out.json(report);
    }
    let mut table = out.table(&["DATASET", "READY AFTER", "FROM", "TO", "PAGES"]);
    for way in &report.ways {
        let mut seconds: Vec<f64> = way.rounds.iter().map(|taken| taken.ready_seconds).collect();
        seconds.sort_unstable_by(f64::total_cmp);
        let text = |at: usize| seconds.get(at).map_or_else(String::new, |seconds| format!("{seconds:.2} s"));
        let pages = way.rounds.first().map_or("", |taken| &taken.pages);
        let last = seconds.len().saturating_sub(1);
        let cells = [way.how.to_owned(), text(last / 2), text(0), text(last), pages.to_owned()];
        table.add_row(cells.map(|cell| out.cell(Hue::Plain, cell)));
    }
    out.line(table)?;
    let directory = report.shared_directory.display();
    out.line(format!("{} threads; medians, and what they spread over; shared in {directory}", report.threads))
}
