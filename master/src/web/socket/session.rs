//! Sessions: what outlives a connection. A session knows which jobs its client follows, how far each was told, and which
//! of them are questions still to be answered. Answers are not kept here: the store has them. It also has what outlives
//! the master; what changes of it is answered as [`SessionChange`]s for who calls. Nothing here waits.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use flota_common::clock;
use flota_proto::{JobId, Timestamp};
use rand::RngCore;
use serde::Serialize;
use socketioxide::extract::SocketRef;
use socketioxide::socket::{DisconnectReason, Sid};
use socketioxide::{SendError, SocketError};
use tokio::sync::Notify;
use tokio::task::AbortHandle;
use uuid::Uuid;

use crate::session::{AGE_MAX_MS, Followed, SessionChange, SessionKey};

/// How often the store is told that a session is in use.
const SEEN_MS: u64 = 3_600_000;
/// Jobs that one session follows at once.
const FOLLOWS_MAX: usize = 1024;
/// Answers that may have gone into a dead connection, see [`Session::detach`].
const RECENT_MAX: usize = 64;
/// How long a connection can be dead before its missing pong tells: ping interval and timeout.
const SILENCE_MS: u64 = 45_000;

const _: () = assert!(AGE_MAX_MS > 2 * SEEN_MS);

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
        self.make_room(&mut all)?;
        let mut secret = [0; 32];
        rand::rng().fill_bytes(&mut secret);
        let secret = hex::encode(secret);
        let state = State { socket: Some(socket.clone()), seen_at: clock::now(), ..State::default() };
        let session = Arc::new(Session {
            key: SessionKey::new(Uuid::new_v4(), &secret),
            state: Mutex::new(state),
            ended: Notify::new(),
        });
        all.insert(session.id(), session.clone());
        self.connected.fetch_add(1, Ordering::Relaxed);
        Some((session, secret))
    }

    /// Forgets the session that was left first, where there is no room; `None` when all are in use. The store still has it.
    fn make_room(&self, all: &mut HashMap<Uuid, Arc<Session>>) -> Option<()> {
        if all.len() >= self.most {
            let left = |session: &Arc<Session>| lock(&session.state).left_at;
            let oldest = all.values().filter_map(|s| Some((left(s)?, s.id()))).min().map(|(_, id)| id)?;
            all.remove(&oldest);
        }
        Some(())
    }

    /// The session that `key` opens, where it is known here.
    pub fn find(&self, key: &SessionKey) -> Option<Arc<Session>> {
        lock(&self.all).get(&key.id).filter(|session| session.key.fits(&key.digest)).cloned()
    }

    /// The session that `key` opens as the store has it; `None` when there are too many.
    pub fn restore(&self, key: SessionKey, follows: Vec<Followed>) -> Option<Arc<Session>> {
        let mut all = lock(&self.all);
        if let Some(known) = all.get(&key.id) {
            return Some(known.clone());
        }
        self.make_room(&mut all)?;
        let mut state = State { left_at: Some(clock::now()), ..State::default() };
        for followed in follows {
            state.follow(followed, true, None);
        }
        let session = Arc::new(Session { key, state: Mutex::new(state), ended: Notify::new() });
        all.insert(key.id, session.clone());
        Some(session)
    }

    /// Forgets a session that nothing will be told to; `None` when something will.
    pub fn forget_if_unused(&self, session: &Session) -> Option<SessionChange> {
        if !lock(&session.state).follows.is_empty() {
            return None;
        }
        lock(&self.all).remove(&session.id());
        Some(SessionChange::Forget(session.id()))
    }

    /// A client has gone.
    pub fn disconnected(&self) {
        self.connected.fetch_sub(1, Ordering::Relaxed);
    }

    /// How many clients are connected.
    pub fn connected(&self) -> usize {
        self.connected.load(Ordering::Relaxed)
    }

    /// How far those that are connected were told of their jobs, when all are about to be left.
    pub fn told(&self) -> Vec<SessionChange> {
        let told = |session: &Arc<Session>| {
            let state = lock(&session.state);
            state.socket.as_ref().map(|_| SessionChange::Seen(session.id(), state.told()))
        };
        lock(&self.all).values().filter_map(told).collect()
    }

    /// Forgets the sessions that nobody came back to; answers with those in use of which the store was not told for a while.
    pub fn sweep(&self, now: Timestamp) -> Vec<SessionChange> {
        let is_old = |session: &Session| lock(&session.state).left_at.is_some_and(|at| now.since_ms(at) > AGE_MAX_MS);
        let mut all = lock(&self.all);
        all.retain(|_, session| !is_old(session));
        all.values().filter_map(|session| session.seen_again(now)).collect()
    }
}

/// One client, across its connections.
pub struct Session {
    /// What it is called, and what opens it.
    pub key: SessionKey,
    state: Mutex<State>,
    /// Something it followed has been told to its end.
    ended: Notify,
}

#[derive(Default)]
struct State {
    socket: Option<SocketRef>,
    left_at: Option<Timestamp>,
    /// When the store was last told that it is in use.
    seen_at: Timestamp,
    follows: HashMap<JobId, Follow>,
    answered: VecDeque<Answered>,
    generation: u64,
    /// Jobs followed so far.
    asked: u64,
}

