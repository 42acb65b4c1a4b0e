//! Questions to an AI: `ai.chat` and `ai.embed` through Gemini, a local OpenAI-compatible server, or the built-in demo.
//!
//! [`provider`] says what each can do, [`chain`] in which order they are asked, [`fault`] what follows from a failure. [`call`]
//! is the attempt: every wait goes through it, so that a cancel closes the connection at once.

mod breaker;
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

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use flota_proto::Kind;
use flota_proto::chain::{Link, Source};
use flota_proto::kinds::Payload;
use reqwest::Url;
use secrecy::{ExposeSecret, SecretString};

use self::call::Call;
use self::catalog::Catalog;
use self::chain::{Candidate, Care, Task};
use self::demo::{DEMO_MODEL, Demo};
use self::fault::Place;
use self::gemini::Gemini;
use self::openai::OpenAi;
use super::{Context, Executor, Failure, Output, Unit};

/// The model of questions that name none.
pub const DEFAULT_MODEL: &str = "gemini-3.5-flash-lite";
/// Where the Gemini API is.
pub const GEMINI_BASE_URL: &str = "https://generativelanguage.googleapis.com/v1beta";

/// A stream from a server, as bytes of which the first says how the others are cut: for those who throw bytes at it.
pub(crate) fn hostile_stream(data: &[u8]) {
    let Some((first, rest)) = data.split_first() else { return };
    let mut decoder = sse::Decoder::default();
    let mut events = Vec::new();
    for piece in rest.chunks(usize::from(*first).max(1)) {
        match decoder.push(piece) {
            Ok(more) => events.extend(more),
            Err(sse::TooLarge) => return,
        }
    }
    events.extend(decoder.finish());
    let _ = gemini::add_up(events.iter().cloned());
    let _ = openai::add_up(events);
}

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
    /// Whom questions are put to that don't say so themselves.
    pub chain: Vec<Link>,
    /// The models behind `small` and `large`; without one the local AI's is small and Gemini's large.
    pub classes: BTreeMap<String, String>,
}

/// The classes of models.
pub const CLASSES: [&str; 2] = [SMALL, LARGE];
const SMALL: &str = "small";
const LARGE: &str = "large";

/// Which model is asked for, and of whom.
#[derive(Clone, Copy)]
struct Asked<'a> {
    model: Option<&'a str>,
    chain: Option<&'a [Link]>,
}

