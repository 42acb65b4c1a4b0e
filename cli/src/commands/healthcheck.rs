//! `flota healthcheck`: for containers and scripts.

use flota_common::clock;
use flota_common::config::Settings;
use flota_worker::health::Health;
use serde_json::json;

use crate::api::Api;
use crate::args::Healthcheck;
use crate::failure::Failure;
use crate::output::Out;

pub async fn run(api: &Api, settings: &Settings, out: &Out, args: &Healthcheck) -> Result<(), Failure> {
    if args.worker {
        worker(settings)?;
        return said(out, "alive");
    }
    let path = if args.ready { "/readyz" } else { "/livez" };
    let answer = api.bytes(api.root_request(path)).await;
    // A probe knows well and not well; which of the two an error is does not matter to it.
    answer.map_err(|failure| Failure::Unreachable(failure.message().to_owned()))?;
    said(out, if args.ready { "ready" } else { "alive" })
}

fn worker(settings: &Settings) -> Result<(), Failure> {
    let unwell = |reason: String| Failure::Unreachable(format!("the worker is not well: {reason}"));
    let id = settings.known_worker_id().map_err(|error| unwell(error.to_string()))?;
    let health = Health::read(&settings.data_dir, &id).map_err(|error| unwell(error.to_string()))?;
    health.judge(clock::now()).map_err(|error| unwell(error.to_string()))
}

fn said(out: &Out, status: &str) -> Result<(), Failure> {
    if out.json { out.json(&json!({"status": status})) } else { out.line(status) }
}
