//! Starts a worker's parts and ends them in order.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use flota_common::mqtt::{self, Client, Events, Subscription};
use flota_proto::mqtt::{Register, WorkerState};
use flota_proto::topics::Topics;
use flota_proto::{Algorithm, Class, Kind, PROTOCOL, WorkerId};
use thiserror::Error;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use tracing::{info, warn};

use crate::callback::{Callback, Identity};
use crate::calls::Calls;
use crate::capabilities;
use crate::config::{StartError, WorkerConfig, default_prefetch, default_slots};
use crate::control::Commands;
use crate::epoch::{EpochGate, Masters};
use crate::executor::Executor;
use crate::health::HealthFile;
use crate::link::{Link, publish_logs};
use crate::load::LoadMeter;
use crate::log::Log;
use crate::neighbour;
use crate::peer;
use crate::runner::Runner;
use crate::spool::Spool;
use crate::status::{StatusPublisher, bare, messages};
use crate::table::{Mode, Table};

/// How long executors that were told to stop may take at the end.
const STOP_TIMEOUT: Duration = Duration::from_secs(3);
/// How long the last acknowledgements may take.
const SETTLE_TIMEOUT: Duration = Duration::from_secs(3);

/// Why a worker has to end although nobody shut it down.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Stopped {
    /// The master told it to.
    #[error("the master told this worker to stop")]
    Told,
    /// Another process runs with its id.
    #[error(
        "another process has taken this worker's id: give each worker its own FLOTA_WORKER_ID (and FLOTA_DATA_DIR), or \
         leave it unset, then one is made and kept in the data directory"
    )]
    Superseded,
}

/// The agent.
pub struct Worker;

/// A worker that runs.
pub struct RunningWorker {
    worker: WorkerId,
    boot_id: String,
    grace: Duration,
    topics: Arc<Topics>,
    runner: Arc<Runner>,
    client: Client,
    stopped: watch::Receiver<Option<Stopped>>,
    connected: watch::Receiver<bool>,
    /// Ends the report stream once everything is sent.
    closing: CancellationToken,
    /// Cuts the grace period short.
    hurry: CancellationToken,
    /// Ends the connection to the broker without farewell.
    broker: CancellationToken,
    reports: Mutex<Option<JoinHandle<()>>>,
    tasks: Mutex<Vec<AbortOnDropHandle<()>>>,
}

impl Worker {
    /// Starts a worker that computes with `executors`. It goes on trying when broker or master cannot be reached.
    ///
    /// # Errors
    /// [`StartError`] when it can never work as configured.
    pub async fn start(config: WorkerConfig, executors: Vec<Arc<dyn Executor>>) -> Result<RunningWorker, StartError> {
        let topics = Arc::new(Topics::new(&config.topic_root).map_err(StartError::TopicRoot)?);
        let endpoint_override = config.endpoint_override()?;
        let boot_id = uuid::Uuid::now_v7().to_string();
        let register = register(&config, &executors, &boot_id)?;

        let (spool, restored) = Spool::open(&config.data_dir, &config.worker_id)?;
        let (log, lines) = Log::new(config.worker_id.clone());
        let channel = watch::channel(None).0;
        let calls =
            Calls { channel: channel.subscribe(), worker: config.worker_id.clone(), token: config.token.clone() };
        executors.iter().for_each(|executor| executor.trust(Arc::new(calls.clone())));
        let peer = peer_server(&config, &executors).await?;
        let runner = Runner::new(executors, &register.slots, &register.prefetch, calls, Arc::new(spool), Arc::new(log));
        if !restored.is_empty() {
            info!(count = restored.len(), "results of an earlier run are reported again");
        }
        runner.restore(restored);

        let broker = CancellationToken::new();
        let (client, events) = Client::start(mqtt_config(&config, &topics, &boot_id), broker.clone())?;
        let parts = Parts {
            gate: Arc::new(EpochGate::default()),
            master: watch::channel(None).0,
            stopped: watch::channel(None).0,
            connected: watch::channel(false).0,
            closing: CancellationToken::new(),
            offer_changed: Arc::new(Notify::new()),
        };
        let callback = Callback {
            identity: Identity {
                worker: config.worker_id.clone(),
                boot_id: boot_id.clone(),
                token: config.token.clone(),
            },
            runner: runner.clone(),
            gate: parts.gate.clone(),
            load: LoadMeter::default(),
            endpoint_override,
            master: parts.master.subscribe(),
            channel,
            connected: parts.connected.clone(),
            stopped: parts.stopped.clone(),
            closing: parts.closing.clone(),
        };
        let reports = report_thread(callback)?;
        let (stopped, connected) = (parts.stopped.subscribe(), parts.connected.subscribe());
        let closing = parts.closing.clone();
        let logs = publish_logs(client.clone(), topics.logs(), lines);
        let health = HealthFile::new(&config.data_dir, &config.worker_id);
        let neighbour = neighbour::watch(config.neighbour, runner.clone(), parts.offer_changed.clone());
        let mut tasks = link_tasks(parts, register, health, &runner, &client, events, &topics);
        tasks.push(AbortOnDropHandle::new(tokio::spawn(logs)));
        tasks.push(AbortOnDropHandle::new(tokio::spawn(neighbour)));
        tasks.extend(peer);
        Ok(RunningWorker {
            worker: config.worker_id,
            boot_id,
            grace: config.grace,
            topics,
            runner,
            client,
            stopped,
            connected,
            closing,
            hurry: CancellationToken::new(),
            broker,
            reports: Mutex::new(Some(reports)),
            tasks: Mutex::new(tasks),
        })
    }
}

