//! The kinds of jobs: their payloads, their results and what makes a payload valid.

use std::fmt;
use std::str::FromStr;

use serde::de::{DeserializeOwned, Error};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::value::RawValue;
use utoipa::openapi::schema::Type;
use utoipa::openapi::{ObjectBuilder, RefOr, Schema};
use utoipa::{PartialSchema, ToSchema};

use crate::chain::{LINKS_MAX, Link};
pub use crate::hashing::{
    Algorithm, Find, Found, HASH_UNIT_MAX, HashPayload, HashResult, NONCE_END_MAX, PROOF_GROUPS_MAX,
    RANDOMX_KEY_BYTES_MAX, SearchPayload, SearchResult, wins,
};
use crate::hashing::{validate_hash, validate_search};
use crate::objects;

/// What a job asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// `randomx.hash`, `sha256d.hash`: hashes of a list of inputs.
    Hash(Algorithm),
    /// `randomx.search`, `sha256d.search`: a search for nonces whose hash lies below a target.
    Search(Algorithm),
    /// `ai.chat`: a question to an AI.
    AiChat,
    /// `ai.embed`: embedding vectors of texts.
    AiEmbed,
    /// `echo`: the value that it was given, for checks and benchmarks.
    Echo,
}

/// A worker's slots are counted by class.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Class {
    /// CPU work that takes the whole machine: hashing, whatever the algorithm.
    Randomx,
    /// Calls that mostly wait.
    Ai,
    /// Almost nothing.
    Echo,
}

impl Class {
    /// Every class.
    pub const ALL: [Self; 3] = [Self::Randomx, Self::Ai, Self::Echo];

    /// Its name in slots and metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Randomx => "randomx",
            Self::Ai => "ai",
            Self::Echo => "echo",
        }
    }
}

impl Kind {
    /// Every kind.
    pub const ALL: [Self; 2 * Algorithm::ALL.len() + 3] = {
        let mut all = [Self::Echo; 2 * Algorithm::ALL.len() + 3];
        let mut index = 0;
        while index < Algorithm::ALL.len() {
            all[2 * index] = Self::Hash(Algorithm::ALL[index]);
            all[2 * index + 1] = Self::Search(Algorithm::ALL[index]);
            index += 1;
        }
        all[2 * index] = Self::AiChat;
        all[2 * index + 1] = Self::AiEmbed;
        all
    };

    /// Its name in JSON.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Hash(algorithm) => algorithm.hash_kind(),
            Self::Search(algorithm) => algorithm.search_kind(),
            Self::AiChat => "ai.chat",
            Self::AiEmbed => "ai.embed",
            Self::Echo => "echo",
        }
    }

    /// Which slots it takes.
    #[must_use]
    pub const fn class(self) -> Class {
        match self {
            Self::Hash(_) | Self::Search(_) => Class::Randomx,
            Self::AiChat | Self::AiEmbed => Class::Ai,
            Self::Echo => Class::Echo,
        }
    }

    /// What it hashes with, where it does.
    #[must_use]
    pub const fn algorithm(self) -> Option<Algorithm> {
        match self {
            Self::Hash(algorithm) | Self::Search(algorithm) => Some(algorithm),
            Self::AiChat | Self::AiEmbed | Self::Echo => None,
        }
    }
}

impl Serialize for Kind {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for Kind {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(|error: FieldError| D::Error::custom(error.message))
    }
}

impl PartialSchema for Kind {
    fn schema() -> RefOr<Schema> {
        let names = Self::ALL.map(Self::as_str);
        let schema = ObjectBuilder::new().schema_type(Type::String).enum_values(Some(names));
        schema.description(Some("What a job asks for.")).into()
    }
}

impl ToSchema for Kind {}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Kind {
    type Err = FieldError;
    fn from_str(text: &str) -> Result<Self, FieldError> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == text).ok_or_else(|| {
            let known = Self::ALL.map(Self::as_str).join(", ");
            FieldError::new("kind", format!("'{text}' is no kind of job; known are {known}"))
        })
    }
}

