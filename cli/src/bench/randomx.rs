//! `flota bench randomx`: how fast this machine hashes and makes a dataset, in turn with another miner where one is given.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use flota_common::clock;
use flota_randomx::{Batch, Build, Cache, Dataset, Flags, HASH_BYTES, Method, Pages, Vm};
use serde::Serialize;

use super::miner;
use crate::args::RandomxBench;
use crate::failure::Failure;
use crate::output::{Hue, Out};

/// How long a thread hashes before the clock is read; so many are full rounds for one to four at a time.
const BATCH: u32 = 48;

/// One run of one program.
#[derive(Clone, Debug, Serialize)]
pub struct Run {
    /// From the key to the complete dataset, its cache included.
    pub init_seconds: f64,
    /// Of all threads.
    pub hashes_per_second: f64,
    /// On what the dataset lay.
    pub pages: String,
}

#[derive(Debug, Serialize)]
struct Report {
    threads: usize,
    seconds: u64,
    method: &'static str,
    ours: Vec<Run>,
    theirs: Vec<Run>,
    /// Ours by theirs, round by round.
    rate_ratios: Vec<f64>,
    init_ratios: Vec<f64>,
}

pub async fn run(out: &Out, args: RandomxBench) -> Result<(), Failure> {
    let threads = args.threads.map_or_else(|| thread::available_parallelism().map_or(1, usize::from), usize::from);
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for round in 1..=args.rounds {
        out.note(format!("round {round} of {}: flota", args.rounds));
        let (pages, method, seconds) = (args.pages, args.method, args.seconds);
        let measured = tokio::task::spawn_blocking(move || measure(threads, pages, method, seconds));
        let measured = measured.await.map_err(|error| Failure::Failed(error.to_string()))?;
        ours.push(measured.map_err(|error| Failure::Failed(error.to_string()))?);
        if let Some(path) = &args.against {
            out.note(format!("round {round} of {}: {}", args.rounds, path.display()));
            theirs.push(miner::measure(path, threads, args.pages, args.seconds).await?);
        }
    }
    let ratios = |value: fn(&Run) -> f64| ours.iter().zip(&theirs).map(|(a, b)| value(a) / value(b)).collect();
    let report = Report {
        threads,
        seconds: args.seconds,
        method: args.method.as_str(),
        rate_ratios: ratios(|run| run.hashes_per_second),
        init_ratios: ratios(|run| run.init_seconds),
        ours,
        theirs,
    };
    print(out, &report)
}

fn measure(threads: usize, pages: Pages, method: Method, seconds: u64) -> Result<Run, flota_randomx::Error> {
    let begun = clock::instant();
    let cache = Arc::new(Cache::with(Flags::detect(), pages, b"flota bench")?);
    let mut build = Build::with(threads, pages);
    build.method = method;
    let dataset = Arc::new(Dataset::build(&cache, &build)?);
    let init_seconds = begun.elapsed().as_secs_f64();
    drop(cache);
    let (hashes, stop) = (AtomicU64::new(0), AtomicBool::new(false));
    let vms: Vec<Vm> = (0..threads).map(|_| Vm::fast(&dataset)).collect::<Result<_, _>>()?;
    let begun = clock::instant();
    thread::scope(|scope| {
        for (number, mut vm) in (0_u64..).zip(vms) {
            let (hashes, stop) = (&hashes, &stop);
            scope.spawn(move || hash(&mut vm, number << 48, hashes, stop));
        }
        wait_until(begun + Duration::from_secs(seconds));
        stop.store(true, Ordering::SeqCst);
    });
    let hashes_per_second = hashes.load(Ordering::SeqCst) as f64 / begun.elapsed().as_secs_f64();
    Ok(Run { init_seconds, hashes_per_second, pages: dataset.pages().to_string() })
}

fn wait_until(end: Instant) {
    thread::sleep(end.saturating_duration_since(clock::instant()));
}

/// Inputs like a block's: 76 bytes with a number in them.
struct Counter<'a> {
    input: [u8; 76],
    next: u64,
    left: u32,
    hashes: &'a AtomicU64,
}

impl Batch for Counter<'_> {
    fn next(&mut self) -> Option<&[u8]> {
        self.left = self.left.checked_sub(1)?;
        self.next += 1;
        self.input[39..47].copy_from_slice(&self.next.to_le_bytes());
        Some(&self.input)
    }

    fn hashed(&mut self, _: [u8; HASH_BYTES]) {
        self.hashes.fetch_add(1, Ordering::Relaxed);
    }
}

fn hash(vm: &mut Vm, first: u64, hashes: &AtomicU64, stop: &AtomicBool) {
    let mut counter = Counter { input: [7; 76], next: first, left: BATCH, hashes };
    while !stop.load(Ordering::Relaxed) {
        vm.run(&mut counter);
        counter.left = BATCH;
    }
}

fn print(out: &Out, report: &Report) -> Result<(), Failure> {
    if out.json {
        return out.json(report);
    }
    let mut table = out.table(&["round", "program", "init", "hashes a second", "pages"]);
    let mut row = |round: usize, program: &str, run: &Run| {
        let cells = [
            (round + 1).to_string(),
            program.to_owned(),
            format!("{:.2} s", run.init_seconds),
            format!("{:.1}", run.hashes_per_second),
            run.pages.clone(),
        ];
        table.add_row(cells.map(|text| out.cell(Hue::Plain, text)));
    };
    for (round, run) in report.ours.iter().enumerate() {
        row(round, "flota", run);
        if let Some(other) = report.theirs.get(round) {
            row(round, "other", other);
        }
    }
    out.line(table)?;
    out.line(format!("{} threads, {} s a run, dataset by {}", report.threads, report.seconds, report.method))?;
    for (what, ratios) in [("hash rate", &report.rate_ratios), ("initialisation time", &report.init_ratios)] {
        if let Some(text) = spread(ratios) {
            out.line(format!("{what}, flota by other: {text}"))?;
        }
    }
    Ok(())
}

/// `1.010 (1.000 to 1.020)`: the mean, and what it spreads over.
fn spread(ratios: &[f64]) -> Option<String> {
    let least = ratios.iter().copied().reduce(f64::min)?;
    let most = ratios.iter().copied().reduce(f64::max)?;
    let mean = ratios.iter().sum::<f64>() / ratios.len() as f64;
    Some(format!("{mean:.3} ({least:.3} to {most:.3})"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spread_has_a_mean_and_both_ends() {
        assert_eq!(spread(&[1.0, 1.2, 0.8]).unwrap(), "1.000 (0.800 to 1.200)");
        assert_eq!(spread(&[]), None);
    }
}
