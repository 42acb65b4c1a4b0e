//! What can be typed, and the texts that explain it.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use flota_proto::rest::{JobState, OnDependencyFailure};
use flota_proto::{JobId, Kind, Timestamp, WorkerId};
use flota_randomx::{Method, Pages};

use crate::flags::{Brokers, Everything, Masters, SettingFlags, Stores, Workers};

/// Turn the machines you have into one fleet: submit a RandomX computation or a question for an AI, and any worker that
/// fits computes it.
#[derive(Debug, Parser)]
#[command(
    name = "flota",
    version,
    arg_required_else_help = true,
    after_help = "Begin with `flota up`, open http://127.0.0.1:8888, and in a second terminal try `flota ask 'What is a \
                  fleet?'`.\n\nExit codes: 0 success, 1 the job failed, 2 wrong usage, 3 the fleet cannot be reached."
)]
pub struct Cli {
    /// For every command.
    #[command(flatten)]
    pub global: Global,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// For every command.
#[derive(Debug, Args)]
pub struct Global {
    /// Where the fleet is [env: FLOTA_URL] [default: http://127.0.0.1:8888]
    #[arg(long, global = true, value_name = "URL", help_heading = "Global options")]
    pub url: Option<String>,
    /// The fleet's token; everybody on this machine can read it here, so rather use a file [env: FLOTA_TOKEN]
    #[arg(long, global = true, value_name = "TOKEN", help_heading = "Global options")]
    pub token: Option<String>,
    /// File that holds the fleet's token [env: FLOTA_TOKEN_FILE]
    #[arg(long, global = true, value_name = "PATH", conflicts_with = "token", help_heading = "Global options")]
    pub token_file: Option<String>,
    /// Print JSON for programs instead of text for people
    #[arg(long, global = true, help_heading = "Global options")]
    pub json: bool,
    /// Read settings from this file [env: FLOTA_CONFIG] [default: flota.toml if there is one]
    #[arg(long, global = true, value_name = "PATH", help_heading = "Global options")]
    pub config: Option<PathBuf>,
}

impl Global {
    /// Those that are settings.
    pub fn flags(&self) -> Vec<(String, String)> {
        let given = [("url", &self.url), ("token", &self.token), ("token_file", &self.token_file)];
        given.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value.clone()?))).collect()
    }
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Start everything on this machine: broker, master, one worker and the web page
    #[command(
        after_help = "The addresses are printed, with the line to watch the fleet by. Ctrl-C stops everything in \
        order, a second one at once. A port that nobody set and that is taken is replaced by a free one."
    )]
    Up(SettingFlags<Everything>),
    /// Start the master alone
    Master(SettingFlags<Masters>),
    /// Start a worker alone
    Worker(SettingFlags<Workers>),
    /// Submit a job
    Submit(Box<Submit>),
    /// Ask an AI and print its answer as it comes
    Ask(Ask),
    /// Compute RandomX hashes
    Hash(Hash),
    /// List jobs, look at one, watch, cancel, retry, reorder
    Jobs(Jobs),
    /// List workers, look at one, drain, pause, resume
    Workers(WorkersArgs),
    /// Mine Monero with the fleet: on a node of your own, or for a pool
    Mine(Box<Mine>),
    /// Show the totals of the fleet
    Fleet,
    /// Show what master and workers log, over MQTT
    Logs(Logs),
    /// Measure the fleet
    Bench(Bench),
    /// Say whether the master, or a worker on this machine, is well: exit code 0 if it is, 3 if not
    Healthcheck(Healthcheck),
    /// Copy the store into one file, while the master runs too
    Backup(Backup),
    /// Put a store back from a backup, while the master is stopped
    Restore(Restore),
    /// Print a script that completes `flota` in your shell
    #[command(after_help = "For bash: flota completions bash > ~/.local/share/bash-completion/completions/flota")]
    Completions {
        /// For which shell
        shell: clap_complete::Shell,
    },
}

