//! The native API: credentials, checks of the request, frames.

use std::sync::Arc;

use axum::response::Response;
use serde_json::{Value, json};

use super::errors::{Trouble, error, invalid};
use super::reply::{Piece, Reply, Script};
use super::serve::{JSON, SSE, cut, json as write, raw, streamed};
use super::state::{Seen, State, Tracked};

/// A refusal: status and body.
type Refusal = (u16, Value);

/// The embedding model.
pub const EMBEDDING_MODEL: &str = "gemini-embedding-001";

pub async fn answer(state: &Arc<State>, seen: &Seen, tracked: Tracked) -> Response {
    let key = match key(state, seen) {
        Ok(key) => key,
        // Also a stream call is answered with bare JSON, under the type of a stream.
        Err(refusal) => return write(refusal, content_type(&seen.path), tracked),
    };
    let path = seen.path.trim_start_matches("/v1beta/");
    if seen.method == "GET" && path == "models" {
        return write((200, models(state)), JSON, tracked);
    }
    let call = path.strip_prefix("models/").and_then(|call| call.split_once(':'));
    match call.filter(|_| seen.method == "POST") {
        Some((model, "streamGenerateContent")) => chat(state, seen, &key, model, tracked).await,
        Some((model, "batchEmbedContents")) => embed(state, seen, model, tracked),
        _ => write(Trouble::Status(404).answer(), JSON, tracked),
    }
}

fn content_type(path: &str) -> &'static str {
    if path.ends_with(":streamGenerateContent") { SSE } else { JSON }
}

/// The key of the call: one credential, in the header.
fn key(state: &State, seen: &Seen) -> Result<String, Refusal> {
    let in_query = seen.query.split('&').any(|pair| pair.starts_with("key="));
    let credentials = [seen.header("x-goog-api-key").is_some(), in_query, seen.header("authorization").is_some()];
    if credentials.iter().filter(|present| **present).count() > 1 {
        return Err(invalid("Multiple authentication credentials received. Please pass only one."));
    }
    let Some(key) = seen.header("x-goog-api-key") else {
        return Err(Trouble::Status(if credentials[2] { 401 } else { 403 }).answer());
    };
    let known = state.options.keys.is_empty() || state.options.keys.iter().any(|known| known == key);
    if known { Ok(key.to_owned()) } else { Err(Trouble::BadKey.answer()) }
}

fn models(state: &State) -> Value {
    let chat = |model: &String| {
        json!({"name": format!("models/{model}"), "displayName": model,
            "supportedGenerationMethods": ["generateContent", "countTokens"]})
    };
    let mut models: Vec<Value> = state.options.models.iter().map(chat).collect();
    models.push(json!({"name": format!("models/{EMBEDDING_MODEL}"), "displayName": "Embedding",
        "supportedGenerationMethods": ["embedContent", "batchEmbedContents"]}));
    json!({ "models": models })
}

async fn chat(state: &Arc<State>, seen: &Seen, key: &str, model: &str, tracked: Tracked) -> Response {
    let reply = match admit(state, seen, key) {
        Ok(()) => state.for_question(&question(&seen.body)).or_else(|| state.scripted(model)),
        Err(refusal) => return write(refusal, SSE, tracked),
    };
    match reply {
        Some(Reply::Trouble(trouble)) => write(trouble.answer(), SSE, tracked),
        Some(Reply::Raw { status, body }) => {
            let mut tracked = tracked;
            tracked.answered();
            raw(status, body, SSE)
        }
        Some(Reply::Cut { status, body, size }) => cut(status, &body, size, SSE, tracked),
        Some(Reply::Stream(script)) => stream(script, model, tracked).await,
        None if !state.options.models.iter().any(|known| known == model) => {
            write(Trouble::Status(404).answer(), SSE, tracked)
        }
        None => stream(state.default_script(&question(&seen.body), "STOP"), model, tracked).await,
    }
}

async fn stream(script: Script, model: &str, tracked: Tracked) -> Response {
    let frames = frames(&script, model);
    streamed(script, frames, tracked).await
}

fn admit(state: &State, seen: &Seen, key: &str) -> Result<(), Refusal> {
    if seen.query != "alt=sse" {
        return Err(invalid("the stand-in streams with alt=sse only"));
    }
    check(&seen.body)?;
    state.count(key).map_err(|trouble| trouble.answer())
}

