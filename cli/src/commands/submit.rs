//! `flota submit`: one job of any kind.

use std::collections::BTreeMap;

use flota_common::config::Settings;
use flota_proto::rest::{Priority, Requires, SubmitJob};
use serde_json::value::RawValue;

use super::{own_key, raw_json, stdin_text};
use crate::api::Api;
use crate::args::Submit;
use crate::failure::Failure;
use crate::follow::{self, Ended};
use crate::output::Out;

pub async fn run(api: &Api, settings: &Settings, out: &Out, args: Submit) -> Result<(), Failure> {
    let (wait, own) = (args.wait, args.own_key);
    let key = own_key(settings, own)?;
    let job = api.submit(&request(args)?, key).await?;
    if !wait {
        out.hint(format!("{} accepted; follow it with: flota jobs watch {}", job.kind, job.id));
        return if out.json { out.json(&job) } else { out.line(job.id) };
    }
    let waited = follow::unless_interrupted(follow::until_ended(api, out, job.id)).await;
    let ended = waited.map_err(|failure| match failure {
        Failure::Interrupted(_) => {
            Failure::Interrupted(format!("job {0} goes on; cancel it with: flota jobs cancel {0}", job.id))
        }
        other => other,
    })?;
    print(out, &ended)?;
    follow::verdict(&ended.job)
}

/// The result, or the whole job with `--json`.
pub fn print(out: &Out, ended: &Ended) -> Result<(), Failure> {
    if out.json {
        return out.line(String::from_utf8_lossy(&ended.raw).trim_end());
    }
    match &ended.job.result {
        Some(result) => out.line(result.get()),
        None => Ok(()),
    }
}

fn request(args: Submit) -> Result<SubmitJob, Failure> {
    let labels: BTreeMap<String, String> = args.labels.into_iter().collect();
    Ok(SubmitJob {
        kind: args.kind.to_string(),
        payload: payload(&args.payload)?,
        id: args.id.map(|id| id.0),
        queue: args.queue,
        project: args.project,
        priority: args.priority.map(Priority),
        max_attempts: args.max_attempts,
        retry: None,
        timeout_ms: args.timeout.map(|time| u64::try_from(time.as_millis()).unwrap_or(u64::MAX)),
        deadline: args.deadline,
        run_at: args.run_at,
        requires: args.requires.as_deref().map(requires).transpose()?,
        depends_on: (!args.depends_on.is_empty()).then(|| args.depends_on.into_iter().map(|id| id.0).collect()),
        on_dependency_failure: args.on_dependency_failure,
        labels: (!labels.is_empty()).then_some(labels),
        conversation_id: None,
        cache: args.cache,
    })
}

fn payload(text: &str) -> Result<Box<RawValue>, Failure> {
    match text.strip_prefix('@') {
        Some(path) => {
            let read = std::fs::read_to_string(path);
            let text = read.map_err(|error| Failure::Usage(format!("can't read the payload from {path}: {error}")))?;
            raw_json(path, text)
        }
        None if text == "-" => raw_json("the standard input", stdin_text()?),
        None => raw_json("the payload", text.to_owned()),
    }
}

fn requires(text: &str) -> Result<Requires, Failure> {
    serde_json::from_str(text).map_err(|error| Failure::Usage(format!("--requires: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_payload_comes_from_the_argument_or_a_file() {
        assert_eq!(payload("{\"value\": 1}").unwrap().get(), "{\"value\": 1}");
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "[1]\n").unwrap();
        assert_eq!(payload(&format!("@{}", file.path().display())).unwrap().get(), "[1]");
        assert!(payload("{value: 1}").unwrap_err().message().starts_with("the payload is no valid JSON: "));
        assert!(payload("@/nonexistent").unwrap_err().message().contains("/nonexistent"));
    }
}
