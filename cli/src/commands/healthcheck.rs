//! `flota healthcheck`: for containers and scripts.

use serde_json::json;

use crate::api::Api;
use crate::args::Healthcheck;
use crate::failure::Failure;
use crate::output::Out;

pub async fn run(api: &Api, out: &Out, args: &Healthcheck) -> Result<(), Failure> {
    let path = if args.ready { "/readyz" } else { "/livez" };
    let answer = api.bytes(api.root_request(path)).await;
    // A probe knows well and not well; which of the two an error is does not matter to it.
    answer.map_err(|failure| Failure::Unreachable(failure.message().to_owned()))?;
    let status = if args.ready { "ready" } else { "alive" };
    if out.json { out.json(&json!({"status": status})) } else { out.line(status) }
}