impl Command {
    /// Settings given as flags of this command.
    pub fn flags(&self) -> Vec<(String, String)> {
        match self {
            Self::Up(flags) => flags.given.clone(),
            Self::Master(flags) => flags.given.clone(),
            Self::Worker(flags) => flags.given.clone(),
            Self::Logs(logs) => logs.broker.given.clone(),
            Self::Backup(args) => args.store.given.clone(),
            Self::Restore(args) => args.store.given.clone(),
            _ => Vec::new(),
        }
    }
}

/// `flota submit`
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    flota submit echo --payload '{\"value\": 42}' --wait\n  \
    flota submit randomx.hash --payload @inputs.json --priority high\n  \
    jq -n '{messages: [{role: \"user\", content: \"Hi\"}]}' | flota submit ai.chat --payload - --wait")]
pub struct Submit {
    /// randomx.hash, randomx.search, ai.chat, ai.embed or echo
    #[arg(value_parser = kind)]
    pub kind: Kind,
    /// The payload as JSON, @FILE to read it from a file, - to read it from the standard input
    #[arg(long, short, value_name = "JSON|@FILE|-")]
    pub payload: String,
    /// Wait until the job has ended and print its result; without it the job's id is printed
    #[arg(long, short)]
    pub wait: bool,
    /// 0 to 9, 9 first; or low, normal, high
    #[arg(long, value_parser = priority)]
    pub priority: Option<u8>,
    /// A UUID for the job: submitting the same again answers the job that is there
    #[arg(long)]
    pub id: Option<JobId>,
    /// The queue's name
    #[arg(long)]
    pub queue: Option<String>,
    /// The project's name
    #[arg(long)]
    pub project: Option<String>,
    /// A label to find the job by; may be repeated
    #[arg(long = "label", value_name = "NAME=VALUE", value_parser = name_value)]
    pub labels: Vec<(String, String)>,
    /// How many attempts may fail [default: 3]
    #[arg(long, value_name = "NUMBER")]
    pub max_attempts: Option<u32>,
    /// How long one attempt may take, such as 90s or 10m
    #[arg(long, value_name = "TIME", value_parser = time_span)]
    pub timeout: Option<Duration>,
    /// Not before this time: RFC 3339, or from now on such as +10m
    #[arg(long, value_name = "TIME", value_parser = point_in_time)]
    pub run_at: Option<Timestamp>,
    /// Fail if not ended by this time: RFC 3339, or from now on such as +1h
    #[arg(long, value_name = "TIME", value_parser = point_in_time)]
    pub deadline: Option<Timestamp>,
    /// What the worker must have, such as '{"cores": 4, "features": ["avx2"]}'
    #[arg(long, value_name = "JSON")]
    pub requires: Option<String>,
    /// A job that must end first; may be repeated
    #[arg(long, value_name = "ID")]
    pub depends_on: Vec<JobId>,
    /// What to do when one of those did not complete: fail, cancel or continue [default: fail]
    #[arg(long, value_name = "WHAT", value_parser = on_dependency_failure)]
    pub on_dependency_failure: Option<OnDependencyFailure>,
    /// Whether an earlier result of the same may be used [default: true for randomx.*]
    #[arg(long, value_name = "true|false", hide_possible_values = true)]
    pub cache: Option<bool>,
    /// Send GEMINI_API_KEY along, for this job alone
    #[arg(long)]
    pub own_key: bool,
}

/// `flota ask`
#[derive(Debug, Args)]
#[command(
    after_help = "Ctrl-C stops the answer, at the AI too. Into a pipe the answer is written once it is complete; with \
    --stream as it comes."
)]
pub struct Ask {
    /// The question; - reads it from the standard input
    #[arg(required = true, value_name = "QUESTION")]
    pub question: Vec<String>,
    /// The model, without it the worker's default
    #[arg(long, short)]
    pub model: Option<String>,
    /// Instructions for the AI
    #[arg(long, value_name = "TEXT")]
    pub system: Option<String>,
    /// 0 to 2: how freely it answers
    #[arg(long, value_name = "NUMBER")]
    pub temperature: Option<f64>,
    /// The longest answer
    #[arg(long, value_name = "TOKENS")]
    pub max_output_tokens: Option<u32>,
    /// 0 to 9, 9 first; or low, normal, high
    #[arg(long, value_parser = priority)]
    pub priority: Option<u8>,
    /// Send GEMINI_API_KEY along, for this question alone
    #[arg(long)]
    pub own_key: bool,
    /// Write the answer as it comes into a pipe too
    #[arg(long)]
    pub stream: bool,
    /// Ask the AIs of this machine's settings, without the fleet
    #[arg(long, conflicts_with = "priority")]
    pub local: bool,
    /// Whom to ask, one after the other: own, local, gemini, demo, each also with :MODEL
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    pub chain: Vec<flota_proto::chain::Link>,
}

