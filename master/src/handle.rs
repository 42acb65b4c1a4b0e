//! How the shells (REST, Socket.IO, gRPC, MQTT) reach the one dispatcher loop. Every call becomes a [`Command`] on one
//! bounded channel and is answered after the batch that it fell into was committed.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
pub use flota_common::mqtt::PublishError;
use flota_proto::kinds::{FieldError, Found};
use flota_proto::mqtt::{self, Load};
use flota_proto::{JobId, Kind, Timestamp, UnitId, WorkerId, rest, simple, v1};
use secrecy::SecretString;
use thiserror::Error;
use tokio::sync::{mpsc, oneshot};

use crate::core::DATASET_DIGEST_BYTES;
use crate::core::record::StoredJob;
use crate::session::{Followed, SessionChange, SessionKey};
use crate::submit::{NewJob, Principal};

/// Why a call was not carried out. Completes "failed to …".
#[derive(Clone, Debug, Error)]
pub enum Refused {
    /// There is no such thing.
    #[error("there is no {0}")]
    NotFound(String),
    /// It contradicts what is there.
    #[error("{1}")]
    Conflict(&'static str, String),
    /// A field is wrong.
    #[error(transparent)]
    Invalid(#[from] FieldError),
    /// A bound is reached: try again later.
    #[error("{detail}")]
    Busy {
        /// Which bound.
        detail: String,
        /// When to try again.
        retry_after_seconds: u32,
    },
    /// The owner's budget for the day does not hold it.
    #[error("{detail}")]
    BudgetSpent {
        /// What is used of it.
        detail: String,
        /// When there is a new one.
        retry_after_seconds: u32,
    },
    /// The store does not take it, or the master stops.
    #[error("{0}")]
    Unavailable(String),
    /// There is no space for it on the disk.
    #[error("{0}")]
    StoreFull(String),
}

/// The answer to a submission, in order.
pub type Submitted = Vec<Result<JobId, Refused>>;

/// One `Idempotency-Key` with the digest of the body it came with.
#[derive(Clone, Debug)]
pub struct IdempotencyKey {
    /// Of whom.
    pub owner: String,
    /// As sent, at most 255 bytes.
    pub key: String,
    /// SHA-256 of method, path and body.
    pub body_digest: [u8; 32],
}

/// What a list of jobs is narrowed to.
#[derive(Clone, Debug, Default)]
pub struct JobFilter {
    /// In one of these states; empty: any.
    pub states: Vec<rest::JobState>,
    /// Of this kind.
    pub kind: Option<Kind>,
    /// In this queue.
    pub queue: Option<String>,
    /// Of this project.
    pub project: Option<String>,
    /// With this label.
    pub label: Option<(String, String)>,
    /// Submitted by this owner.
    pub owner: Option<String>,
    /// Whose error has this code.
    pub code: Option<String>,
    /// 1 to 500.
    pub limit: usize,
    /// Where the page begins.
    pub cursor: Option<String>,
}

/// What happened to a job, for whoever subscribed to it.
#[derive(Clone, Debug)]
pub struct JobUpdate {
    /// Which job.
    pub job: JobId,
    /// What happened.
    pub event: rest::JobEvent,
    /// Nothing follows.
    pub last: bool,
}

/// A job's events from a point on.
#[derive(Debug)]
pub struct Subscription {
    /// What has happened so far.
    pub backlog: Vec<rest::JobEvent>,
    /// What happens from now on; `None` when the job has ended. The sender closes after the last one, and also when
    /// the reader is too slow: then subscribe again after the last `seq` seen.
    pub live: Option<mpsc::Receiver<Arc<JobUpdate>>>,
    /// The job as it is now, with its result.
    pub job: rest::Job,
}

/// What a worker can be told by REST.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WorkerControl {
    /// Finish what runs, take nothing new.
    Drain,
    /// Also hand back what runs.
    Pause,
    /// Take work again.
    Resume,
}

/// One open Report stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StreamId(pub u64);

/// What a worker reported on its stream, with ids parsed.
#[derive(Debug, Default)]
pub struct Report {
    /// `(unit, attempt, started)`
    pub accepted: Vec<(UnitId, u64, bool)>,
    /// The leases to extend, with load.
    pub heartbeat: Option<Heartbeat>,
    /// `(unit, attempt, fraction, note)`
    pub progress: Vec<(UnitId, u64, f64, String)>,
    /// `(unit, attempt, winning nonces)`
    pub found: Vec<(UnitId, u64, Vec<Found>)>,
    /// Text.
    pub deltas: Vec<UnitText>,
    /// Outputs.
    pub results: Vec<UnitResult>,
    /// Failures.
    pub failures: Vec<UnitFailure>,
    /// `(command_id, outcome)`
    pub done: Vec<(String, String)>,
    /// Handed back unfinished.
    pub returned: Vec<(UnitId, u64)>,
}

/// A worker's heartbeat.
#[derive(Debug, Default)]
pub struct Heartbeat {
    /// Attempts whose leases it extends.
    pub running: Vec<(UnitId, u64)>,
    /// How busy its machine is.
    pub load: Load,
    /// Hashes a second.
    pub hashrate: f64,
    /// RandomX keys for which it is warm, hex.
    pub warm_keys: Vec<String>,
    /// RandomX keys and digests of datasets that it computed itself.
    pub computed: Vec<(Vec<u8>, [u8; DATASET_DIGEST_BYTES])>,
}

/// A piece of an answer's text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnitText {
    /// Which unit.
    pub unit: UnitId,
    /// The fencing token.
    pub attempt: u64,
    /// From 0 within the attempt.
    pub seq: u64,
    /// It was sent before, on a stream that has ended.
    pub again: bool,
    /// The text.
    pub text: String,
}

