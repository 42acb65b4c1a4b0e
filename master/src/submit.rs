//! From what a client sends to a job that may enter the core: validation, defaults, bounds.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use flota_proto::kinds::{FieldError, Find, Payload, Role};
use flota_proto::rest::{OnDependencyFailure, Requires, RetryPolicy, SubmitJob};
use flota_proto::{Algorithm, Class, JobId, Kind, Timestamp};
use secrecy::SecretString;
use sha2::{Digest, Sha256};
use uuid::Uuid;

use crate::aside::Turn;

/// Who acts: every input carries one.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Principal {
    /// The authenticated user; without accounts the Socket.IO session, `X-Flota-Owner`, else `local`.
    pub owner: String,
}

impl Principal {
    /// Whoever uses this machine.
    #[must_use]
    pub fn local() -> Self {
        Self { owner: "local".into() }
    }
}

/// How a job can be cut into units.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Work {
    /// One unit.
    Single,
    /// A list of so many inputs.
    List(u64),
    /// Nonces `[start, end)`; with `first` the job ends with its first find.
    Range {
        /// The first nonce.
        start: u64,
        /// One past the last.
        end: u64,
        /// Ends with the first find.
        first: bool,
    },
}

/// A valid job that waits to be accepted.
#[derive(Clone, Debug)]
pub struct NewJob {
    /// Chosen by the client, else made here.
    pub id: JobId,
    /// A digest of the body, where the client chose the id.
    pub fingerprint: Option<[u8; 16]>,
    /// What it asks for.
    pub kind: Kind,
    /// The payload as it was sent, JSON.
    pub payload: Bytes,
    /// How it can be cut.
    pub work: Work,
    /// Of `ai.*`: the model that is asked for.
    pub model: Option<String>,
    /// Of `randomx.*`: the key.
    pub randomx_key: Option<Vec<u8>>,
    /// Of a search with many finds: how many nonces a unit may have, so that its result stays small.
    pub unit_max: Option<u64>,
    /// Its queue's name.
    pub queue: String,
    /// Its project's name.
    pub project: Option<String>,
    /// 0 to 9, 9 first.
    pub priority: u8,
    /// How many attempts may fail.
    pub max_attempts: u32,
    /// What is particular about its retries.
    pub retry: Option<RetryPolicy>,
    /// Bounds one attempt.
    pub timeout: Duration,
    /// Bounds the job.
    pub deadline: Option<Timestamp>,
    /// Not before.
    pub run_at: Option<Timestamp>,
    /// What a worker must have.
    pub requires: Requires,
    /// Jobs that must end first.
    pub depends_on: Vec<JobId>,
    /// What to do when one of them did not complete.
    pub on_dependency_failure: OnDependencyFailure,
    /// Names and values.
    pub labels: BTreeMap<String, String>,
    /// Whether an earlier result may be used.
    pub cache: bool,
    /// Who submits it.
    pub owner: String,
    /// The user's own key: never stored in clear.
    pub api_key: Option<SecretString>,
    /// The conversation that it continues, as its client names it.
    pub conversation: Option<ConversationRef>,
    /// Its place in there, once that is known.
    pub turn: Option<Turn>,
    /// Of `ai.*`, in tokens: what it holds as estimated, and what its answer may hold at most; 0 where that is not said.
    pub tokens: (u64, u64),
    /// Of `ai.embed`: how many vectors are wanted.
    pub texts: u64,
    /// What an earlier result of the same is found by, where one may be used.
    pub cache_key: Option<[u8; 32]>,
    /// Such a result.
    pub ready: Option<Bytes>,
    /// A job that is asking the same.
    pub shares: Option<JobId>,
}

/// A conversation as a client names it.
#[derive(Clone, Debug)]
pub struct ConversationRef {
    /// Its identifier.
    pub id: Uuid,
    /// What opens it to who is not its owner.
    pub secret: Option<SecretString>,
}

const NAME_BYTES_MAX: usize = 128;
const LABELS_MAX: usize = 32;
const DEPENDENCIES_MAX: usize = 1000;
const ATTEMPTS_MAX: u32 = 100;
const BACKOFF_MS_MAX: u64 = 86_400_000;
/// Finds of a unit, on average, at most.
const UNIT_FINDS: f64 = 2048.0;
const TIMEOUT_MS_MAX: u64 = 7 * 86_400_000;