/// `flota hash`
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  flota hash --key 'test key 000' 'This is a test'")]
pub struct Hash {
    /// The RandomX key, up to 60 bytes
    #[arg(long, value_name = "TEXT")]
    pub key: String,
    /// What to hash; - reads lines from the standard input
    #[arg(required = true, value_name = "INPUT")]
    pub inputs: Vec<String>,
    /// Key and inputs are hex
    #[arg(long)]
    pub hex: bool,
    /// 0 to 9, 9 first; or low, normal, high
    #[arg(long, value_parser = priority)]
    pub priority: Option<u8>,
    /// Compute again what was computed before
    #[arg(long)]
    pub no_cache: bool,
}

/// `flota jobs`
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct Jobs {
    /// What to do; without it: list
    #[command(subcommand)]
    pub command: Option<JobsCommand>,
    /// Of the list.
    #[command(flatten)]
    pub list: JobsList,
}

/// `flota jobs …`
#[derive(Debug, Subcommand)]
pub enum JobsCommand {
    /// List jobs, newest first
    List(JobsList),
    /// Show a job: why it waits, its units and attempts, its result
    Show {
        /// The job
        id: JobId,
    },
    /// Follow a job until it has ended
    Watch {
        /// The job
        id: JobId,
    },
    /// Cancel jobs that have not ended
    Cancel {
        /// The jobs
        #[arg(required = true)]
        ids: Vec<JobId>,
    },
    /// Say whether every nonce or input of a job was computed exactly once, and by whom
    Audit {
        /// The job
        id: JobId,
    },
    /// Start failed or cancelled jobs again: those named, or all that fit a filter
    #[command(after_help = "Count first: flota jobs retry --state failed --kind ai.chat --dry-run")]
    Retry(JobsRetry),
    /// Change the priority of a job that has not ended
    Priority {
        /// The job
        id: JobId,
        /// 0 to 9, 9 first; or low, normal, high
        #[arg(value_parser = priority)]
        priority: u8,
    },
}

/// Which jobs to start again.
#[derive(Clone, Debug, Args)]
#[command(group(clap::ArgGroup::new("which").required(true).multiple(true).args(["ids", "state", "kind", "queue", "project", "label", "code", "all"])))]
pub struct JobsRetry {
    /// The jobs
    #[arg(conflicts_with_all = ["state", "kind", "queue", "project", "label", "code", "all", "dry_run"])]
    pub ids: Vec<JobId>,
    /// failed or cancelled [default: failed]
    #[arg(long, value_parser = job_state)]
    pub state: Option<JobState>,
    /// Of this kind
    #[arg(long, value_parser = kind)]
    pub kind: Option<Kind>,
    /// In this queue
    #[arg(long)]
    pub queue: Option<String>,
    /// Of this project
    #[arg(long)]
    pub project: Option<String>,
    /// With this label
    #[arg(long, value_name = "NAME=VALUE", value_parser = name_value)]
    pub label: Option<(String, String)>,
    /// Whose error has this code, as `lease_expired`
    #[arg(long)]
    pub code: Option<String>,
    /// All that failed
    #[arg(long)]
    pub all: bool,
    /// Only count them
    #[arg(long)]
    pub dry_run: bool,
}