/// What is wrong with a document, and where.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{path}: {message}")]
pub struct FieldError {
    /// The path of the field, such as `payload.inputs[3]`.
    pub path: String,
    /// What is wrong with it and what is allowed.
    pub message: String,
}

impl FieldError {
    /// An error at `path`.
    pub fn new(path: impl Into<String>, message: impl Into<String>) -> Self {
        Self { path: path.into(), message: message.into() }
    }
}

/// Who says a message of a conversation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// The person.
    User,
    /// The model.
    Assistant,
    /// The instructions.
    System,
}

/// A message of a conversation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Message {
    /// Who says it.
    pub role: Role,
    /// What is said.
    pub content: String,
}

/// `ai.chat`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ChatPayload {
    /// At least one, and one of them from the user.
    #[serde(deserialize_with = "objects::list")]
    pub messages: Vec<Message>,
    /// A model that a worker announces; without it the worker's default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// 0 to 2.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub temperature: Option<f64>,
    /// At least 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_output_tokens: Option<u32>,
    /// Whom it is put to, one after the other: `own`, `local`, `gemini`, `demo`, each also with a model behind a colon. Without
    /// it as the worker is set up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Vec<String>>)]
    pub chain: Option<Vec<Link>>,
    /// Set by the master, where a question belongs to a conversation that has grown longer than what is sent of it: how
    /// many of its oldest turns were left out.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub dropped_turns: u32,
}

#[allow(clippy::trivially_copy_pass_by_ref)]
pub(crate) fn is_zero(number: &u32) -> bool {
    *number == 0
}

/// How an answer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Finish {
    /// By itself.
    Complete,
    /// At the limit of tokens.
    MaxTokens,
    /// The provider refused it.
    Blocked,
}

/// Tokens used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Usage {
    /// Of the question.
    pub input_tokens: u64,
    /// Of the answer.
    pub output_tokens: u64,
    /// Of thinking, billed beside the answer's.
    pub thought_tokens: u64,
    /// The provider did not say: these are estimates from the texts. Left out where it did.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub estimated: bool,
}

/// The result of `ai.chat`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ChatResult {
    /// The answer.
    pub text: String,
    /// The model that answered.
    pub model: String,
    /// `gemini`, `local`, `demo`, or `simple` for a simple worker.
    pub provider: String,
    /// How it ended.
    pub finish: Finish,
    /// The provider's own word for what blocked it, such as `SAFETY`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finish_reason: Option<String>,
    /// What it used.
    pub usage: Usage,
    /// How many of the oldest turns of its conversation the model did not see.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub dropped_turns: u32,
    /// What its owner should know beside it, in English: that their own key was refused, and who answered instead.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}

/// What came of an answer that was stopped or broke off: the result of an `ai.chat` that did not complete.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PartialChat {
    /// The part that came.
    pub text: String,
    /// Always true.
    pub partial: bool,
    /// What it used, as estimated: providers tell it at the end of an answer only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub usage: Option<Usage>,
}

/// `ai.embed`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct EmbedPayload {
    /// At least one.
    pub texts: Vec<String>,
    /// A model that a worker announces; without it the worker's default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
}

/// The result of `ai.embed`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct EmbedResult {
    /// One a text.
    pub vectors: Vec<Vec<f32>>,
    /// The model that answered.
    pub model: String,
    /// `gemini` or `local`.
    #[serde(default)]
    pub provider: String,
    /// What it used, where the provider says so.
    #[serde(default)]
    pub usage: Usage,
    /// What its owner should know beside it, in English: that their own key was refused, and who answered instead.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}

/// How an `echo` fails on purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct EchoFail {
    /// The first so many attempts that are not repeats of a lost one fail.
    pub times: u32,
    /// Whether a retry may help.
    #[serde(default = "yes")]
    pub retryable: bool,
}

fn yes() -> bool {
    true
}

/// `echo`
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct EchoPayload {
    /// Any JSON.
    #[schema(value_type = Object)]
    pub value: Box<RawValue>,
    /// How long it takes, at most a day.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sleep_ms: Option<u64>,
    /// How it fails.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "objects::option")]
    pub fail: Option<EchoFail>,
}

