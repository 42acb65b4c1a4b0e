//! `flota up`: everything in one process.

use flota_common::config::{Broker, Settings};
use flota_master::logs::LogHub;
use tokio_util::sync::CancellationToken;

use super::master::{Started, init_log, start};
use super::parts::{StartedWorker, ai_text, slots_text, start_worker};
use super::ports::Fallback;
use super::{runtime, signals, worker};
use crate::failure::Failure;
use crate::output::Out;

pub fn run(settings: &Settings, out: &Out) -> Result<(), Failure> {
    let hub = LogHub::new();
    init_log(settings, &hub)?;
    runtime()?.block_on(async {
        let stop = signals::stop_on_signal()?;
        let broker = settings.mqtt_url.clone().unwrap_or(Broker::Embedded);
        let master = start(settings, &broker, Fallback::Free, hub).await?;
        let result = match start_worker(settings, &master.broker_url).await {
            Ok(worker) => match say(settings, out, &master, &worker) {
                Ok(()) => until_stopped(&master, &worker, &stop).await,
                Err(failure) => Err(failure),
            },
            Err(failure) => Err(failure),
        };
        master.shutdown().await;
        result
    })
}

fn say(settings: &Settings, out: &Out, master: &Started, worker: &StartedWorker) -> Result<(), Failure> {
    let mut banner = master.banner(settings);
    banner.worker = Some((worker.running.worker_id().to_string(), slots_text(settings)));
    banner.ai = Some(ai_text(settings));
    banner.print(out)
}

/// The worker ends first: what it has finished still reaches the master.
async fn until_stopped(master: &Started, worker: &StartedWorker, stop: &CancellationToken) -> Result<(), Failure> {
    let ends = stop.child_token();
    let master_ends = async {
        let result = master.until_stopped(&ends).await;
        ends.cancel();
        result
    };
    let worker_ends = async {
        let result = worker::until_stopped(&worker.running, &ends).await;
        ends.cancel();
        result
    };
    let (master, worker) = tokio::join!(master_ends, worker_ends);
    master.and(worker)
}