/// Which jobs to list.
#[derive(Clone, Debug, Default, Args)]
pub struct JobsList {
    /// blocked, scheduled, pending, assigned, computing, completed, failed or cancelled
    #[arg(long, value_parser = job_state)]
    pub state: Option<JobState>,
    /// randomx.hash, randomx.search, ai.chat, ai.embed or echo
    #[arg(long, value_parser = kind)]
    pub kind: Option<Kind>,
    /// In this queue
    #[arg(long)]
    pub queue: Option<String>,
    /// Of this project
    #[arg(long)]
    pub project: Option<String>,
    /// With this label
    #[arg(long, value_name = "NAME=VALUE", value_parser = name_value)]
    pub label: Option<(String, String)>,
    /// How many at most [default: 50]
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u32).range(1..))]
    pub limit: Option<u32>,
}

/// `flota workers`
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct WorkersArgs {
    /// What to do; without it: list
    #[command(subcommand)]
    pub command: Option<WorkersCommand>,
}

/// `flota workers …`
#[derive(Debug, Subcommand)]
pub enum WorkersCommand {
    /// List workers
    List,
    /// Show a worker: what it can do and what it does
    Show {
        /// The worker
        id: WorkerId,
    },
    /// Let workers finish what runs and take nothing new
    Drain {
        /// The workers
        #[arg(required = true)]
        ids: Vec<WorkerId>,
    },
    /// Let workers hand back what runs and take nothing new
    Pause {
        /// The workers
        #[arg(required = true)]
        ids: Vec<WorkerId>,
    },
    /// Let workers take work again
    Resume {
        /// The workers
        #[arg(required = true)]
        ids: Vec<WorkerId>,
    },
}

/// `flota mine`
#[derive(Debug, Args)]
#[command(
    args_conflicts_with_subcommands = true,
    after_help = "Examples:\n  \
        flota mine solo --node http://127.0.0.1:18081 --wallet 4...\n  \
        flota mine pool --pool stratum+ssl://pool.example.org:3333 --user 4...\n  \
        flota mine list\n\nBlocks and shares are the wallet's that you give, and nobody else's: there is no donation. \
        What is mined goes behind other jobs (--priority)."
)]
pub struct Mine {
    /// What to do; without it: list
    #[command(subcommand)]
    pub command: Option<MineCommand>,
}

/// `flota mine …`
#[derive(Debug, Subcommand)]
pub enum MineCommand {
    /// Mine on a Monero node, for its blocks
    Solo(MineSolo),
    /// Mine for a pool; further pools are used while those before them are down
    Pool(MinePool),
    /// List where work comes from and what became of it
    List,
    /// Show one: its work, shares, blocks
    Show {
        /// Its name
        id: String,
    },
    /// Start those that are stopped
    Start {
        /// Their names
        #[arg(required = true)]
        ids: Vec<String>,
    },
    /// Stop: their work is taken off the workers
    Stop {
        /// Their names
        #[arg(required = true)]
        ids: Vec<String>,
    },
    /// Stop and forget, with all counters
    Remove {
        /// Their names
        #[arg(required = true)]
        ids: Vec<String>,
    },
}

/// What every source has.
#[derive(Debug, Args)]
pub struct MineCommon {
    /// A name for it [default: monerod or stratum, with a number where that is taken]
    #[arg(long, value_name = "NAME")]
    pub name: Option<String>,
    /// Of its jobs: 0 to 9, 9 first; or low, normal, high [default: low]
    #[arg(long, value_parser = priority)]
    pub priority: Option<u8>,
    /// Do not start it yet
    #[arg(long)]
    pub stopped: bool,
    /// File that holds the password; - reads it from the standard input [env: FLOTA_MINE_PASSWORD, FLOTA_MINE_PASSWORD_FILE]
    #[arg(long, value_name = "PATH")]
    pub password_file: Option<String>,
}

/// `flota mine solo`
#[derive(Debug, Args)]
pub struct MineSolo {
    /// The node's RPC
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:18081")]
    pub node: String,
    /// Whom blocks pay: the wallet's primary address
    #[arg(long, value_name = "ADDRESS")]
    pub wallet: String,
    /// Of the node's --rpc-login
    #[arg(long)]
    pub user: Option<String>,
    /// Of every source.
    #[command(flatten)]
    pub common: MineCommon,
}

