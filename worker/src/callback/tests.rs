use std::pin::Pin;

use bytes::Bytes;
use flota_proto::kinds::Payload;
use flota_proto::mqtt::Task;
use flota_proto::v1::worker_callback_server::{WorkerCallback, WorkerCallbackServer};
use flota_proto::{Algorithm, JobId, Kind};
use futures::Stream;
use serde_json::value::RawValue;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response};

use super::*;
use crate::calls::Calls;
use crate::executor::echo::Echo;
use crate::executor::{Context, Executor, Failure, Output, Unit};
use crate::log::Log;
use crate::peer::Digests;
use crate::spool::Spool;

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// A master that does what its test wants.
struct Stand {
    streams: mpsc::Sender<Open>,
    refuse: Option<Code>,
}

/// A stream that a worker has opened.
struct Open {
    from: Streaming<v1::WorkerMessage>,
    to: mpsc::Sender<Result<v1::MasterMessage, Status>>,
    authorization: String,
}

#[tonic::async_trait]
impl WorkerCallback for Stand {
    type ReportStream = Answers<v1::MasterMessage>;
    type FetchUnitStream = Answers<v1::FetchUnitChunk>;

    async fn report(
        &self,
        request: Request<Streaming<v1::WorkerMessage>>,
    ) -> Result<Response<Self::ReportStream>, Status> {
        let authorization = authorization(&request);
        let (to, answers) = mpsc::channel(16);
        self.streams.send(Open { from: request.into_inner(), to, authorization }).await.unwrap();
        match self.refuse {
            Some(code) => Err(Status::new(code, "refused")),
            None => Ok(Response::new(Box::pin(ReceiverStream::new(answers)))),
        }
    }

    async fn fetch_unit(
        &self,
        request: Request<v1::FetchUnitRequest>,
    ) -> Result<Response<Self::FetchUnitStream>, Status> {
        assert_eq!((authorization(&request).as_str(), request.get_ref().worker_id.as_str()), ("Bearer secret", "w"));
        let pieces = [r#"{"messages":[{"role":"user","#, r#""content":"hi"}]}"#];
        let chunks = pieces.map(|piece| Ok(v1::FetchUnitChunk { payload: Bytes::from_static(piece.as_bytes()) }));
        Ok(Response::new(Box::pin(stream::iter(chunks))))
    }

    async fn lease_credential(
        &self,
        request: Request<v1::LeaseCredentialRequest>,
    ) -> Result<Response<v1::LeaseCredentialResponse>, Status> {
        assert_eq!(authorization(&request), "Bearer secret");
        Ok(Response::new(v1::LeaseCredentialResponse { api_key: "the user's own".into() }))
    }

    async fn accepted_digest(
        &self,
        request: Request<v1::AcceptedDigestRequest>,
    ) -> Result<Response<v1::AcceptedDigestResponse>, Status> {
        assert_eq!(authorization(&request), "Bearer secret");
        match &request.into_inner().key[..] {
            b"known" => Ok(Response::new(v1::AcceptedDigestResponse { digest: vec![7; 32].into() })),
            b"unknown" => Ok(Response::new(v1::AcceptedDigestResponse::default())),
            b"short" => Ok(Response::new(v1::AcceptedDigestResponse { digest: vec![7; 31].into() })),
            b"old" => Err(Status::unimplemented("an older master")),
            _ => Err(Status::internal("broken")),
        }
    }
}

fn authorization<T>(request: &Request<T>) -> String {
    request.metadata().get("authorization").map_or("", |value| value.to_str().unwrap()).to_owned()
}

impl Open {
    async fn next(&mut self) -> v1::WorkerMessage {
        within(self.from.message()).await.unwrap().expect("the worker has ended the stream")
    }

