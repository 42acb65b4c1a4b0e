//! What can be typed, and the texts that explain it.

mod bench;
mod fleet;
mod jobs;
mod mine;
mod parse;
mod work;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

pub use bench::{Bench, BenchCommand, DatasetBench, Dispatch, RandomxBench, StopBench, Take};
pub use fleet::{Backup, Healthcheck, Logs, Restore, WorkersArgs, WorkersCommand};
pub use jobs::{Jobs, JobsCommand, JobsFilter, JobsList, JobsRetry};
pub use mine::{Mine, MineCommand, MineCommon, MinePool, MineSolo};
pub use work::{Ask, Hash, Submit};

use crate::flags::{Everything, Masters, SettingFlags, Workers};

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
    /// Compute hashes
    Hash(Hash),
    /// List jobs, look at one, watch, cancel, retry, reorder
    Jobs(Box<Jobs>),
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

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use flota_proto::rest::JobState;

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
    fn a_retry_names_jobs_or_a_filter_and_never_both_or_none() {
        let id = "01890f3c-6c6a-7000-8000-000000000001";
        let parse = |more: &[&str]| Cli::try_parse_from([&["flota", "jobs", "retry"], more].concat());
        for good in
            [&[id][..], &["--all"], &["--kind", "echo", "--dry-run"], &["--code", "timeout"], &["--owner", "ann"]]
        {
            assert!(parse(good).is_ok(), "{good:?}");
        }
        for bad in [&[][..], &["--dry-run"], &[id, "--all"], &[id, "--kind", "echo"], &[id, "--owner", "ann"]] {
            assert!(parse(bad).is_err(), "{bad:?}");
        }
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
}
