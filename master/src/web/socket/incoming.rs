//! What a client sends, one event after the other: parsed, done, acknowledged. What is wrong is always answered: in the
//! acknowledgement, or as an `error` event where none was asked for.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::http::StatusCode;
use flota_proto::JobId;
use flota_proto::kinds::{self, ChatPayload, FieldError, Kind, Message, Role};
use flota_proto::rest;
use flota_proto::socket::{self as names, JobCancel, JobSubscribe, SessionResume, UserQuery};
use secrecy::SecretString;
use serde::{Deserialize, Serialize};
use serde_json::json;
use serde_json::value::RawValue;
use socketioxide::adapter::Adapter;
use socketioxide::extract::{AckSender, SocketRef};
use socketioxide::handler::{FromMessageParts, Value};
use socketioxide::socket::{DisconnectReason, Sid, Socket};
use tokio::sync::mpsc;
use tokio::task::AbortHandle;
use tokio_util::sync::CancellationToken;

use super::follow::{self, Begin};
use super::session::Session;
use super::{answer, logs};
use crate::handle::Refused;
use crate::session::{Followed, SessionChange, SessionKey};
use crate::submit::{NewJob, Principal};
use crate::web::App;
use crate::web::extract::{self, Caller};
use crate::web::problem::Failure;
use crate::web::submit::job_from;

/// An event as it came: `["name", payload]`.
pub struct Packet {
    text: String,
    binary: bool,
    ack_wanted: bool,
}

impl<A: Adapter> FromMessageParts<A> for Packet {
    type Error = Infallible;

    fn from_message_parts(_: &Arc<Socket<A>>, value: &mut Value, ack: &Option<i64>) -> Result<Self, Infallible> {
        let text = value.as_str().map(|text| text.as_str().to_owned()).unwrap_or_default();
        let binary = matches!(value, Value::Bytes(_) | Value::Str(_, Some(_)));
        Ok(Self { text, binary, ack_wanted: ack.is_some() })
    }
}

impl Packet {
    /// The event's name and its first argument, `null` where there is none.
    fn parts(&self) -> Option<(String, &RawValue)> {
        let parts: Vec<&RawValue> = serde_json::from_str(&self.text).ok()?;
        let name = serde_json::from_str(parts.first()?.get()).ok()?;
        Some((name, parts.get(1).copied().unwrap_or(RawValue::NULL)))
    }
}

/// Where the answer to an event goes.
pub struct Reply {
    socket: SocketRef,
    ack: AckSender,
    ack_wanted: bool,
}

#[derive(Serialize)]
struct ErrorBody<'a> {
    #[serde(flatten)]
    problem: &'a rest::Problem,
    message: &'a str,
}

impl Reply {
    /// Answers `packet`.
    pub fn new(socket: SocketRef, ack: AckSender, packet: &Packet) -> Self {
        Self { socket, ack, ack_wanted: packet.ack_wanted }
    }

    fn ok(self, answer: &impl Serialize) {
        if let Err(error) = self.ack.send(answer) {
            tracing::debug!(%error, "an acknowledgement was not sent");
        }
    }

    fn refuse(self, event: &str, failure: &Failure) {
        let problem = failure.problem();
        let error = ErrorBody { problem, message: &problem.detail };
        let sent = if self.ack_wanted {
            self.ack.send(&json!({ "error": error }))
        } else {
            self.socket.emit(names::ERROR, &json!({ "event": event, "error": error }))
        };
        if let Err(error) = sent {
            tracing::debug!(%error, "an error was not sent");
        }
    }
}

/// An event that waits for its turn.
pub struct Incoming {
    /// What came.
    pub packet: Packet,
    /// Where its answer goes.
    pub reply: Reply,
}

impl Incoming {
    /// For a client that sends faster than its events can be done.
    pub fn refuse_busy(self) {
        let refused =
            Refused::Busy { detail: "this socket has too many events waiting".into(), retry_after_seconds: 1 };
        let name = self.packet.parts().map(|(name, _)| name).unwrap_or_default();
        let failure = Failure::from(refused);
        if name == names::USER_QUERY {
            return refuse_question(RawValue::NULL, self.reply, &failure);
        }
        self.reply.refuse(&name, &failure);
    }
}

/// One connected client.
pub struct Connection {
    app: Arc<App>,
    socket: Sid,
    inbox: Mutex<Option<mpsc::Receiver<Incoming>>>,
    gone: CancellationToken,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// The session that the client's events belong to.
    current: Option<Arc<Session>>,
    /// Those that it had before it resumed another and that still wait for something.
    former: Vec<Arc<Session>>,
    logs: Option<AbortHandle>,
}

