//! What looks at the fleet and after it: `flota workers`, `flota logs`, `flota healthcheck`, `flota backup`, `flota restore`.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};
use flota_proto::{JobId, WorkerId};

use super::parse::time_span;
use crate::flags::{Brokers, SettingFlags, Stores};

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
