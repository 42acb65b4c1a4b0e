//! Sessions: what outlives a connection. A session knows which jobs its client follows, how far each was told, and which
//! of them are questions still to be answered. Answers are not kept here: the store has them. Nothing here waits.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use flota_common::clock;
use flota_proto::{JobId, Timestamp};
use rand::RngCore;
use serde::Serialize;
use sha2::{Digest, Sha256};
use socketioxide::extract::SocketRef;
use socketioxide::socket::{DisconnectReason, Sid};
use socketioxide::{SendError, SocketError};
use tokio::task::AbortHandle;
use uuid::Uuid;

/// A session that nobody came back to is forgotten after this.
const AGE_MAX_MS: u64 = 24 * 3_600_000;
/// Jobs that one session follows at once.
const FOLLOWS_MAX: usize = 1024;
/// Answers that may have gone into a dead connection, see [`Session::detach`].
const RECENT_MAX: usize = 64;
/// How long a connection can be dead before its missing pong tells: ping interval and timeout.
const SILENCE_MS: u64 = 45_000;

/// All sessions.
pub struct Sessions {
    all: Mutex<HashMap<Uuid, Arc<Session>>>,
    connected: AtomicUsize,
    most: usize,
}

impl Sessions {
    /// Room for so many, those of clients that have left for a while among them.
    pub fn new(most: usize) -> Self {
        Self { all: Mutex::default(), connected: AtomicUsize::new(0), most }
    }

    /// Whether one more client may connect.
    pub fn has_room(&self) -> bool {
        self.connected() < self.most
    }

    /// A new session for `socket`, and the secret that opens it again; `None` when there are too many.
    pub fn open(&self, socket: &SocketRef) -> Option<(Arc<Session>, String)> {
        let mut all = lock(&self.all);
        if all.len() >= self.most {
            let left = |session: &Arc<Session>| lock(&session.state).left_at;
            let oldest = all.values().filter_map(|s| Some((left(s)?, s.id))).min().map(|(_, id)| id)?;
            all.remove(&oldest);
        }
        let mut secret = [0; 32];
        rand::rng().fill_bytes(&mut secret);
        let secret = hex::encode(secret);
        let session = Arc::new(Session {
            id: Uuid::new_v4(),
            secret: Sha256::digest(&secret).into(),
            state: Mutex::new(State { socket: Some(socket.clone()), ..State::default() }),
        });
        all.insert(session.id, session.clone());
        self.connected.fetch_add(1, Ordering::Relaxed);
        Some((session, secret))
    }

    /// The session that `id` and `secret` open.
    pub fn find(&self, id: &str, secret: &str) -> Option<Arc<Session>> {
        let session = lock(&self.all).get(&id.parse().ok()?)?.clone();
        let given: [u8; 32] = Sha256::digest(secret).into();
        let differs = session.secret.iter().zip(given).fold(0, |differs, (a, b)| differs | (a ^ b));
        (differs == 0).then_some(session)
    }

    /// Forgets a session that nothing will be told to; false when something will.
    pub fn forget_if_unused(&self, session: &Session) -> bool {
        let unused = lock(&session.state).follows.is_empty();
        if unused {
            lock(&self.all).remove(&session.id);
        }
        unused
    }

    /// A client has gone.
    pub fn disconnected(&self) {
        self.connected.fetch_sub(1, Ordering::Relaxed);
    }

    /// How many clients are connected.
    pub fn connected(&self) -> usize {
        self.connected.load(Ordering::Relaxed)
    }

    /// Forgets the sessions that nobody came back to.
    pub fn sweep(&self, now: Timestamp) {
        let is_old = |session: &Session| lock(&session.state).left_at.is_some_and(|at| now.since_ms(at) > AGE_MAX_MS);
        lock(&self.all).retain(|_, session| !is_old(session));
    }
}

/// One client, across its connections.
pub struct Session {
    /// What it is called; also the owner of its jobs.
    pub id: Uuid,
    secret: [u8; 32],
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    socket: Option<SocketRef>,
    left_at: Option<Timestamp>,
    follows: HashMap<JobId, Follow>,
    answered: VecDeque<Answered>,
    generation: u64,
}

struct Follow {
    after: Option<u64>,
    question: bool,
    /// Who tells it. A task that was replaced knows by this number that it must not tell any more.
    generation: u64,
    task: Option<AbortHandle>,
}

struct Answered {
    job: JobId,
    after: Option<u64>,
    at: Timestamp,
}

