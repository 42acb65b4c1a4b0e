//! HTTP of the stand-in: which request is for whom, and how a stream is written.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Request, State as Shared};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use futures::{Stream, stream};
use serde::Deserialize;
use serde_json::Value;

use super::reply::{End, Reply, STAMP, Script, stamp};
use super::state::{Ended, Seen, State, Tracked};
use super::{gemini, openai};

/// Enough for any test.
const BODY_BYTES_MAX: usize = 64 << 20;

pub fn router(state: Arc<State>) -> Router {
    Router::new()
        .route("/fake/requests", get(requests))
        .route("/fake/replies", post(script))
        .fallback(answer)
        .with_state(state)
}

/// What it was sent, for tests in other processes.
async fn requests(Shared(state): Shared<Arc<State>>) -> Response {
    axum::Json(state.seen()).into_response()
}

#[derive(Deserialize)]
struct Scripted {
    model: Option<String>,
    reply: Reply,
}

async fn script(Shared(state): Shared<Arc<State>>, axum::Json(scripted): axum::Json<Scripted>) -> StatusCode {
    match scripted.model {
        Some(model) => state.set_model(model, scripted.reply),
        None => state.queue(scripted.reply),
    }
    StatusCode::NO_CONTENT
}

async fn answer(Shared(state): Shared<Arc<State>>, request: Request) -> Response {
    let Ok(seen) = read(request).await else { return StatusCode::BAD_REQUEST.into_response() };
    let tracked = state.track(seen.clone());
    if seen.path.starts_with("/v1beta/") {
        gemini::answer(&state, &seen, tracked).await
    } else {
        openai::answer(&state, &seen, tracked).await
    }
}

async fn read(request: Request) -> Result<Seen, axum::Error> {
    let (head, body) = request.into_parts();
    let bytes = axum::body::to_bytes(body, BODY_BYTES_MAX).await?;
    let text = |value: &axum::http::HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    Ok(Seen {
        method: head.method.to_string(),
        path: head.uri.path().to_owned(),
        query: head.uri.query().unwrap_or_default().to_owned(),
        headers: head.headers.iter().map(|(name, value)| (name.to_string(), text(value))).collect(),
        body: serde_json::from_slice(&bytes).unwrap_or(Value::Null),
        ended: Ended::Open,
    })
}

/// Writes JSON with a status.
pub fn json((status, body): (u16, Value), content_type: &'static str, mut tracked: Tracked) -> Response {
    tracked.answered();
    raw(status, format!("{body:#}"), content_type)
}

pub fn raw(status: u16, body: String, content_type: &'static str) -> Response {
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    (status, [(header::CONTENT_TYPE, content_type)], body).into_response()
}

pub const SSE: &str = "text/event-stream";
pub const JSON: &str = "application/json; charset=UTF-8";

/// Writes `script`, whose pieces were made `frames`.
pub async fn streamed(script: Script, frames: Vec<String>, tracked: Tracked) -> Response {
    // Where the client goes away meanwhile, `tracked` is dropped with this future.
    tokio::time::sleep(Duration::from_millis(script.first_delay_ms)).await;
    let body = Body::from_stream(writes(&script, frames, tracked));
    (StatusCode::OK, [(header::CONTENT_TYPE, SSE)], body).into_response()
}

/// Writes `body`, the whole answer of `script`, which may break off or never come.
pub async fn whole(script: Script, body: String, mut tracked: Tracked) -> Response {
    tokio::time::sleep(Duration::from_millis(script.first_delay_ms)).await;
    match script.end {
        End::Stall => std::future::pending().await,
        End::Reset | End::MidCharacter => {
            tracked.answered();
            let half = Bytes::copy_from_slice(&body.as_bytes()[..body.len() / 2]);
            let broken = stream::iter([Ok(half), Err(std::io::Error::other("reset"))]);
            (StatusCode::OK, [(header::CONTENT_TYPE, JSON)], Body::from_stream(broken)).into_response()
        }
        End::Whole | End::WithoutBlankLine | End::BareError(_) | End::ErrorFrame(_) | End::Repeat { .. } => {
            cut(200, &body, script.cut, JSON, tracked)
        }
    }
}

