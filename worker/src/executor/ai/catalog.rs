//! Which models there are: what was configured, and what the providers' lists said last.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use secrecy::SecretString;

use super::call::Call;
use super::demo::DEMO_MODEL;
use super::fault::{Fault, Place};
use super::provider::{Model, Provider};

/// How many models of a provider are offered.
const MODELS_MAX: usize = 100;
/// How long a list may take.
const LIST_TIMEOUT: Duration = Duration::from_secs(30);
/// What makes vectors where the list names nothing else.
const EMBEDDING_MODEL: &str = "gemini-embedding-001";

/// The models of one provider.
#[derive(Debug, Default)]
pub struct Catalog(Mutex<Vec<Model>>);

impl Catalog {
    /// Asks `provider` again; what was known stays where that fails.
    ///
    /// # Errors
    /// Why there is no list.
    pub async fn refresh(&self, provider: &dyn Provider, key: Option<&SecretString>) -> Result<(), Fault> {
        let mut models = provider.models(key, &mut Call::background(LIST_TIMEOUT)).await?;
        models.retain(|model| (model.chats || model.embeds) && !model.name.is_empty() && model.name.len() <= 200);
        models.truncate(MODELS_MAX);
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = models;
        Ok(())
    }

    /// The same, with a failure in the log.
    pub async fn refresh_logged(&self, provider: &dyn Provider, key: Option<&SecretString>) -> bool {
        let refreshed = self.refresh(provider, key).await;
        if let Err(fault) = &refreshed {
            let place = Place { provider: provider.title(), model: "", key: "this worker's API key" };
            tracing::warn!(code = fault.code(), "the list of models could not be had: {}", fault.message(&place));
        }
        refreshed.is_ok()
    }

    /// The names of those that answer questions.
    pub fn chat_models(&self) -> Vec<String> {
        self.names(|model| model.chats)
    }

    /// The first that answers questions.
    pub fn first(&self) -> Option<String> {
        self.chat_models().into_iter().next()
    }

    /// Another model for questions that named none, where `default` fails.
    pub fn alternative(&self, default: &str) -> Option<String> {
        const SPECIAL: [&str; 6] = ["image", "tts", "live", "audio", "embedding", "vision"];
        let plain = |name: &String| name.contains("flash") && !SPECIAL.iter().any(|word| name.contains(word));
        self.chat_models().into_iter().find(|name| name != default && plain(name))
    }

    /// The model for vectors.
    pub fn embedding_model(&self) -> String {
        let known = self.names(|model| model.embeds);
        let listed = known.iter().any(|name| name == EMBEDDING_MODEL);
        known.into_iter().next().filter(|_| !listed).unwrap_or_else(|| EMBEDDING_MODEL.to_owned())
    }

    fn names(&self, wanted: impl Fn(&Model) -> bool) -> Vec<String> {
        let models = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        models.iter().filter(|model| wanted(model)).map(|model| model.name.clone()).collect()
    }
}

/// `names` in order, each once, and the demo.
pub fn offered(names: impl IntoIterator<Item = String>) -> Vec<String> {
    let mut offered = Vec::new();
    for name in names.into_iter().chain([DEMO_MODEL.to_owned()]) {
        if !offered.contains(&name) {
            offered.push(name);
        }
    }
    offered
}