/// What was done: the acknowledgement, then the jobs to tell of.
struct Done {
    ack: serde_json::Value,
    then: Vec<(JobId, Begin)>,
}

/// The socket that had the session before, the jobs to be told, and what changes in the store.
type Taken = (Option<SocketRef>, Vec<JobId>, Vec<SessionChange>);

impl Done {
    fn ack(ack: serde_json::Value) -> Self {
        Self { ack, then: Vec::new() }
    }

    fn and_tell(job: JobId, begin: Begin) -> Self {
        Self { ack: json!({ "jobId": job }), then: vec![(job, begin)] }
    }
}

impl Connection {
    /// A client that is about to connect and whose events come through `inbox`.
    pub fn new(app: Arc<App>, socket: Sid, inbox: mpsc::Receiver<Incoming>) -> Arc<Self> {
        Arc::new(Self {
            app,
            socket,
            inbox: Mutex::new(Some(inbox)),
            gone: CancellationToken::new(),
            state: Mutex::default(),
        })
    }

    /// Gives the client its session.
    pub fn begin(&self, socket: &SocketRef) -> Option<(Arc<Session>, String)> {
        let mut state = self.state();
        let (session, secret) = self.app.sessions.open(socket)?;
        state.current = Some(session.clone());
        if self.gone.is_cancelled() {
            // It left before it was there: `left` found nothing to do.
            self.app.sessions.disconnected();
            session.detach(self.socket, DisconnectReason::TransportClose);
        }
        Some((session, secret))
    }

    /// Notes a change of a session for the store.
    pub async fn keep(&self, change: SessionChange) {
        self.app.handle.keep_sessions(vec![change]).await;
    }

    /// The client has gone.
    pub fn left(&self, reason: DisconnectReason) {
        let mut state = self.state();
        self.gone.cancel();
        if let Some(logs) = state.logs.take() {
            logs.abort();
        }
        if state.current.is_some() {
            self.app.sessions.disconnected();
        }
        let sessions = state.current.iter().chain(&state.former);
        let changes: Vec<_> = sessions.flat_map(|session| session.detach(self.socket, reason)).collect();
        let app = self.app.clone();
        self.app.tasks.spawn(async move { app.handle.keep_sessions(changes).await });
    }

    /// Does what the client sends, in its order. Events that came before it went are still done.
    pub async fn run(self: Arc<Self>, socket: SocketRef) {
        let Some(mut inbox) = lock(&self.inbox).take() else { return };
        loop {
            tokio::select! {
                biased;
                incoming = inbox.recv() => match incoming {
                    Some(incoming) => self.take(&socket, incoming).await,
                    None => return,
                },
                () = self.gone.cancelled() => inbox.close(),
            }
        }
    }

    async fn take(&self, socket: &SocketRef, incoming: Incoming) {
        let Incoming { packet, reply } = incoming;
        let Some(session) = self.state().current.clone() else { return };
        let Some((name, payload)) = packet.parts() else {
            return reply.refuse("", &Failure::bad_request("bad_event", "an event is [name, payload]"));
        };
        let done = match name.as_str() {
            _ if packet.binary => Err(Failure::bad_request("bad_event", "binary payloads are not taken")),
            names::USER_QUERY => match self.user_query(&session, payload).await {
                Err(failure) => return refuse_question(payload, reply, &failure),
                asked => asked,
            },
            names::JOB_SUBMIT => self.job_submit(&session, payload).await,
            names::JOB_CANCEL => self.job_cancel(&session, payload).await,
            names::JOB_SUBSCRIBE => self.job_subscribe(&session, payload).await,
            names::SESSION_RESUME => self.session_resume(socket, payload).await,
            names::LOGS_SUBSCRIBE => Ok(self.logs_subscribe(socket)),
            names::LOGS_UNSUBSCRIBE => {
                self.logs_unsubscribe();
                Ok(Done::ack(json!({})))
            }
            unknown => Err(unknown_event(unknown)),
        };
        match done {
            Ok(done) => {
                let session = self.state().current.clone().unwrap_or(session);
                reply.ok(&done.ack);
                for (job, begin) in done.then {
                    follow::start(&self.app, &session, job, begin);
                }
            }
            Err(failure) => reply.refuse(&name, &failure),
        }
    }