    /// Messages put together until `enough`.
    async fn gather(&mut self, enough: impl Fn(&v1::WorkerMessage) -> bool) -> v1::WorkerMessage {
        let mut all = v1::WorkerMessage::default();
        while !enough(&all) {
            let next = self.next().await;
            all.accepted.extend(next.accepted);
            all.deltas.extend(next.deltas);
            all.results.extend(next.results);
            all.failures.extend(next.failures);
            all.returned.extend(next.returned);
            all.heartbeat = next.heartbeat.or(all.heartbeat);
        }
        all
    }

    async fn say(&self, message: v1::MasterMessage) {
        self.to.send(Ok(message)).await.unwrap();
    }

    async fn welcome(&mut self, epoch: u64, desired: v1::Desired) -> v1::Hello {
        let hello = self.next().await.hello.expect("hello comes first");
        let welcome = v1::Welcome { epoch, protocol: PROTOCOL, desired: Some(desired), ..Default::default() };
        self.say(v1::MasterMessage { welcome: Some(welcome), ..Default::default() }).await;
        hello
    }

    async fn acknowledge(&self, result: &v1::Result, outcome: v1::Outcome) {
        let ack = v1::Ack { unit_id: result.unit_id.clone(), attempt: result.attempt, outcome: outcome.into() };
        self.say(v1::MasterMessage { acks: vec![ack], ..Default::default() }).await;
    }
}

async fn within<F: Future>(future: F) -> F::Output {
    tokio::time::timeout(Duration::from_secs(20), future).await.expect("it takes too long")
}

/// Answers a question with its key, and hashes until it is cancelled.
struct Answering;

#[tonic::async_trait]
impl Executor for Answering {
    fn kinds(&self) -> &[Kind] {
        &[Kind::AiChat, Kind::Hash(Algorithm::Randomx)]
    }

    async fn execute(&self, unit: Unit, context: Context) -> Result<Output, Failure> {
        let Payload::Chat(chat) = &unit.payload else {
            context.observer.delta("so far");
            context.cancel.cancelled().await;
            return Err(Failure::cancelled());
        };
        let key = unit.credential.as_ref().map_or("", |key| key.expose_secret());
        Ok(Output { json: format!("{} {key}", chat.messages[0].content).into(), hashes: 0 })
    }
}

struct Bench {
    runner: Arc<Runner>,
    gate: Arc<EpochGate>,
    streams: mpsc::Receiver<Open>,
    master: watch::Sender<Option<Master>>,
    stopped: watch::Receiver<Option<Stopped>>,
    connected: watch::Receiver<bool>,
    closing: CancellationToken,
    serving: JoinHandle<()>,
    _dir: TempDir,
}

/// A worker's end whose master listens at the endpoint that is given back.
async fn stand(refuse: Option<Code>) -> (String, mpsc::Receiver<Open>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = listener.local_addr().unwrap().to_string();
    let (streams, opened) = mpsc::channel(4);
    let service = WorkerCallbackServer::new(Stand { streams, refuse });
    let router = tonic::transport::Server::builder().add_service(service);
    tokio::spawn(router.serve_with_incoming(TcpIncoming::from(listener)));
    (endpoint, opened)
}

async fn bench(refuse: Option<Code>) -> Bench {
    let (endpoint, streams) = stand(refuse).await;
    let (dir, worker): (_, WorkerId) = (tempfile::tempdir().unwrap(), "w".parse().unwrap());
    let (spool, _) = Spool::open(dir.path(), &worker).unwrap();
    let (log, _) = Log::new(worker.clone());
    let (channel, token) = (watch::channel(None).0, Some(SecretString::from("secret")));
    let calls = Calls { channel: channel.subscribe(), worker: worker.clone(), token: token.clone() };
    let executors: Vec<Arc<dyn Executor>> = vec![Arc::new(Echo), Arc::new(Answering)];
    let (slots, prefetch) = (crate::default_slots(), crate::default_prefetch());
    let runner = Runner::new(executors, &slots, &prefetch, calls, Arc::new(spool), Arc::new(log));
    let (master, stopped, connected) =
        (watch::channel(Some(seen(1, &endpoint))).0, watch::channel(None).0, watch::channel(false).0);
    let (gate, closing) = (Arc::new(EpochGate::default()), CancellationToken::new());
    let callback = Callback {
        identity: Identity { worker, boot_id: "boot".into(), token },
        runner: runner.clone(),
        gate: gate.clone(),
        load: LoadMeter::default(),
        endpoint_override: None,
        master: master.subscribe(),
        channel,
        connected: connected.clone(),
        stopped: stopped.clone(),
        closing: closing.clone(),
    };
    let (stopped, connected) = (stopped.subscribe(), connected.subscribe());
    let serving = tokio::spawn(callback.serve());
    Bench { runner, gate, streams, master, stopped, connected, closing, serving, _dir: dir }
}

fn seen(epoch: u64, endpoint: &str) -> Master {
    Master { epoch, boot_id: String::new(), endpoint: endpoint.to_owned() }
}

impl Bench {
    async fn opened(&mut self) -> Open {
        within(self.streams.recv()).await.unwrap()
    }