/// The right of one task to tell a job's events.
#[derive(Clone, Copy, Debug)]
pub struct Turn {
    /// Which job.
    pub job: JobId,
    /// What was told before.
    pub after: Option<u64>,
    /// Whether its end is told as an answer.
    pub question: bool,
    generation: u64,
}

/// What became of something that was told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Told {
    /// It is on its way.
    Sent,
    /// The client is behind: try again.
    Full,
    /// Nobody listens, or another task has taken over: stop.
    Stale,
}

/// What telling something changes.
#[derive(Clone, Copy, Debug)]
pub enum Step {
    /// Nothing.
    Aside,
    /// The job is told up to here.
    Upto(u64),
    /// The job is told, and answered where it was a question.
    End,
}

impl Session {
    /// Makes `socket` the one that hears everything; answers with the one before and with what is to be told.
    pub fn attach(&self, socket: &SocketRef) -> (Option<SocketRef>, Vec<JobId>) {
        let mut state = lock(&self.state);
        let before = state.socket.replace(socket.clone());
        state.left_at = None;
        (before, state.follows.keys().copied().collect())
    }

    /// The socket has gone: its jobs are told again from where they were when somebody comes back. Answers that went into a
    /// connection that turned out to be dead for a while are not taken as heard.
    pub fn detach(&self, socket: Sid, reason: DisconnectReason) {
        let mut state = lock(&self.state);
        if state.socket.as_ref().is_none_or(|mine| mine.id != socket) {
            return;
        }
        state.socket = None;
        let now = clock::now();
        state.left_at = Some(now);
        for follow in state.follows.values_mut() {
            if let Some(task) = follow.task.take() {
                task.abort();
            }
        }
        let answered = std::mem::take(&mut state.answered);
        if reason == DisconnectReason::HeartbeatTimeout {
            for missed in answered.into_iter().filter(|a| now.since_ms(a.at) <= SILENCE_MS) {
                let follow = Follow { after: missed.after, question: true, generation: 0, task: None };
                state.follows.entry(missed.job).or_insert(follow);
            }
        }
    }

    /// Whether one more job can be followed.
    pub fn has_room(&self) -> bool {
        lock(&self.state).follows.len() < FOLLOWS_MAX
    }

    /// Follows `job` from now on, after `after`; a question stays one.
    pub fn follow(&self, job: JobId, after: Option<u64>, question: bool) {
        let mut state = lock(&self.state);
        let new = Follow { after, question, generation: 0, task: None };
        let follow = state.follows.entry(job).or_insert(new);
        follow.after = after;
        follow.question |= question;
    }

    /// Hands the telling of `job` to a new task, which `spawn` starts; the one before ends.
    pub fn hand_over(&self, job: JobId, spawn: impl FnOnce(Turn) -> AbortHandle) {
        let mut state = lock(&self.state);
        state.generation += 1;
        let generation = state.generation;
        if state.socket.is_none() {
            return;
        }
        let Some(follow) = state.follows.get_mut(&job) else { return };
        if let Some(before) = follow.task.take() {
            before.abort();
        }
        follow.generation = generation;
        follow.task = Some(spawn(Turn { job, after: follow.after, question: follow.question, generation }));
    }

    /// Sends and remembers that it was sent, as one step: so nothing is told twice.
    pub fn tell<T: Serialize>(&self, turn: Turn, event: &str, payload: &T, step: Step) -> Told {
        let mut state = lock(&self.state);
        let state = &mut *state;
        let Some(follow) = state.follows.get_mut(&turn.job).filter(|f| f.generation == turn.generation) else {
            return Told::Stale;
        };
        let Some(socket) = &state.socket else { return Told::Stale };
        match socket.emit(event, payload) {
            Ok(()) => {}
            Err(SendError::Socket(SocketError::InternalChannelFull)) => return Told::Full,
            Err(SendError::Socket(SocketError::Closed)) => return Told::Stale,
            Err(SendError::Serialize(error)) => tracing::error!(%error, event, "could not serialise an event"),
        }
        match step {
            Step::Aside => {}
            Step::Upto(seq) => follow.after = Some(seq),
            Step::End => {
                let answered = Answered { job: turn.job, after: follow.after, at: clock::now() };
                let question = follow.question;
                state.follows.remove(&turn.job);
                if question {
                    state.answered.truncate(RECENT_MAX - 1);
                    state.answered.push_front(answered);
                }
            }
        }
        Told::Sent
    }

    /// The job is told and was no question.
    pub fn end(&self, turn: Turn) {
        let mut state = lock(&self.state);
        if state.follows.get(&turn.job).is_some_and(|f| f.generation == turn.generation) {
            state.follows.remove(&turn.job);
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