    async fn user_query(&self, session: &Session, payload: &RawValue) -> Result<Done, Failure> {
        let asked: UserQuery = parse(payload)?;
        if asked.query.trim().is_empty() {
            return Err(Failure::invalid(&FieldError::new("query", "is empty")));
        }
        let caller = caller(session, asked.api_key, asked.conversation_secret)?;
        let chat = ChatPayload {
            messages: vec![Message { role: Role::User, content: asked.query }],
            model: asked.model.filter(|model| !model.is_empty()),
            temperature: None,
            max_output_tokens: None,
            chain: None,
            dropped_turns: 0,
        };
        let mut job = json!({ "kind": Kind::AiChat, "payload": chat });
        if let Some(id) = asked.conversation_id {
            job["conversation_id"] = json!(id);
        }
        if let Some(cache) = asked.cache {
            job["cache"] = json!(cache);
        }
        let job = job.to_string();
        let job = job_from(&job, &caller).map_err(|error| {
            let path = error.path.strip_prefix("payload.").unwrap_or(&error.path);
            Failure::invalid(&FieldError::new(path, error.message))
        })?;
        self.submit(session, job, caller).await
    }

    async fn job_submit(&self, session: &Session, payload: &RawValue) -> Result<Done, Failure> {
        let (json, [api_key, secret]) = split_secrets(payload)?;
        let caller = caller(session, api_key, secret)?;
        let job = job_from(&json, &caller).map_err(|error| Failure::invalid(&error))?;
        self.submit(session, job, caller).await
    }

    async fn submit(&self, session: &Session, job: NewJob, caller: Caller) -> Result<Done, Failure> {
        check_room(session)?;
        let question = job.kind == Kind::AiChat;
        let conversation = job.conversation.as_ref().map(|conversation| conversation.id);
        let job = self.app.handle.submit_for(session.key, caller.principal, job).await?;
        session.follow(Followed { job, after: None, question }, true, conversation);
        Ok(Done::and_tell(job, Begin::Submitted))
    }

    async fn job_cancel(&self, session: &Session, payload: &RawValue) -> Result<Done, Failure> {
        let JobCancel { job_id } = parse(payload)?;
        let job = self.app.handle.cancel(principal(session), job_id).await?;
        Ok(Done::ack(json!({ "jobId": job_id, "job": job })))
    }

    async fn job_subscribe(&self, session: &Session, payload: &RawValue) -> Result<Done, Failure> {
        let JobSubscribe { job_id, last_seq } = parse(payload)?;
        check_room(session)?;
        let subscription = self.app.handle.subscribe(job_id, last_seq).await?;
        let followed = Followed { job: job_id, after: last_seq, question: false };
        let kept = subscription.live.is_some();
        if kept {
            self.keep(SessionChange::Follow(session.key, followed)).await;
        }
        session.follow(followed, kept, None);
        Ok(Done::and_tell(job_id, Begin::Subscribed(Box::new(subscription))))
    }

    async fn session_resume(&self, socket: &SocketRef, payload: &RawValue) -> Result<Done, Failure> {
        let SessionResume { session_id, secret } = parse(payload)?;
        let session = self.find_session(&session_id, &secret).await?;
        let ack = json!({ "sessionId": session.id() });
        let Some((before, jobs, changes)) = self.take_over(socket, &session) else { return Ok(Done::ack(ack)) };
        self.app.handle.keep_sessions(changes).await;
        // The newest socket of a session takes it over; one that is the same was only among the former.
        if let Some(before) = before.filter(|before| before.id != socket.id)
            && let Err(error) = before.disconnect()
        {
            tracing::debug!(%error, "the socket that had the session before was closed already");
        }
        Ok(Done { ack, then: jobs.into_iter().map(|job| (job, Begin::Resumed)).collect() })
    }

    async fn find_session(&self, id: &str, secret: &str) -> Result<Arc<Session>, Failure> {
        let unknown = || {
            let detail = "there is no such session, or the secret is another; a new one has begun";
            Failure::new(StatusCode::NOT_FOUND, "unknown_session", detail)
        };
        let key = SessionKey::new(id.parse().map_err(|_| unknown())?, secret);
        if let Some(session) = self.app.sessions.find(&key) {
            return Ok(session);
        }
        // The master that knew it has gone, or it was left for so long that others took its place.
        match self.app.handle.session(key).await {
            Ok(follows) => self.app.sessions.restore(key, follows).ok_or_else(|| {
                let detail = "there are too many sessions (FLOTA_BROWSERS_MAX)".into();
                Refused::Busy { detail, retry_after_seconds: 5 }.into()
            }),
            Err(Refused::NotFound(_)) => Err(unknown()),
            Err(refused) => Err(refused.into()),
        }
    }

