//! The one loop that linearises the world: it takes what has arrived, applies it to the core, commits the whole batch,
//! and only then lets the effects out. What arrives while a commit runs is the next batch, so batches form under load
//! and a lone job waits for nothing.

mod cache;
mod checks;
mod commands;
mod conversations;
mod coverage;
mod credentials;
mod idempotency;
mod notes;
mod reads;
mod release;
mod sessions;
mod simple;
mod stall;
mod submissions;
mod tasks;
mod time;
mod tokens;
mod usage;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use flota_common::clock;
use flota_proto::rest::JobState;
use flota_proto::topics::Topics;
use flota_proto::{JobId, WorkerId, mqtt, rest, v1};
use rand::Rng;
use secrecy::SecretString;
use thiserror::Error;
use tokio::sync::{mpsc, oneshot};
use tracing::{error, info};

use crate::aside::Aside;
use crate::core::{Core, Effect, Input, Limits, Moment};
use crate::handle::{Command, JobUpdate, Publisher, Refused, StreamId};
use crate::ledger::AiLimits;
use crate::ration::Ration;
use crate::seal::Sealer;
use crate::sources::Listeners;
use crate::store::{IdempotencyRow, Retention, Store, StoreError};
use crate::verifier::Verifier;
use cache::Cache;
pub use cache::CacheLimits;
use conversations::Conversations;
use credentials::Credentials;
use notes::Notes;
use reads::Readers;
use submissions::Submission;
use tasks::Narrower;
use time::Time;
pub use usage::UsageQuery;

/// How simple workers are served.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SimpleWorkers {
    /// Not at all.
    Off,
    /// With a key of their own.
    #[default]
    Keyless,
    /// They are sent keys over the broker.
    Trusted,
}

/// What the loop needs to know.
pub struct Config {
    /// Of the topics.
    pub topics: Topics,
    /// Plain `host:port` that workers are told to report to.
    pub grpc_endpoint: String,
    /// How simple workers are served.
    pub simple: SimpleWorkers,
    /// The master's own key, for trusted simple workers.
    pub gemini_api_key: Option<SecretString>,
    /// Bounds of the core.
    pub limits: Limits,
    /// What is kept.
    pub retention: Retention,
    /// With less free space than this for the store, no new jobs are accepted.
    pub store_reserve_bytes: u64,
    /// Seals users' keys.
    pub sealer: Sealer,
    /// How much of a conversation is sent with a question, in tokens.
    pub conversation_tokens: u64,
    /// Limits, budgets and prices of AI jobs.
    pub ai: AiLimits,
    /// How much of results is kept for others that ask the same.
    pub cache: CacheLimits,
    /// Sources that wait for what their jobs give.
    pub listeners: Arc<Listeners>,
    /// Checks results of RandomX; without it none is.
    pub verifier: Option<Verifier>,
}

/// Why the loop ended by itself.
#[derive(Debug, Error)]
pub enum Ended {
    /// Another master has taken charge of the store.
    #[error("another master has taken charge of this store (epoch {0}): this one stops")]
    Superseded(u64),
    /// The store can't be read.
    #[error("the store failed and could not be read again: {0}")]
    Store(StoreError),
}

/// Commands taken into one batch.
const BATCH_MAX: usize = 1000;
/// How often jobs' states are flushed to MQTT.
const STATUS_FLUSH: Duration = Duration::from_millis(100);
/// How often old jobs are looked for.
const PRUNE_INTERVAL: Duration = Duration::from_secs(1);
/// How soon again where a slice was full.
const PRUNE_INTERVAL_BUSY: Duration = Duration::from_millis(20);
/// How often streams are looked through.
const SWEEP_INTERVAL: Duration = Duration::from_secs(1);
/// Events that may wait for one subscriber.
const SUBSCRIBER_EVENTS_MAX: usize = 1024;

/// What is answered once the batch is in the store, or refused when it is not.
type Answer = Box<dyn FnOnce(Result<(), Refused>) + Send>;

/// The loop's state.
pub struct Dispatcher {
    config: Config,
    core: Core,
    store: Box<dyn Store>,
    publisher: Arc<dyn Publisher>,
    readers: Readers,
    /// For what readers bring back.
    commands: mpsc::WeakSender<Command>,
    epoch: u64,
    secret: Vec<u8>,
    streams: HashMap<StreamId, mpsc::Sender<v1::MasterMessage>>,
    next_stream: u64,
    waiters: HashMap<JobId, Vec<oneshot::Sender<Result<rest::Job, Refused>>>>,
    subscribers: HashMap<JobId, Vec<mpsc::Sender<Arc<JobUpdate>>>>,
    registrations: HashMap<WorkerId, mqtt::Register>,
    turned_away: Ration,
    credentials: Credentials,
    conversations: Conversations,
    cache: Cache,
    narrower: Narrower,
    checker: Option<checks::Checker>,
    submissions: VecDeque<Submission>,
    notes: Notes,
    tokens: tokens::Tokens,
    /// What was last told of each worker.
    worker_states: HashMap<WorkerId, mqtt::WorkerState>,
    ended_counts: BTreeMap<JobState, u64>,
    health: stall::Health,
    flushed: std::time::Instant,
    swept: std::time::Instant,
    time: Time,
    // Of the batch in work:
    effects: Vec<Effect>,
    answers: Vec<Answer>,
    keys: Vec<IdempotencyRow>,
    asides: Vec<Aside>,
}

