//! The native API: credentials, checks of the request, frames.

use std::sync::Arc;

use axum::response::Response;
use serde_json::{Value, json};

use super::errors::{Trouble, error, invalid};
use super::reply::{End, Piece, Reply, Script};
use super::serve::{JSON, SSE, cut, json as write, raw, streamed, whole};
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
        Some((model, "streamGenerateContent")) => chat(state, seen, &key, model, Form::Stream, tracked).await,
        Some((model, "generateContent")) => chat(state, seen, &key, model, Form::Whole, tracked).await,
        Some((model, "countTokens")) => count_tokens(state, seen, model, tracked),
        Some((model, "batchEmbedContents")) => embed_batch(state, seen, model, tracked),
        Some((model, "embedContent")) => embed_one(state, seen, model, tracked),
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

/// In which form an answer is wanted.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    /// Piece by piece.
    Stream,
    /// At once.
    Whole,
}

impl Form {
    fn content_type(self) -> &'static str {
        match self {
            Self::Stream => SSE,
            Self::Whole => JSON,
        }
    }
}

async fn chat(state: &Arc<State>, seen: &Seen, key: &str, model: &str, form: Form, mut tracked: Tracked) -> Response {
    let content_type = form.content_type();
    let reply = match admit(state, seen, key, form) {
        Ok(()) => state.for_question(&question(&seen.body)).or_else(|| state.scripted(model)),
        Err(refusal) => return write(refusal, content_type, tracked),
    };
    match reply {
        Some(Reply::Trouble(trouble)) => write(trouble.answer(), content_type, tracked),
        Some(Reply::Raw { status, body }) => {
            tracked.answered();
            raw(status, body, content_type)
        }
        Some(Reply::Cut { status, body, size }) => cut(status, &body, size, content_type, tracked),
        Some(Reply::Stream(script)) => answered(script, model, form, tracked).await,
        None if !serves(state, model) => write(Trouble::Status(404).answer(), content_type, tracked),
        None => answered(state.default_script(&question(&seen.body), "STOP"), model, form, tracked).await,
    }
}

fn serves(state: &State, model: &str) -> bool {
    state.options.models.iter().any(|known| known == model)
}

async fn answered(script: Script, model: &str, form: Form, tracked: Tracked) -> Response {
    match (form, &script.end) {
        (Form::Stream, _) => {
            let frames = frames(&script, model);
            streamed(script, frames, tracked).await
        }
        (Form::Whole, End::BareError(trouble) | End::ErrorFrame(trouble)) => write(trouble.answer(), JSON, tracked),
        (Form::Whole, _) => {
            let body = format!("{:#}", whole_answer(&script, model));
            whole(script, body, tracked).await
        }
    }
}