/// The output of an attempt.
#[derive(Debug)]
pub struct UnitResult {
    /// Which unit.
    pub unit: UnitId,
    /// The fencing token.
    pub attempt: u64,
    /// JSON of the kind; not checked yet.
    pub output: Bytes,
    /// How long the executor worked.
    pub elapsed_ms: u64,
    /// Hashes computed.
    pub hashes: u64,
}

/// The failure of an attempt.
#[derive(Debug)]
pub struct UnitFailure {
    /// Which unit.
    pub unit: UnitId,
    /// The fencing token.
    pub attempt: u64,
    /// Why.
    pub error: rest::JobError,
    /// Whether another attempt can help.
    pub retryable: bool,
    /// Not before; 0: the backoff decides.
    pub retry_after_ms: u64,
    /// Nobody was asked: the attempt is no try.
    pub unasked: bool,
}

/// A worker that opens its stream.
#[derive(Debug)]
pub struct Hello {
    /// Who.
    pub worker: WorkerId,
    /// Of which process.
    pub boot_id: String,
    /// What it holds.
    pub running: Vec<(UnitId, u64)>,
    /// What it has finished and not seen acknowledged.
    pub finished: Vec<(UnitId, u64)>,
}

/// One thing that the loop is asked to do. `reply` is used after the commit.
#[derive(Debug)]
#[allow(missing_docs)]
pub enum Command {
    Submit {
        principal: Principal,
        jobs: Vec<NewJob>,
        idempotency: Option<IdempotencyKey>,
        session: Option<SessionKey>,
        reply: Reply<Submitted>,
    },
    Job {
        id: JobId,
        payload: bool,
        reply: Reply<rest::Job>,
    },
    Await {
        id: JobId,
        reply: oneshot::Sender<Result<rest::Job, Refused>>,
    },
    Jobs {
        filter: JobFilter,
        reply: Reply<rest::Page<rest::Job>>,
    },
    /// Rows that a reader brought, to be joined with what is in memory.
    Overlay {
        filter: JobFilter,
        rows: Vec<StoredJob>,
        reply: Reply<rest::Page<rest::Job>>,
    },
    Units {
        id: JobId,
        limit: usize,
        cursor: Option<String>,
        reply: Reply<rest::Page<rest::Unit>>,
    },
    Audit {
        id: JobId,
        limit: usize,
        from: u32,
        reply: Reply<rest::Audit>,
    },
    Cancel {
        principal: Principal,
        id: JobId,
        reply: Reply<rest::Job>,
    },
    Retry {
        principal: Principal,
        id: JobId,
        reply: Reply<rest::Job>,
    },
    SetPriority {
        principal: Principal,
        id: JobId,
        priority: u8,
        reply: Reply<rest::Job>,
    },
    Subscribe {
        id: JobId,
        after: Option<u64>,
        reply: Reply<Subscription>,
    },
    Workers {
        reply: Reply<Vec<rest::Worker>>,
    },
    Control {
        principal: Principal,
        worker: WorkerId,
        control: WorkerControl,
        reply: Reply<rest::Worker>,
    },
    Fleet {
        reply: Reply<rest::Fleet>,
    },
    QueuePosition {
        id: JobId,
        reply: Reply<Option<u64>>,
    },
    QueueDepths {
        reply: Reply<Vec<QueueDepthRow>>,
    },
    Registered(mqtt::Register),
    Status(mqtt::WorkerStatus),
    BrokerUp,
    /// Work with this RandomX key will come: workers may prepare for it.
    Prepare {
        key: Vec<u8>,
    },
    StreamOpened {
        hello: Hello,
        sender: mpsc::Sender<v1::MasterMessage>,
        reply: Reply<(StreamId, v1::Welcome)>,
    },
    StreamClosed(StreamId),
    Report {
        stream: StreamId,
        report: Report,
    },
    /// The check of a result has ended.
    Checked {
        unit: UnitId,
        attempt: u64,
        verdict: crate::core::Verdict,
    },
    SimpleResult {
        result: simple::TaskResult,
        reply: Reply<String>,
    },
    FetchUnit {
        unit: UnitId,
        attempt: u64,
        worker: WorkerId,
        reply: Reply<Bytes>,
    },
    LeaseCredential {
        unit: UnitId,
        attempt: u64,
        worker: WorkerId,
        reply: Reply<SecretString>,
    },
    AcceptedDigest {
        key: Vec<u8>,
        reply: Reply<Option<[u8; DATASET_DIGEST_BYTES]>>,
    },
    Usage {
        query: crate::dispatcher::UsageQuery,
        reply: Reply<rest::UsageReport>,
    },
    Models {
        reply: Reply<Vec<rest::ModelInfo>>,
    },
    /// About conversations.
    Conversation(Box<crate::conversation::Ask>),
    /// What a session is still to be told.
    Session {
        key: SessionKey,
        reply: Reply<Vec<Followed>>,
    },
    /// What is stored of sessions changes.
    Sessions(Vec<SessionChange>),
    /// Stop between batches: what was taken is committed first.
    Stop {
        reply: Reply<()>,
    },
}