/// Gives RandomX datasets to other workers, where the operator wants that.
async fn peer_server(
    config: &WorkerConfig,
    executors: &[Arc<dyn Executor>],
) -> Result<Option<AbortOnDropHandle<()>>, StartError> {
    let Some(listen) = config.peer_listen else { return Ok(None) };
    if !listen.ip().is_loopback() && config.token.is_none() {
        return Err(StartError::PeerToken(listen));
    }
    let started = peer::serve::start(listen, config.token.clone(), executors.to_vec()).await;
    let (address, serving) = started.map_err(|error| StartError::PeerListen(listen, error))?;
    info!(%address, "gives RandomX datasets to other workers");
    Ok(Some(AbortOnDropHandle::new(tokio::spawn(serving))))
}

/// What link and callback share.
struct Parts {
    gate: Arc<EpochGate>,
    master: watch::Sender<Option<crate::epoch::Master>>,
    stopped: watch::Sender<Option<Stopped>>,
    connected: watch::Sender<bool>,
    closing: CancellationToken,
    /// What the worker offers has changed.
    offer_changed: Arc<Notify>,
}

fn link_tasks(
    parts: Parts,
    register: Register,
    health: HealthFile,
    runner: &Arc<Runner>,
    client: &Client,
    events: Events,
    topics: &Arc<Topics>,
) -> Vec<AbortOnDropHandle<()>> {
    let say_status = Arc::new(Notify::new());
    let status = StatusPublisher {
        client: client.clone(),
        topics: topics.clone(),
        worker: register.worker_id.clone(),
        boot_id: register.boot_id.clone(),
        slots: register.slots.clone(),
        runner: runner.clone(),
        load: LoadMeter::default(),
        again: say_status.clone(),
    };
    let link = Link {
        client: client.clone(),
        topics: topics.clone(),
        register,
        runner: runner.clone(),
        gate: parts.gate,
        masters: Masters::default(),
        master: parts.master,
        commands: Mutex::new(Commands::default()),
        stopped: parts.stopped,
        say_status,
        offer_changed: parts.offer_changed,
        reporting: parts.connected.subscribe(),
        health,
    };
    vec![AbortOnDropHandle::new(tokio::spawn(link.run(events))), AbortOnDropHandle::new(tokio::spawn(status.run()))]
}

/// Runs the report stream on a thread and a runtime of its own: nothing else in the process can hold up a heartbeat.
fn report_thread(callback: Callback) -> Result<JoinHandle<()>, StartError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let thread = std::thread::Builder::new().name("flota-reports".to_owned());
    Ok(thread.spawn(move || runtime.block_on(callback.serve()))?)
}

fn mqtt_config(config: &WorkerConfig, topics: &Topics, boot_id: &str) -> mqtt::Config {
    let [will, _] = messages(topics, &bare(&config.worker_id, boot_id, WorkerState::Offline));
    let filters = [
        topics.master_status(),
        topics.tasks(&config.worker_id),
        topics.worker_control(&config.worker_id),
        topics.control(),
        topics.worker_state(&config.worker_id),
    ];
    mqtt::Config {
        url: config.mqtt_url.clone(),
        user: config.mqtt_user.clone(),
        password: config.mqtt_password.clone(),
        client_id: config.worker_id.to_string(),
        clean_session: true,
        will: Some(will),
        subscriptions: filters.map(Subscription::reliable).into(),
    }
}

