//! Ledger against API: every job that was accepted is there, ended as it had to, and counted once; and there is no other.

use std::collections::{BTreeMap, BTreeSet};

use futures::{StreamExt, stream};
use reqwest::Method;
use serde_json::{Value, json};

use super::ledger::{Entry, Expect};
use crate::Rest;

/// Inputs and their hashes under the key "test key 000", from RandomX's own tests.
pub const HASHES: [(&str, &str); 2] = [
    ("5468697320697320612074657374", "639183aae1bf4c9a35884cb46b09cad9175f04efd7684e7262a0ac1c2f0b4e3f"),
    (
        "4c6f72656d20697073756d20646f6c6f722073697420616d6574",
        "300a0adb47603dedb42228ccb2b211104f4da45af709cd7547cd049e9489c969",
    ),
];
const AT_ONCE: usize = 8;
/// Shown of each sort.
const SHOWN_MAX: usize = 10;

/// What was found.
#[derive(Debug, Default)]
pub struct Verdict {
    /// Jobs by what had to become of them.
    pub jobs: BTreeMap<&'static str, u64>,
    /// Jobs that were accepted.
    pub accepted: u64,
    /// Jobs of which the driver knows that they are cancelled.
    pub cancelled: u64,
    /// Attempts that it took.
    pub attempts: u64,
    /// Accepted, and not there, or not ended, or ended as they must not.
    pub lost: Vec<String>,
    /// Counted twice: two results of a unit, two ends of a job, a job that nobody submitted.
    pub twice: Vec<String>,
    /// Never answered, or refused for good.
    pub refused: Vec<String>,
}

impl Verdict {
    /// Lines that show what is wrong.
    pub fn wrong(&self) -> Vec<&String> {
        let sorts = [&self.lost, &self.twice, &self.refused];
        sorts.into_iter().flat_map(|sort| sort.iter().take(SHOWN_MAX)).collect()
    }
}

struct Promised {
    n: u64,
    expect: Expect,
    cancel_sent: bool,
    cancelled: bool,
}

/// Looks at every job.
pub async fn compare(rest: &Rest, entries: &[Entry]) -> Verdict {
    let mut verdict = Verdict::default();
    let promised = promised(entries, &mut verdict);
    let known = all_ids(rest).await;
    for id in known.iter().filter(|id| !promised.contains_key(*id)) {
        verdict.twice.push(format!("job {id} is there and nobody was told so"));
    }
    let checks = stream::iter(&promised).map(|(id, promise)| check(rest, id, promise)).buffer_unordered(AT_ONCE);
    let outcomes: Vec<Outcome> = checks.collect().await;
    for outcome in outcomes {
        verdict.attempts += outcome.attempts;
        verdict.lost.extend(outcome.lost);
        verdict.twice.extend(outcome.twice);
    }
    verdict
}

fn promised(entries: &[Entry], verdict: &mut Verdict) -> BTreeMap<String, Promised> {
    let mut sent: BTreeMap<u64, Expect> = BTreeMap::new();
    let mut jobs: BTreeMap<String, Promised> = BTreeMap::new();
    for entry in entries {
        match entry {
            Entry::Sending { n, expect } => drop(sent.insert(*n, expect.clone())),
            Entry::Accepted { n, id } => {
                let Some(expect) = sent.remove(n) else { continue };
                *verdict.jobs.entry(word(&expect)).or_default() += 1;
                verdict.accepted += 1;
                let promise = Promised { n: *n, expect, cancel_sent: false, cancelled: false };
                if jobs.insert(id.clone(), promise).is_some() {
                    verdict.lost.push(format!("two jobs were accepted as {id}"));
                }
            }
            Entry::Refused { n, why } => {
                sent.remove(n);
                verdict.refused.push(format!("job number {n} was refused: {why}"));
            }
            Entry::CancelSent { id } => {
                jobs.entry(id.clone()).and_modify(|job| job.cancel_sent = true);
            }
            Entry::Cancelled { id } => {
                verdict.cancelled += 1;
                jobs.entry(id.clone()).and_modify(|job| job.cancelled = true);
            }
        }
    }
    verdict.refused.extend(sent.keys().map(|n| format!("job number {n} was never answered")));
    jobs
}

