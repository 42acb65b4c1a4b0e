//! The worker's surroundings: a real Mosquitto, and a master that shows what it is told and says what its test wants.
#![allow(missing_docs, clippy::unwrap_used)]

#[path = "../../../common/tests/support/mod.rs"]
mod broker;

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use flota_common::clock;
use flota_common::mqtt::{Client, Event, Events};
use flota_proto::mqtt::{Control, LogLine, MasterStatus, Presence, Task, Tasks};
use flota_proto::v1::worker_callback_server::{WorkerCallback, WorkerCallbackServer};
use flota_proto::{JobId, Kind, PROTOCOL, UnitId, v1};
use flota_worker::executor::{Executor, echo::Echo};
use flota_worker::{RunningWorker, Worker, WorkerConfig};
use futures::Stream;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status, Streaming};

pub use broker::Mosquitto;

pub const PATIENCE: Duration = Duration::from_secs(30);

pub async fn within<F: Future>(what: &str, future: F) -> F::Output {
    tokio::time::timeout(PATIENCE, future).await.unwrap_or_else(|_| panic!("not within {PATIENCE:?}: {what}"))
}

/// A fleet of one worker, its broker and its master.
pub struct Fleet {
    pub broker: Mosquitto,
    pub endpoint: String,
    /// What workers report, streams put together.
    pub reports: mpsc::UnboundedReceiver<v1::WorkerMessage>,
    state: Arc<Mutex<State>>,
    client: Client,
    events: Events,
    seen: VecDeque<(String, bytes::Bytes)>,
    pub data_dir: TempDir,
}

impl Fleet {
    pub async fn start() -> Self {
        let broker = Mosquitto::start("allow_anonymous true").await;
        let (client, mut events) = broker::client(&broker.url(), "watcher", &["flota/workers/#", "flota/logs"]);
        broker::connected(&mut events).await;
        // Its echo proves that the subscriptions are there.
        client.publish("flota/workers/probe".into(), "{}".into(), true, false).unwrap();
        let state = Arc::new(Mutex::new(State { acknowledging: true, epoch: 0 }));
        let (endpoint, reports) = master(state.clone()).await;
        let data_dir = tempfile::tempdir().unwrap();
        let mut fleet = Self { broker, endpoint, reports, state, client, events, seen: VecDeque::new(), data_dir };
        let _: serde_json::Value = fleet.message("flota/workers/probe").await;
        fleet
    }

    pub async fn worker(&self) -> RunningWorker {
        let executors: Vec<Arc<dyn Executor>> = vec![Arc::new(Echo)];
        Worker::start(self.config(), executors).await.unwrap()
    }

    pub fn config(&self) -> WorkerConfig {
        WorkerConfig::new("w-1".parse().unwrap(), &self.broker.url(), self.data_dir.path().to_owned())
    }

    pub fn acknowledge(&self, yes: bool) {
        self.state.lock().unwrap().acknowledging = yes;
    }

    pub fn publish(&self, topic: &str, message: &impl serde::Serialize, retain: bool) {
        self.client.publish(topic.into(), serde_json::to_vec(message).unwrap().into(), true, retain).unwrap();
    }

    pub fn say_master(&self, epoch: u64, boot_id: &str) {
        let highest = self.state.lock().unwrap().epoch.max(epoch);
        self.state.lock().unwrap().epoch = highest;
        let status = MasterStatus {
            status: Presence::Online,
            grpc_endpoint: self.endpoint.clone(),
            web_url: String::new(),
            version: "0".into(),
            epoch,
            boot_id: boot_id.into(),
            timestamp: clock::now(),
        };
        self.publish("flota/master/status", &status, true);
    }

    pub fn send(&self, epoch: u64, units: Vec<Task>) {
        let tasks = Tasks {
            worker_id: "w-1".parse().unwrap(),
            grpc_endpoint: self.endpoint.clone(),
            epoch,
            timestamp: clock::now(),
            units,
        };
        self.publish("flota/workers/w-1/tasks", &tasks, false);
    }

    pub fn control(&self, control: &Control) {
        self.publish("flota/workers/w-1/control", control, false);
    }

    /// A new broker process, which has forgotten everything.
    pub async fn restart_broker(&mut self) {
        self.broker.restart().await;
        self.seen.clear();
        while self.events.try_recv().is_some() {}
    }