/// Refuses what the API doesn't know.
fn check(body: &Value) -> Result<(), Refusal> {
    fields(body, &["contents", "systemInstruction", "generationConfig", "safetySettings", "tools", "toolConfig"])?;
    let config = &body["generationConfig"];
    fields(config, &["temperature", "topP", "topK", "maxOutputTokens", "stopSequences", "thinkingConfig", "seed"])?;
    fields(&config["thinkingConfig"], &["thinkingLevel", "thinkingBudget", "includeThoughts"])?;
    let thinking = &config["thinkingConfig"];
    if !thinking["thinkingLevel"].is_null() && !thinking["thinkingBudget"].is_null() {
        return Err(invalid("You can only set only one of thinking budget and thinking level."));
    }
    let contents = body["contents"].as_array().filter(|contents| !contents.is_empty());
    let contents = contents.ok_or_else(|| invalid("contents is not specified"))?;
    for content in contents {
        fields(content, &["role", "parts"])?;
        if !["user", "model"].contains(&content["role"].as_str().unwrap_or_default()) {
            return Err(invalid("Please use a valid role: user, model."));
        }
    }
    Ok(())
}

fn fields(object: &Value, known: &[&str]) -> Result<(), Refusal> {
    let Some(unknown) = object.as_object().and_then(|map| map.keys().find(|name| !known.contains(&name.as_str())))
    else {
        return Ok(());
    };
    Err(invalid(&format!("Invalid JSON payload received. Unknown name \"{unknown}\": Cannot find field.")))
}

fn question(body: &Value) -> String {
    let contents = body["contents"].as_array().map(Vec::as_slice).unwrap_or_default();
    let last = contents.iter().rfind(|content| content["role"] == "user");
    last.and_then(|content| content["parts"][0]["text"].as_str()).unwrap_or_default().to_owned()
}

fn frames(script: &Script, model: &str) -> Vec<String> {
    let version = script.model_version.as_deref().unwrap_or(model);
    let part = |part: Value, finish: Option<&str>| {
        let mut candidate = json!({"content": {"parts": [part], "role": "model"}, "index": 0});
        if let Some(finish) = finish {
            candidate["finishReason"] = json!(finish);
        }
        json!({"candidates": [candidate], "usageMetadata": usage(finish.is_some()), "modelVersion": version,
            "responseId": "stand-in"})
    };
    let frame = |piece: &Piece| match piece {
        Piece::Text(text) => part(json!({ "text": text }), None).to_string(),
        Piece::Thought(text) => part(json!({"text": text, "thought": true}), None).to_string(),
        Piece::Finish(reason) => part(json!({"text": "", "thoughtSignature": "c2ln"}), Some(reason)).to_string(),
        Piece::Block(reason) => json!({"promptFeedback": {"blockReason": reason}, "usageMetadata": usage(false),
            "modelVersion": version})
        .to_string(),
        Piece::Raw(raw) => raw.clone(),
    };
    script.pieces.iter().map(frame).collect()
}

fn usage(ended: bool) -> Value {
    if ended {
        json!({"promptTokenCount": 7, "candidatesTokenCount": 11, "thoughtsTokenCount": 13, "totalTokenCount": 31})
    } else {
        json!({"promptTokenCount": 7, "totalTokenCount": 7})
    }
}

fn embed(state: &State, seen: &Seen, model: &str, tracked: Tracked) -> Response {
    if let Some(Reply::Trouble(trouble)) = state.scripted(model) {
        return write(trouble.answer(), JSON, tracked);
    }
    let requests = seen.body["requests"].as_array().map(Vec::as_slice).unwrap_or_default();
    if model != EMBEDDING_MODEL {
        return write(error(404, "NOT_FOUND", "models are not found", vec![]), JSON, tracked);
    }
    if requests.is_empty() || requests.len() > 100 {
        return write(invalid("at least one and at most 100 requests can be in one batch"), JSON, tracked);
    }
    let text = |request: &Value| request["content"]["parts"][0]["text"].as_str().unwrap_or_default().to_owned();
    let vectors: Vec<Value> = requests.iter().map(|request| json!({"values": vector(&text(request))})).collect();
    write((200, json!({ "embeddings": vectors })), JSON, tracked)
}

/// Different for different texts, and easy to check.
pub fn vector(text: &str) -> [f32; 3] {
    [text.len() as f32, f32::from(text.bytes().next().unwrap_or(0)), 0.5]
}
