//! Gemini's native REST API (`guide/gemini.md`). The credential stands in one header and nowhere else.

mod answer;
mod refusal;
mod wire;

use async_trait::async_trait;
use flota_proto::kinds::{ChatPayload, EmbedPayload, EmbedResult, Role, Usage};
use reqwest::header::HeaderValue;
use reqwest::{Client, RequestBuilder, Response, Url};
use secrecy::{ExposeSecret, SecretString};
use serde_json::{Map, Value, json};

use super::call::Call;
use super::fault::Fault;
use super::http::{self, Events};
use super::provider::{Answer, Ask, Model, Provider};
use super::sse::Event;
use answer::Tally;

/// The API takes so many texts at once.
const EMBED_BATCH: usize = 100;

/// The Gemini API at one base URL.
#[derive(Debug)]
pub struct Gemini {
    base: Url,
    client: Client,
}

impl Gemini {
    /// The API at `base`, such as `https://generativelanguage.googleapis.com/v1beta`.
    pub fn new(base: Url) -> Self {
        Self { client: http::client(&base), base }
    }

    /// `models/MODEL:METHOD`, with everything in the name that is special in a URL escaped.
    fn url(&self, segments: &[&str]) -> Url {
        let mut url = self.base.clone();
        if let Ok(mut path) = url.path_segments_mut() {
            path.pop_if_empty().extend(segments);
        }
        url
    }

    fn method(&self, model: &str, method: &str) -> Url {
        self.url(&["models", &format!("{}:{method}", model.trim_start_matches("models/"))])
    }

    async fn send(
        &self,
        request: RequestBuilder,
        key: Option<&SecretString>,
        call: &mut Call,
    ) -> Result<Response, Fault> {
        let key = key.map(ExposeSecret::expose_secret).unwrap_or_default().trim();
        let mut header = HeaderValue::from_str(key).map_err(|_| Fault::BadKey)?;
        header.set_sensitive(true);
        let response = http::send(request.header("x-goog-api-key", header), call).await?;
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let body = http::error_body(response, call).await;
        Err(refusal::fault(status.as_u16(), &body))
    }

    async fn embed_batch(&self, ask: Ask<'_>, texts: &[String], call: &mut Call) -> Result<Vec<Vec<f32>>, Fault> {
        let name = format!("models/{}", ask.model.trim_start_matches("models/"));
        let request = |text: &String| json!({"model": name, "content": {"parts": [{"text": text}]}});
        let body = json!({"requests": texts.iter().map(request).collect::<Vec<_>>()});
        let post = self.client.post(self.method(ask.model, "batchEmbedContents")).json(&body);
        let response = self.send(post, ask.key, call).await?;
        let answer: wire::Embeddings = serde_json::from_value(http::json(response, call).await?)
            .map_err(|_| Fault::Unreadable("no list of vectors"))?;
        if answer.embeddings.len() != texts.len() {
            return Err(Fault::Unreadable("not one vector a text"));
        }
        Ok(answer.embeddings.into_iter().map(|embedding| embedding.values).collect())
    }
}

#[async_trait]
impl Provider for Gemini {
    fn name(&self) -> &'static str {
        "gemini"
    }

    fn title(&self) -> &'static str {
        "Gemini"
    }

    async fn stream(&self, ask: Ask<'_>, chat: &ChatPayload, call: &mut Call) -> Result<Answer, Fault> {
        let mut url = self.method(ask.model, "streamGenerateContent");
        url.set_query(Some("alt=sse"));
        let response = self.send(self.client.post(url).json(&chat_body(chat)), ask.key, call).await?;
        let mut events = Events::of(response);
        let mut tally = Tally::default();
        // To the end of the stream: text can follow the first finish reason.
        while let Some(event) = events.next(call).await? {
            match event {
                Event::Data(frame) => call.text(&tally.add(&frame)?),
                Event::Bare(error) => return Err(refusal::in_stream(&error)),
            }
        }
        tally.finish()
    }

    async fn embed(&self, ask: Ask<'_>, embed: &EmbedPayload, call: &mut Call) -> Result<EmbedResult, Fault> {
        let mut vectors = Vec::new();
        for texts in embed.texts.chunks(EMBED_BATCH) {
            vectors.extend(self.embed_batch(ask, texts, call).await?);
            call.share(vectors.len(), embed.texts.len());
        }
        let (model, provider) = (ask.model.to_owned(), self.name().to_owned());
        Ok(EmbedResult { vectors, model, provider, usage: Usage::default(), notes: Vec::new() })
    }

    async fn models(&self, key: Option<&SecretString>, call: &mut Call) -> Result<Vec<Model>, Fault> {
        let mut url = self.url(&["models"]);
        url.set_query(Some("pageSize=1000"));
        let response = self.send(self.client.get(url), key, call).await?;
        let list: wire::Models = serde_json::from_value(http::json(response, call).await?)
            .map_err(|_| Fault::Unreadable("no list of models"))?;
        Ok(list.models.into_iter().map(wire::Model::into_model).collect())
    }
}

/// Adds up events from anywhere.
pub fn add_up(events: impl IntoIterator<Item = Event>) -> Result<Answer, Fault> {
    let mut tally = Tally::default();
    for event in events {
        match event {
            Event::Data(frame) => drop(tally.add(&frame)?),
            Event::Bare(error) => return Err(refusal::in_stream(&error)),
        }
    }
    tally.finish()
}

fn chat_body(chat: &ChatPayload) -> Value {
    let mut body = Map::new();
    let mut system = Vec::new();
    let mut contents: Vec<(&str, Vec<Value>)> = Vec::new();
    for message in &chat.messages {
        let part = json!({"text": message.content});
        let role = match message.role {
            Role::System => {
                system.push(part);
                continue;
            }
            Role::User => "user",
            Role::Assistant => "model",
        };
        // Turns alternate: what one side says twice in a row is one turn.
        match contents.last_mut().filter(|(last, _)| *last == role) {
            Some((_, parts)) => parts.push(part),
            None => contents.push((role, vec![part])),
        }
    }
    let turn = |(role, parts): (&str, Vec<Value>)| json!({"role": role, "parts": parts});
    body.insert("contents".into(), contents.into_iter().map(turn).collect());
    if !system.is_empty() {
        body.insert("systemInstruction".into(), json!({"parts": system}));
    }
    let config = generation_config(chat);
    if !config.is_empty() {
        body.insert("generationConfig".into(), Value::Object(config));
    }
    Value::Object(body)
}

fn generation_config(chat: &ChatPayload) -> Map<String, Value> {
    let mut config = Map::new();
    if let Some(temperature) = chat.temperature {
        config.insert("temperature".into(), json!(temperature));
    }
    if let Some(tokens) = chat.max_output_tokens {
        config.insert("maxOutputTokens".into(), json!(tokens));
    }
    config
}