impl Command {
    /// Answers whoever waits for it with a refusal.
    pub fn refuse(self, refused: Refused) {
        match self {
            Self::Submit { reply, .. } => drop(reply.send(Err(refused))),
            Self::Await { reply, .. }
            | Self::Job { reply, .. }
            | Self::Cancel { reply, .. }
            | Self::Retry { reply, .. }
            | Self::SetPriority { reply, .. } => drop(reply.send(Err(refused))),
            Self::Jobs { reply, .. } | Self::Overlay { reply, .. } => drop(reply.send(Err(refused))),
            Self::Audit { reply, .. } => drop(reply.send(Err(refused))),
            Self::Units { reply, .. } => drop(reply.send(Err(refused))),
            Self::Subscribe { reply, .. } => drop(reply.send(Err(refused))),
            Self::Workers { reply } => drop(reply.send(Err(refused))),
            Self::Control { reply, .. } => drop(reply.send(Err(refused))),
            Self::Fleet { reply } => drop(reply.send(Err(refused))),
            Self::QueuePosition { reply, .. } => drop(reply.send(Err(refused))),
            Self::QueueDepths { reply } => drop(reply.send(Err(refused))),
            Self::StreamOpened { reply, .. } => drop(reply.send(Err(refused))),
            Self::SimpleResult { reply, .. } => drop(reply.send(Err(refused))),
            Self::FetchUnit { reply, .. } => drop(reply.send(Err(refused))),
            Self::LeaseCredential { reply, .. } => drop(reply.send(Err(refused))),
            Self::AcceptedDigest { reply, .. } => drop(reply.send(Err(refused))),
            Self::Conversation(ask) => ask.refuse(refused),
            Self::Session { reply, .. } => drop(reply.send(Err(refused))),
            Self::Usage { reply, .. } => drop(reply.send(Err(refused))),
            Self::Models { reply } => drop(reply.send(Err(refused))),
            Self::Stop { reply } => drop(reply.send(Err(refused))),
            // What was not counted is repeated by its worker, and what is not known to be told is told again.
            Self::Checked { .. }
            | Self::Sessions(_)
            | Self::Registered(_)
            | Self::Status(_)
            | Self::BrokerUp
            | Self::Prepare { .. }
            | Self::StreamClosed(_)
            | Self::Report { .. } => {}
        }
    }
}

