//! The answers of the Gemini API, as far as they are read. Everything may be missing.

use serde::Deserialize;
use serde_json::Value;

use super::super::provider;

/// One frame of a stream.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Frame {
    pub candidates: Vec<Candidate>,
    pub prompt_feedback: Option<PromptFeedback>,
    pub usage_metadata: Option<UsageMetadata>,
    pub model_version: Option<String>,
    pub error: Option<Value>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Candidate {
    pub content: Option<Content>,
    pub finish_reason: Option<String>,
}

/// May lack its parts when the answer was blocked.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Content {
    pub parts: Vec<Part>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Part {
    pub text: Option<String>,
    pub thought: bool,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PromptFeedback {
    pub block_reason: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct UsageMetadata {
    pub prompt_token_count: Option<u64>,
    pub candidates_token_count: Option<u64>,
    pub thoughts_token_count: Option<u64>,
}

#[derive(Debug, Deserialize)]
pub struct Embeddings {
    pub embeddings: Vec<Embedding>,
}

#[derive(Debug, Deserialize)]
pub struct Embedding {
    pub values: Vec<f32>,
}

#[derive(Debug, Deserialize)]
pub struct Models {
    #[serde(default)]
    pub models: Vec<Model>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Model {
    name: String,
    #[serde(default)]
    supported_generation_methods: Vec<String>,
}

impl Model {
    pub fn into_model(self) -> provider::Model {
        let can = |method: &str| self.supported_generation_methods.iter().any(|known| known == method);
        provider::Model {
            name: self.name.trim_start_matches("models/").to_owned(),
            chats: can("generateContent"),
            embeds: can("embedContent") || can("batchEmbedContents"),
        }
    }
}

/// The body of an error.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct ErrorBody {
    pub error: ErrorStatus,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct ErrorStatus {
    pub code: u16,
    pub status: String,
    pub details: Vec<Detail>,
}

/// `ErrorInfo`, `RetryInfo` and `QuotaFailure` in one.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Detail {
    pub reason: Option<String>,
    pub retry_delay: Option<String>,
    pub violations: Vec<Violation>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Violation {
    pub quota_id: Option<String>,
}
