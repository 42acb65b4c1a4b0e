//! What is stored beside jobs, in the same commits: users' sealed keys, conversations, sessions. Plain data.

use flota_proto::{JobId, Timestamp};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::ledger::UsageRow;
use crate::session::SessionChange;

/// The place of a question in its conversation; its answer stands one further.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Turn {
    /// Which conversation.
    pub conversation: Uuid,
    /// The index of the question's message.
    pub index: u32,
}

/// A conversation without its messages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConversationRow {
    /// Its identifier.
    pub id: Uuid,
    /// Whose it is.
    pub owner: String,
    /// Empty until it is known.
    pub title: String,
    /// When it began.
    pub created_at: Timestamp,
    /// When it was last changed.
    pub updated_at: Timestamp,
    /// The index of its next message.
    pub messages: u32,
}

/// One message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MessageRow {
    /// From 0; questions are even.
    pub index: u32,
    /// The text.
    pub text: String,
    /// The question's job.
    pub job: JobId,
    /// When the question was accepted.
    pub created_at: Timestamp,
    /// Of an answer that has ended: how, JSON.
    pub answer: Option<String>,
}

/// What was said before a question, as far as it is sent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct History {
    /// Question and answer, oldest first.
    pub turns: Vec<(String, String)>,
    /// How many older turns there are.
    pub dropped: u32,
}

/// One change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Aside {
    /// Keeps a job's sealed key.
    KeepKey(JobId, Vec<u8>),
    /// Lets go of a job's key.
    DropKey(JobId),
    /// Adds to the ledger.
    Used(UsageRow),
    /// A job, or one unit of it, is of a worker that was found to lie.
    Suspect(JobId, Option<u32>),
    /// Of a Socket.IO session.
    Session(SessionChange, Timestamp),
    /// A conversation begins.
    Begin(ConversationRow),
    /// A conversation gets a title.
    Rename(Uuid, String, Timestamp),
    /// A conversation goes, with its messages.
    Delete(Uuid),
    /// Messages from this index on go.
    Truncate(Uuid, u32, Timestamp),
    /// A question with its answer to come.
    Question {
        /// Where.
        turn: Turn,
        /// Its job.
        job: JobId,
        /// When it was accepted.
        at: Timestamp,
        /// What is asked.
        text: String,
    },
    /// An answer has ended.
    Answer {
        /// To which question.
        turn: Turn,
        /// Of which job.
        job: JobId,
        /// When.
        at: Timestamp,
        /// What is answered.
        text: String,
        /// How, JSON.
        answer: String,
    },
}