fn admit(state: &State, seen: &Seen, key: &str, form: Form) -> Result<(), Refusal> {
    if form == Form::Stream && seen.query != "alt=sse" {
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
    check_contents(body)
}

fn check_contents(body: &Value) -> Result<(), Refusal> {
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

/// All pieces in one candidate, as `generateContent` answers.
fn whole_answer(script: &Script, model: &str) -> Value {
    let version = script.model_version.as_deref().unwrap_or(model);
    let mut parts = Vec::new();
    let mut answer = json!({"usageMetadata": usage(true), "modelVersion": version, "responseId": "stand-in"});
    let mut finish = Value::Null;
    for piece in &script.pieces {
        match piece {
            Piece::Text(text) => parts.push(json!({ "text": text })),
            Piece::Thought(text) => parts.push(json!({"text": text, "thought": true})),
            Piece::Finish(reason) => finish = json!(reason),
            Piece::Block(reason) => answer["promptFeedback"] = json!({ "blockReason": reason }),
            Piece::Raw(_) => {}
        }
    }
    if answer["promptFeedback"].is_null() {
        let mut candidate = json!({"content": {"parts": parts, "role": "model"}, "index": 0});
        if !finish.is_null() {
            candidate["finishReason"] = finish;
        }
        answer["candidates"] = json!([candidate]);
    }
    answer
}

fn usage(ended: bool) -> Value {
    if ended {
        json!({"promptTokenCount": 7, "candidatesTokenCount": 11, "thoughtsTokenCount": 13, "totalTokenCount": 31})
    } else {
        json!({"promptTokenCount": 7, "totalTokenCount": 7})
    }
}

/// About four characters a token, as the documentation of the API says.
fn count_tokens(state: &State, seen: &Seen, model: &str, tracked: Tracked) -> Response {
    if let Some(Reply::Trouble(trouble)) = state.scripted(model) {
        return write(trouble.answer(), JSON, tracked);
    }
    if !serves(state, model) {
        return write(Trouble::Status(404).answer(), JSON, tracked);
    }
    let asked =
        if seen.body["generateContentRequest"].is_null() { &seen.body } else { &seen.body["generateContentRequest"] };
    let checked = fields(&seen.body, &["contents", "generateContentRequest"]).and_then(|()| check_contents(asked));
    if let Err(refusal) = checked {
        return write(refusal, JSON, tracked);
    }
    let contents = asked["contents"].as_array().map(Vec::as_slice).unwrap_or_default();
    let parts = contents.iter().chain([&asked["systemInstruction"]]).filter_map(|content| content["parts"].as_array());
    let characters: usize = parts.flatten().filter_map(|part| part["text"].as_str()).map(|t| t.chars().count()).sum();
    let tokens = characters.div_ceil(4);
    let details = json!([{"modality": "TEXT", "tokenCount": tokens}]);
    write((200, json!({"totalTokens": tokens, "promptTokensDetails": details})), JSON, tracked)
}

/// Why a call for vectors is refused.
fn admit_embedding(state: &State, model: &str) -> Result<(), Refusal> {
    match state.scripted(model) {
        Some(Reply::Trouble(trouble)) => Err(trouble.answer()),
        _ if model != EMBEDDING_MODEL => Err(error(404, "NOT_FOUND", "models are not found", vec![])),
        _ => Ok(()),
    }
}

fn embed_one(state: &State, seen: &Seen, model: &str, tracked: Tracked) -> Response {
    let known = ["model", "content", "taskType", "title", "outputDimensionality"];
    let checked = admit_embedding(state, model).and_then(|()| fields(&seen.body, &known));
    match checked {
        Ok(()) => write((200, json!({ "embedding": embedded(&seen.body) })), JSON, tracked),
        Err(refusal) => write(refusal, JSON, tracked),
    }
}

fn embed_batch(state: &State, seen: &Seen, model: &str, tracked: Tracked) -> Response {
    if let Err(refusal) = admit_embedding(state, model) {
        return write(refusal, JSON, tracked);
    }
    let requests = seen.body["requests"].as_array().map(Vec::as_slice).unwrap_or_default();
    if requests.is_empty() || requests.len() > 100 {
        return write(invalid("at least one and at most 100 requests can be in one batch"), JSON, tracked);
    }
    let vectors: Vec<Value> = requests.iter().map(embedded).collect();
    write((200, json!({ "embeddings": vectors })), JSON, tracked)
}

fn embedded(request: &Value) -> Value {
    json!({"values": vector(request["content"]["parts"][0]["text"].as_str().unwrap_or_default())})
}

/// Different for different texts, and easy to check.
pub fn vector(text: &str) -> [f32; 3] {
    [text.len() as f32, f32::from(text.bytes().next().unwrap_or(0)), 0.5]
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::{EMBEDDING_MODEL, vector};
    use crate::fake_gemini::{End, FakeGemini, Piece, Script, Trouble};

    const MODEL: &str = "gemini-3.5-flash-lite";

    async fn post(fake: &FakeGemini, call: &str, body: Value) -> (u16, Value) {
        let url = format!("{}/models/{call}", fake.base_url());
        let client = reqwest::Client::builder().no_proxy().build().expect("no client");
        let sent = client.post(url).header("x-goog-api-key", "k").json(&body).send().await;
        // The connection may break before or after the head of the answer.
        let Ok(answer) = sent else { return (0, Value::Null) };
        (answer.status().as_u16(), answer.json().await.unwrap_or_default())
    }

    fn asked(text: &str) -> Value {
        json!({"contents": [{"role": "user", "parts": [{"text": text}]}]})
    }

    #[tokio::test]
    async fn an_answer_at_once_holds_what_a_stream_would_bring() {
        let fake = FakeGemini::start().await.expect("no stand-in");
        let call = format!("{MODEL}:generateContent");
        let pieces = [Piece::Thought("hm".into()), Piece::Text("a".into()), Piece::Text("ñ".into())];
        fake.next(Script::of(pieces.into_iter().chain([Piece::Finish("MAX_TOKENS".into())])).cut(1));
        let (status, answer) = post(&fake, &call, asked("q")).await;
        assert_eq!(status, 200);
        let candidate = &answer["candidates"][0];
        let parts = json!([{"text": "hm", "thought": true}, {"text": "a"}, {"text": "ñ"}]);
        assert_eq!((&candidate["content"]["parts"], &candidate["finishReason"]), (&parts, &json!("MAX_TOKENS")));
        assert_eq!(answer["usageMetadata"]["candidatesTokenCount"], 11);
        fake.next(Script::of([Piece::Block("SAFETY".into())]));
        let (_, blocked) = post(&fake, &call, asked("q")).await;
        assert_eq!(
            (&blocked["promptFeedback"]["blockReason"], &blocked["candidates"]),
            (&json!("SAFETY"), &Value::Null)
        );
        fake.next(Script::unfinished(&["a"]).end(End::BareError(Trouble::Status(503))));
        assert_eq!(post(&fake, &call, asked("q")).await.0, 503);
        fake.next(Script::unfinished(&["a"]).end(End::Reset));
        assert_eq!(post(&fake, &call, asked("q")).await.1, Value::Null, "the connection breaks in the middle");
        assert_eq!(post(&fake, &call, json!({"contents": [], "x": 1})).await.0, 400);
        assert_eq!(post(&fake, "no-model:generateContent", asked("q")).await.0, 404);
    }

    #[tokio::test]
    async fn tokens_are_counted_and_one_text_embedded() {
        let fake = FakeGemini::start().await.expect("no stand-in");
        let count = format!("{MODEL}:countTokens");
        assert_eq!(
            post(&fake, &count, asked("ninechars")).await,
            (
                200,
                json!({"totalTokens": 3,
            "promptTokensDetails": [{"modality": "TEXT", "tokenCount": 3}]})
            )
        );
        let (_, nested) = post(&fake, &count, json!({"generateContentRequest": asked("four")})).await;
        assert_eq!(nested["totalTokens"], 1);
        for wrong in [json!({}), json!({"contents": [{"role": "nobody", "parts": []}]}), json!({"question": "x"})] {
            assert_eq!(post(&fake, &count, wrong).await.0, 400);
        }
        let embed = format!("{EMBEDDING_MODEL}:embedContent");
        let (status, one) = post(&fake, &embed, json!({"content": {"parts": [{"text": "salt"}]}})).await;
        assert_eq!((status, &one["embedding"]["values"]), (200, &json!(vector("salt"))));
        assert_eq!(post(&fake, &embed, json!({"text": "salt"})).await.0, 400);
        fake.next(Trouble::PerDay);
        assert_eq!(post(&fake, &embed, json!({"content": {"parts": [{"text": "salt"}]}})).await.0, 429);
        assert_eq!(post(&fake, &format!("{MODEL}:embedContent"), json!({})).await.0, 404);
    }
}
