use std::path::Path;

use async_trait::async_trait;
use flota_proto::{Algorithm, JobId};
use futures::future::BoxFuture;
use serde_json::value::RawValue;
use tempfile::TempDir;

use super::*;
use crate::executor::echo::Echo;
use crate::executor::{Context, Output};

type Script = Box<dyn Fn(Unit, Context) -> BoxFuture<'static, Result<Output, Failure>> + Send + Sync>;

/// Does with every unit what its test wants.
struct Scripted(Kind, Script);

#[async_trait]
impl Executor for Scripted {
    fn kinds(&self) -> &[Kind] {
        std::slice::from_ref(&self.0)
    }

    async fn execute(&self, unit: Unit, context: Context) -> Result<Output, Failure> {
        (self.1)(unit, context).await
    }
}

fn scripted<F>(kind: Kind, script: impl Fn(Unit, Context) -> F + Send + Sync + 'static) -> Arc<dyn Executor>
where
    F: Future<Output = Result<Output, Failure>> + Send + 'static,
{
    Arc::new(Scripted(kind, Box::new(move |unit, context| Box::pin(script(unit, context)))))
}

struct Bench {
    runner: Arc<Runner>,
    dir: TempDir,
}

fn bench(executor: Arc<dyn Executor>) -> Bench {
    let (dir, worker) = (tempfile::tempdir().unwrap(), "w".parse().unwrap());
    let (spool, restored) = Spool::open(dir.path(), &worker).unwrap();
    assert!(restored.is_empty());
    let (log, _) = Log::new(worker.clone());
    let calls = Calls { channel: watch::channel(None).1, worker, token: None };
    let one = Class::ALL.map(|class| (class, 1)).into();
    let runner = Runner::new(vec![executor], &one, &one, calls, Arc::new(spool), Arc::new(log));
    runner.change(|table| table.open(1));
    Bench { runner, dir }
}

impl Bench {
    /// Everything that was sent up to the message that holds a report.
    async fn until_report(&self) -> v1::WorkerMessage {
        let mut all = v1::WorkerMessage::default();
        while all.results.is_empty() && all.failures.is_empty() {
            let next = self.runner.next_message(1).await.unwrap();
            all.accepted.extend(next.accepted);
            all.deltas.extend(next.deltas);
            all.result_parts.extend(next.result_parts);
            all.results.extend(next.results);
            all.failures.extend(next.failures);
        }
        all
    }

    async fn failure(&self) -> v1::Failure {
        self.until_report().await.failures.remove(0)
    }

    fn files(&self) -> usize {
        let spool: &Path = &self.dir.path().join("spool-w");
        let names = std::fs::read_dir(spool).unwrap().map(|entry| entry.unwrap().path());
        names.filter(|path| path.extension().is_some_and(|extension| extension == "spool")).count()
    }
}

const HASH: &str = r#"{"key":"","inputs":[""]}"#;
const CHAT: &str = r#"{"messages":[{"role":"user","content":"hello"}]}"#;

fn task(kind: Kind, payload: &str) -> Task {
    let unit = UnitId { job: JobId::generate(), index: 0 };
    Task {
        unit_id: unit,
        job_id: unit.job,
        attempt: 1,
        kind,
        lease_ms: 15_000,
        timeout_ms: 60_000,
        failures: 0,
        credential: false,
        own_key_only: false,
        payload: Some(RawValue::from_string(payload.to_owned()).unwrap()),
        payload_by_reference: false,
    }
}

fn output() -> Result<Output, Failure> {
    Ok(Output { json: "{}".into(), hashes: 3 })
}

#[tokio::test]
async fn an_echo_is_answered_without_an_acceptance_and_without_the_disk() {
    let bench = bench(Arc::new(Echo));
    bench.runner.offer(vec![task(Kind::Echo, r#"{"value":1}"#), task(Kind::Echo, r#"{"value":2}"#)]);
    let sent = bench.until_report().await;
    let values: Vec<_> = sent.results.iter().map(|result| &result.output[..]).collect();
    assert_eq!((values, sent.accepted.len()), (vec![&b"{\"value\":1}"[..], b"{\"value\":2}"], 0));
    assert_eq!(bench.files(), 0);
    assert_eq!(bench.runner.status().0, WorkerState::Busy);
    assert_eq!(bench.runner.status().0, WorkerState::Idle);

    bench.runner.keep_all().await;
    assert_eq!(bench.files(), 1, "the end of the process keeps what is not acknowledged");
}

#[tokio::test]
async fn what_an_executor_shows_and_gives_is_sent() {
    let bench = bench(scripted(Kind::Hash(Algorithm::Randomx), |unit, context| async move {
        context.observer.delta("text");
        assert_eq!((unit.attempt, unit.timeout), (1, Duration::from_secs(60)));
        output()
    }));
    bench.runner.offer(vec![task(Kind::Hash(Algorithm::Randomx), HASH)]);
    let sent = bench.until_report().await;
    assert_eq!((sent.results[0].hashes, sent.deltas[0].text.as_str()), (3, "text"));
}

#[tokio::test]
async fn a_payload_that_does_not_parse_fails_for_good() {
    let bench = bench(scripted(Kind::Hash(Algorithm::Randomx), |_, _| async { output() }));
    let mut missing = task(Kind::Hash(Algorithm::Randomx), HASH);
    missing.payload = None;
    for bad in [task(Kind::Hash(Algorithm::Randomx), r#"{"key":"0","inputs":[""]}"#), missing] {
        bench.runner.offer(vec![bad]);
        let failure = bench.failure().await;
        assert_eq!((failure.code.as_str(), failure.retryable), ("bad_payload", false));
        assert!(failure.message.contains("payload"), "{failure:?}");
    }
}

#[tokio::test]
async fn a_kind_without_an_executor_is_refused_so_that_another_worker_may_try() {
    let bench = bench(Arc::new(Echo));
    bench.runner.offer(vec![task(Kind::Hash(Algorithm::Randomx), HASH)]);
    let failure = bench.failure().await;
    assert_eq!((failure.code.as_str(), failure.retryable), ("unsupported_kind", true));
}

#[tokio::test]
async fn an_executor_that_panics_fails_its_attempt_and_the_worker_goes_on() {
    let panicking = scripted(Kind::Hash(Algorithm::Randomx), |_, context| async move {
        // The second one starts in the same slot.
        context.observer.alive();
        panic!("on purpose");
    });
    let bench = bench(panicking);
    for _ in 0..2 {
        bench.runner.offer(vec![task(Kind::Hash(Algorithm::Randomx), HASH)]);
        let failure = bench.failure().await;
        assert_eq!((failure.code.as_str(), failure.retryable), ("executor_panic", true));
        assert!(!failure.message.contains("on purpose"), "a panic may quote a payload");
    }
}

#[tokio::test(start_paused = true)]
async fn an_attempt_that_takes_too_long_is_stopped_and_fails() {
    let bench = bench(scripted(Kind::Hash(Algorithm::Randomx), |_, context| async move {
        context.cancel.cancelled().await;
        Err(Failure::cancelled())
    }));
    bench.runner.offer(vec![task(Kind::Hash(Algorithm::Randomx), HASH)]);
    let failure = bench.failure().await;
    assert_eq!((failure.code.as_str(), failure.retryable), ("timeout", true));
}

#[tokio::test(start_paused = true)]
async fn an_executor_that_does_not_stop_loses_its_slot() {
    let bench = bench(scripted(Kind::Hash(Algorithm::Randomx), |_, _| std::future::pending()));
    bench.runner.offer(vec![task(Kind::Hash(Algorithm::Randomx), HASH), task(Kind::Hash(Algorithm::Randomx), HASH)]);
    assert_eq!(bench.failure().await.code, "timeout");
    assert_eq!(bench.failure().await.code, "timeout");
}

#[tokio::test]
async fn a_cancelled_attempt_stops_and_reports_nothing() {
    let bench = bench(scripted(Kind::Hash(Algorithm::Randomx), |unit, context| async move {
        if unit.payload_is_first() {
            context.cancel.cancelled().await;
            return Err(Failure::cancelled());
        }
        output()
    }));
    let (first, second) = (
        task(Kind::Hash(Algorithm::Randomx), HASH),
        task(Kind::Hash(Algorithm::Randomx), r#"{"key":"00","inputs":[""]}"#),
    );
    let (cancelled, done) = (first.unit_id, second.unit_id);
    bench.runner.offer(vec![first, second]);
    bench.runner.change(|table| table.cancel((cancelled, 1)));
    let sent = bench.until_report().await;
    assert_eq!(sent.results[0].unit_id, done.to_string());
    assert!(sent.failures.is_empty());
}

#[tokio::test]
async fn an_answer_of_an_ai_is_on_disk_before_it_is_sent_and_until_it_is_acknowledged() {
    let bench = bench(scripted(Kind::AiChat, |_, _| async { output() }));
    let task = task(Kind::AiChat, CHAT);
    let unit = task.unit_id;
    bench.runner.offer(vec![task]);
    assert_eq!(bench.until_report().await.results.len(), 1);
    assert_eq!(bench.files(), 1);
    bench.runner.change(|table| table.acknowledge((unit, 1), v1::Outcome::Applied));
    let deadline = clock::instant() + Duration::from_secs(10);
    while bench.files() > 0 {
        assert!(clock::instant() < deadline, "the file of an acknowledged answer stays");
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_result_too_large_to_be_reported_is_a_failure_that_says_so() {
    const MOST: usize = 3 * flota_proto::GRPC_MESSAGE_BYTES_MAX;
    let sizes = Arc::new(std::sync::Mutex::new(vec![MOST + 1, MOST]));
    let bench = bench(scripted(Kind::Hash(Algorithm::Randomx), move |_, _| {
        let json = bytes::Bytes::from(vec![b'0'; sizes.lock().unwrap().pop().unwrap_or(0)]);
        async move { Ok(Output { json, hashes: 0 }) }
    }));
    bench.runner.bound_outputs(MOST as u64);
    bench.runner.offer(vec![task(Kind::Hash(Algorithm::Randomx), HASH)]);
    let whole = bench.until_report().await;
    let parts: usize = whole.result_parts.iter().map(|part| part.output.len()).sum();
    assert_eq!(whole.results.len(), 1, "as large as it may be: {:?}", whole.failures);
    assert_eq!((parts + whole.results[0].output.len(), whole.results[0].output_from), (MOST, parts as u64));
    bench.runner.offer(vec![task(Kind::Hash(Algorithm::Randomx), HASH)]);
    let failure = bench.failure().await;
    assert_eq!((failure.code.as_str(), failure.retryable), ("result_too_large", false));
    assert!(failure.message.contains("FLOTA_RESULT_MAX"), "{failure:?}");
}

#[tokio::test]
async fn a_command_expires_by_the_masters_clock_where_this_machines_is_ahead() {
    let bench = bench(scripted(Kind::Hash(Algorithm::Randomx), |_, _| async { output() }));
    let hour = 3_600_000;
    let near = |said: u64| bench.runner.command_time().0.abs_diff(said) < 60_000;
    assert!(near(clock::now().0), "nothing was heard yet");
    let behind = clock::now().0 - hour;
    bench.runner.heard_clock(behind);
    assert!(near(behind));
    bench.runner.heard_clock(clock::now().0 + hour);
    assert!(near(clock::now().0), "this machine's clock is behind: nothing has expired");
    bench.runner.heard_clock(0);
    assert!(near(clock::now().0));
}

#[tokio::test(start_paused = true)]
async fn a_payload_that_the_master_cannot_give_is_waited_for_and_then_a_failure() {
    let bench = bench(scripted(Kind::Hash(Algorithm::Randomx), |_, _| async { output() }));
    let mut task = task(Kind::Hash(Algorithm::Randomx), HASH);
    (task.payload, task.payload_by_reference) = (None, true);
    bench.runner.offer(vec![task]);
    let failure = bench.failure().await;
    assert_eq!((failure.code.as_str(), failure.retryable), ("payload_unavailable", true));
    assert!(failure.message.contains("no connection to the master"), "{failure:?}");
}

#[tokio::test(start_paused = true)]
async fn waiting_for_the_end_ends_with_the_last_execution_or_with_patience() {
    let bench = bench(scripted(Kind::Hash(Algorithm::Randomx), |_, context| async move {
        context.cancel.cancelled().await;
        Err(Failure::cancelled())
    }));
    bench.runner.offer(vec![task(Kind::Hash(Algorithm::Randomx), HASH)]);
    assert!(!bench.runner.wait_until(Duration::from_secs(5), |table| table.executing() == 0).await);
    bench.runner.change(|table| table.hand_back_all(true));
    assert!(bench.runner.wait_until(Duration::from_secs(5), |table| table.executing() == 0).await);
}

impl Unit {
    fn payload_is_first(&self) -> bool {
        matches!(&self.payload, flota_proto::kinds::Payload::Hash(payload) if payload.key.as_ref().is_some_and(|key| key.is_empty()))
    }
}
