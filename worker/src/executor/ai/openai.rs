//! Any server that speaks OpenAI's chat protocol (Ollama, llama-server, vLLM, LM Studio): the local AI.

use std::time::Duration;

use async_trait::async_trait;
use flota_proto::kinds::{ChatPayload, EmbedPayload, EmbedResult, Finish, Role, Usage};
use reqwest::header::RETRY_AFTER;
use reqwest::{Client, RequestBuilder, Response, Url};
use secrecy::SecretString;
use serde::Deserialize;
use serde_json::{Value, json};

use super::call::Call;
use super::fault::{Fault, word};
use super::http::{self, Events};
use super::provider::{Answer, Ask, Model, Provider};
use super::sse::Event;

/// Texts sent at once.
const EMBED_BATCH: usize = 100;

/// The server at one base URL.
#[derive(Debug)]
pub struct OpenAi {
    base: Url,
    client: Client,
}

impl OpenAi {
    /// The server at `base`, with or without `/v1` at its end.
    pub fn new(mut base: Url) -> Self {
        let versioned = base.path().trim_end_matches('/').ends_with("/v1");
        if let Ok(mut path) = base.path_segments_mut() {
            path.pop_if_empty();
            if !versioned {
                path.push("v1");
            }
        }
        Self { client: http::client(&base), base }
    }

    fn url(&self, segments: &[&str]) -> Url {
        let mut url = self.base.clone();
        if let Ok(mut path) = url.path_segments_mut() {
            path.extend(segments);
        }
        url
    }

    async fn send(&self, request: RequestBuilder, call: &mut Call) -> Result<Response, Fault> {
        let response = http::send(request, call).await?;
        let status = response.status().as_u16();
        if response.status().is_success() {
            return Ok(response);
        }
        Err(match Fault::of_status(status) {
            Fault::RateLimited(_) => Fault::RateLimited(retry_after(&response)),
            // No key was sent, so none is bad.
            Fault::BadKey => Fault::Forbidden,
            fault => fault,
        })
    }
}

impl OpenAi {
    /// One call, its vectors in the order of `texts`.
    async fn embed_batch(&self, model: &str, texts: &[String], call: &mut Call) -> Result<Embeddings, Fault> {
        let body = json!({"model": model, "input": texts});
        let response = self.send(self.client.post(self.url(&["embeddings"])).json(&body), call).await?;
        let mut answer: Embeddings = serde_json::from_value(http::json(response, call).await?)
            .map_err(|_| Fault::Unreadable("no list of vectors"))?;
        answer.data.sort_by_key(|item| item.index);
        if !answer.data.iter().map(|item| item.index).eq(0..texts.len()) {
            return Err(Fault::Unreadable("not one vector a text"));
        }
        Ok(answer)
    }
}

fn retry_after(response: &Response) -> Option<Duration> {
    let seconds = response.headers().get(RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds).min(Duration::from_secs(24 * 3600)))
}

#[async_trait]
impl Provider for OpenAi {
    fn name(&self) -> &'static str {
        "local"
    }

    fn title(&self) -> &'static str {
        "the local AI"
    }

    async fn stream(&self, ask: Ask<'_>, chat: &ChatPayload, call: &mut Call) -> Result<Answer, Fault> {
        let post = self.client.post(self.url(&["chat", "completions"])).json(&chat_body(ask.model, chat));
        let mut events = Events::of(self.send(post, call).await?);
        let mut tally = Tally::default();
        while let Some(event) = events.next(call).await? {
            match event {
                Event::Data(frame) if frame == b"[DONE]" => tally.done = true,
                Event::Data(frame) => call.text(&tally.add(&frame)?),
                Event::Bare(error) => return Err(error_of(&error)),
            }
        }
        tally.finish()
    }

    async fn embed(&self, ask: Ask<'_>, embed: &EmbedPayload, call: &mut Call) -> Result<EmbedResult, Fault> {
        let (model, provider) = (ask.model.to_owned(), self.name().to_owned());
        let mut result =
            EmbedResult { vectors: Vec::new(), model, provider, usage: Usage::default(), notes: Vec::new() };
        for texts in embed.texts.chunks(EMBED_BATCH) {
            let batch = self.embed_batch(ask.model, texts, call).await?;
            result.vectors.extend(batch.data.into_iter().map(|item| item.embedding));
            result.usage.input_tokens += batch.usage.map_or(0, |usage| usage.prompt_tokens);
            result.model = batch.model.unwrap_or(result.model);
            call.share(result.vectors.len(), embed.texts.len());
        }
        Ok(result)
    }

    async fn models(&self, _key: Option<&SecretString>, call: &mut Call) -> Result<Vec<Model>, Fault> {
        let response = match self.send(self.client.get(self.url(&["models"])), call).await {
            // Some servers have one model and no list; what is configured is asked all the same.
            Err(Fault::ModelGone) => return Ok(Vec::new()),
            response => response?,
        };
        let list: Models = serde_json::from_value(http::json(response, call).await?)
            .map_err(|_| Fault::Unreadable("no list of models"))?;
        // The list doesn't say what a model is for.
        Ok(list.data.into_iter().map(|model| Model { name: model.id, chats: true, embeds: true }).collect())
    }
}