impl State {
    /// Follows a job; of a question it notes which one before it is to be answered first.
    fn follow(&mut self, followed: Followed, kept: bool, conversation: Option<Uuid>) {
        let Followed { job, after, question } = followed;
        let known = self.follows.get(&job).map(|follow| follow.before);
        let before = known.unwrap_or_else(|| if question { self.last_question(conversation) } else { None });
        self.asked += 1;
        let new = Follow { after, question, kept, conversation, before, asked: self.asked, generation: 0, task: None };
        let follow = self.follows.entry(job).or_insert(new);
        follow.after = after;
        follow.question |= question;
        follow.kept |= kept;
    }

    /// The last question in `conversation`, or in one that is not known: the store has no conversations of what is followed.
    fn last_question(&self, conversation: Option<Uuid>) -> Option<JobId> {
        let fits =
            |follow: &Follow| follow.question && (follow.conversation == conversation || follow.conversation.is_none());
        let last = self.follows.iter().filter(|(_, follow)| fits(follow)).max_by_key(|(_, follow)| follow.asked);
        last.map(|(job, _)| *job)
    }

    /// How far it was told of the jobs that the store has too.
    fn told(&self) -> Vec<(JobId, u64)> {
        self.follows.iter().filter(|(_, f)| f.kept).filter_map(|(job, f)| Some((*job, f.after?))).collect()
    }
}

struct Follow {
    after: Option<u64>,
    question: bool,
    /// The store has it too.
    kept: bool,
    conversation: Option<Uuid>,
    /// The question to be answered first, once both have ended.
    before: Option<JobId>,
    /// Its place among all that was followed.
    asked: u64,
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
    /// Whether the store is to know when it was told.
    pub kept: bool,
    /// The question that is to be answered first, once it has ended too.
    pub before: Option<JobId>,
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
    /// What it is called; also the owner of its jobs.
    pub fn id(&self) -> Uuid {
        self.key.id
    }

    fn seen_again(&self, now: Timestamp) -> Option<SessionChange> {
        let mut state = lock(&self.state);
        if state.socket.is_none() || now.since_ms(state.seen_at) < SEEN_MS {
            return None;
        }
        state.seen_at = now;
        Some(SessionChange::Seen(self.id(), Vec::new()))
    }

    /// Makes `socket` the one that hears everything; answers with the one before and with what is to be told.
    pub fn attach(&self, socket: &SocketRef) -> (Option<SocketRef>, Vec<JobId>) {
        let mut state = lock(&self.state);
        let before = state.socket.replace(socket.clone());
        state.left_at = None;
        state.seen_at = clock::now();
        (before, state.follows.keys().copied().collect())
    }

    /// The socket has gone: its jobs are told again from where they were when somebody comes back. Answers that went into a
    /// connection that turned out to be dead for a while are not taken as heard.
    pub fn detach(&self, socket: Sid, reason: DisconnectReason) -> Vec<SessionChange> {
        let mut state = lock(&self.state);
        if state.socket.as_ref().is_none_or(|mine| mine.id != socket) {
            return Vec::new();
        }
        state.socket = None;
        let now = clock::now();
        state.left_at = Some(now);
        for follow in state.follows.values_mut() {
            if let Some(task) = follow.task.take() {
                task.abort();
            }
        }
        let mut changes = vec![SessionChange::Seen(self.id(), state.told())];
        let answered = std::mem::take(&mut state.answered);
        if reason == DisconnectReason::HeartbeatTimeout {
            for missed in answered.into_iter().rev().filter(|a| now.since_ms(a.at) <= SILENCE_MS) {
                let followed = Followed { job: missed.job, after: missed.after, question: true };
                changes.push(SessionChange::Follow(self.key, followed));
                if !state.follows.contains_key(&missed.job) {
                    state.follow(followed, true, None);
                }
            }
        }
        changes
    }

    /// Whether one more job can be followed.
    pub fn has_room(&self) -> bool {
        lock(&self.state).follows.len() < FOLLOWS_MAX
    }

    /// Follows a job from now on; a question stays one. `kept` says that the store has it too.
    pub fn follow(&self, followed: Followed, kept: bool, conversation: Option<Uuid>) {
        lock(&self.state).follow(followed, kept, conversation);
    }

    /// Waits until `job` was told to its end.
    pub async fn told_to_its_end(&self, job: JobId) {
        loop {
            let mut ended = std::pin::pin!(self.ended.notified());
            ended.as_mut().enable();
            if !lock(&self.state).follows.contains_key(&job) {
                return;
            }
            ended.await;
        }
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
        let Follow { after, question, kept, before, .. } = *follow;
        follow.task = Some(spawn(Turn { job, after, question, kept, before, generation }));
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
                self.ended.notify_waiters();
                if question {
                    state.answered.truncate(RECENT_MAX - 1);
                    state.answered.push_front(answered);
                }
            }
        }
        Told::Sent
    }

    /// The job is told and was no question.
    pub fn end(&self, turn: Turn) -> Told {
        let mut state = lock(&self.state);
        if state.follows.get(&turn.job).is_none_or(|f| f.generation != turn.generation) {
            return Told::Stale;
        }
        state.follows.remove(&turn.job);
        self.ended.notify_waiters();
        Told::Sent
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