/// `flota mine pool`
#[derive(Debug, Args)]
pub struct MinePool {
    /// stratum+tcp://HOST:PORT or stratum+ssl://HOST:PORT; may be repeated, the first one first
    #[arg(long = "pool", value_name = "URL", required = true)]
    pub pools: Vec<String>,
    /// The login at the pools, mostly a wallet's address
    #[arg(long)]
    pub user: String,
    /// What the pools call this fleet
    #[arg(long, value_name = "NAME")]
    pub rig_id: Option<String>,
    /// SHA-256 of the pools' certificate in hex, trusted instead of the system's authorities
    #[arg(long, value_name = "HEX")]
    pub tls_fingerprint: Option<String>,
    /// The top byte of the nonce is the pools', also where it is 0
    #[arg(long)]
    pub nicehash: bool,
    /// Of every source.
    #[command(flatten)]
    pub common: MineCommon,
}

/// `flota logs`
#[derive(Debug, Args)]
#[command(
    after_help = "Logs are not kept: what is shown is what is logged from now on. Without -f it ends after the time \
    given by --for. The broker is FLOTA_MQTT_URL, without it mqtt://127.0.0.1:1883; `flota up` prints its own."
)]
pub struct Logs {
    /// Go on until Ctrl-C
    #[arg(long, short)]
    pub follow: bool,
    /// How long to listen without -f
    #[arg(long = "for", value_name = "TIME", value_parser = time_span, default_value = "5s", conflicts_with = "follow")]
    pub span: Duration,
    /// Only lines at least this important: error, warn, info or debug
    #[arg(long, value_parser = ["error", "warn", "info", "debug", "trace"], hide_possible_values = true)]
    pub level: Option<String>,
    /// Only lines of master or of this worker
    #[arg(long, value_name = "WHO")]
    pub source: Option<String>,
    /// Only lines about this job
    #[arg(long, value_name = "ID")]
    pub job: Option<JobId>,
    /// Where the broker is.
    #[command(flatten)]
    pub broker: SettingFlags<Brokers>,
}

/// `flota healthcheck`
#[derive(Debug, Args)]
pub struct Healthcheck {
    /// Ask whether it takes work (/readyz), not only whether it lives (/livez)
    #[arg(long)]
    pub ready: bool,
    /// Ask about the worker of this data directory instead: does its main loop run, and does it reach broker and master?
    #[arg(long, conflicts_with = "ready")]
    pub worker: bool,
}

/// `flota backup`
#[derive(Debug, Args)]
#[command(
    after_help = "The copy is the store as it was at one moment: every job that was accepted before, with its result. Nothing \
    has to be stopped.\n\nExample:\n  flota backup --to flota-monday.db"
)]
pub struct Backup {
    /// File to write; it must not exist yet
    #[arg(long, value_name = "FILE")]
    pub to: PathBuf,
    /// Where the store is.
    #[command(flatten)]
    pub store: SettingFlags<Stores>,
}

/// `flota restore`
#[derive(Debug, Args)]
#[command(
    after_help = "A backup of a newer flota, or one that is damaged, is refused, and the store stays as it is. Stop the workers \
    too: what they do for the store that goes away is not wanted any more.\n\nExample:\n  flota restore --from flota-monday.db"
)]
pub struct Restore {
    /// The backup
    #[arg(long, value_name = "FILE")]
    pub from: PathBuf,
    /// Throw away the store that is there
    #[arg(long)]
    pub replace: bool,
    /// Where the store is.
    #[command(flatten)]
    pub store: SettingFlags<Stores>,
}

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

fn pages(text: &str) -> Result<Pages, String> {
    let found = Pages::LADDER.into_iter().find(|pages| pages.as_str() == text);
    found.ok_or_else(|| "give huge, transparent or 4k".into())
}