/// A loop that runs.
pub struct Running {
    thread: std::thread::JoinHandle<Result<(), Ended>>,
}

impl Running {
    /// Waits for its end.
    ///
    /// # Errors
    /// [`Ended`] says why it ended without being told to.
    pub fn join(self) -> Result<(), Ended> {
        self.thread.join().unwrap_or_else(|_| Err(Ended::Store(StoreError::Other("the loop panicked".into()))))
    }
}

impl Dispatcher {
    /// Rebuilds the core from `store`, of which this master has taken charge with `epoch`.
    ///
    /// # Errors
    /// [`StoreError`]
    pub fn new(
        config: Config,
        mut store: Box<dyn Store>,
        epoch: u64,
        publisher: Arc<dyn Publisher>,
        handle: &crate::handle::Handle,
    ) -> Result<Self, StoreError> {
        let loaded = store.load()?;
        let readers = Readers::start(&*store)?;
        let secret = loaded.secret.clone();
        let ended_counts = loaded.ended.iter().copied().collect();
        let start = |verifier: Verifier| checks::Checker::start(Arc::new(verifier), handle);
        let checker = config.verifier.clone().map(start).transpose();
        let checker = checker.map_err(|error| StoreError::Other(error.to_string()))?;
        let mut time = Time::new();
        let core = store.rebuild(config.limits, time.now(), loaded)?;
        if core.live_jobs() > 0 {
            info!(live_jobs = core.live_jobs(), "took over jobs that have not ended");
        }
        let mut dispatcher = Self {
            config,
            core,
            store,
            publisher,
            readers,
            commands: handle.downgrade(),
            epoch,
            secret,
            streams: HashMap::new(),
            next_stream: 1,
            waiters: HashMap::new(),
            subscribers: HashMap::new(),
            registrations: HashMap::new(),
            turned_away: Ration::default(),
            credentials: Credentials::default(),
            conversations: Conversations::default(),
            cache: Cache::default(),
            narrower: Narrower::default(),
            checker,
            submissions: VecDeque::new(),
            notes: Notes::default(),
            tokens: tokens::Tokens::default(),
            worker_states: HashMap::new(),
            ended_counts,
            health: stall::Health::default(),
            flushed: clock::instant(),
            swept: clock::instant(),
            time,
            effects: Vec::new(),
            answers: Vec::new(),
            keys: Vec::new(),
            asides: Vec::new(),
        };
        dispatcher.conversations_again();
        dispatcher.meter_again()?;
        dispatcher.load_credentials()?;
        dispatcher.recall_asked()?;
        dispatcher.fail_jobs_without_key();
        Ok(dispatcher)
    }

