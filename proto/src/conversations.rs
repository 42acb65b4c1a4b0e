//! The shapes of conversations in REST.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use crate::kinds::{Role, Usage};
use crate::rest::JobError;
use crate::time::{rfc3339, rfc3339_option};
use crate::{JobId, Timestamp, WorkerId};

/// The longest title, in characters.
pub const TITLE_CHARS_MAX: usize = 200;

/// `POST /conversations`
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewConversation {
    /// A UUID chosen by the client.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<Uuid>,
    /// At most 200 characters; without it the beginning of the first question.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub title: Option<String>,
}

/// `PATCH /conversations/{id}`
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PatchConversation {
    /// 1 to 200 characters.
    pub title: String,
}

/// A conversation without its messages.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Conversation {
    /// Its identifier.
    pub id: Uuid,
    /// What it is called; empty before the first question.
    pub title: String,
    /// Whose it is.
    pub owner: String,
    /// How many messages it has; each question counts two, itself and its answer.
    pub messages: u32,
    /// When it began.
    #[serde(with = "rfc3339")]
    #[schema(value_type = String)]
    pub created_at: Timestamp,
    /// When it was last continued or renamed.
    #[serde(with = "rfc3339")]
    #[schema(value_type = String)]
    pub updated_at: Timestamp,
    /// Opens it for others, in `X-Flota-Conversation-Secret` or `conversationSecret`. Told to its owner; absent in lists.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret: Option<String>,
}

/// One thing said in a conversation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ConversationMessage {
    /// 0, 1, … in order; questions are even, their answers odd.
    pub index: u32,
    /// `user` or `assistant`.
    pub role: Role,
    /// The text; of an answer that is on its way nothing, of one that broke off the part that came.
    pub content: String,
    /// The question's job.
    #[schema(value_type = String)]
    pub job_id: JobId,
    /// When the question was accepted.
    #[serde(with = "rfc3339")]
    #[schema(value_type = String)]
    pub created_at: Timestamp,
    /// How the answer came about; `null` for questions and while it is on its way.
    pub answer: Option<Answered>,
}

/// How an answer came about.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Answered {
    /// `complete`, `max_tokens`, `blocked` or `error`.
    pub finish: String,
    /// The provider's own word for what blocked it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finish_reason: Option<String>,
    /// Who answered.
    pub model: Option<String>,
    /// Who served the model.
    pub provider: Option<String>,
    /// Which worker asked it.
    #[schema(value_type = Option<String>)]
    pub worker_id: Option<WorkerId>,
    /// What it used.
    pub usage: Option<Usage>,
    /// With `finish: error`.
    pub error: Option<JobError>,
    /// How many of the oldest turns the model did not see.
    #[serde(default)]
    pub dropped_turns: u32,
    /// What its owner should know beside it, in English: that their own key was refused, and who answered instead.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
    /// When it was first assigned to a worker.
    #[serde(with = "rfc3339_option")]
    #[schema(value_type = Option<String>)]
    pub started_at: Option<Timestamp>,
    /// When it ended.
    #[serde(with = "rfc3339_option")]
    #[schema(value_type = Option<String>)]
    pub finished_at: Option<Timestamp>,
}

/// A whole conversation, as it is exported.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct ConversationExport {
    /// Which.
    #[serde(flatten)]
    pub conversation: Conversation,
    /// What was said, in order.
    pub items: Vec<ConversationMessage>,
}