    /// The next message on `topic`; those on other topics stay.
    pub async fn message<T: DeserializeOwned>(&mut self, topic: &str) -> T {
        if let Some(at) = self.seen.iter().position(|(seen, _)| seen == topic) {
            let (_, payload) = self.seen.remove(at).unwrap();
            return serde_json::from_slice(&payload).unwrap();
        }
        let deadline = tokio::time::Instant::now() + PATIENCE;
        loop {
            let next = tokio::time::timeout_at(deadline, self.events.recv());
            match next.await.expect(topic).expect("the watcher's link has ended") {
                Event::Message { topic: arrived, payload, .. } if arrived == topic => {
                    return serde_json::from_slice(&payload).unwrap();
                }
                Event::Message { topic, payload, .. } => self.seen.push_back((topic, payload)),
                Event::Connected { .. } | Event::Disconnected { .. } => {}
            }
        }
    }

    /// Waits until the worker has taken in a `Welcome`: from then on it knows which epochs are too old. Answers with the
    /// log line that says so.
    pub async fn welcomed(&mut self) -> LogLine {
        loop {
            let line: LogLine = self.message("flota/logs").await;
            if line.message.contains("reports to the master") {
                return line;
            }
        }
    }

    /// The next report that `fits`; others before it are dropped.
    pub async fn report(&mut self, what: &str, fits: impl Fn(&v1::WorkerMessage) -> bool) -> v1::WorkerMessage {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        loop {
            let report = tokio::time::timeout_at(deadline, self.reports.recv()).await;
            let report = report.expect(what).expect("the master has ended");
            if fits(&report) {
                return report;
            }
        }
    }
}

pub fn echo(value: &str) -> Task {
    let unit = UnitId { job: JobId::generate(), index: 0 };
    Task {
        unit_id: unit,
        job_id: unit.job,
        attempt: 1,
        kind: Kind::Echo,
        lease_ms: 15_000,
        timeout_ms: 0,
        failures: 0,
        credential: false,
        own_key_only: false,
        payload: Some(RawValue::from_string(format!(r#"{{"value":{value}}}"#)).unwrap()),
        payload_by_reference: false,
    }
}

/// How the master behaves.
struct State {
    acknowledging: bool,
    epoch: u64,
}

struct Stand {
    reports: mpsc::UnboundedSender<v1::WorkerMessage>,
    state: Arc<Mutex<State>>,
}

async fn master(state: Arc<Mutex<State>>) -> (String, mpsc::UnboundedReceiver<v1::WorkerMessage>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = listener.local_addr().unwrap().to_string();
    let (reports, reported) = mpsc::unbounded_channel();
    let service = WorkerCallbackServer::new(Stand { reports, state });
    let router = tonic::transport::Server::builder().add_service(service);
    tokio::spawn(router.serve_with_incoming(TcpIncoming::from(listener).with_nodelay(Some(true))));
    (endpoint, reported)
}

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl WorkerCallback for Stand {
    type ReportStream = Answers<v1::MasterMessage>;
    type FetchUnitStream = Answers<v1::FetchUnitChunk>;

    async fn report(
        &self,
        request: Request<Streaming<v1::WorkerMessage>>,
    ) -> Result<Response<Self::ReportStream>, Status> {
        let (to, answers) = mpsc::channel(16);
        let (reports, state) = (self.reports.clone(), self.state.clone());
        let epoch = state.lock().unwrap().epoch;
        let welcome = v1::Welcome { epoch, protocol: PROTOCOL, ..Default::default() };
        to.send(Ok(v1::MasterMessage { welcome: Some(welcome), ..Default::default() })).await.unwrap();
        tokio::spawn(async move {
            let mut messages = request.into_inner();
            while let Ok(Some(message)) = messages.message().await {
                let ack = |result: &v1::Result| v1::Ack {
                    unit_id: result.unit_id.clone(),
                    attempt: result.attempt,
                    outcome: v1::Outcome::Applied.into(),
                };
                let acks: Vec<_> = message.results.iter().map(ack).collect();
                let acknowledge = state.lock().unwrap().acknowledging && !acks.is_empty();
                let _ = reports.send(message);
                if acknowledge {
                    let _ = to.send(Ok(v1::MasterMessage { acks, ..Default::default() })).await;
                }
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(answers))))
    }

    async fn fetch_unit(&self, _: Request<v1::FetchUnitRequest>) -> Result<Response<Self::FetchUnitStream>, Status> {
        Err(Status::not_found("nothing"))
    }

    async fn lease_credential(
        &self,
        _: Request<v1::LeaseCredentialRequest>,
    ) -> Result<Response<v1::LeaseCredentialResponse>, Status> {
        Err(Status::not_found("nothing"))
    }

    async fn accepted_digest(
        &self,
        _: Request<v1::AcceptedDigestRequest>,
    ) -> Result<Response<v1::AcceptedDigestResponse>, Status> {
        Ok(Response::new(v1::AcceptedDigestResponse::default()))
    }
}
