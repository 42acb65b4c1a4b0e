//! Many jobs from end to end. Each connection submits its share, waits for its last job, reads its results back. Bodies
//! are formatted and answers scanned by hand: client and fleet share the machine.

use std::fmt::Write;
use std::ops::Range;
use std::time::{Duration, Instant};

use flota_common::clock;
use flota_proto::JobId;
use flota_proto::rest::JobState;
use futures::future::try_join_all;
use indicatif::ProgressBar;
use reqwest::Method;
use serde::Deserialize;

use super::verify::{Share, Tally};
use crate::api::{Api, WAIT_MS, with_query};
use crate::args::Dispatch;
use crate::failure::Failure;
use crate::output::Out;

/// The most that the master gives at once.
const PAGE: u32 = 500;
/// How long a batch waits that was refused because too much is in work.
const BUSY_PAUSE: Duration = Duration::from_millis(100);

/// What the load came to. Times count from the first request.
#[derive(Clone, Debug)]
pub struct Load {
    /// Until the last batch was accepted.
    pub submitted: Duration,
    /// Until the last job of every connection had ended.
    pub completed: Duration,
    /// Until the last result was read and checked.
    pub read_back: Duration,
    /// What was found.
    pub tally: Tally,
    /// Batches that were refused for now and sent again.
    pub refused: u64,
}

struct Connection<'a> {
    api: &'a Api,
    bar: &'a ProgressBar,
    label: String,
    started: Instant,
    refused: u64,
}

/// Puts `args.jobs` jobs through the fleet.
pub async fn run(api: &Api, out: &Out, args: &Dispatch, run: &str) -> Result<Load, Failure> {
    let bar = out.bar(args.jobs * 2, "{prefix:12} {bar:32.cyan} {percent:>3} %  {elapsed}");
    bar.set_prefix("submitting");
    let started = clock::instant();
    let shares = shares(args.jobs, args.connections);
    let connections = shares.into_iter().enumerate().map(|(i, range)| {
        Connection { api, bar: &bar, label: format!("{run}-{i}"), started, refused: 0 }.run(range, args.batch)
    });
    let loads = try_join_all(connections).await?;
    bar.finish_and_clear();
    loads.into_iter().reduce(merge).ok_or_else(|| Failure::Usage("there is nothing to submit".into()))
}

fn shares(jobs: u64, connections: u64) -> Vec<Range<u64>> {
    let bounds = |i| jobs * i / connections;
    (0..connections).map(|i| bounds(i)..bounds(i + 1)).filter(|range| !range.is_empty()).collect()
}

fn merge(a: Load, b: Load) -> Load {
    Load {
        submitted: a.submitted.max(b.submitted),
        completed: a.completed.max(b.completed),
        read_back: a.read_back.max(b.read_back),
        tally: a.tally.merge(b.tally),
        refused: a.refused + b.refused,
    }
}

impl Connection<'_> {
    async fn run(mut self, range: Range<u64>, batch: u64) -> Result<Load, Failure> {
        let last = self.submit(range.clone(), batch).await?;
        let submitted = self.started.elapsed();
        self.wait(last).await?;
        self.bar.set_prefix("reading back");
        let completed = self.started.elapsed();
        let tally = self.read_back(range).await?;
        let read_back = self.started.elapsed();
        Ok(Load { submitted, completed, read_back, tally, refused: self.refused })
    }

    /// The id of the last job.
    async fn submit(&mut self, range: Range<u64>, batch: u64) -> Result<JobId, Failure> {
        let mut last = None;
        let mut from = range.start;
        while from < range.end {
            let to = range.end.min(from + batch);
            last = Some(self.submit_batch(from..to).await?);
            self.bar.inc(to - from);
            from = to;
        }
        last.ok_or_else(|| Failure::Usage("there is nothing to submit".into()))
    }

    async fn submit_batch(&mut self, values: Range<u64>) -> Result<JobId, Failure> {
        let count = values.end - values.start;
        let body = bytes::Bytes::from(body(values, &self.label));
        loop {
            let request = self.api.post_raw("/jobs/batch", body.clone());
            match self.api.bytes_unless_busy(request).await? {
                Some(answer) => return last_id(&answer, count),
                None => self.refused += 1,
            }
            tokio::time::sleep(BUSY_PAUSE).await;
        }
    }

    async fn wait(&self, id: JobId) -> Result<(), Failure> {
        loop {
            let answer = self.api.job_within(id, WAIT_MS).await?;
            if self.api.parse::<Row>(&answer)?.state.ended() {
                return Ok(());
            }
        }
    }

    async fn read_back(&self, range: Range<u64>) -> Result<Tally, Failure> {
        let mut share = Share::new(range);
        let mut late = Vec::new();
        let mut cursor: Option<String> = None;
        loop {
            let mut query = vec![("label", format!("bench={}", self.label)), ("limit", PAGE.to_string())];
            query.extend(cursor.map(|cursor| ("cursor", cursor)));
            let request = self.api.request(Method::GET, &with_query("/jobs", &query));
            let answer = self.api.bytes(request).await?;
            let page: RowsPage = self.api.parse(&answer)?;
            self.bar.inc(page.items.len() as u64);
            for row in &page.items {
                if row.state.ended() { share.count(row.state, row.value()) } else { late.push(row.id) }
            }
            cursor = page.next_cursor;
            if cursor.is_none() {
                break;
            }
        }
        // Jobs end roughly in the order of submission, not exactly: a few may end after the last one.
        for id in late {
            self.wait(id).await?;
            let answer = self.api.job_within(id, 0).await?;
            let row: Row = self.api.parse(&answer)?;
            share.count(row.state, row.value());
        }
        Ok(share.tally())
    }
}