/// With which keys a question may be asked.
#[derive(Clone, Copy)]
struct Keys<'a> {
    own: Option<&'a SecretString>,
    own_only: bool,
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
    chain: Vec<Link>,
    classes: BTreeMap<String, String>,
    care: Care,
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
            chain: config.chain,
            classes: config.classes,
            care: Care::default(),
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

    /// Gemini with the question's own key or the worker's. A question that brings a key is asked with that one only, whatever its
    /// chain says: it was not counted as one that the fleet's key pays.
    fn gemini_with<'a>(&'a self, source: Source, own: Option<&'a SecretString>, model: &str) -> Option<Candidate<'a>> {
        let (key, whose) = match (source, own) {
            (_, Some(own)) => (own, OWN_KEY),
            (Source::Own, None) => return None,
            (_, None) => (self.key.as_ref()?, WORKER_KEY),
        };
        let model = bare_name(model).to_owned();
        Some(Candidate { provider: &self.gemini, model, key: Some(key), whose, own: own.is_some() })
    }

    fn local_with(&self, model: &str) -> Option<Candidate<'_>> {
        let provider = self.local.as_ref()?;
        Some(Candidate { provider, model: model.to_owned(), key: None, whose: "this worker", own: false })
    }

    /// The local AI's model for questions that name none.
    async fn local_default(&self) -> Option<String> {
        let local = self.local.as_ref()?;
        let known = || self.local_model.clone().or_else(|| self.local_catalog.first());
        if known().is_none() {
            // Just started, or it was not there: the call itself says why if it still isn't.
            self.local_catalog.refresh_logged(local, None).await;
        }
        Some(known().unwrap_or_else(|| "default".to_owned()))
    }

    fn serves_locally(&self, model: &str) -> bool {
        self.local_model.as_deref() == Some(model) || self.local_catalog.chat_models().iter().any(|m| m == model)
    }

    /// The links that serve `model`, where the question does not say whom to ask.
    fn serving(&self, own: Option<&SecretString>, model: &str) -> Vec<Source> {
        if model == DEMO_MODEL {
            return vec![Source::Demo];
        }
        if self.serves_locally(model) {
            return vec![Source::Local];
        }
        // A local server may serve more than it lists, but not Google's own models.
        let keys = own.is_some() || self.key.is_some();
        if keys || bare_name(model).starts_with("gemini") {
            vec![Source::Own, Source::Gemini]
        } else {
            vec![Source::Local]
        }
    }

    /// What `small` and `large` mean here; `None` where nothing serves them.
    fn of_class(&self, class: &str, own: bool) -> Option<Link> {
        if let Some(model) = self.classes.get(class) {
            let source = if self.serves_locally(model) { Source::Local } else { Source::Gemini };
            return Some(Link { source, model: Some(model.clone()) });
        }
        let gemini = (self.key.is_some() || own).then_some(Source::Gemini);
        let local = self.local.is_some().then_some(Source::Local);
        let source = if class == SMALL { local.or(gemini) } else { gemini };
        source.map(|source| Link { source, model: None })
    }

    /// Whom a question is put to, in order.
    fn links(&self, asked: Asked<'_>, own: Option<&SecretString>) -> Vec<Link> {
        let of = |source, model: Option<&str>| Link { source, model: model.map(str::to_owned) };
        let class = asked.model.filter(|model| CLASSES.contains(model));
        let own_first = |link: Link| {
            let own = (link.source == Source::Gemini).then(|| Link { source: Source::Own, model: link.model.clone() });
            own.into_iter().chain([link])
        };
        match (asked.chain, asked.model, class) {
            (Some(chain), model, None) => {
                chain.iter().map(|link| of(link.source, link.model.as_deref().or(model))).collect()
            }
            (_, _, Some(class)) => self.of_class(class, own.is_some()).into_iter().flat_map(own_first).collect(),
            (None, Some(model), None) => {
                self.serving(own, model).into_iter().map(|source| of(source, Some(model))).collect()
            }
            (None, None, None) => self.chain.clone(),
        }
    }

    /// Providers, models and keys, in order.
    async fn candidates<'a>(
        &'a self,
        asked: Asked<'_>,
        own: Option<&'a SecretString>,
        task: Task<'_>,
    ) -> Vec<Candidate<'a>> {
        let mut candidates: Vec<Candidate<'a>> = Vec::new();
        for Link { source, model } in self.links(asked, own) {
            match (source, model) {
                (Source::Demo, _) => candidates.push(Candidate {
                    provider: &Demo,
                    model: DEMO_MODEL.to_owned(),
                    key: None,
                    whose: "this worker",
                    own: false,
                }),
                (Source::Local, Some(model)) => candidates.extend(self.local_with(&model)),
                (Source::Local, None) => {
                    if let Some(model) = self.local_default().await {
                        candidates.extend(self.local_with(&model));
                    }
                }
                (Source::Own | Source::Gemini, Some(model)) => candidates.extend(self.gemini_with(source, own, &model)),
                (Source::Own | Source::Gemini, None) => {
                    for model in self.gemini_defaults(task) {
                        candidates.extend(self.gemini_with(source, own, &model));
                    }
                }
            }
        }
        each_once(candidates)
    }

    /// Gemini's models for questions that name none, the second where the first fails.
    fn gemini_defaults(&self, task: Task<'_>) -> Vec<String> {
        match task {
            Task::Chat(_) => {
                let other = self.gemini_catalog.alternative(&self.gemini_model);
                std::iter::once(self.gemini_model.clone()).chain(other).collect()
            }
            Task::Embed(_) => vec![self.gemini_catalog.embedding_model()],
        }
    }

    async fn answer(&self, task: Task<'_>, keys: Keys<'_>, call: &mut Call) -> Result<Output, Failure> {
        let asked = match task {
            Task::Chat(chat) => Asked { model: chat.model.as_deref(), chain: chat.chain.as_deref() },
            Task::Embed(embed) => Asked { model: embed.model.as_deref(), chain: None },
        };
        if let Task::Chat(chat) = task
            && chat.dropped_turns > 0
        {
            call.note(&format!("the oldest {} turns of the conversation are left out", chat.dropped_turns));
        }
        let found = call.wait(self.candidates(asked, keys.own, task)).await;
        let mut candidates = found.map_err(|fault| fault.failure(&NOBODY_YET))?;
        if candidates.is_empty() {
            return Err(self.no_api_key(asked.model));
        }
        if keys.own_only {
            candidates.retain(|candidate| candidate.own || candidate.model == DEMO_MODEL);
        }
        if candidates.is_empty() {
            return Err(not_with_own_key());
        }
        let json = chain::run(&candidates, task, &self.care, call).await?;
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

/// Nobody whom it may be put to takes the question's own key.
fn not_with_own_key() -> Failure {
    let message = "your API key is not for whom this question is put to, and your budget of the fleet for today does not hold it: \
                   ask Gemini, or wait until the budget is new";
    Failure::permanent("budget_spent", message)
}

/// Without those that were asked the same already, as `own` and `gemini` are with the question's own key.
fn each_once(candidates: Vec<Candidate<'_>>) -> Vec<Candidate<'_>> {
    let mut once: Vec<Candidate<'_>> = Vec::new();
    for candidate in candidates {
        let key = |candidate: &Candidate<'_>| candidate.key.map(|key| key.expose_secret().to_owned());
        let same = |other: &Candidate<'_>| {
            other.provider.name() == candidate.provider.name()
                && other.model == candidate.model
                && key(other) == key(&candidate)
        };
        if !once.iter().any(same) {
            once.push(candidate);
        }
    }
    once
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
        let classes = CLASSES.iter().filter(|class| self.of_class(class, false).is_some());
        if self.key.is_some() {
            names.push(self.gemini_model.clone());
            names.extend(self.gemini_catalog.chat_models());
            names.push(self.gemini_catalog.embedding_model());
        }
        if self.local.is_some() {
            names.extend(self.local_model.clone());
            names.extend(self.local_catalog.chat_models());
        }
        catalog::offered(names.into_iter().chain(classes.map(|class| (*class).to_owned())))
    }

    async fn execute(&self, unit: Unit, context: Context) -> Result<Output, Failure> {
        let own = unit.credential.filter(|key| !key.expose_secret().trim().is_empty());
        let keys = Keys { own: own.as_ref(), own_only: unit.own_key_only };
        let mut call = Call::new(context, unit.timeout);
        match &unit.payload {
            Payload::Chat(chat) => self.answer(Task::Chat(chat), keys, &mut call).await,
            Payload::Embed(embed) => self.answer(Task::Embed(embed), keys, &mut call).await,
            Payload::Hash(_) | Payload::Search(_) | Payload::Echo(_) => {
                let message = format!("the AI executor does not compute {}", unit.kind);
                Err(Failure::permanent("unsupported", message))
            }
        }
    }
}

#[cfg(test)]
mod tests;
