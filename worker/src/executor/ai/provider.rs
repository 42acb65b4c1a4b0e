//! What every AI provider can do.

use async_trait::async_trait;
use flota_proto::kinds::{ChatPayload, EmbedPayload, EmbedResult, Finish, Usage};
use secrecy::SecretString;

use super::call::Call;
use super::fault::Fault;

/// A service that answers questions.
#[async_trait]
pub trait Provider: Send + Sync {
    /// As in results: `gemini`, `local`, `demo`.
    fn name(&self) -> &'static str;

    /// For people.
    fn title(&self) -> &'static str;

    /// Asks `model`; the text goes to `call` as it comes.
    async fn stream(&self, ask: Ask<'_>, chat: &ChatPayload, call: &mut Call) -> Result<Answer, Fault>;

    /// Vectors of texts.
    async fn embed(&self, ask: Ask<'_>, embed: &EmbedPayload, call: &mut Call) -> Result<EmbedResult, Fault>;

    /// The models that it serves.
    async fn models(&self, key: Option<&SecretString>, call: &mut Call) -> Result<Vec<Model>, Fault>;
}

/// Whom to ask, and as whom.
#[derive(Clone, Copy, Debug)]
pub struct Ask<'a> {
    /// The provider's name of the model.
    pub model: &'a str,
    /// The credential, where the provider wants one.
    pub key: Option<&'a SecretString>,
}

/// A whole answer.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    /// What was streamed.
    pub text: String,
    /// The model that says it answered.
    pub model: Option<String>,
    /// How it ended.
    pub finish: Finish,
    /// The provider's own word for that.
    pub reason: String,
    /// What it used.
    pub usage: Usage,
}

/// A model and what it is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Model {
    /// The provider's name of it.
    pub name: String,
    /// Answers questions.
    pub chats: bool,
    /// Makes vectors of texts.
    pub embeds: bool,
}
