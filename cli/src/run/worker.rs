//! `flota worker`: the agent alone.

use flota_common::config::{Broker, Settings};
use flota_common::logging;
use flota_worker::{RunningWorker, Stopped};
use serde_json::json;
use tokio_util::sync::CancellationToken;
use tracing_subscriber::layer::Identity;

use super::{parts, runtime, signals};
use crate::failure::Failure;
use crate::output::Out;

pub fn run(settings: &Settings, out: &Out) -> Result<(), Failure> {
    logging::init(settings, None::<Identity>).map_err(|error| Failure::Usage(error.to_string()))?;
    runtime()?.block_on(async {
        let stop = signals::stop_on_signal()?;
        let broker = broker_url(settings)?;
        let worker = parts::start_worker(settings, &broker).await?;
        let id = worker.running.worker_id();
        if out.json {
            out.json(&json!({"worker_id": id, "mqtt_url": broker, "data_dir": settings.data_dir}))?;
        } else {
            out.line(format!("worker {id} at the broker {broker}; Ctrl-C stops it"))?;
        }
        until_stopped(&worker.running, &stop).await
    })
}

fn broker_url(settings: &Settings) -> Result<String, Failure> {
    match settings.broker() {
        Broker::At(url) => Ok(url.to_string()),
        Broker::Embedded => Err(Failure::Usage(
            "a worker alone has no broker within it: set FLOTA_MQTT_URL to the one of the master, such as \
             mqtt://192.168.1.10:1883"
                .into(),
        )),
    }
}

/// Runs until `stop` or until the worker has to end; then ends it in order.
pub async fn until_stopped(worker: &RunningWorker, stop: &CancellationToken) -> Result<(), Failure> {
    let result = tokio::select! {
        () = stop.cancelled() => Ok(()),
        reason = worker.stopped() => match reason {
            Stopped::Told => Ok(()),
            Stopped::Superseded => Err(Failure::Failed(reason.to_string())),
        },
    };
    worker.shutdown().await;
    result
}
