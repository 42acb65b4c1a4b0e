//! Conversations: who may open one, where a question stands in it, what of it is sent along, and what came of the question.
//! Questions of one conversation are answered one after the other.

use std::collections::{HashMap, VecDeque};

use bytes::Bytes;
use flota_proto::JobId;
use flota_proto::conversations::{Answered, Conversation, ConversationMessage};
use flota_proto::kinds::{ChatPayload, ChatResult, FieldError, Message, PartialChat, Role};
use flota_proto::rest::{Job, Page};
use hmac::{Hmac, Mac};
use secrecy::ExposeSecret;
use sha2::Sha256;
use tracing::warn;
use uuid::Uuid;

use super::tasks::{refusal, unreadable};
use super::{Dispatcher, Moment};
use crate::aside::{Aside, ConversationRow, MessageRow, Turn};
use crate::conversation::{Access, Ask, Cursor};
use crate::core::{Dependency, Input};
use crate::handle::{Refused, Reply};
use crate::store::{Reader, StoreError};
use crate::submit::NewJob;
use crate::tokens;

/// Conversations of one owner.
const CONVERSATIONS_MAX: u64 = 10_000;
/// Messages of one conversation.
const MESSAGES_MAX: u32 = 20_000;
/// Questions of one conversation that wait for each other.
const OPEN_MAX: usize = 100;

/// The conversations in which something is going on.
#[derive(Default)]
pub struct Conversations {
    heads: HashMap<Uuid, Head>,
}

#[derive(Default)]
struct Head {
    /// The index of the next message, once it was looked up.
    next: Option<u32>,
    /// Questions that have not ended, in order.
    open: VecDeque<(JobId, u32)>,
}

impl Conversations {
    /// With the questions that a core has.
    pub fn of(open: impl Iterator<Item = (JobId, Turn)>) -> Self {
        let mut all = Self::default();
        for (job, turn) in open {
            all.heads.entry(turn.conversation).or_default().open.push_back((job, turn.index));
        }
        for head in all.heads.values_mut() {
            head.open.make_contiguous().sort_by_key(|(_, index)| *index);
        }
        all
    }

    /// Forgets those in which nothing is going on; the store has what was.
    pub fn forget_quiet(&mut self) {
        self.heads.retain(|_, head| !head.open.is_empty());
    }
}

fn unavailable(error: StoreError) -> Refused {
    Refused::Unavailable(format!("failed to {error}"))
}

fn missing(id: Uuid) -> Refused {
    Refused::NotFound(format!("conversation {id}"))
}

/// What opens a conversation to who is not its owner.
fn secret_of(key: &[u8], id: Uuid) -> String {
    let Ok(mac) = Hmac::<Sha256>::new_from_slice(key) else { return String::new() };
    hex::encode(mac.chain_update(b"conversation").chain_update(id.as_bytes()).finalize().into_bytes())
}

fn opened(key: &[u8], found: Option<ConversationRow>, access: &Access) -> Result<ConversationRow, Refused> {
    let row = found.ok_or_else(|| missing(access.id))?;
    let secret = || {
        access.secret.as_ref().is_some_and(|given| crate::secret::same(&secret_of(key, row.id), given.expose_secret()))
    };
    if row.owner == access.owner || secret() { Ok(row) } else { Err(missing(access.id)) }
}

fn view(row: ConversationRow, secret: Option<String>) -> Conversation {
    Conversation {
        id: row.id,
        title: row.title,
        owner: row.owner,
        messages: row.messages,
        created_at: row.created_at,
        updated_at: row.updated_at,
        secret,
    }
}

fn message(row: MessageRow) -> ConversationMessage {
    let question = row.index.is_multiple_of(2);
    ConversationMessage {
        index: row.index,
        role: if question { Role::User } else { Role::Assistant },
        content: row.text,
        job_id: row.job,
        created_at: row.created_at,
        answer: row.answer.and_then(|answer| serde_json::from_str(&answer).ok()),
    }
}