fn method(text: &str) -> Result<Method, String> {
    let found = Method::LADDER.into_iter().find(|method| method.as_str() == text && method.is_supported());
    let can: Vec<&str> = Method::LADDER.into_iter().filter(|m| m.is_supported()).map(Method::as_str).collect();
    found.ok_or_else(|| format!("this processor can do {}", can.join(", ")))
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

fn kind(text: &str) -> Result<Kind, String> {
    text.parse().map_err(|error: flota_proto::kinds::FieldError| error.message)
}

fn job_state(text: &str) -> Result<JobState, String> {
    text.parse()
}

fn priority(text: &str) -> Result<u8, String> {
    let digit = text.parse().ok().filter(|n: &u8| *n <= 9);
    let word = match text {
        "low" => Some(2),
        "normal" => Some(5),
        "high" => Some(8),
        _ => None,
    };
    digit.or(word).ok_or_else(|| "a priority is 0 to 9, 9 first, or low, normal, high".into())
}

fn name_value(text: &str) -> Result<(String, String), String> {
    let pair = text.split_once('=').filter(|(name, _)| !name.is_empty());
    pair.map(|(name, value)| (name.to_owned(), value.to_owned())).ok_or_else(|| "give NAME=VALUE".into())
}

fn name_pid(text: &str) -> Result<(String, u32), String> {
    let (name, pid) = name_value(text).map_err(|_| "give NAME=PID, such as master=1234")?;
    pid.parse().map(|pid| (name, pid)).map_err(|_| format!("'{pid}' is no process id"))
}

fn on_dependency_failure(text: &str) -> Result<OnDependencyFailure, String> {
    match text {
        "fail" => Ok(OnDependencyFailure::Fail),
        "cancel" => Ok(OnDependencyFailure::Cancel),
        "continue" => Ok(OnDependencyFailure::Continue),
        _ => Err("there are fail, cancel and continue".into()),
    }
}

fn time_span(text: &str) -> Result<Duration, String> {
    let units = [("ms", 1), ("s", 1000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)];
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let factor = units.iter().find(|(unit, _)| *unit == &text[digits..]).map(|(_, factor)| *factor);
    let number: Option<u64> = text[..digits].parse().ok();
    number
        .zip(factor)
        .and_then(|(number, factor)| number.checked_mul(factor))
        .filter(|ms| *ms > 0)
        .map(Duration::from_millis)
        .ok_or_else(|| "give a number with ms, s, m, h or d, such as 90s".into())
}

fn point_in_time(text: &str) -> Result<Timestamp, String> {
    if let Some(span) = text.strip_prefix('+') {
        return Ok(flota_common::clock::now().after(time_span(span)?));
    }
    let hint = "give a time such as 2026-11-21T09:30:00Z, or +10m for ten minutes from now";
    Timestamp::parse_rfc3339(text).ok_or_else(|| hint.into())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_definition_holds_together() {
        Cli::command().debug_assert();
    }

    #[test]
    fn jobs_alone_lists_and_takes_filters() {
        let cli = Cli::try_parse_from(["flota", "jobs", "--state", "failed", "--json"]).unwrap();
        let Command::Jobs(jobs) = cli.command else { panic!("{cli:?}") };
        assert!(jobs.command.is_none() && cli.global.json);
        assert_eq!(jobs.list.state, Some(JobState::Failed));
        assert!(Cli::try_parse_from(["flota", "jobs", "--state", "done"]).is_err());
    }

    #[test]
    fn settings_are_flags_and_secrets_are_files() {
        let cli = Cli::try_parse_from(["flota", "up", "--web-listen", "127.0.0.1:1", "--gemini-api-key-file", "/k"]);
        let flags = cli.unwrap().command.flags();
        let expected = [("web_listen", "127.0.0.1:1"), ("gemini_api_key_file", "/k")];
        assert_eq!(flags, expected.map(|(name, value)| (name.to_owned(), value.to_owned())));
        assert!(Cli::try_parse_from(["flota", "up", "--gemini-api-key", "k"]).is_err());
        assert!(Cli::try_parse_from(["flota", "worker", "--web-listen", "127.0.0.1:1"]).is_err());
    }

    #[test]
    fn times_and_priorities_say_what_is_allowed() {
        assert_eq!(time_span("90s"), Ok(Duration::from_secs(90)));
        assert!(time_span("90").is_err() && time_span("0s").is_err() && time_span("1y").is_err());
        assert!(point_in_time("+1m").is_ok() && point_in_time("2026-11-21T09:30:00Z").is_ok());
        assert!(point_in_time("tomorrow").unwrap_err().contains("+10m"));
        assert_eq!(priority("high"), Ok(8));
        assert!(priority("10").is_err());
    }
}