/// Depth and age of one queue, for metrics.
#[derive(Clone, Debug, Default)]
pub struct QueueDepthRow {
    /// Its name.
    pub queue: String,
    /// Jobs by live state.
    pub by_state: BTreeMap<rest::JobState, u64>,
    /// When the oldest pending one was accepted.
    pub oldest: Option<Timestamp>,
}

/// Where an answer goes.
pub type Reply<T> = oneshot::Sender<Result<T, Refused>>;

/// Commands that may wait before callers wait.
pub const COMMANDS_MAX: usize = 8192;

/// The way to the loop; cheap to clone.
#[derive(Clone, Debug)]
pub struct Handle {
    commands: mpsc::Sender<Command>,
}

macro_rules! call {
    ($(#[$doc:meta])* $name:ident($($arg:ident: $type:ty),*) -> $answer:ty, $variant:ident) => {
        $(#[$doc])*
        ///
        /// # Errors
        /// [`Refused`] says why.
        pub async fn $name(&self, $($arg: $type),*) -> Result<$answer, Refused> {
            self.ask(|reply| Command::$variant { $($arg,)* reply }).await
        }
    };
}

impl Handle {
    /// A handle and what the loop reads.
    #[must_use]
    pub fn channel() -> (Self, mpsc::Receiver<Command>) {
        let (commands, receiver) = mpsc::channel(COMMANDS_MAX);
        (Self { commands }, receiver)
    }

    /// A way to the loop that does not keep it running.
    #[must_use]
    pub fn downgrade(&self) -> mpsc::WeakSender<Command> {
        self.commands.downgrade()
    }

    pub(crate) async fn ask<T>(&self, command: impl FnOnce(Reply<T>) -> Command) -> Result<T, Refused> {
        let (reply, answer) = oneshot::channel();
        self.tell(command(reply)).await?;
        answer.await.map_err(|_| stopping())?
    }

    /// Hands over a command that nobody waits for.
    ///
    /// # Errors
    /// When the master stops.
    pub async fn tell(&self, command: Command) -> Result<(), Refused> {
        self.commands.send(command).await.map_err(|_| stopping())
    }

    /// Accepts jobs: they are in the store when this answers. A batch is not atomic.
    ///
    /// # Errors
    /// [`Refused`] says why.
    pub async fn submit(
        &self,
        principal: Principal,
        jobs: Vec<NewJob>,
        idempotency: Option<IdempotencyKey>,
    ) -> Result<Submitted, Refused> {
        self.ask(|reply| Command::Submit { principal, jobs, idempotency, session: None, reply }).await
    }

    /// Accepts one job, of which a session is to be told: both are in the store when this answers.
    ///
    /// # Errors
    /// [`Refused`] says why.
    pub async fn submit_for(&self, session: SessionKey, principal: Principal, job: NewJob) -> Result<JobId, Refused> {
        let (jobs, session) = (vec![job], Some(session));
        let answers = self.ask(|reply| Command::Submit { principal, jobs, idempotency: None, session, reply }).await?;
        answers.into_iter().next().unwrap_or_else(|| Err(Refused::Unavailable("the job was not answered".into())))
    }

    call!(
        /// One job, with its payload where asked.
        job(id: JobId, payload: bool) -> rest::Job, Job
    );
    call!(
        /// One job as soon as it has ended. Dropping the future withdraws the question.
        wait(id: JobId) -> rest::Job, Await
    );
    call!(
        /// A page of jobs, newest first, without payloads.
        jobs(filter: JobFilter) -> rest::Page<rest::Job>, Jobs
    );
    call!(
        /// A page of a job's units, by index.
        units(id: JobId, limit: usize, cursor: Option<String>) -> rest::Page<rest::Unit>, Units
    );
    call!(
        /// Whether everything of a job was computed exactly once; with its completed units from index `from` on.
        audit(id: JobId, limit: usize, from: u32) -> rest::Audit, Audit
    );
    call!(
        /// Cancels a job that has not ended.
        cancel(principal: Principal, id: JobId) -> rest::Job, Cancel
    );
    call!(
        /// Starts a failed or cancelled job again under its id.
        retry(principal: Principal, id: JobId) -> rest::Job, Retry
    );
    call!(
        /// Changes the priority of a job that has not ended.
        set_priority(principal: Principal, id: JobId, priority: u8) -> rest::Job, SetPriority
    );
    call!(
        /// A job's events after the `seq` given, or from the beginning.
        subscribe(id: JobId, after: Option<u64>) -> Subscription, Subscribe
    );
    call!(
        /// All workers known, by id.
        workers() -> Vec<rest::Worker>, Workers
    );
    call!(
        /// Drains, pauses or resumes a worker.
        control(principal: Principal, worker: WorkerId, control: WorkerControl) -> rest::Worker, Control
    );
    call!(
        /// Totals.
        fleet() -> rest::Fleet, Fleet
    );
    call!(
        /// The place from 1 of a job that waits because no worker is free; `None` when it does not.
        queue_position(id: JobId) -> Option<u64>, QueuePosition
    );
    call!(
        /// Depth and age by queue.
        queue_depths() -> Vec<QueueDepthRow>, QueueDepths
    );
    call!(
        /// A worker's stream begins. Of two processes with one worker id the newest boot wins; the other's stream gets
        /// `goodbye: "superseded"` and ends.
        stream_opened(hello: Hello, sender: mpsc::Sender<v1::MasterMessage>) -> (StreamId, v1::Welcome), StreamOpened
    );
    call!(
        /// A simple worker's answer; the text says whether it counted.
        simple_result(result: simple::TaskResult) -> String, SimpleResult
    );
    call!(
        /// The payload of an attempt, narrowed to its unit, for the worker that has it.
        fetch_unit(unit: UnitId, attempt: u64, worker: WorkerId) -> Bytes, FetchUnit
    );
    call!(
        /// The user's own key for an attempt, for the worker that has it, once.
        lease_credential(unit: UnitId, attempt: u64, worker: WorkerId) -> SecretString, LeaseCredential
    );
    call!(
        /// The digest that the dataset of a RandomX key must have, where that is known.
        accepted_digest(key: Vec<u8>) -> Option<[u8; DATASET_DIGEST_BYTES]>, AcceptedDigest
    );
    call!(
        /// A part of the ledger.
        usage(query: crate::dispatcher::UsageQuery) -> rest::UsageReport, Usage
    );
    call!(
        /// The models that workers which are there serve, by name.
        models() -> Vec<rest::ModelInfo>, Models
    );
    call!(
        /// Stops the loop between batches.
        stop() -> (), Stop
    );
}

fn stopping() -> Refused {
    Refused::Unavailable("the master is stopping".into())
}

/// How the loop reaches the broker. Implemented by the MQTT link; by a recorder in tests.
pub trait Publisher: Send + Sync {
    /// Queues a message and returns at once. With `reliable` it is QoS 1 and repeated until the broker has
    /// acknowledged it; without, it is QoS 0 and dropped when the queue is full.
    ///
    /// # Errors
    /// When the bounded queue is full: the unit's dispatch timeout brings it back.
    fn publish(&self, topic: String, payload: Bytes, reliable: bool, retain: bool) -> Result<(), PublishError>;
}
