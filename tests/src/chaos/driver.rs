//! Submits jobs of all kinds as fast as it is told to, notes every promise, and asks again until it has an answer.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::ledger::{Entry, Expect, Ledger};
use super::verify::HASHES;
use crate::{Answer, Rest};

const SUBMITTERS: u64 = 4;
const BATCH_MAX: u64 = 24;
/// With more waiting, it pauses.
const DEPTH_MAX: u64 = 3_000;
/// Everything that the harness does to the fleet costs attempts, none may cost a job.
const MAX_ATTEMPTS: u32 = 100;

/// The driver.
pub struct Driver {
    rest: Rest,
    ledger: Arc<Ledger>,
    rate: f64,
    next: AtomicU64,
}

/// One submission: jobs with their numbers.
struct Batch {
    numbers: Vec<u64>,
    jobs: Vec<Value>,
    /// Where the jobs have no ids of their own.
    key: Option<String>,
    owner: String,
}

impl Driver {
    pub fn new(rest: Rest, ledger: Arc<Ledger>, rate: f64) -> Self {
        Self { rest, ledger, rate, next: AtomicU64::new(0) }
    }

    /// Starts to submit until `stop`; what was begun is answered before a submitter ends.
    pub fn spawn(self: &Arc<Self>, stop: &CancellationToken) -> Vec<JoinHandle<()>> {
        let submit = |_| {
            let (driver, stop) = (self.clone(), stop.clone());
            tokio::spawn(async move { driver.submit_until(stop).await })
        };
        (0..SUBMITTERS).map(submit).collect()
    }

    async fn submit_until(&self, stop: CancellationToken) {
        while !stop.is_cancelled() {
            let batch = self.batch();
            let pause = Duration::from_secs_f64(batch.jobs.len() as f64 * SUBMITTERS as f64 / self.rate);
            let accepted = self.send(&batch).await;
            if let Some(id) = accepted.first().filter(|_| rand::random_ratio(1, 4)) {
                self.cancel(id).await;
            }
            let _ = tokio::time::timeout(pause, stop.cancelled()).await;
            while !stop.is_cancelled() && self.depth().await > DEPTH_MAX {
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        }
    }

    async fn depth(&self) -> u64 {
        let answer = self.rest.try_send(self.rest.request(Method::GET, "/fleet")).await;
        answer.ok().and_then(|answer| answer.body["queue"]["depth"].as_u64()).unwrap_or(0)
    }

    fn batch(&self) -> Batch {
        let count = rand::random_range(1..=BATCH_MAX);
        let first = self.next.fetch_add(count, Ordering::Relaxed);
        let keyed: bool = rand::random();
        let key = keyed.then(|| Uuid::new_v4().to_string());
        let numbers: Vec<u64> = (first..first + count).collect();
        let mut entries = Vec::new();
        let mut jobs = Vec::new();
        for n in &numbers {
            let (mut job, expect) = job(*n);
            job["max_attempts"] = MAX_ATTEMPTS.into();
            job["priority"] = rand::random_range(0..10).into();
            if !keyed {
                job["id"] = Uuid::now_v7().to_string().into();
            }
            entries.push(Entry::Sending { n: *n, expect });
            jobs.push(job);
        }
        self.ledger.write(&entries);
        Batch { numbers, jobs, key, owner: format!("o{}", rand::random_range(0..5)) }
    }

    /// Sends it until each job has its answer; gives the ids of those accepted.
    async fn send(&self, batch: &Batch) -> Vec<String> {
        let body = Value::Array(batch.jobs.clone());
        loop {
            let request = self.rest.request(Method::POST, "/jobs/batch").timeout(Duration::from_secs(20));
            let mut request = request.header("x-flota-owner", &batch.owner).json(&body);
            if let Some(key) = &batch.key {
                request = request.header("idempotency-key", key);
            }
            if let Ok(answer) = self.rest.try_send(request).await
                && let Some(accepted) = self.note(batch, &answer)
            {
                return accepted;
            }
            tokio::time::sleep(Duration::from_millis(rand::random_range(100..600))).await;
        }
    }

    /// Writes down what was answered; `None` where it must be asked again.
    fn note(&self, batch: &Batch, answer: &Answer) -> Option<Vec<String>> {
        // 409: the request that broke off is still in work.
        if matches!(answer.status, 409 | 429 | 500..) {
            return None;
        }
        let items = answer.body.as_array().filter(|items| answer.status == 201 && items.len() == batch.jobs.len());
        let Some(items) = items else {
            let refused = |n: &u64| Entry::Refused { n: *n, why: format!("{}: {}", answer.status, answer.text) };
            self.ledger.write(&batch.numbers.iter().map(refused).collect::<Vec<_>>());
            return Some(Vec::new());
        };
        let passing = |item: &Value| matches!(item["error"]["status"].as_u64(), Some(429 | 500..));
        if items.iter().any(passing) {
            return None;
        }
        let mut accepted = Vec::new();
        let entry = |(n, item): (&u64, &Value)| match item["id"].as_str() {
            Some(id) => {
                accepted.push(id.to_owned());
                Entry::Accepted { n: *n, id: id.to_owned() }
            }
            None => Entry::Refused { n: *n, why: item.to_string() },
        };
        let entries: Vec<Entry> = batch.numbers.iter().zip(items).map(entry).collect();
        self.ledger.write(&entries);
        Some(accepted)
    }

    /// Cancels a job; whether it was may remain unknown.
    async fn cancel(&self, id: &str) {
        self.ledger.write(&[Entry::CancelSent { id: id.to_owned() }]);
        let request = self.rest.request(Method::POST, &format!("/jobs/{id}/cancel"));
        if let Ok(answer) = self.rest.try_send(request).await
            && answer.status == 200
        {
            self.ledger.write(&[Entry::Cancelled { id: id.to_owned() }]);
        }
    }
}

/// A job of some kind, and what must become of it.
fn job(n: u64) -> (Value, Expect) {
    match rand::random_range(0..1000) {
        0..4 => {
            let end = rand::random_range(2..6);
            let payload = json!({
                "key": "74657374206b657920303030", "blob": "00".repeat(40), "nonce_offset": 4,
                "nonce_start": n * 8, "nonce_end": n * 8 + end, "target": "ff".repeat(32), "find": "all",
            });
            (json!({"kind": "randomx.search", "payload": payload}), Expect::Search(n * 8, n * 8 + end))
        }
        4..12 => {
            let index = rand::random_range(0..HASHES.len());
            let payload = json!({"key": "74657374206b657920303030", "inputs": [HASHES[index].0]});
            (json!({"kind": "randomx.hash", "cache": false, "payload": payload}), Expect::Hash(index))
        }
        12..52 => {
            let payload = json!({"messages": [{"role": "user", "content": format!("question {n}")}]});
            (json!({"kind": "ai.chat", "payload": payload}), Expect::Chat)
        }
        52..62 => (echo(n, json!({"fail": {"times": 1000, "retryable": false}})), Expect::Failure),
        62..82 => (echo(n, json!({"fail": {"times": rand::random_range(1..3), "retryable": true}})), Expect::Echo),
        82..160 => (echo(n, json!({"sleep_ms": rand::random_range(20..4000)})), Expect::Echo),
        _ => (echo(n, json!({})), Expect::Echo),
    }
}

fn echo(n: u64, more: Value) -> Value {
    let mut payload = more;
    payload["value"] = n.into();
    json!({"kind": "echo", "payload": payload})
}
