//! Questions to an AI: `ai.chat` and `ai.embed` through Gemini, a local OpenAI-compatible server, or the built-in demo.
//!
//! [`provider`] says what each can do, [`chain`] in which order they are asked, [`fault`] what follows from a failure. [`call`]
//! is the attempt: every wait goes through it, so that a cancel closes the connection at once.

mod call;
mod catalog;
mod chain;
mod demo;
mod fault;
mod gemini;
mod http;
mod openai;
mod provider;
mod rests;
mod sse;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use flota_proto::Kind;
use flota_proto::kinds::Payload;
use reqwest::Url;
use secrecy::{ExposeSecret, SecretString};

use self::call::Call;
use self::catalog::Catalog;
use self::chain::{Candidate, Task};
use self::demo::{DEMO_MODEL, Demo};
use self::fault::Place;
use self::gemini::Gemini;
use self::openai::OpenAi;
use self::rests::Rests;
use super::{Context, Executor, Failure, Output, Unit};

/// The model of questions that name none.
pub const DEFAULT_MODEL: &str = "gemini-3.5-flash-lite";
/// Where the Gemini API is.
pub const GEMINI_BASE_URL: &str = "https://generativelanguage.googleapis.com/v1beta";

const REFRESH_EVERY: Duration = Duration::from_secs(15 * 60);
const REFRESH_AFTER_FAILURE: Duration = Duration::from_secs(60);

const NOBODY_YET: Place<'_> = Place { provider: "the local AI", model: "default", key: "this worker" };
const OWN_KEY: &str = "your API key";
const WORKER_KEY: &str = "this worker's API key";

/// Which AIs a worker can ask.
#[derive(Clone, Debug)]
pub struct AiConfig {
    /// The worker's own key, for questions that carry none.
    pub gemini_api_key: Option<SecretString>,
    /// With the version: `…/v1beta`.
    pub gemini_base_url: Url,
    /// The model of questions that name none.
    pub gemini_model: String,
    /// An OpenAI-compatible server, with or without `/v1`.
    pub local_url: Option<Url>,
    /// Its model; without it the first that it lists.
    pub local_model: Option<String>,
}

/// Computes `ai.chat` and `ai.embed`.
pub struct AiExecutor {
    key: Option<SecretString>,
    gemini: Gemini,
    gemini_model: String,
    gemini_catalog: Catalog,
    local: Option<OpenAi>,
    local_model: Option<String>,
    local_catalog: Catalog,
    rests: Rests,
}

impl AiExecutor {
    /// An executor that looks in the background, as long as it lives, which models there are. Call it within a runtime.
    #[must_use]
    pub fn start(config: AiConfig) -> Arc<Self> {
        let executor = Arc::new(Self::new(config));
        let weak = Arc::downgrade(&executor);
        tokio::spawn(async move {
            while let Some(executor) = weak.upgrade() {
                let wait = if executor.refresh().await { REFRESH_EVERY } else { REFRESH_AFTER_FAILURE };
                drop(executor);
                tokio::time::sleep(wait).await;
            }
        });
        executor
    }

    fn new(config: AiConfig) -> Self {
        Self {
            key: config.gemini_api_key.filter(|key| !key.expose_secret().trim().is_empty()),
            gemini: Gemini::new(config.gemini_base_url),
            gemini_model: bare_name(&config.gemini_model).to_owned(),
            gemini_catalog: Catalog::default(),
            local: config.local_url.map(OpenAi::new),
            local_model: config.local_model.filter(|model| !model.is_empty()),
            local_catalog: Catalog::default(),
            rests: Rests::default(),
        }
    }

    /// Asks for the lists of models; whether all were to be had.
    async fn refresh(&self) -> bool {
        let gemini = async {
            let Some(key) = &self.key else { return true };
            self.gemini_catalog.refresh_logged(&self.gemini, Some(key)).await
        };
        let local = async {
            let Some(local) = &self.local else { return true };
            self.local_catalog.refresh_logged(local, None).await
        };
        let (gemini, local) = tokio::join!(gemini, local);
        gemini && local
    }

    /// Gemini with each key there is.
    fn gemini_with<'a>(&'a self, own: Option<&'a SecretString>, model: &str) -> Vec<Candidate<'a>> {
        let worker = self.key.as_ref().filter(|key| own.is_none_or(|own| own.expose_secret() != key.expose_secret()));
        let with = |(key, whose)| Candidate { provider: &self.gemini, model: model.to_owned(), key: Some(key), whose };
        let keys = own.map(|key| (key, OWN_KEY)).into_iter().chain(worker.map(|key| (key, WORKER_KEY)));
        keys.map(with).collect()
    }