    /// Runs on a thread of its own until [`Command::Stop`] or a failure.
    ///
    /// # Errors
    /// When the thread can't be started.
    pub fn spawn(self, commands: mpsc::Receiver<Command>) -> std::io::Result<Running> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
        let thread = std::thread::Builder::new()
            .name("flota-dispatcher".into())
            .spawn(move || runtime.block_on(self.run(commands)))?;
        Ok(Running { thread })
    }

    async fn run(mut self, mut commands: mpsc::Receiver<Command>) -> Result<(), Ended> {
        let mut taken = Vec::with_capacity(BATCH_MAX);
        let mut prune_at = clock::instant() + PRUNE_INTERVAL;
        loop {
            // A large submission goes on slice by slice, between what else has arrived.
            if self.submissions.is_empty() {
                let wait = self.until_deadline();
                let retry_at = self.health.retry_at();
                tokio::select! {
                    biased;
                    count = commands.recv_many(&mut taken, BATCH_MAX) => if count == 0 { return Ok(()) },
                    () = tokio::time::sleep(wait) => {}
                    () = tokio::time::sleep(STATUS_FLUSH.saturating_sub(self.flushed.elapsed())),
                        if self.notes.has_states() => {}
                    () = tokio::time::sleep_until(prune_at.into()) => {}
                    () = until_some(retry_at) => {}
                }
            } else {
                while taken.len() < BATCH_MAX
                    && let Ok(command) = commands.try_recv()
                {
                    taken.push(command);
                }
            }
            let stop = self.batch(&mut taken)?;
            if let Some(reply) = stop {
                self.flush_states();
                let _ = reply.send(Ok(()));
                return Ok(());
            }
            if self.flushed.elapsed() >= STATUS_FLUSH {
                self.flush_states();
            }
            // Not only when nothing else is to be done: under constant load the store would grow for ever.
            if clock::instant() >= prune_at {
                prune_at = clock::instant() + self.prune()?;
            }
        }
    }

    fn until_deadline(&mut self) -> Duration {
        let now = self.time.now();
        match self.core.next_deadline() {
            _ if self.time.is_set() => Duration::ZERO,
            Some(at) => Duration::from_millis(at.since_ms(now)).min(time::TURN),
            None => time::TURN,
        }
    }

    fn moment(&mut self) -> Moment {
        Moment { now: self.time.now(), entropy: rand::rng().random() }
    }

    /// Applies one batch, commits it, and lets its effects out.
    fn batch(&mut self, taken: &mut Vec<Command>) -> Result<Option<crate::handle::Reply<()>>, Ended> {
        let at = self.moment();
        self.notice_clock(at);
        let mut stop = None;
        for command in taken.drain(..) {
            match command {
                Command::Stop { reply } => stop = Some(reply),
                command => self.command_stalled(at, command),
            }
        }
        self.recover_when_due()?;
        self.submission_slice(at);
        self.close_dead_streams(at);
        if self.core.next_deadline().is_some_and(|due| due <= at.now) {
            self.apply(at, Input::Tick);
        }
        self.core.settle(at, &mut self.effects);
        self.note_ends(at);
        self.commit()?;
        Ok(stop)
    }

    /// Leases and waits go on as if the clock had not been set, and as if the time in which nobody could be heard had not been.
    fn notice_clock(&mut self, at: Moment) {
        if let Some(by_ms) = self.time.take_set() {
            info!(
                by_ms,
                "the clock was set, or this process did not run for a while: leases and waits go on, and nothing is deleted sooner"
            );
            self.apply(at, Input::ClockSet(by_ms));
        }
    }

    /// Ends streams of which nobody told the end: a worker that went while its stream was being opened.
    fn close_dead_streams(&mut self, at: Moment) {
        if self.swept.elapsed() < SWEEP_INTERVAL {
            return;
        }
        self.swept = clock::instant();
        let dead: Vec<StreamId> =
            self.streams.iter().filter(|(_, sender)| sender.is_closed()).map(|(stream, _)| *stream).collect();
        for stream in dead {
            self.command(at, Command::StreamClosed(stream));
        }
    }

    /// Applies an input whose refusal nobody waits for.
    fn apply(&mut self, at: Moment, input: Input) {
        if let Err(refused) = self.core.apply(at, input, &mut self.effects) {
            tracing::debug!(%refused, "an input was refused");
        }
    }

    /// What is stored beside the jobs that ended in this batch.
    fn note_ends(&mut self, at: Moment) {
        let ended = |effect: &Effect| if let Effect::Ended(id) = effect { Some(*id) } else { None };
        for id in self.effects.iter().filter_map(ended).collect::<Vec<_>>() {
            if self.credentials.has(id) {
                self.asides.push(Aside::DropKey(id));
            }
            self.question_ended(at, id);
            self.account(at, id);
        }
        self.note_liars();
    }

    /// What a liar did for jobs that have ended can't be taken back: it is marked, and given to nobody else.
    fn note_liars(&mut self) {
        for effect in &self.effects {
            let Effect::Caught { worker, suspect } = effect else { continue };
            self.asides.extend(suspect.iter().map(|unit| Aside::Suspect(unit.job, Some(unit.index))));
            let given = self.cache.forget_worker(worker);
            self.asides.extend(given.into_iter().map(|job| Aside::Suspect(job, None)));
        }
    }

    fn commit(&mut self) -> Result<(), Ended> {
        let mut changes = self.core.take_changes();
        changes.asides = std::mem::take(&mut self.asides);
        for worker in &changes.forgotten {
            self.registrations.remove(worker);
        }
        let keys = std::mem::take(&mut self.keys);
        if !changes.is_empty() || !keys.is_empty() {
            let begun = clock::instant();
            if let Err(failure) = self.store.commit(&changes, &keys) {
                return self.commit_failed(failure);
            }
            metrics::histogram!("flota_store_commit_seconds").record(begun.elapsed().as_secs_f64());
        } else if self.effects.iter().any(denies)
            && let Err(failure) = self.store.in_charge()
        {
            return self.commit_failed(failure);
        }
        self.release();
        self.conversations.forget_quiet();
        self.core.forget_ended();
        for answer in self.answers.drain(..) {
            answer(Ok(()));
        }
        Ok(())
    }

    /// Deletes what is old. A master that has nothing to store notices here that another has taken charge.
    fn prune(&mut self) -> Result<Duration, Ended> {
        self.time.now();
        match self.store.prune(&|age_ms| self.time.ago(age_ms), self.config.retention) {
            Ok(true) => Ok(PRUNE_INTERVAL_BUSY),
            Ok(false) => Ok(PRUNE_INTERVAL),
            Err(StoreError::Superseded { newest }) => Err(Ended::Superseded(newest)),
            Err(error) => {
                error!(%error, "old jobs could not be deleted");
                Ok(PRUNE_INTERVAL * 10)
            }
        }
    }
}

/// Whether it tells a worker that what it has is of no use: only the newest master knows that.
fn denies(effect: &Effect) -> bool {
    matches!(effect, Effect::Ack { applied: false, .. } | Effect::Cancel(..))
}

async fn until_some(at: Option<std::time::Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}