impl NewJob {
    /// Validates `job` on behalf of `principal`.
    ///
    /// # Errors
    /// Which field is wrong and what is allowed.
    pub fn from_submit(
        job: SubmitJob,
        principal: &Principal,
        api_key: Option<SecretString>,
    ) -> Result<Self, FieldError> {
        let kind: Kind = job.kind.parse()?;
        let payload = Payload::parse(kind, &job.payload)?;
        check_bounds(&job)?;
        let fingerprint = job.id.is_some().then(|| fingerprint(&job));
        check_conversation(&job, &payload)?;
        let cache = job.cache.unwrap_or(kind.algorithm() == Some(Algorithm::Randomx));
        let cache_key = cache.then(|| cache_key(kind, &payload)).flatten();
        let tokens = tokens(&payload);
        let texts = if let Payload::Embed(embed) = &payload { embed.texts.len() as u64 } else { 0 };
        let unit_max = unit_max(kind, &payload);
        let (work, model, randomx_key) = shape(payload);
        let requires = job.requires.unwrap_or_default();
        check_map("requires.labels", &requires.labels)?;
        let labels = job.labels.unwrap_or_default();
        check_map("labels", &labels)?;
        Ok(Self {
            id: job.id.map_or_else(JobId::generate, JobId),
            fingerprint,
            kind,
            payload: Bytes::copy_from_slice(job.payload.get().as_bytes()),
            work,
            model,
            randomx_key,
            unit_max,
            queue: name("queue", job.queue)?.unwrap_or_else(|| "default".into()),
            project: name("project", job.project)?,
            priority: job.priority.unwrap_or_default().0,
            max_attempts: job.max_attempts.unwrap_or(3),
            retry: job.retry,
            timeout: Duration::from_millis(job.timeout_ms.unwrap_or(default_timeout_ms(kind))),
            deadline: job.deadline,
            run_at: job.run_at,
            requires,
            depends_on: job.depends_on.unwrap_or_default().into_iter().map(JobId).collect(),
            on_dependency_failure: job.on_dependency_failure.unwrap_or_default(),
            labels,
            cache,
            owner: principal.owner.clone(),
            api_key,
            conversation: job.conversation_id.map(|id| ConversationRef { id, secret: None }),
            turn: None,
            tokens,
            texts,
            cache_key,
            ready: None,
            shares: None,
        })
    }

    /// The same, with the secret that opens its conversation.
    #[must_use]
    pub fn with_conversation_secret(mut self, secret: Option<SecretString>) -> Self {
        if let Some(conversation) = &mut self.conversation {
            conversation.secret = secret;
        }
        self
    }
}

/// What a conversation adds is what was said before; so only the question is sent.
fn check_conversation(job: &SubmitJob, payload: &Payload) -> Result<(), FieldError> {
    if job.conversation_id.is_none() {
        return Ok(());
    }
    let wrong = |path: &str, message: &str| Err(FieldError::new(path, message));
    let Payload::Chat(chat) = payload else { return wrong("conversation_id", "only ai.chat has conversations") };
    if job.depends_on.as_ref().is_some_and(|jobs| !jobs.is_empty()) {
        return wrong("depends_on", "a question of a conversation waits for the one before it: leave this out");
    }
    if job.cache == Some(true) {
        return wrong("cache", "the answer depends on what was said before: leave this out");
    }
    if chat.messages.iter().filter(|message| message.role != Role::System).count() != 1 {
        let message = "holds the new question only (and system messages): the conversation has what was said before";
        return wrong("payload.messages", message);
    }
    Ok(())
}

/// The digest of kind and payload in one spelling: fields in one order, hex in lower case, defaults left out.
fn cache_key(kind: Kind, payload: &Payload) -> Option<[u8; 32]> {
    let json = match payload {
        Payload::Hash(p) => serde_json::to_vec(p),
        Payload::Search(p) => serde_json::to_vec(p),
        Payload::Chat(p) => serde_json::to_vec(p),
        Payload::Embed(p) => serde_json::to_vec(p),
        Payload::Echo(p) => serde_json::to_vec(p),
    };
    Some(Sha256::new().chain_update(kind.as_str()).chain_update("\n").chain_update(json.ok()?).finalize().into())
}

fn tokens(payload: &Payload) -> (u64, u64) {
    match payload {
        Payload::Chat(p) => {
            let input = p.messages.iter().map(|message| crate::tokens::estimate(&message.content)).sum();
            (input, p.max_output_tokens.map_or(0, u64::from))
        }
        Payload::Embed(p) => (p.texts.iter().map(|text| crate::tokens::estimate(text)).sum(), 0),
        Payload::Hash(_) | Payload::Search(_) | Payload::Echo(_) => (0, 0),
    }
}

fn default_timeout_ms(kind: Kind) -> u64 {
    if kind.class() == Class::Ai { 120_000 } else { 600_000 }
}

