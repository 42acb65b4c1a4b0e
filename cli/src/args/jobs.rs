//! `flota jobs`: list, look, watch, cancel, retry, reorder.

use clap::{Args, Subcommand};
use flota_proto::rest::JobState;
use flota_proto::{JobId, Kind};

use super::parse::{job_state, kind, name_value, priority};

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

/// What a list of jobs, or a retry of many, is narrowed to.
#[derive(Clone, Debug, Default, Args)]
#[group(id = "filter", multiple = true)]
pub struct JobsFilter {
    /// randomx.hash, randomx.search, sha256d.hash, sha256d.search, ai.chat, ai.embed or echo
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
    /// Submitted by this owner
    #[arg(long)]
    pub owner: Option<String>,
    /// Whose error has this code, such as lease_expired
    #[arg(long)]
    pub code: Option<String>,
}

/// Which jobs to start again.
#[derive(Clone, Debug, Args)]
#[command(group(
    clap::ArgGroup::new("which")
        .required(true)
        .multiple(true)
        .args(["ids", "state", "kind", "queue", "project", "label", "owner", "code", "all"])
))]
pub struct JobsRetry {
    /// The jobs
    #[arg(conflicts_with_all = ["state", "filter", "all", "dry_run"])]
    pub ids: Vec<JobId>,
    /// failed or cancelled [default: failed]
    #[arg(long, value_parser = job_state)]
    pub state: Option<JobState>,
    /// Those that fit.
    #[command(flatten)]
    pub filter: JobsFilter,
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
    /// Those that fit.
    #[command(flatten)]
    pub filter: JobsFilter,
    /// How many at most [default: 50]
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u32).range(1..))]
    pub limit: Option<u32>,
}