    /// Makes `session` this client's; `None` when it is already.
    fn take_over(&self, socket: &SocketRef, session: &Arc<Session>) -> Option<Taken> {
        let mut state = self.state();
        if state.current.as_ref().is_some_and(|current| current.id() == session.id()) {
            return None;
        }
        let (before, jobs) = session.attach(socket);
        let mut changes = vec![SessionChange::Seen(session.id(), Vec::new())];
        if let Some(own) = state.current.replace(session.clone()) {
            match self.app.sessions.forget_if_unused(&own) {
                Some(forget) => changes.push(forget),
                None => state.former.push(own),
            }
        }
        state.former.retain(|former| former.id() != session.id());
        if self.gone.is_cancelled() {
            changes.extend(session.detach(self.socket, DisconnectReason::TransportClose));
        }
        Some((before, jobs, changes))
    }

    fn logs_subscribe(&self, socket: &SocketRef) -> Done {
        let (recent, lines) = self.app.logs.subscribe();
        let forward = self.app.tasks.spawn(logs::forward(lines, socket.clone(), self.app.stop.clone()));
        let mut state = self.state();
        if let Some(before) = state.logs.replace(forward.abort_handle()) {
            before.abort();
        }
        if self.gone.is_cancelled() {
            forward.abort();
        }
        Done::ack(json!({ "items": logs::entries(&recent) }))
    }

    fn logs_unsubscribe(&self) {
        if let Some(logs) = self.state().logs.take() {
            logs.abort();
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn principal(session: &Session) -> Principal {
    Principal { owner: session.id().to_string() }
}

fn caller(session: &Session, api_key: Option<String>, secret: Option<String>) -> Result<Caller, Failure> {
    let api_key = api_key.filter(|key| !key.trim().is_empty()).map(|key| extract::api_key(&key)).transpose();
    let api_key = api_key.map_err(|wrong| Failure::invalid(&FieldError::new("apiKey", wrong.message)))?;
    let conversation_secret = secret.filter(|secret| !secret.is_empty()).map(SecretString::from);
    Ok(Caller { principal: principal(session), api_key, conversation_secret })
}

fn check_room(session: &Session) -> Result<(), Failure> {
    if session.has_room() {
        return Ok(());
    }
    let detail = "this session follows too many jobs; wait until some have ended".into();
    Err(Refused::Busy { detail, retry_after_seconds: 1 }.into())
}

fn parse<'a, T: Deserialize<'a>>(payload: &'a RawValue) -> Result<T, Failure> {
    let parsed = kinds::object("", payload.get()).and_then(|()| kinds::parse("", payload.get()));
    parsed.map_err(|error| Failure::invalid(&error))
}

/// `apiKey` and `conversationSecret` are beside what `POST /jobs` takes, and must never get into what is stored.
fn split_secrets(payload: &RawValue) -> Result<(String, [Option<String>; 2]), Failure> {
    let mut fields: BTreeMap<String, &RawValue> = parse(payload)?;
    let mut take = |name: &str| match fields.remove(name) {
        None => Ok(None),
        Some(text) => serde_json::from_str::<Option<String>>(text.get())
            .map_err(|_| Failure::invalid(&FieldError::new(name, "is a string; leave it out for none"))),
    };
    let secrets = [take("apiKey")?, take("conversationSecret")?];
    let rest = serde_json::to_string(&fields)
        .map_err(|error| Failure::bad_request("bad_json", format!("the job can't be read: {error}")))?;
    Ok((rest, secrets))
}

fn unknown_event(name: &str) -> Failure {
    let known = [
        names::USER_QUERY,
        names::JOB_SUBMIT,
        names::JOB_CANCEL,
        names::JOB_SUBSCRIBE,
        names::SESSION_RESUME,
        names::LOGS_SUBSCRIBE,
        names::LOGS_UNSUBSCRIBE,
    ];
    let name: String = name.chars().take(64).collect();
    let detail = format!("'{}' is no event; known are {}", name.escape_debug(), known.join(", "));
    Failure::bad_request("unknown_event", detail)
}

/// A question that is refused is answered like any other.
fn refuse_question(payload: &RawValue, reply: Reply, failure: &Failure) {
    #[derive(Deserialize)]
    struct Asked {
        query: String,
    }
    let query = serde_json::from_str::<Asked>(payload.get()).map(|asked| asked.query).unwrap_or_default();
    if let Err(error) = reply.socket.emit(names::AI_RESPONSE, &answer::refused(None, query, failure)) {
        tracing::debug!(%error, "an error was not sent");
    }
    if reply.ack_wanted {
        reply.refuse(names::USER_QUERY, failure);
    }
}
