//! What a request says, parsed once: body, query, path, caller. What is wrong is answered with the name of the field.

use std::fmt::Display;
use std::ops::RangeInclusive;
use std::str::FromStr;
use std::time::Duration;

use axum::body::Body as HttpBody;
use axum::extract::{FromRequest, FromRequestParts, Path, Query, Request};
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode, header};
use bytes::{Bytes, BytesMut};
use flota_proto::kinds;
use flota_proto::{BODY_BYTES_MAX, JobId, WorkerId};
use futures::StreamExt;
use secrecy::SecretString;
use serde::Deserialize;
use serde_json::error::Category;

use super::problem::Failure;
use crate::submit::Principal;

/// How much of a body that is too large is still read: most clients look for the answer only when all is sent.
const DRAINED_BYTES_MAX: usize = 8 * BODY_BYTES_MAX;
const BODY_TIMEOUT: Duration = Duration::from_secs(60);
const OWNER_BYTES_MAX: usize = 128;
const API_KEY_BYTES_MAX: usize = 1024;
const SECRET_BYTES_MAX: usize = 128;

/// The whole body.
pub struct Body(pub Bytes);

impl<S: Send + Sync> FromRequest<S> for Body {
    type Rejection = Failure;

    async fn from_request(request: Request, _: &S) -> Result<Self, Failure> {
        let announced = request.headers().get(header::CONTENT_LENGTH).and_then(|v| v.to_str().ok()?.parse().ok());
        if announced > Some(BODY_BYTES_MAX) {
            // Who asks first sends nothing; who does not must be able to send on while it reads the answer.
            if !request.headers().contains_key(header::EXPECT) {
                tokio::spawn(tokio::time::timeout(BODY_TIMEOUT, drain(request.into_body())));
            }
            return Err(too_large());
        }
        match tokio::time::timeout(BODY_TIMEOUT, read(request.into_body(), announced.unwrap_or(0))).await {
            Ok(body) => body.map(Self),
            Err(_) => {
                let detail = format!("the body did not arrive within {} s", BODY_TIMEOUT.as_secs());
                Err(Failure::new(StatusCode::REQUEST_TIMEOUT, "body_too_slow", detail))
            }
        }
    }
}

async fn read(body: HttpBody, announced: usize) -> Result<Bytes, Failure> {
    let mut stream = body.into_data_stream();
    let mut bytes = BytesMut::with_capacity(announced.min(1024 * 1024));
    let mut received = 0usize;
    while let Some(chunk) = stream.next().await {
        let chunk = chunk.map_err(|_| Failure::bad_request("body_incomplete", "the body ended too early"))?;
        received = received.saturating_add(chunk.len());
        if received > BODY_BYTES_MAX.saturating_add(DRAINED_BYTES_MAX) {
            break;
        }
        if received > BODY_BYTES_MAX {
            bytes = BytesMut::new();
        } else {
            bytes.extend_from_slice(&chunk);
        }
    }
    if received > BODY_BYTES_MAX {
        return Err(too_large());
    }
    Ok(bytes.freeze())
}

async fn drain(body: HttpBody) {
    let mut stream = body.into_data_stream();
    let mut received = 0usize;
    while let Some(Ok(chunk)) = stream.next().await {
        received = received.saturating_add(chunk.len());
        if received > BODY_BYTES_MAX.saturating_add(DRAINED_BYTES_MAX) {
            return;
        }
    }
}

fn too_large() -> Failure {
    let detail = format!("the body is larger than {BODY_BYTES_MAX} bytes (32 MiB)");
    Failure::new(StatusCode::PAYLOAD_TOO_LARGE, "body_too_large", detail)
}

/// Parses a JSON document. What is no JSON is 400, what has a wrong field 422 with its path.
pub fn json<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, Failure> {
    let text = std::str::from_utf8(bytes)
        .map_err(|error| Failure::bad_request("bad_json", format!("the body is no UTF-8: {error}")))?;
    if text.trim().is_empty() {
        return Err(Failure::bad_request("bad_json", "the body is empty; JSON is expected"));
    }
    let error = match serde_json::from_str(text) {
        Ok(value) => return Ok(value),
        Err(error) => error,
    };
    match error.classify() {
        Category::Data => match kinds::parse::<T>("", text) {
            Ok(value) => Ok(value),
            Err(error) => Err(Failure::invalid(&error)),
        },
        Category::Syntax | Category::Eof | Category::Io => {
            Err(Failure::bad_request("bad_json", format!("the body is no JSON: {error}")))
        }
    }
}

/// As [`json`], for documents that must be objects.
pub fn json_object<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, Failure> {
    let begins = bytes.iter().find(|byte| !byte.is_ascii_whitespace());
    if begins == Some(&b'[') {
        let error = kinds::FieldError::new("", "the body must be a JSON object, not an array");
        return Err(Failure::invalid(&error));
    }
    json(bytes)
}

/// The job that the path names.
pub struct JobPath(pub JobId);

impl<S: Send + Sync> FromRequestParts<S> for JobPath {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Failure> {
        path_id(parts, state).await.map(Self)
    }
}

/// The worker that the path names.
pub struct WorkerPath(pub WorkerId);

impl<S: Send + Sync> FromRequestParts<S> for WorkerPath {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Failure> {
        path_id(parts, state).await.map(Self)
    }
}

