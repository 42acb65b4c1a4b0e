//! The API of OpenAI-compatible servers, as a local AI has it.

use std::sync::Arc;

use axum::response::Response;
use serde_json::{Value, json};

use super::errors::Trouble;
use super::gemini::vector;
use super::reply::{Piece, Reply, Script};
use super::serve::{JSON, cut, json as write, raw, streamed};
use super::state::{Seen, State, Tracked};

pub async fn answer(state: &Arc<State>, seen: &Seen, mut tracked: Tracked) -> Response {
    let model = seen.body["model"].as_str().unwrap_or_default();
    let reply = if seen.method == "POST" { state.scripted(model) } else { None };
    match (reply, seen.method.as_str(), seen.path.as_str()) {
        (Some(Reply::Trouble(trouble)), ..) => write(trouble.answer(), JSON, tracked),
        (Some(Reply::Raw { status, body }), ..) => {
            tracked.answered();
            raw(status, body, JSON)
        }
        (Some(Reply::Cut { status, body, size }), ..) => cut(status, &body, size, JSON, tracked),
        (Some(Reply::Stream(script)), "POST", "/v1/chat/completions") => stream(script, model, tracked).await,
        (None, "POST", "/v1/chat/completions") => {
            let messages = seen.body["messages"].as_array().map(Vec::as_slice).unwrap_or_default();
            let question = messages.last().and_then(|last| last["content"].as_str()).unwrap_or_default();
            stream(state.default_script(question, "stop"), model, tracked).await
        }
        (_, "POST", "/v1/embeddings") => write((200, embeddings(&seen.body)), JSON, tracked),
        (_, "GET", "/v1/models") => write((200, models(state)), JSON, tracked),
        _ => write(Trouble::Status(404).answer(), JSON, tracked),
    }
}

async fn stream(script: Script, model: &str, tracked: Tracked) -> Response {
    let frames = frames(&script, model);
    streamed(script, frames, tracked).await
}

fn frames(script: &Script, model: &str) -> Vec<String> {
    let model = script.model_version.as_deref().unwrap_or(model);
    let chunk = |delta: Value, finish: Value| {
        json!({"id": "stand-in", "object": "chat.completion.chunk", "model": model,
            "choices": [{"index": 0, "delta": delta, "finish_reason": finish}]})
        .to_string()
    };
    let mut frames = Vec::new();
    for piece in &script.pieces {
        match piece {
            Piece::Text(text) => frames.push(chunk(json!({"role": "assistant", "content": text}), Value::Null)),
            Piece::Thought(text) => frames.push(chunk(json!({ "reasoning_content": text }), Value::Null)),
            Piece::Finish(reason) | Piece::Block(reason) => {
                frames.push(chunk(json!({}), json!(reason)));
                frames.push(usage(model));
                frames.push("[DONE]".to_owned());
            }
            Piece::Raw(raw) => frames.push(raw.clone()),
        }
    }
    frames
}

fn usage(model: &str) -> String {
    json!({"id": "stand-in", "model": model, "choices": [], "usage": {"prompt_tokens": 7, "completion_tokens": 24,
        "completion_tokens_details": {"reasoning_tokens": 13}, "total_tokens": 31}})
    .to_string()
}

fn models(state: &State) -> Value {
    let models: Vec<Value> = state.options.models.iter().map(|model| json!({"id": model, "object": "model"})).collect();
    json!({"object": "list", "data": models})
}

fn embeddings(body: &Value) -> Value {
    let texts = body["input"].as_array().map(Vec::as_slice).unwrap_or_default();
    let item = |(index, text): (usize, &Value)| {
        json!({"object": "embedding", "index": index,
        "embedding": vector(text.as_str().unwrap_or_default())})
    };
    // In any order: the index says which is which.
    let data: Vec<Value> = texts.iter().enumerate().rev().map(item).collect();
    json!({"object": "list", "data": data, "model": body["model"]})
}