impl Dispatcher {
    pub(super) fn conversation(&mut self, at: Moment, ask: Ask) {
        match ask {
            Ask::Create { owner, id, title, reply } => {
                let answer = self.create_conversation(at, owner, id, title);
                self.answer_or_refuse(reply, answer);
            }
            Ask::List { owner, search, limit, cursor, reply } => {
                self.readers.read(reply, move |reader| list(reader, &owner, search.as_deref(), limit, cursor))
            }
            Ask::Get { access, reply } => {
                let key = self.secret.clone();
                self.readers.read(reply, move |reader| {
                    let found = reader.conversation(access.id).map_err(unavailable)?;
                    let row = opened(&key, found, &access)?;
                    let secret = secret_of(&key, row.id);
                    Ok(view(row, Some(secret)))
                });
            }
            Ask::Rename { access, title, reply } => {
                let answer = self.open_conversation(&access).map(|row| {
                    self.asides.push(Aside::Rename(row.id, title.clone(), at.now));
                    let secret = secret_of(&self.secret, row.id);
                    view(ConversationRow { title, updated_at: at.now, ..row }, Some(secret))
                });
                self.answer_or_refuse(reply, answer);
            }
            Ask::Delete { access, reply } => {
                let answer = self.open_conversation(&access).map(|row| self.delete_conversation(at, row.id));
                self.answer_or_refuse(reply, answer);
            }
            Ask::Truncate { access, from, reply } => {
                let answer = self.open_conversation(&access).and_then(|row| self.truncate(at, row, from));
                self.answer_or_refuse(reply, answer);
            }
            Ask::Messages { access, limit, from, reply } => {
                let key = self.secret.clone();
                self.readers.read(reply, move |reader| {
                    let found = reader.conversation(access.id).map_err(unavailable)?;
                    opened(&key, found, &access)?;
                    let mut items = reader.messages(access.id, from, limit + 1).map_err(unavailable)?;
                    let next_cursor = items.get(limit).map(|row| row.index.to_string());
                    items.truncate(limit);
                    Ok(Page { items: items.into_iter().map(message).collect(), next_cursor })
                });
            }
        }
    }

