//! The `flota` command: starts a fleet or a part of one, gives it work, watches it. Here: from arguments to exit code.

mod api;
mod args;
mod bench;
mod commands;
mod failure;
mod flags;
mod follow;
mod output;
mod run;
mod sse;

use std::process::ExitCode;

use clap::{CommandFactory, Parser};
use flota_common::config::{Settings, Sources};

use crate::api::Api;
use crate::args::{Cli, Command};
use crate::failure::Failure;
use crate::output::Out;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let out = Out::new(cli.global.json);
    match dispatch(cli, &out) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(&out),
    }
}

fn dispatch(cli: Cli, out: &Out) -> Result<(), Failure> {
    let Cli { global, command } = cli;
    if let Command::Completions { shell } = command {
        return completions(shell);
    }
    let mut flags = global.flags();
    flags.extend(command.flags());
    let settings = Settings::load(&Sources::of_process(global.config.clone(), flags))?;
    match command {
        Command::Up(_) => run::up::run(&settings, out),
        Command::Master(_) => run::master::run(&settings, out),
        Command::Worker(_) => run::worker::run(&settings, out),
        Command::Backup(args) => commands::backup::back_up(&settings, out, &args),
        Command::Restore(args) => commands::backup::restore(&settings, out, &args),
        client => client_runtime()?.block_on(run_client(client, &settings, out)),
    }
}

async fn run_client(command: Command, settings: &Settings, out: &Out) -> Result<(), Failure> {
    let api = Api::new(settings)?;
    match command {
        Command::Ask(args) if args.local => commands::ask_local::run(settings, out, args).await,
        Command::Submit(args) => commands::submit::run(&api, settings, out, *args).await,
        Command::Ask(args) => commands::ask::run(&api, settings, out, args).await,
        Command::Hash(args) => commands::hash::run(&api, out, args).await,
        Command::Jobs(args) => commands::jobs::run(&api, out, *args).await,
        Command::Workers(args) => commands::workers::run(&api, out, args).await,
        Command::Mine(args) => commands::mine::run(&api, out, *args).await,
        Command::Fleet => commands::fleet::run(&api, out).await,
        Command::Logs(args) => commands::logs::run(settings, out, &args).await,
        Command::Bench(args) => bench::run(&api, settings, out, args).await,
        Command::Healthcheck(args) => commands::healthcheck::run(&api, settings, out, &args).await,
        Command::Up(_) | Command::Master(_) | Command::Worker(_) | Command::Completions { .. } => Ok(()),
        Command::Backup(_) | Command::Restore(_) => Ok(()),
    }
}

/// One thread: a client shares the machine with the fleet that it measures or waits for.
fn client_runtime() -> Result<tokio::runtime::Runtime, Failure> {
    let built = tokio::runtime::Builder::new_current_thread().enable_all().build();
    built.map_err(|error| Failure::Failed(format!("can't start: {error}")))
}

fn completions(shell: clap_complete::Shell) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "flota", &mut script);
    output::write_stdout(&script)
}