/// The result of `echo`.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct EchoResult {
    /// What it was given.
    #[schema(value_type = Object)]
    pub value: Box<RawValue>,
}

/// A payload that was parsed and found valid.
#[derive(Clone, Debug)]
pub enum Payload {
    /// `randomx.hash`, `sha256d.hash`
    Hash(HashPayload),
    /// `randomx.search`, `sha256d.search`
    Search(SearchPayload),
    /// `ai.chat`
    Chat(ChatPayload),
    /// `ai.embed`
    Embed(EmbedPayload),
    /// `echo`
    Echo(EchoPayload),
}

impl Payload {
    /// Parses and validates the payload of a job of `kind`. The paths of errors begin with `payload`.
    ///
    /// # Errors
    /// Which field is wrong and what is allowed.
    pub fn parse(kind: Kind, json: &RawValue) -> Result<Self, FieldError> {
        Ok(match kind {
            Kind::Hash(algorithm) => Self::Hash(valid(json, |p| validate_hash(algorithm, p))?),
            Kind::Search(algorithm) => Self::Search(valid(json, |p| validate_search(algorithm, p))?),
            Kind::AiChat => Self::Chat(valid(json, ChatPayload::check)?),
            Kind::AiEmbed => Self::Embed(valid(json, validate_embed)?),
            Kind::Echo => Self::Echo(valid(json, validate_echo)?),
        })
    }
}

impl ChatPayload {
    /// Whether it is valid. The paths of errors begin with `payload`.
    ///
    /// # Errors
    /// Which field is wrong and what is allowed.
    pub fn check(&self) -> Result<(), FieldError> {
        validate_chat(self)
    }
}

fn validate_chat(p: &ChatPayload) -> Result<(), FieldError> {
    check(!p.messages.is_empty(), "payload.messages", || "needs at least one message".into())?;
    let asked = p.messages.iter().any(|m| m.role == Role::User);
    check(asked, "payload.messages", || "needs a message of the user".into())?;
    validate_turns(&p.messages)?;
    check_model(p.model.as_deref())?;
    let links = p.chain.as_ref().is_none_or(|chain| (1..=LINKS_MAX).contains(&chain.len()));
    check(links, "payload.chain", || format!("has 1 to {LINKS_MAX} links; leave it out for the default"))?;
    check(p.temperature.is_none_or(|t| (0.0..=2.0).contains(&t)), "payload.temperature", || "is 0 to 2".into())?;
    check(p.max_output_tokens.is_none_or(|n| n > 0), "payload.max_output_tokens", || "is at least 1".into())
}

/// The longest conversation, longer than any model reads.
pub const CHAT_BYTES_MAX: usize = 1 << 20;
/// The most texts of one `ai.embed`.
pub const EMBED_TEXTS_MAX: usize = 10_000;
/// The longest text of one.
pub const EMBED_TEXT_BYTES_MAX: usize = 256 << 10;

fn validate_turns(messages: &[Message]) -> Result<(), FieldError> {
    let bytes: usize = messages.iter().map(|m| m.content.len()).sum();
    check(bytes <= CHAT_BYTES_MAX, "payload.messages", || {
        format!("hold {bytes} bytes of text, at most {CHAT_BYTES_MAX} (1 MiB): send less of it")
    })?;
    let spoken = messages.iter().position(|m| m.role != Role::System).unwrap_or(0);
    for (index, message) in messages.iter().enumerate() {
        let path = || format!("payload.messages[{index}]");
        if message.role == Role::System && index > spoken {
            return Err(FieldError::new(path() + ".role", "what the system says comes before all else"));
        }
        if message.content.trim().is_empty() {
            return Err(FieldError::new(path() + ".content", "is empty"));
        }
    }
    check(
        messages.get(spoken).is_some_and(|m| m.role == Role::User),
        &format!("payload.messages[{spoken}].role"),
        || "a conversation begins with what the user says".into(),
    )?;
    let last = messages.len().saturating_sub(1);
    check(messages.last().is_some_and(|m| m.role == Role::User), &format!("payload.messages[{last}].role"), || {
        "the last message is the user's: it is what gets answered".into()
    })
}