/// The id that the path names.
pub async fn path_id<T, S>(parts: &mut Parts, state: &S) -> Result<T, Failure>
where
    T: FromStr<Err: Display>,
    S: Send + Sync,
{
    let bad = |detail: String| Failure::bad_request("bad_id", detail).at("id");
    let Path(text) = Path::<String>::from_request_parts(parts, state).await.map_err(|e| bad(e.body_text()))?;
    text.parse().map_err(|error: T::Err| bad(format!("'{}' is no id: {error}", text.escape_debug())))
}

/// The query's parameters. Take each by its name, then call [`Params::finish`].
pub struct Params(Vec<(String, String)>);

impl<S: Send + Sync> FromRequestParts<S> for Params {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Failure> {
        let Query(pairs) =
            Query::try_from_uri(&parts.uri).map_err(|error| Failure::bad_request("bad_query", error.body_text()))?;
        Ok(Self(pairs))
    }
}

impl Params {
    /// Every value of `name` that is not empty.
    pub fn all(&mut self, name: &str) -> Vec<String> {
        let (found, rest) = std::mem::take(&mut self.0).into_iter().partition(|(key, _)| key == name);
        self.0 = rest;
        found.into_iter().map(|(_, value)| value).filter(|value| !value.is_empty()).collect()
    }

    /// The value of `name`; an empty one is none.
    pub fn one(&mut self, name: &str) -> Result<Option<String>, Failure> {
        let mut values = self.all(name);
        if values.len() > 1 {
            return Err(bad_parameter(name, "is there more than once"));
        }
        Ok(values.pop())
    }

    /// The whole number `name`, which must lie in `range`.
    pub fn number(&mut self, name: &str, range: RangeInclusive<u64>) -> Result<Option<u64>, Failure> {
        let Some(text) = self.one(name)? else { return Ok(None) };
        match text.parse() {
            Ok(number) if range.contains(&number) => Ok(Some(number)),
            _ => {
                let allowed = if *range.end() == u64::MAX {
                    format!("a whole number from {}", range.start())
                } else {
                    format!("a whole number, {} to {}", range.start(), range.end())
                };
                Err(bad_parameter(name, &format!("must be {allowed}")))
            }
        }
    }

    /// How many items a page holds and where it begins.
    pub fn page(&mut self) -> Result<(usize, Option<String>), Failure> {
        let limit = self.number("limit", 1..=LIMIT_MAX)?.unwrap_or(LIMIT);
        Ok((usize::try_from(limit).unwrap_or(usize::MAX), self.one("cursor")?))
    }

    /// Refuses what nobody took.
    pub fn finish(self) -> Result<(), Failure> {
        match self.0.first() {
            None => Ok(()),
            Some((name, _)) => Err(bad_parameter(name, "is no parameter here")),
        }
    }
}

const LIMIT: u64 = 50;
const LIMIT_MAX: u64 = 500;

/// 400 for a wrong query parameter.
pub fn bad_parameter(name: &str, wrong: &str) -> Failure {
    Failure::bad_request("bad_parameter", format!("{}: {wrong}", name.escape_debug())).at(name)
}

/// Who calls, and with which key of their own.
pub struct Caller {
    /// Who.
    pub principal: Principal,
    /// For the provider of an AI.
    pub api_key: Option<SecretString>,
    /// Opens a conversation of somebody else's.
    pub conversation_secret: Option<SecretString>,
}

impl<S: Send + Sync> FromRequestParts<S> for Caller {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Failure> {
        let owner = header_text(&parts.headers, "X-Flota-Owner", OWNER_BYTES_MAX)?;
        let api_key = header_text(&parts.headers, "X-Flota-Api-Key", API_KEY_BYTES_MAX)?.map(api_key).transpose();
        let api_key = api_key.map_err(|wrong| Failure::bad_request("bad_header", wrong.to_string()).at(&wrong.path))?;
        let secret = header_text(&parts.headers, "X-Flota-Conversation-Secret", SECRET_BYTES_MAX)?;
        Ok(Self {
            principal: owner.map_or_else(Principal::local, |owner| Principal { owner: owner.to_owned() }),
            api_key,
            conversation_secret: secret.map(SecretString::from),
        })
    }
}

/// A key as a person pastes it: what surrounds it does not count. The error never shows it.
pub fn api_key(text: &str) -> Result<SecretString, kinds::FieldError> {
    let key = text.trim();
    if key.len() <= API_KEY_BYTES_MAX && key.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Ok(SecretString::from(key.to_owned()));
    }
    let message =
        format!("must be at most {API_KEY_BYTES_MAX} printable ASCII characters without spaces and line breaks");
    Err(kinds::FieldError::new("X-Flota-Api-Key", message))
}

/// A header's text; an empty one is none. The error never shows the value.
pub fn header_text<'a>(headers: &'a HeaderMap, name: &str, bytes_max: usize) -> Result<Option<&'a str>, Failure> {
    let Some(value) = headers.get(name) else { return Ok(None) };
    match value.to_str().map(str::trim) {
        Ok("") => Ok(None),
        Ok(text) if text.len() <= bytes_max => Ok(Some(text)),
        _ => {
            let detail = format!("{name}: must be at most {bytes_max} printable ASCII characters");
            Err(Failure::bad_request("bad_header", detail).at(name))
        }
    }
}