    fn local_with(&self, model: String) -> Option<Candidate<'_>> {
        let provider = self.local.as_ref()?;
        Some(Candidate { provider, model, key: None, whose: "this worker" })
    }

    /// The local AI with the model of questions that name none.
    async fn local_default(&self) -> Option<Candidate<'_>> {
        let local = self.local.as_ref()?;
        let known = || self.local_model.clone().or_else(|| self.local_catalog.first());
        if known().is_none() {
            // Just started, or it was not there: the call itself says why if it still isn't.
            self.local_catalog.refresh_logged(local, None).await;
        }
        self.local_with(known().unwrap_or_else(|| "default".to_owned()))
    }

    fn serves_locally(&self, model: &str) -> bool {
        self.local_model.as_deref() == Some(model) || self.local_catalog.chat_models().iter().any(|m| m == model)
    }

    /// Who is asked for `model`.
    fn named<'a>(&'a self, own: Option<&'a SecretString>, model: &str) -> Vec<Candidate<'a>> {
        if model == DEMO_MODEL {
            return vec![Candidate { provider: &Demo, model: model.to_owned(), key: None, whose: "this worker" }];
        }
        if self.serves_locally(model) {
            return self.local_with(model.to_owned()).into_iter().collect();
        }
        let model = bare_name(model);
        let gemini = self.gemini_with(own, model);
        // A local server may serve more than it lists, but not Google's own models.
        let local = if model.starts_with("gemini") { None } else { self.local_with(model.to_owned()) };
        if gemini.is_empty() { local.into_iter().collect() } else { gemini }
    }

    /// Who is asked where no model is named.
    async fn unnamed<'a>(&'a self, own: Option<&'a SecretString>, task: Task<'_>) -> Vec<Candidate<'a>> {
        let models = match task {
            Task::Chat(_) => {
                let other = self.gemini_catalog.alternative(&self.gemini_model);
                [Some(self.gemini_model.clone()), other]
            }
            Task::Embed(_) => [Some(self.gemini_catalog.embedding_model()), None],
        };
        let mut candidates: Vec<_> =
            models.into_iter().flatten().flat_map(|model| self.gemini_with(own, &model)).collect();
        candidates.sort_by_key(|candidate| candidate.whose != OWN_KEY);
        candidates.extend(self.local_default().await);
        candidates
    }

    async fn answer(&self, task: Task<'_>, own: Option<&SecretString>, call: &mut Call) -> Result<Output, Failure> {
        let model = match task {
            Task::Chat(chat) => chat.model.as_deref(),
            Task::Embed(embed) => embed.model.as_deref(),
        };
        let candidates = match model {
            Some(model) => self.named(own, model),
            None => call.wait(self.unnamed(own, task)).await.map_err(|fault| fault.failure(&NOBODY_YET))?,
        };
        if candidates.is_empty() {
            return Err(self.no_api_key(model));
        }
        let json = chain::run(&candidates, task, &self.rests, call).await?;
        Ok(Output { json, hashes: 0 })
    }

    fn no_api_key(&self, model: Option<&str>) -> Failure {
        let what =
            model.map_or_else(|| "no AI is configured here".to_owned(), |model| format!("'{model}' wants a key"));
        Failure::permanent(
            "no_api_key",
            format!(
                "{what}: enter your Gemini API key (free at https://aistudio.google.com/apikey), or set GEMINI_API_KEY \
                 or FLOTA_AI_LOCAL_URL for the worker; the model '{DEMO_MODEL}' shows how it works without any"
            ),
        )
    }
}

/// `gemini-x` of `models/gemini-x`.
fn bare_name(model: &str) -> &str {
    model.strip_prefix("models/").unwrap_or(model)
}

#[async_trait]
impl Executor for AiExecutor {
    fn kinds(&self) -> &[Kind] {
        &[Kind::AiChat, Kind::AiEmbed]
    }

    /// The default first; at most one of them (its name says `embedding`) makes vectors only.
    fn models(&self) -> Vec<String> {
        let mut names = Vec::new();
        if self.key.is_some() {
            names.push(self.gemini_model.clone());
            names.extend(self.gemini_catalog.chat_models());
            names.push(self.gemini_catalog.embedding_model());
        }
        if self.local.is_some() {
            names.extend(self.local_model.clone());
            names.extend(self.local_catalog.chat_models());
        }
        catalog::offered(names)
    }

    async fn execute(&self, unit: Unit, context: Context) -> Result<Output, Failure> {
        let own = unit.credential.filter(|key| !key.expose_secret().trim().is_empty());
        let mut call = Call::new(context, unit.timeout);
        match &unit.payload {
            Payload::Chat(chat) => self.answer(Task::Chat(chat), own.as_ref(), &mut call).await,
            Payload::Embed(embed) => self.answer(Task::Embed(embed), own.as_ref(), &mut call).await,
            Payload::Hash(_) | Payload::Search(_) | Payload::Echo(_) => {
                let message = format!("the AI executor does not compute {}", unit.kind);
                Err(Failure::permanent("unsupported", message))
            }
        }
    }
}

#[cfg(test)]
mod tests;