/// What the worker says of itself: only classes that it has an executor and a slot for.
fn register(config: &WorkerConfig, executors: &[Arc<dyn Executor>], boot_id: &str) -> Result<Register, StartError> {
    let with_defaults = |given: &BTreeMap<Class, u32>, mut all: BTreeMap<Class, u32>| {
        all.extend(given);
        all
    };
    let mut slots = with_defaults(&config.slots, default_slots());
    let mut prefetch = with_defaults(&config.prefetch, default_prefetch());
    let computable: Vec<Kind> = executors.iter().flat_map(|executor| executor.kinds()).copied().collect();
    slots.retain(|class, count| *count > 0 && computable.iter().any(|kind| kind.class() == *class));
    prefetch.retain(|class, _| slots.contains_key(class));
    if slots.is_empty() {
        return Err(StartError::NoSlots);
    }
    let mut kinds: Vec<Kind> = computable.into_iter().filter(|kind| slots.contains_key(&kind.class())).collect();
    kinds.sort_unstable();
    kinds.dedup();
    let mut capabilities = capabilities::measure();
    let algorithms: BTreeSet<Algorithm> = kinds.iter().filter_map(|kind| kind.algorithm()).collect();
    capabilities.features.extend(algorithms.into_iter().map(|algorithm| algorithm.as_str().to_owned()));
    let models = executors.iter().flat_map(|executor| executor.models()).collect();
    Ok(Register {
        worker_id: config.worker_id.clone(),
        language: "rust".to_owned(),
        status: "idle".to_owned(),
        timestamp: flota_common::clock::now(),
        protocol: Some(PROTOCOL),
        boot_id: boot_id.to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        slots,
        prefetch,
        kinds,
        models,
        capabilities,
        labels: config.labels.clone(),
    })
}

impl RunningWorker {
    /// Who it is.
    #[must_use]
    pub fn worker_id(&self) -> &WorkerId {
        &self.worker
    }

    /// Whether its report stream is open.
    #[must_use]
    pub fn connected(&self) -> bool {
        *self.connected.borrow()
    }

    /// Resolves when the worker has to end although nobody shut it down; call [`RunningWorker::shutdown`] then.
    pub async fn stopped(&self) -> Stopped {
        let mut stopped = self.stopped.clone();
        let reason = stopped.wait_for(Option::is_some).await.map(|reason| *reason);
        match reason {
            Ok(Some(reason)) => reason,
            // Its senders live as long as the worker's parts.
            Ok(None) | Err(_) => std::future::pending().await,
        }
    }

    /// Cuts the grace period of a [`RunningWorker::shutdown`] short: for the second signal.
    pub fn hurry(&self) {
        self.hurry.cancel();
    }

    /// Ends in order: takes nothing new, hands back what waits, lets what runs finish within the grace period and hands
    /// back the rest, waits for acknowledgements, keeps what is not acknowledged on disk, says `offline`.
    pub async fn shutdown(&self) {
        let superseded = *self.stopped.borrow() == Some(Stopped::Superseded);
        self.runner.change(|table| table.set_mode(Mode { closing: true, ..table.mode() }));
        if !superseded {
            let done = self.runner.wait_until(self.grace, |table| table.executing() == 0);
            self.hurry.run_until_cancelled(done).await;
        }
        self.runner.change(|table| table.hand_back_all(true));
        if !self.runner.wait_until(STOP_TIMEOUT, |table| table.executing() == 0).await {
            warn!("some executors have not stopped; they end with the process");
        }
        if self.connected() {
            let settled = self.runner.wait_until(SETTLE_TIMEOUT, Table::is_settled);
            self.hurry.run_until_cancelled(settled).await;
        }
        self.runner.keep_all().await;
        self.closing.cancel();
        self.join_reports().await;
        let offline = bare(&self.worker, &self.boot_id, WorkerState::Offline);
        // The state belongs to the process that took the id.
        let last = if superseded { Vec::new() } else { messages(&self.topics, &offline).into() };
        self.client.shutdown(last).await;
        self.join_tasks().await;
        self.runner.ended(STOP_TIMEOUT).await;
    }

    async fn join_tasks(&self) {
        let tasks = std::mem::take(&mut *self.tasks.lock().unwrap_or_else(PoisonError::into_inner));
        for task in tasks {
            task.abort();
            let _ = task.await;
        }
    }

    async fn join_reports(&self) {
        let thread = self.reports.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread {
            let joined = tokio::task::spawn_blocking(move || thread.join());
            if !matches!(joined.await, Ok(Ok(()))) {
                warn!("the thread of the report stream ended by a panic");
            }
        }
    }
}

impl Drop for RunningWorker {
    /// Without a shutdown everything ends at once, as if the process had been killed.
    fn drop(&mut self) {
        self.closing.cancel();
        self.broker.cancel();
    }
}