fn word(expect: &Expect) -> &'static str {
    match expect {
        Expect::Echo => "echo",
        Expect::Failure => "echo that fails",
        Expect::Hash(_) => "randomx.hash",
        Expect::Search(..) => "randomx.search",
        Expect::Chat => "ai.chat",
    }
}

async fn all_ids(rest: &Rest) -> BTreeSet<String> {
    let (mut ids, mut cursor) = (BTreeSet::new(), String::new());
    loop {
        let page = rest.get(&format!("/jobs?limit=500{cursor}")).await.expect(200).body;
        let items = page["items"].as_array().cloned().unwrap_or_default();
        ids.extend(items.iter().filter_map(|job| job["id"].as_str().map(str::to_owned)));
        match page["next_cursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => return ids,
        }
    }
}

#[derive(Default)]
struct Outcome {
    attempts: u64,
    lost: Option<String>,
    twice: Option<String>,
}

async fn check(rest: &Rest, id: &str, promise: &Promised) -> Outcome {
    let answer = rest.get(&format!("/jobs/{id}")).await;
    if answer.status != 200 {
        let lost = Some(format!("job {id} (number {}): {} {}", promise.n, answer.status, answer.text));
        return Outcome { lost, ..Outcome::default() };
    }
    let job = answer.body;
    let units = rest.units(id).await;
    let outcomes = |unit: &Value| {
        let attempts = unit["attempts"].as_array().cloned().unwrap_or_default();
        let done = attempts.iter().filter(|attempt| attempt["outcome"] == "completed").count();
        (attempts.len() as u64, done)
    };
    let counted: Vec<(u64, usize)> = units.iter().map(outcomes).collect();
    let ends = terminal_events(rest, id).await;
    let twice = (ends != 1 || counted.iter().any(|(_, done)| *done > 1))
        .then(|| format!("job {id}: {ends} ends, completed attempts of its units: {counted:?}"));
    let lost = wrong(&job, promise).map(|why| format!("job {id} (number {}): {why}: {}", promise.n, brief(&job)));
    Outcome { attempts: counted.iter().map(|(attempts, _)| attempts).sum(), lost, twice }
}

fn wrong(job: &Value, promise: &Promised) -> Option<&'static str> {
    match job["state"].as_str().unwrap_or_default() {
        "cancelled" if promise.cancel_sent => None,
        _ if promise.cancelled => Some("it was cancelled"),
        "completed" => wrong_result(&job["result"], promise),
        "failed" if promise.expect == Expect::Failure && job["error"]["code"] == "echo_fail" => None,
        "failed" => Some("it failed"),
        "cancelled" => Some("nobody cancelled it"),
        _ => Some("it has not ended"),
    }
}

fn wrong_result(result: &Value, promise: &Promised) -> Option<&'static str> {
    let right = match &promise.expect {
        Expect::Echo => *result == json!({"value": promise.n}),
        Expect::Failure => false,
        Expect::Hash(index) => result["hashes"] == json!([HASHES[*index].1]),
        Expect::Search(start, end) => {
            let found: Vec<u64> =
                result["found"].as_array().into_iter().flatten().filter_map(|found| found["nonce"].as_u64()).collect();
            found == (*start..*end).collect::<Vec<_>>()
                && result["covered"] == json!([[start, end]])
                && result["hashes_computed"] == json!(end - start)
        }
        Expect::Chat => result["text"].as_str().is_some_and(|text| !text.is_empty()),
    };
    (!right).then_some("it has a wrong result")
}

/// How often the job's log says that it has ended.
async fn terminal_events(rest: &Rest, id: &str) -> usize {
    let request = rest.request(Method::GET, &format!("/jobs/{id}/events"));
    let text = rest.send(request).await.text;
    let ends = ["event: completed", "event: failed", "event: cancelled"];
    text.lines().filter(|line| ends.contains(line)).count()
}

fn brief(job: &Value) -> String {
    let short: String = job["result"].to_string().chars().take(200).collect();
    format!("state {}, error {}, failures {}, result {short}", job["state"], job["error"], job["failures"])
}