/// What is read of a job.
#[derive(Deserialize)]
struct Row<'a> {
    id: JobId,
    state: JobState,
    #[serde(borrow)]
    result: Option<&'a serde_json::value::RawValue>,
}

#[derive(Deserialize)]
struct RowsPage<'a> {
    #[serde(borrow)]
    items: Vec<Row<'a>>,
    next_cursor: Option<String>,
}

impl Row<'_> {
    /// The number in `{"value":7}`.
    fn value(&self) -> Option<u64> {
        let text = self.result?.get();
        let quick =
            text.strip_prefix("{\"value\":").and_then(|text| text.strip_suffix('}')).and_then(|n| n.parse().ok());
        quick.or_else(|| serde_json::from_str::<serde_json::Value>(text).ok()?.get("value")?.as_u64())
    }
}

fn body(values: Range<u64>, label: &str) -> String {
    let count = usize::try_from(values.end - values.start).unwrap_or_default();
    let mut body = String::with_capacity(count * (80 + label.len()) + 2);
    body.push('[');
    for value in values {
        if body.len() > 1 {
            body.push(',');
        }
        // Writing to a string can't fail.
        let _ = write!(body, r#"{{"kind":"echo","payload":{{"value":{value}}},"labels":{{"bench":"{label}"}}}}"#);
    }
    body.push(']');
    body
}

/// Checks that all `count` jobs were accepted and gives the id of the last.
fn last_id(answer: &[u8], count: u64) -> Result<JobId, Failure> {
    let text = std::str::from_utf8(answer).unwrap_or_default();
    let accepted = text.matches("\"id\":\"").count() as u64;
    let last = text.rfind("\"id\":\"").and_then(|at| text.get(at + 6..at + 42)?.parse().ok());
    match last {
        Some(id) if accepted == count && !text.contains("\"error\"") => Ok(id),
        _ => {
            let shown: String = text.split("\"error\":").nth(1).unwrap_or(text).chars().take(300).collect();
            Err(Failure::Failed(format!("of a batch of {count} jobs {accepted} were accepted: {shown}")))
        }
    }
}

#[cfg(test)]
mod tests {
    use flota_proto::rest::SubmitJob;

    use super::*;

    #[test]
    fn the_body_is_what_the_master_takes() {
        let jobs: Vec<SubmitJob> = serde_json::from_str(&body(7..10, "run-0")).unwrap();
        assert_eq!(
            jobs.iter().map(|job| job.payload.get()).collect::<Vec<_>>(),
            [r#"{"value":7}"#, r#"{"value":8}"#, r#"{"value":9}"#]
        );
        assert!(jobs.iter().all(|job| job.labels.as_ref().unwrap()["bench"] == "run-0"));
    }

    #[test]
    fn an_answer_with_an_error_or_too_few_is_refused() {
        let (a, b) = (JobId::generate(), JobId::generate());
        let answer = format!(r#"[{{"id":"{a}"}},{{"id":"{b}"}}]"#);
        assert_eq!(last_id(answer.as_bytes(), 2).unwrap(), b);
        assert!(last_id(answer.as_bytes(), 3).is_err());
        let answer = format!(r#"[{{"id":"{a}"}},{{"error":{{"detail":"full"}}}}]"#);
        assert!(last_id(answer.as_bytes(), 2).unwrap_err().message().contains("full"));
    }

    #[test]
    fn shares_are_even_and_cover_everything() {
        assert_eq!(shares(10, 4), [0..2, 2..5, 5..7, 7..10]);
        assert_eq!(shares(1, 4).len(), 1);
    }

    #[test]
    fn a_value_is_read_from_a_result_however_it_is_spaced() {
        let value = |result: &str| {
            let text = format!(r#"{{"id":"{}","state":"completed","result":{result}}}"#, JobId::generate());
            serde_json::from_str::<Row>(&text).unwrap().value()
        };
        assert_eq!(value(r#"{"value":7}"#), Some(7));
        assert_eq!(value(r#"{ "value": 8 }"#), Some(8));
        assert_eq!(value(r#"{"value":"x"}"#), None);
        assert_eq!(value("null"), None);
    }
}