    async fn welcomed(&mut self) -> (Open, v1::Hello) {
        let mut open = self.opened().await;
        let hello = open.welcome(1, v1::Desired::default()).await;
        (open, hello)
    }
}

fn task(kind: Kind, payload: &str) -> Task {
    let unit = UnitId { job: JobId::generate(), index: 0 };
    Task {
        unit_id: unit,
        job_id: unit.job,
        attempt: 3,
        kind,
        lease_ms: 15_000,
        timeout_ms: 0,
        failures: 0,
        credential: false,
        own_key_only: false,
        payload: Some(RawValue::from_string(payload.to_owned()).unwrap()),
        payload_by_reference: false,
    }
}

fn echo() -> Task {
    task(Kind::Echo, r#"{"value":1}"#)
}

fn endless() -> Task {
    task(Kind::Hash(Algorithm::Randomx), r#"{"key":"","inputs":[""]}"#)
}

#[tokio::test]
async fn a_worker_says_who_it_is_and_that_it_lives() {
    let mut bench = bench(None).await;
    let (mut open, hello) = bench.welcomed().await;
    assert_eq!((hello.worker_id.as_str(), hello.boot_id.as_str(), hello.token.as_str()), ("w", "boot", "secret"));
    assert_eq!((hello.protocol_min, hello.protocol_max, open.authorization.as_str()), (1, 1, "Bearer secret"));
    let beat = open.gather(|all| all.heartbeat.is_some()).await.heartbeat.unwrap();
    assert!(beat.load.unwrap().memory > 0.0);
}

#[tokio::test]
async fn a_result_is_repeated_on_a_new_stream_until_it_is_acknowledged() {
    let mut bench = bench(None).await;
    let (mut open, _) = bench.welcomed().await;
    bench.runner.offer(vec![echo(), echo()]);
    let first = open.gather(|all| all.results.len() == 2).await.results;
    open.acknowledge(&first[0], v1::Outcome::Applied).await;
    assert!(within(bench.runner.wait_until(Duration::from_secs(10), |table| table.finished().len() == 1)).await);
    // The stream breaks before the second is acknowledged.
    open.to.send(Err(Status::unavailable("gone"))).await.unwrap();
    drop(open);

    let (mut open, hello) = bench.welcomed().await;
    let finished: Vec<_> = hello.finished.iter().map(|attempt| &attempt.unit_id).collect();
    assert_eq!((finished, hello.running.len()), (vec![&first[1].unit_id], 0));
    let again = open.gather(|all| !all.results.is_empty()).await.results;
    assert_eq!(again, first[1..]);
    open.acknowledge(&again[0], v1::Outcome::Stale).await;
    assert!(within(bench.runner.wait_until(Duration::from_secs(10), |table| table.finished().is_empty())).await);
}

#[tokio::test]
async fn a_result_for_which_the_master_has_no_room_comes_again_on_the_same_stream() {
    let mut bench = bench(None).await;
    let (mut open, _) = bench.welcomed().await;
    bench.runner.offer(vec![echo()]);
    let first = open.gather(|all| !all.results.is_empty()).await.results;
    let send_again = vec![v1::Attempt { unit_id: first[0].unit_id.clone(), attempt: first[0].attempt }];
    open.say(v1::MasterMessage { send_again, ..Default::default() }).await;
    assert_eq!(open.gather(|all| !all.results.is_empty()).await.results, first);
}

#[tokio::test]
async fn what_runs_is_listed_after_a_break_and_stops_when_cancelled() {
    let mut bench = bench(None).await;
    let (mut open, _) = bench.welcomed().await;
    let (running, waiting) = (endless(), endless());
    let key = (running.unit_id.to_string(), running.attempt);
    bench.runner.offer(vec![running, waiting]);
    let accepted = open.gather(|all| all.accepted.len() == 2).await.accepted;
    assert_eq!(accepted.iter().map(|accepted| accepted.started).collect::<Vec<_>>(), [false, true].map(|waits| !waits));
    drop(open);

    let (mut open, hello) = bench.welcomed().await;
    assert_eq!((hello.running.len(), hello.finished.len()), (2, 0));
    let cancel = vec![v1::Attempt { unit_id: key.0.clone(), attempt: key.1 }];
    let take_back = hello.running.iter().filter(|attempt| attempt.unit_id != key.0).cloned().collect::<Vec<_>>();
    open.say(v1::MasterMessage { take_back: take_back.clone(), ..Default::default() }).await;
    assert_eq!(open.gather(|all| !all.returned.is_empty()).await.returned, take_back);
    open.say(v1::MasterMessage { cancel, ..Default::default() }).await;
    assert!(within(bench.runner.wait_until(Duration::from_secs(10), |table| table.executing() == 0)).await);
    let (running, finished) = bench.runner.holdings();
    assert!(running.is_empty() && finished.is_empty(), "what was cancelled reports nothing");
}

#[tokio::test]
async fn text_that_may_be_lost_with_its_stream_comes_again_on_the_next() {
    let mut bench = bench(None).await;
    let (mut open, _) = bench.welcomed().await;
    bench.runner.offer(vec![endless()]);
    let first = open.gather(|all| !all.deltas.is_empty()).await.deltas;
    assert_eq!((first[0].seq, first[0].text.as_str(), first[0].again), (0, "so far", false));
    open.to.send(Err(Status::unavailable("gone"))).await.unwrap();
    drop(open);

    let (mut open, _) = bench.welcomed().await;
    let second = open.gather(|all| !all.deltas.is_empty()).await.deltas;
    assert_eq!(second, [v1::Delta { again: true, ..first[0].clone() }]);
}

#[tokio::test]
async fn a_superseded_worker_stops_for_good() {
    let mut bench = bench(None).await;
    let (open, _) = bench.welcomed().await;
    open.say(v1::MasterMessage { goodbye: Some("superseded".into()), ..Default::default() }).await;
    within(&mut bench.serving).await.unwrap();
    assert_eq!(*bench.stopped.borrow(), Some(Stopped::Superseded));
}

#[tokio::test]
async fn a_worker_that_is_refused_because_a_newer_one_is_there_stops_for_good() {
    let mut bench = bench(Some(Code::AlreadyExists)).await;
    within(&mut bench.serving).await.unwrap();
    assert_eq!(*bench.stopped.borrow(), Some(Stopped::Superseded));
}

#[tokio::test]
async fn other_refusals_and_goodbyes_are_tried_again() {
    let mut refused = bench(Some(Code::Unauthenticated)).await;
    for _ in 0..3 {
        refused.opened().await;
    }
    let mut bench = bench(None).await;
    let (open, _) = bench.welcomed().await;
    open.say(v1::MasterMessage { goodbye: Some("the master stops".into()), ..Default::default() }).await;
    bench.welcomed().await;
    assert_eq!((*bench.stopped.borrow(), *refused.stopped.borrow()), (None, None));
}

#[tokio::test]
async fn a_master_with_a_lower_epoch_than_seen_gets_no_reports() {
    let mut bench = bench(None).await;
    assert!(bench.gate.welcomed(2));
    bench.runner.offer(vec![echo()]);
    let (mut old, _) = bench.welcomed().await;
    let nothing = within(old.from.message()).await;
    assert!(!matches!(nothing, Ok(Some(_))), "{nothing:?}");

    let mut new = bench.opened().await;
    new.welcome(2, v1::Desired::default()).await;
    assert_eq!(new.gather(|all| !all.results.is_empty()).await.results.len(), 1);
}

#[tokio::test]
async fn a_worker_follows_the_master_to_another_address() {
    let mut bench = bench(None).await;
    let (_old, _) = bench.welcomed().await;
    within(bench.connected.wait_for(|connected| *connected)).await.unwrap();
    let (endpoint, mut streams) = stand(None).await;
    bench.master.send_replace(Some(seen(2, &endpoint)));
    let mut open = within(streams.recv()).await.unwrap();
    open.welcome(2, v1::Desired::default()).await;
    bench.runner.offer(vec![echo()]);
    assert_eq!(open.gather(|all| !all.results.is_empty()).await.results.len(), 1);
}

#[tokio::test]
async fn what_the_master_wants_of_the_worker_comes_with_the_welcome() {
    let mut bench = bench(None).await;
    let mut open = bench.opened().await;
    open.welcome(1, v1::Desired { paused: true, stop: true, ..Default::default() }).await;
    within(bench.connected.wait_for(|connected| *connected)).await.unwrap();
    bench.runner.offer(vec![echo()]);
    assert_eq!(open.gather(|all| !all.returned.is_empty()).await.results.len(), 0);
    assert_eq!(*bench.stopped.borrow(), Some(Stopped::Told));
}

#[tokio::test]
async fn payload_and_key_are_fetched_for_the_attempt_that_needs_them() {
    let mut bench = bench(None).await;
    let (mut open, _) = bench.welcomed().await;
    let mut question = task(Kind::AiChat, "null");
    (question.payload, question.payload_by_reference, question.credential) = (None, true, true);
    bench.runner.offer(vec![question]);
    let results = open.gather(|all| !all.results.is_empty() || !all.failures.is_empty()).await.results;
    assert_eq!(results[0].output, "hi the user's own".as_bytes());
}

#[tokio::test]
async fn the_last_reports_go_out_before_the_stream_ends() {
    let mut bench = bench(None).await;
    let (mut open, _) = bench.welcomed().await;
    within(bench.connected.wait_for(|connected| *connected)).await.unwrap();
    bench.runner.offer(vec![echo()]);
    bench.closing.cancel();
    assert_eq!(open.gather(|all| !all.results.is_empty()).await.results.len(), 1);
    assert!(within(open.from.message()).await.unwrap().is_none(), "the worker ends the stream");
    drop(open);
    within(bench.serving).await.unwrap();
}

#[tokio::test]
async fn the_master_is_asked_which_digest_a_dataset_must_have() {
    let mut bench = bench(None).await;
    assert!(bench.runner.calls.accepted(b"known").await.unwrap_err().contains("no connection"));
    let (_open, _) = bench.welcomed().await;
    within(bench.connected.wait_for(|connected| *connected)).await.unwrap();
    let calls = &bench.runner.calls;
    assert_eq!(calls.accepted(b"known").await, Ok(Some([7; 32])));
    assert_eq!(calls.accepted(b"unknown").await, Ok(None));
    assert_eq!(calls.accepted(b"old").await, Ok(None), "a master that does not know the call knows no digest");
    for wrong in [&b"short"[..], b"broken"] {
        assert!(calls.accepted(wrong).await.is_err());
    }
}