    fn answer_or_refuse<T: Send + 'static>(&mut self, reply: Reply<T>, answer: Result<T, Refused>) {
        match answer {
            Ok(value) => self.answer(reply, value),
            Err(refused) => drop(reply.send(Err(refused))),
        }
    }

    fn open_conversation(&mut self, access: &Access) -> Result<ConversationRow, Refused> {
        let found = self.store.own_reader().conversation(access.id).map_err(unavailable)?;
        opened(&self.secret, found, access)
    }

    fn create_conversation(
        &mut self,
        at: Moment,
        owner: String,
        id: Option<Uuid>,
        title: Option<String>,
    ) -> Result<Conversation, Refused> {
        let id = id.unwrap_or_else(Uuid::now_v7);
        let in_batch = self.asides.iter().any(|aside| matches!(aside, Aside::Begin(row) if row.id == id));
        let reader = self.store.own_reader();
        if in_batch || reader.conversation(id).map_err(unavailable)?.is_some() {
            return Err(Refused::Conflict("id_taken", format!("there is a conversation {id} already")));
        }
        if reader.conversation_count(&owner).map_err(unavailable)? >= CONVERSATIONS_MAX {
            let detail = format!("there are {CONVERSATIONS_MAX} conversations of '{owner}': delete some first");
            return Err(Refused::Conflict("too_many_conversations", detail));
        }
        let (created_at, updated_at) = (at.now, at.now);
        let row = ConversationRow { id, owner, title: title.unwrap_or_default(), created_at, updated_at, messages: 0 };
        self.asides.push(Aside::Begin(row.clone()));
        let secret = secret_of(&self.secret, id);
        Ok(view(row, Some(secret)))
    }

    fn delete_conversation(&mut self, at: Moment, id: Uuid) {
        let open = self.conversations.heads.remove(&id).map(|head| head.open).unwrap_or_default();
        for (job, _) in open {
            self.apply(at, Input::Cancel(job));
        }
        self.asides.push(Aside::Delete(id));
    }

    fn truncate(&mut self, at: Moment, row: ConversationRow, from: u32) -> Result<Conversation, Refused> {
        if !from.is_multiple_of(2) {
            return Err(FieldError::new("from", "is the index of a question: an even number").into());
        }
        let head = self.conversations.heads.entry(row.id).or_default();
        if head.open.iter().any(|(_, index)| *index >= from) {
            let detail = "a question there has not been answered: cancel it first, or wait for its answer";
            return Err(Refused::Conflict("conversation_busy", detail.into()));
        }
        let messages = head.next.unwrap_or(row.messages).min(from);
        head.next = Some(messages);
        self.asides.push(Aside::Truncate(row.id, from, at.now));
        let secret = secret_of(&self.secret, row.id);
        Ok(view(ConversationRow { messages, updated_at: at.now, ..row }, Some(secret)))
    }

    /// Gives a question its place in its conversation; answers with the job that it must wait for.
    pub(super) fn place_question(&mut self, job: &mut NewJob) -> Result<Option<Dependency>, Refused> {
        let Some(named) = job.conversation.take() else { return Ok(None) };
        let access = Access { id: named.id, owner: job.owner.clone(), secret: named.secret };
        let none = || FieldError::new("conversation_id", format!("there is no conversation {} of yours", access.id));
        let row = self.open_conversation(&access).map_err(|refused| match refused {
            Refused::NotFound(_) => none().into(),
            other => other,
        })?;
        let head = self.conversations.heads.entry(row.id).or_default();
        if head.open.len() >= OPEN_MAX {
            let detail = format!("{OPEN_MAX} questions of this conversation wait for their answers already");
            return Err(Refused::Busy { detail, retry_after_seconds: 5 });
        }
        let index = head.next.unwrap_or(row.messages);
        if index >= MESSAGES_MAX {
            let detail = format!("the conversation has {MESSAGES_MAX} messages: begin another one");
            return Err(Refused::Conflict("conversation_full", detail));
        }
        job.turn = Some(Turn { conversation: row.id, index });
        // Asked whatever became of the one before.
        job.on_dependency_failure = flota_proto::rest::OnDependencyFailure::Continue;
        Ok(head.open.back().map(|(id, _)| Dependency { id: *id, ended: None }))
    }

    /// Notes a question that the core has accepted.
    pub(super) fn question_accepted(&mut self, at: Moment, id: JobId, turn: Turn, payload: &[u8]) {
        let head = self.conversations.heads.entry(turn.conversation).or_default();
        head.next = Some(turn.index + 2);
        head.open.push_back((id, turn.index));
        let text = question_of(payload).unwrap_or_default();
        self.asides.push(Aside::Question { turn, job: id, at: at.now, text });
    }

    /// A question that is asked again under its id.
    pub(super) fn question_reopened(&mut self, id: JobId) {
        if let Some(turn) = self.core.turn(id) {
            self.conversations.heads.entry(turn.conversation).or_default().open.push_back((id, turn.index));
        }
    }

    /// Stores what came of a question, in the commit of its end.
    pub(super) fn question_ended(&mut self, at: Moment, id: JobId) {
        let Some(turn) = self.core.turn(id) else { return };
        if let Some(head) = self.conversations.heads.get_mut(&turn.conversation) {
            head.open.retain(|(open, _)| *open != id);
        }
        let Some(job) = self.core.job_view(id) else { return };
        let (text, answered) = answer_of(&job);
        let answer = serde_json::to_string(&answered).unwrap_or_default();
        self.asides.push(Aside::Answer { turn, job: id, at: at.now, text, answer });
    }

    /// The payload with what was said before, as far as it may be sent.
    pub(super) fn with_history(&mut self, id: JobId, payload: Bytes) -> Result<Bytes, Refused> {
        let Some(turn) = self.core.turn(id) else { return Ok(payload) };
        let mut chat: ChatPayload = serde_json::from_slice(&payload).map_err(|error| unreadable(&error))?;
        let own: u64 = chat.messages.iter().map(|message| tokens::estimate(&message.content)).sum();
        let left = self.config.conversation_tokens.saturating_sub(own);
        let reader = self.store.own_reader();
        let history = reader.history(turn.conversation, turn.index, left).map_err(refusal)?;
        let say = |role: Role, content: String| Message { role, content };
        let before = history
            .turns
            .into_iter()
            .flat_map(|(question, answer)| [say(Role::User, question), say(Role::Assistant, answer)]);
        let (system, question): (Vec<_>, Vec<_>) =
            std::mem::take(&mut chat.messages).into_iter().partition(|message| message.role == Role::System);
        chat.messages = system.into_iter().chain(before).chain(question).collect();
        chat.dropped_turns = history.dropped;
        serde_json::to_vec(&chat).map(Bytes::from).map_err(|error| unreadable(&error))
    }
}

