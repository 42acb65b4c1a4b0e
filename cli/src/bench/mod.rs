//! `flota bench …`: measuring a running fleet from outside, as any client could, and this machine.

mod cpu;
mod dataset;
mod disk;
mod latency;
mod load;
mod miner;
mod randomx;
mod report;
mod stop;
mod verify;

use flota_common::config::Settings;
use flota_proto::rest::Fleet;
use uuid::Uuid;

use crate::api::Api;
use crate::args::{Bench, BenchCommand, Dispatch};
use crate::failure::Failure;
use crate::follow;
use crate::output::Out;

pub async fn run(api: &Api, settings: &Settings, out: &Out, args: Bench) -> Result<(), Failure> {
    match args.command {
        BenchCommand::Randomx(args) => follow::unless_interrupted(randomx::run(out, args)).await,
        BenchCommand::Dataset(args) => follow::unless_interrupted(dataset::run(out, args)).await,
        BenchCommand::Stop(args) => follow::unless_interrupted(stop::run(out, args)).await,
        BenchCommand::Dispatch(args) => follow::unless_interrupted(dispatch(api, settings, out, &args)).await,
    }
}

async fn dispatch(api: &Api, settings: &Settings, out: &Out, args: &Dispatch) -> Result<(), Failure> {
    let fleet: Fleet = api.get("/fleet").await?;
    check_idle(out, &fleet)?;
    let run = Uuid::new_v4().simple().to_string()[..12].to_owned();
    let meter = cpu::Meter::start(&args.pids)?;
    let loaded = tokio::time::timeout(args.timeout, load::run(api, out, args, &run));
    let load = loaded.await.map_err(|_| Failure::Failed(format!("not done within --timeout {:?}", args.timeout)))??;
    let cpu = meter.stop();
    let latency = latency::measure(api, out, args.latency).await?;
    let disk = disk::measure(args.data_dir.as_deref(), &settings.data_dir)?;
    report::print(out, &report::Report::new(api.base(), args, &fleet, run, load, cpu, latency, disk))
}

/// Other work would be measured too, and a fleet without a worker never ends.
fn check_idle(out: &Out, fleet: &Fleet) -> Result<(), Failure> {
    let echo = fleet.slots.iter().find(|(class, _)| class.as_str() == "echo");
    if echo.is_none_or(|(_, slots)| slots.total == 0) {
        let hint = "start one with `flota worker`";
        return Err(Failure::Usage(format!("the fleet has no worker that takes echo jobs: {hint}")));
    }
    let live: u64 = fleet.jobs.iter().filter(|(state, _)| !state.ended()).map(|(_, n)| n).sum();
    if live > 0 {
        out.note(format!("{live} other jobs are in work: what is measured includes them"));
    }
    Ok(())
}