/// Writes `body` in pieces of at most `size` bytes.
pub fn cut(status: u16, body: &str, size: Option<usize>, content_type: &'static str, mut tracked: Tracked) -> Response {
    tracked.answered();
    let pieces = pieces(body, size).map(Ok::<_, std::io::Error>).collect::<Vec<_>>();
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    (status, [(header::CONTENT_TYPE, content_type)], Body::from_stream(stream::iter(pieces))).into_response()
}

#[derive(Clone)]
enum Write {
    Bytes(Bytes),
    Pause(Duration),
    Hold,
    Reset,
    Stall,
}

fn writes(
    script: &Script,
    frames: Vec<String>,
    tracked: Tracked,
) -> impl Stream<Item = std::io::Result<Bytes>> + use<> {
    let repeated = match script.end {
        End::Repeat { times } => (last_piece(script, &frames), times),
        _ => (Vec::new(), 0),
    };
    let again = std::iter::repeat_n(repeated.0, repeated.1).flatten();
    let steps = plan(script, frames).into_iter().chain(again);
    let stamped = script.stamped;
    stream::unfold((steps, tracked), move |(mut steps, mut tracked)| async move {
        loop {
            match steps.next() {
                Some(Write::Bytes(bytes)) if stamped => {
                    let text = String::from_utf8_lossy(&bytes).replace(STAMP, &stamp());
                    return Some((Ok(Bytes::from(text)), (steps, tracked)));
                }
                Some(Write::Bytes(bytes)) => return Some((Ok(bytes), (steps, tracked))),
                Some(Write::Pause(pause)) => tokio::time::sleep(pause).await,
                Some(Write::Hold) => tracked.told_to_go_on().await,
                Some(Write::Reset) => {
                    tracked.answered();
                    return Some((Err(std::io::Error::other("reset")), (steps, tracked)));
                }
                Some(Write::Stall) => std::future::pending::<()>().await,
                None => {
                    tracked.answered();
                    return None;
                }
            }
        }
    })
}

/// The last piece as it is written again and again.
fn last_piece(script: &Script, frames: &[String]) -> Vec<Write> {
    let mut plan = vec![Write::Pause(Duration::from_millis(script.pause_ms))];
    push(&mut plan, format!("data: {}\r\n\r\n", frames.last().cloned().unwrap_or_default()), script.cut);
    plan
}

fn plan(script: &Script, frames: Vec<String>) -> Vec<Write> {
    let line_end = if script.lf { "\n" } else { "\r\n" };
    let mut plan = Vec::new();
    let last = frames.len().saturating_sub(1);
    for (index, frame) in frames.into_iter().enumerate() {
        if index > 0 && script.pause_ms > 0 {
            plan.push(Write::Pause(Duration::from_millis(script.pause_ms)));
        }
        if script.holds.contains(&index) {
            plan.push(Write::Hold);
        }
        let whole = index < last || script.end != End::WithoutBlankLine;
        let end = if whole { line_end.repeat(2) } else { String::new() };
        push(&mut plan, format!("data: {frame}{end}"), script.cut);
    }
    match &script.end {
        End::Whole | End::WithoutBlankLine | End::Repeat { .. } => {}
        End::MidCharacter => {
            let mut bytes = b"data: {\"candidates\": [{\"content\": {\"parts\": [{\"text\": \"half of ".to_vec();
            bytes.push("ñ".as_bytes()[0]);
            let size = script.cut.unwrap_or(usize::MAX).max(1);
            plan.extend(bytes.chunks(size).map(|bytes| Write::Bytes(Bytes::copy_from_slice(bytes))));
        }
        End::BareError(trouble) => push(&mut plan, format!("{:#}", trouble.answer().1), script.cut),
        End::ErrorFrame(trouble) => {
            push(&mut plan, format!("data: {}{line_end}{line_end}", trouble.answer().1), script.cut);
        }
        // The writes before it must have left.
        End::Reset => plan.extend([Write::Pause(Duration::from_millis(20)), Write::Reset]),
        End::Stall => plan.push(Write::Stall),
    }
    plan
}

fn push(plan: &mut Vec<Write>, text: String, cut: Option<usize>) {
    plan.extend(pieces(&text, cut).map(Write::Bytes));
}

fn pieces(text: &str, cut: Option<usize>) -> impl Iterator<Item = Bytes> + '_ {
    let size = cut.unwrap_or(usize::MAX).max(1);
    text.as_bytes().chunks(size).map(Bytes::copy_from_slice)
}
