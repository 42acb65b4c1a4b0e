//! `flota bench`: what can be measured.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};
use flota_randomx::{Method, Pages};

use super::parse::{name_value, time_span};

/// `flota bench`
#[derive(Debug, Args)]
pub struct Bench {
    /// What to measure.
    #[command(subcommand)]
    pub command: BenchCommand,
}

/// `flota bench …`
#[derive(Debug, Subcommand)]
pub enum BenchCommand {
    /// Durable jobs a second from end to end, and the latency of one
    Dispatch(Dispatch),
    /// RandomX on this machine: hash rate, and the time that a dataset takes
    Randomx(RandomxBench),
    /// How soon a RandomX dataset is ready: computed, received from another worker, shared with another process
    Dataset(DatasetBench),
    /// How soon RandomX stops when a job is cancelled or its worker paused
    Stop(StopBench),
}

/// `flota bench dataset`
#[derive(Clone, Debug, Args)]
#[command(
    after_help = "Needs no fleet. Starts a process for each dataset and measures from asking for it until it can be hashed with. \
    Takes up to 5 GiB of memory. Stop everything else first: what it measures is the whole machine."
)]
pub struct DatasetBench {
    /// How many threads, without it one a core
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=4096))]
    pub threads: Option<u16>,
    /// How often each way is measured
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=100))]
    pub rounds: u64,
    /// Where the shared one lies: on hugetlbfs or tmpfs; without it /dev/shm
    #[arg(long, value_name = "PATH")]
    pub shared_dir: Option<PathBuf>,
    /// Take one in this process: computed, received=HOST:PORT or mapped=PATH
    #[arg(long, hide = true, value_parser = take)]
    pub take: Option<Take>,
}

/// Where a process of `flota bench dataset` has its dataset from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Take {
    /// Its own work.
    Computed,
    /// Another worker at this address.
    Received(String),
    /// Another process that shares this directory.
    Mapped(PathBuf),
}

impl Take {
    /// Its first word.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Computed => "computed",
            Self::Received(_) => "received",
            Self::Mapped(_) => "mapped",
        }
    }
}

impl std::fmt::Display for Take {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Computed => f.write_str(self.name()),
            Self::Received(address) => write!(f, "{}={address}", self.name()),
            Self::Mapped(directory) => write!(f, "{}={}", self.name(), directory.display()),
        }
    }
}

fn take(text: &str) -> Result<Take, String> {
    match text.split_once('=') {
        None if text == "computed" => Ok(Take::Computed),
        Some(("received", address)) => Ok(Take::Received(address.to_owned())),
        Some(("mapped", directory)) => Ok(Take::Mapped(directory.into())),
        _ => Err("give computed, received=HOST:PORT or mapped=PATH".into()),
    }
}

/// `flota bench stop`
#[derive(Clone, Debug, Args)]
#[command(
    after_help = "Needs no fleet: starts one of its own in this process, with one worker. Lets it hash, cancels the job or pauses the worker \
    by REST, and measures until the last thread has stopped. Stop everything else first."
)]
pub struct StopBench {
    /// How often each is asked for
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u64).range(1..=100_000))]
    pub rounds: u64,
    /// How many threads hash, without it as many as a worker chooses
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=4096))]
    pub threads: Option<u16>,
    /// light or fast; without it both
    #[arg(long, value_parser = ["light", "fast"])]
    pub mode: Option<String>,
}

/// `flota bench randomx`
#[derive(Clone, Debug, Args)]
#[command(
    after_help = "Needs no fleet. Makes the dataset of a key and hashes with it, as a worker does, then lets the miner given by --against \
    do the same with its offline benchmark, and so on in turn. Stop everything else first: what it measures is the whole machine."
)]
pub struct RandomxBench {
    /// How many threads, without it one a core
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=4096))]
    pub threads: Option<u16>,
    /// How long each program hashes once its dataset is ready
    #[arg(long, default_value_t = 65, value_parser = clap::value_parser!(u64).range(15..=86_400))]
    pub seconds: u64,
    /// How often each program runs
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=100))]
    pub rounds: u64,
    /// The largest pages to use: huge (vm.nr_hugepages), transparent, or 4k
    #[arg(long, default_value = "huge", value_parser = pages)]
    pub pages: Pages,
    /// How dataset items are computed: avx512, avx2 or library; without it the best that this processor can
    #[arg(long, default_value_t = Method::best(), value_parser = method)]
    pub method: Method,
    /// A miner with XMRig's command line
    #[arg(long, value_name = "PATH")]
    pub against: Option<PathBuf>,
}

/// `flota bench dispatch`
#[derive(Clone, Debug, Args)]
#[command(
    after_help = "Submits echo jobs over REST in batches, waits until all have ended, reads every result back and checks that each job \
    completed exactly once with its own value. Then submits lone jobs to the idle fleet and measures from the request to \
    the result. Needs a running fleet with a worker, on which nothing else runs."
)]
pub struct Dispatch {
    /// How many jobs
    #[arg(long, default_value_t = 200_000, value_parser = clap::value_parser!(u64).range(1..=100_000_000))]
    pub jobs: u64,
    /// How many jobs a request
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u64).range(1..=10_000))]
    pub batch: u64,
    /// How many connections submit and read at the same time, each with one request in flight
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u64).range(1..=256))]
    pub connections: u64,
    /// How many lone jobs to measure the latency with; 0: none
    #[arg(long, default_value_t = 500)]
    pub latency: u64,
    /// Directory in which to measure the disk, without it FLOTA_DATA_DIR; give the one of the fleet's store
    #[arg(long, value_name = "PATH")]
    pub data_dir: Option<PathBuf>,
    /// A process whose CPU time to report; may be repeated
    #[arg(long = "pid", value_name = "NAME=PID", value_parser = name_pid)]
    pub pids: Vec<(String, u32)>,
    /// Give up after this time
    #[arg(long, value_name = "TIME", value_parser = time_span, default_value = "10m")]
    pub timeout: Duration,
}

fn pages(text: &str) -> Result<Pages, String> {
    let found = Pages::LADDER.into_iter().find(|pages| pages.as_str() == text);
    found.ok_or_else(|| "give huge, transparent or 4k".into())
}

fn method(text: &str) -> Result<Method, String> {
    let found = Method::LADDER.into_iter().find(|method| method.as_str() == text && method.is_supported());
    let can: Vec<&str> = Method::LADDER.into_iter().filter(|m| m.is_supported()).map(Method::as_str).collect();
    found.ok_or_else(|| format!("this processor can do {}", can.join(", ")))
}

fn name_pid(text: &str) -> Result<(String, u32), String> {
    let (name, pid) = name_value(text).map_err(|_| "give NAME=PID, such as master=1234")?;
    pid.parse().map(|pid| (name, pid)).map_err(|_| format!("'{pid}' is no process id"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_dataset_is_taken_from_is_given_as_it_is_printed() {
        for take in [Take::Computed, Take::Received("h:1".into()), Take::Mapped("/dev/shm/a=b".into())] {
            assert_eq!(super::take(&take.to_string()), Ok(take));
        }
        assert!(super::take("stolen").is_err());
    }
}