fn shape(payload: Payload) -> (Work, Option<String>, Option<Vec<u8>>) {
    match payload {
        Payload::Hash(p) => (Work::List(p.inputs.len() as u64), None, p.key.map(|key| key.0)),
        Payload::Search(p) => {
            let first = p.find == Find::First;
            (Work::Range { start: p.nonce_start, end: p.nonce_end, first }, None, p.key.map(|key| key.0))
        }
        Payload::Chat(p) => (Work::Single, p.model, None),
        Payload::Embed(p) => (Work::Single, p.model, None),
        Payload::Echo(_) => (Work::Single, None, None),
    }
}

fn unit_max(kind: Kind, payload: &Payload) -> Option<u64> {
    let (Payload::Search(search), Some(algorithm)) = (payload, kind.algorithm()) else { return None };
    let high = search.target.last_chunk().map_or(0, |high| u64::from_le_bytes(*high));
    // Of all hashes, so many lie below the target.
    let share = high as f64 / 2_f64.powi(64);
    let most = UNIT_FINDS / share;
    (search.find == Find::All && most < algorithm.search_unit_max() as f64).then_some(most as u64)
}

fn check_bounds(job: &SubmitJob) -> Result<(), FieldError> {
    if job.max_attempts.is_some_and(|n| !(1..=ATTEMPTS_MAX).contains(&n)) {
        return Err(FieldError::new("max_attempts", format!("must be 1 to {ATTEMPTS_MAX}")));
    }
    check_retry(job.retry.as_ref())?;
    if job.timeout_ms.is_some_and(|ms| !(1..=TIMEOUT_MS_MAX).contains(&ms)) {
        return Err(FieldError::new("timeout_ms", format!("must be 1 to {TIMEOUT_MS_MAX} (a week)")));
    }
    if job.depends_on.as_ref().is_some_and(|deps| deps.len() > DEPENDENCIES_MAX) {
        return Err(FieldError::new("depends_on", format!("names at most {DEPENDENCIES_MAX} jobs")));
    }
    if let (Some(id), Some(deps)) = (job.id, &job.depends_on)
        && deps.contains(&id)
    {
        return Err(FieldError::new("depends_on", "a job can't wait for itself"));
    }
    Ok(())
}

fn check_retry(policy: Option<&RetryPolicy>) -> Result<(), FieldError> {
    let Some(RetryPolicy { backoff_ms, backoff_max_ms, never }) = policy else { return Ok(()) };
    for (path, wait) in [("retry.backoff_ms", backoff_ms), ("retry.backoff_max_ms", backoff_max_ms)] {
        if wait.is_some_and(|ms| ms > BACKOFF_MS_MAX) {
            return Err(FieldError::new(path, format!("must be 0 to {BACKOFF_MS_MAX} (a day)")));
        }
    }
    if let (Some(first), Some(cap)) = (backoff_ms, backoff_max_ms)
        && first > cap
    {
        return Err(FieldError::new("retry.backoff_ms", "must not be above retry.backoff_max_ms"));
    }
    if never.len() > LABELS_MAX || never.iter().any(|code| code.is_empty() || code.len() > NAME_BYTES_MAX) {
        let text = format!("has at most {LABELS_MAX} codes of 1 to {NAME_BYTES_MAX} bytes");
        return Err(FieldError::new("retry.never", text));
    }
    Ok(())
}

fn name(path: &str, name: Option<String>) -> Result<Option<String>, FieldError> {
    match name {
        Some(name) if name.is_empty() || name.len() > NAME_BYTES_MAX || name.chars().any(char::is_control) => {
            Err(FieldError::new(path, format!("must be 1 to {NAME_BYTES_MAX} bytes without control characters")))
        }
        name => Ok(name),
    }
}

fn check_map(path: &str, map: &BTreeMap<String, String>) -> Result<(), FieldError> {
    if map.len() > LABELS_MAX {
        return Err(FieldError::new(path, format!("has at most {LABELS_MAX} entries")));
    }
    for (key, value) in map {
        let fits = |text: &str| text.len() <= NAME_BYTES_MAX && !text.chars().any(char::is_control);
        if key.is_empty() || key.contains('=') || !fits(key) || !fits(value) {
            return Err(FieldError::new(
                format!("{path}.{key}"),
                format!("names (without '=') and values are at most {NAME_BYTES_MAX} bytes without control characters"),
            ));
        }
    }
    Ok(())
}

fn fingerprint(job: &SubmitJob) -> [u8; 16] {
    let mut digest = [0; 16];
    let body = serde_json::to_vec(job).unwrap_or_default();
    digest.copy_from_slice(&Sha256::digest(body)[..16]);
    digest
}