fn question_of(payload: &[u8]) -> Option<String> {
    let chat: ChatPayload = serde_json::from_slice(payload).ok()?;
    chat.messages.into_iter().rfind(|message| message.role == Role::User).map(|message| message.content)
}

fn answer_of(job: &Job) -> (String, Answered) {
    let result = job.result.as_ref().map(|result| result.get()).unwrap_or_default();
    let base = Answered {
        finish: "error".into(),
        finish_reason: None,
        model: None,
        provider: None,
        worker_id: job.workers.last().cloned(),
        usage: None,
        error: job.error.clone(),
        dropped_turns: 0,
        notes: Vec::new(),
        started_at: job.started_at,
        finished_at: job.finished_at,
    };
    if let Ok(chat) = serde_json::from_str::<ChatResult>(result) {
        let finish = serde_json::to_value(chat.finish).ok().and_then(|finish| finish.as_str().map(str::to_owned));
        let answered = Answered {
            finish: finish.unwrap_or_else(|| "complete".into()),
            finish_reason: chat.finish_reason,
            model: Some(chat.model).filter(|model| !model.is_empty()),
            provider: Some(chat.provider),
            usage: Some(chat.usage),
            dropped_turns: chat.dropped_turns,
            notes: chat.notes,
            ..base
        };
        return (chat.text, answered);
    }
    match serde_json::from_str::<PartialChat>(result) {
        Ok(partial) => (partial.text, Answered { usage: partial.usage, ..base }),
        Err(_) => (String::new(), base),
    }
}

fn list(
    reader: &mut dyn Reader,
    owner: &str,
    search: Option<&str>,
    limit: usize,
    cursor: Option<Cursor>,
) -> Result<Page<Conversation>, Refused> {
    let before = cursor.map(|cursor| (cursor.at, cursor.id));
    let mut rows = reader.conversations(owner, search, before, limit + 1).map_err(unavailable)?;
    let more = rows.len() > limit;
    rows.truncate(limit);
    let last = rows.last().filter(|_| more);
    let next_cursor = last.map(|row| Cursor { at: row.updated_at, id: row.id }.to_string());
    Ok(Page { items: rows.into_iter().map(|row| view(row, None)).collect(), next_cursor })
}

/// Where the store failed, what was going on is known from the core alone.
impl Dispatcher {
    pub(super) fn conversations_again(&mut self) {
        self.asides.clear();
        self.cache.forget_work();
        self.conversations = Conversations::of(self.core.open_turns());
    }

    /// The keys that the store has, for a master that starts.
    pub(super) fn load_credentials(&mut self) -> Result<(), StoreError> {
        let rows = self.store.own_reader().credentials()?;
        for (job, sealed) in rows {
            let lives = self.core.known(job).is_some();
            if lives && let Some(key) = self.config.sealer.open(job.0.as_bytes(), &sealed) {
                self.note_key(job, &key);
                self.credentials.restore(job, sealed);
                continue;
            }
            if lives {
                warn!(job_id = %job, "the API key of a job can't be opened: the sealing key is another one");
            }
            self.asides.push(Aside::DropKey(job));
        }
        Ok(())
    }
}