fn validate_echo(p: &EchoPayload) -> Result<(), FieldError> {
    check(p.sleep_ms.is_none_or(|ms| ms <= 86_400_000), "payload.sleep_ms", || {
        "must be at most 86400000 (a day)".into()
    })
}

fn validate_embed(p: &EmbedPayload) -> Result<(), FieldError> {
    let fits = (1..=EMBED_TEXTS_MAX).contains(&p.texts.len());
    check(fits, "payload.texts", || format!("needs at least one text, at most {EMBED_TEXTS_MAX}"))?;
    for (index, text) in p.texts.iter().enumerate() {
        check(text.len() <= EMBED_TEXT_BYTES_MAX, &format!("payload.texts[{index}]"), || {
            format!("has {} bytes, at most {EMBED_TEXT_BYTES_MAX}", text.len())
        })?;
    }
    check_model(p.model.as_deref())
}

fn check_model(model: Option<&str>) -> Result<(), FieldError> {
    let fits = model.is_none_or(|m| (1..=200).contains(&m.len()) && !m.chars().any(char::is_control));
    check(fits, "payload.model", || {
        "must be 1 to 200 characters without control characters; leave it out for the default".into()
    })
}

pub(crate) fn check(valid: bool, path: &str, message: impl FnOnce() -> String) -> Result<(), FieldError> {
    if valid { Ok(()) } else { Err(FieldError::new(path, message())) }
}

fn valid<T: DeserializeOwned>(
    json: &RawValue,
    check: impl FnOnce(&T) -> Result<(), FieldError>,
) -> Result<T, FieldError> {
    object("payload", json.get())?;
    let payload = parse("payload", json.get())?;
    check(&payload)?;
    Ok(payload)
}

/// Parses `json`; only a wrong one pays for finding the path, which begins with `root`.
///
/// # Errors
/// Which field is wrong and what is allowed.
pub fn parse<'a, T: Deserialize<'a>>(root: &str, json: &'a str) -> Result<T, FieldError> {
    if let Ok(value) = serde_json::from_str(json) {
        return Ok(value);
    }
    let mut deserializer = serde_json::Deserializer::from_str(json);
    serde_path_to_error::deserialize(&mut deserializer).map_err(|error| field_error(root, &error))
}

/// Serde takes an array of a struct's fields for the struct; nobody means that.
///
/// # Errors
/// When `json` is no object.
pub fn object(root: &str, json: &str) -> Result<(), FieldError> {
    check(json.trim_start().starts_with('{'), root, || "must be a JSON object".into())
}

/// Turns serde's error into one with the path below `root`.
#[must_use]
pub fn field_error(root: &str, error: &serde_path_to_error::Error<serde_json::Error>) -> FieldError {
    let path = error.path().to_string();
    let path = match (root, path.as_str()) {
        (root, ".") => root.to_owned(),
        ("", path) => path.to_owned(),
        (root, path) if path.starts_with('[') => format!("{root}{path}"),
        (root, path) => format!("{root}.{path}"),
    };
    let text = error.inner().to_string();
    // serde's " at line 1 column 17" counts within the fragment: the path says it better.
    let message = text.rsplit_once(" at line ").map_or(text.as_str(), |(message, _)| message);
    FieldError::new(with_missing(path, message), message)
}