/// Adds up events from anywhere.
pub fn add_up(events: impl IntoIterator<Item = Event>) -> Result<Answer, Fault> {
    let mut tally = Tally::default();
    for event in events {
        match event {
            Event::Data(frame) if frame == b"[DONE]" => tally.done = true,
            Event::Data(frame) => drop(tally.add(&frame)?),
            Event::Bare(error) => return Err(error_of(&error)),
        }
    }
    tally.finish()
}

fn chat_body(model: &str, chat: &ChatPayload) -> Value {
    let role = |role| match role {
        Role::User => "user",
        Role::Assistant => "assistant",
        Role::System => "system",
    };
    let messages: Vec<Value> =
        chat.messages.iter().map(|message| json!({"role": role(message.role), "content": message.content})).collect();
    let mut body =
        json!({"model": model, "messages": messages, "stream": true, "stream_options": {"include_usage": true}});
    if let Some(temperature) = chat.temperature {
        body["temperature"] = json!(temperature);
    }
    if let Some(tokens) = chat.max_output_tokens {
        body["max_tokens"] = json!(tokens);
    }
    body
}

#[derive(Debug, Deserialize)]
struct Models {
    data: Vec<ModelId>,
}

#[derive(Debug, Deserialize)]
struct ModelId {
    id: String,
}

#[derive(Debug, Deserialize)]
struct Embeddings {
    data: Vec<Embedding>,
    model: Option<String>,
    usage: Option<EmbedUsage>,
}

#[derive(Debug, Deserialize)]
struct EmbedUsage {
    #[serde(default)]
    prompt_tokens: u64,
}

#[derive(Debug, Deserialize)]
struct Embedding {
    #[serde(default)]
    index: usize,
    embedding: Vec<f32>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Chunk {
    choices: Vec<Choice>,
    usage: Option<ChunkUsage>,
    model: Option<String>,
    error: Option<Value>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Choice {
    delta: Option<Delta>,
    finish_reason: Option<String>,
}

/// `reasoning_content` and the like are thinking, not the answer.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Delta {
    content: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct ChunkUsage {
    prompt_tokens: u64,
    completion_tokens: u64,
    completion_tokens_details: Option<TokenDetails>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct TokenDetails {
    reasoning_tokens: Option<u64>,
}

/// An error in the middle of a stream; its code may be a status, a word or missing.
fn error_of(body: &[u8]) -> Fault {
    let body: Value = serde_json::from_slice(body).unwrap_or_default();
    let code = body["error"]["code"].as_u64().or_else(|| body["code"].as_u64());
    match code.and_then(|code| u16::try_from(code).ok()).filter(|code| (400..600).contains(code)) {
        Some(401) => Fault::Forbidden,
        Some(code) => Fault::of_status(code),
        None => Fault::Interrupted("it carried an error"),
    }
}

#[derive(Debug, Default)]
struct Tally {
    text: String,
    finish: Option<String>,
    model: Option<String>,
    usage: Usage,
    done: bool,
}

/// Longer than any model answers.
const TEXT_BYTES_MAX: usize = 8 << 20;

impl Tally {
    fn add(&mut self, bytes: &[u8]) -> Result<String, Fault> {
        let chunk: Chunk = serde_json::from_slice(bytes).map_err(|_| Fault::Unreadable("a frame that is no JSON"))?;
        if chunk.error.is_some() {
            return Err(error_of(bytes));
        }
        self.model = chunk.model.filter(|model| !model.is_empty()).or(self.model.take());
        if let Some(usage) = chunk.usage {
            let thought_tokens = usage.completion_tokens_details.and_then(|details| details.reasoning_tokens);
            let thought_tokens = thought_tokens.unwrap_or(0).min(usage.completion_tokens);
            let output_tokens = usage.completion_tokens - thought_tokens;
            self.usage = Usage { input_tokens: usage.prompt_tokens, output_tokens, thought_tokens, estimated: false };
        }
        let Some(choice) = chunk.choices.into_iter().next() else { return Ok(String::new()) };
        self.finish = choice.finish_reason.or(self.finish.take());
        let text = choice.delta.and_then(|delta| delta.content).unwrap_or_default();
        self.text += &text;
        if self.text.len() > TEXT_BYTES_MAX {
            return Err(Fault::Unreadable("a text beyond 8 MiB"));
        }
        Ok(text)
    }

    fn finish(self) -> Result<Answer, Fault> {
        let reason = match &self.finish {
            Some(reason) => reason.as_str(),
            // Some servers say only that they are done.
            None if self.done => "stop",
            None => return Err(Fault::Interrupted("it ended without a finish reason")),
        };
        let finish = match reason {
            "stop" | "eos" => Finish::Complete,
            "length" => Finish::MaxTokens,
            "content_filter" => Finish::Blocked,
            other => return Err(Fault::Stopped(word(other))),
        };
        if finish == Finish::Complete && self.text.is_empty() {
            return Err(Fault::Empty);
        }
        Ok(Answer { finish, reason: word(reason), text: self.text, model: self.model, usage: self.usage })
    }
}