/// The path of a field that is not there leads to it, not to the object that lacks it.
fn with_missing(path: String, message: &str) -> String {
    let Some(field) = message.strip_prefix("missing field `").and_then(|rest| rest.strip_suffix('`')) else {
        return path;
    };
    if path.is_empty() || path == "." { field.to_owned() } else { format!("{path}.{field}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(kind: Kind, json: &str) -> Result<Payload, FieldError> {
        Payload::parse(kind, &RawValue::from_string(json.to_owned()).unwrap())
    }

    #[test]
    fn an_error_names_the_path() {
        let error = parse(Kind::Hash(Algorithm::Randomx), r#"{"key":"","inputs":["00","0"]}"#).unwrap_err();
        assert_eq!(error.path, "payload.inputs[1]");
        assert!(error.message.contains("even number"), "{error}");
        let error = parse(Kind::Echo, r#"{"value":1,"extra":2}"#).unwrap_err();
        assert_eq!(error.path, "payload.extra");
        assert_eq!(parse(Kind::Hash(Algorithm::Randomx), "[]").unwrap_err().path, "payload");
        assert_eq!(parse(Kind::Hash(Algorithm::Randomx), r#"["",["00"]]"#).unwrap_err().path, "payload");
        assert_eq!(parse(Kind::Hash(Algorithm::Randomx), r#"{"key":""}"#).unwrap_err().path, "payload.inputs");
    }

    #[test]
    fn an_array_is_no_object_wherever_it_stands() {
        let wrong = |kind, json: &str| parse(kind, json).unwrap_err();
        assert_eq!(wrong(Kind::AiChat, r#"{"messages":[["user","x"]]}"#).path, "payload.messages[0]");
        assert_eq!(wrong(Kind::Echo, r#"{"value":1,"fail":[1,false]}"#).path, "payload.fail");
        assert_eq!(wrong(Kind::Echo, r#"{"value":1,"fail":{"times":1,"x":0}}"#).path, "payload.fail.x");
        assert!(parse(Kind::Echo, r#"{"value":1,"fail":{"times":1}}"#).is_ok());
        assert!(parse(Kind::Echo, r#"{"value":1,"fail":null}"#).is_ok());
    }

    #[test]
    fn a_conversation_has_its_roles_in_order_and_says_something() {
        let wrong = |messages: &str| {
            let error = parse(Kind::AiChat, &format!(r#"{{"messages":[{messages}]}}"#)).map(drop);
            error.map_err(|error| error.path)
        };
        let say = |role: &str, text: &str| format!(r#"{{"role":"{role}","content":"{text}"}}"#);
        let (user, model, system) = (say("user", "a"), say("assistant", "b"), say("system", "c"));
        assert_eq!(wrong(&user), Ok(()));
        assert_eq!(wrong(&[&*system, &*system, &*user, &*model, &*user].join(",")), Ok(()));
        assert_eq!(wrong(&[&*user, &*user].join(",")), Ok(()), "two questions in a row are one");
        for (messages, path) in [
            ("".to_owned(), "payload.messages"),
            (system.clone(), "payload.messages"),
            ([&*model, &*user].join(","), "payload.messages[0].role"),
            ([&*user, &*model].join(","), "payload.messages[1].role"),
            ([&*user, &*system, &*user].join(","), "payload.messages[1].role"),
            (say("user", ""), "payload.messages[0].content"),
            (say("user", " \\n\\t"), "payload.messages[0].content"),
            (say("robot", "x"), "payload.messages[0].role"),
        ] {
            assert_eq!(wrong(&messages), Err(path.to_owned()), "{messages}");
        }
        assert_eq!(wrong(&say("user", &"x".repeat(CHAT_BYTES_MAX))), Ok(()));
        assert_eq!(wrong(&say("user", &"x".repeat(CHAT_BYTES_MAX + 1))), Err("payload.messages".into()));
        assert_eq!(wrong(&say("user", "\\u0000\\u001b[31m")), Ok(()), "control characters are text like any other");
    }

    #[test]
    fn a_chain_names_sources_that_there_are() {
        let chain = |links: &str| {
            let json = format!(r#"{{"messages":[{{"role":"user","content":"a"}}],"chain":{links}}}"#);
            parse(Kind::AiChat, &json).map(drop).map_err(|error| error.path)
        };
        assert_eq!(chain(r#"["local","gemini:gemini-3.5-pro"]"#), Ok(()));
        assert_eq!(chain("[]"), Err("payload.chain".into()));
        assert_eq!(chain(r#"["local","openai"]"#), Err("payload.chain[1]".into()));
    }
}
