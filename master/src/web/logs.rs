//! `GET /logs`: the fleet's log as server-sent events, for those who know the master's address and no broker's.

use std::convert::Infallible;
use std::sync::Arc;

use axum::extract::State;
use axum::http::{HeaderName, HeaderValue};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use flota_proto::mqtt::LogLine;
use flota_proto::rest;
use futures::{StreamExt, stream};
use tokio::sync::broadcast::error::RecvError;

use super::App;
use super::extract::Params;
use super::problem::Failure;

/// What master and workers log, as server-sent events: the last lines, then those that follow.
///
/// `data` is a line as on MQTT: `{timestamp, source, level, message, job_id?, worker_id?}`. A reader that is too slow misses some.
#[utoipa::path(
    get, path = "/logs", tag = "fleet", operation_id = "logs",
    responses(
        (status = 200, description = "`event: log`, `data: LogLine`", body = String, content_type = "text/event-stream"),
        (status = 503, description = "Too many streams are open", body = rest::Problem, content_type = "application/problem+json", headers(("Retry-After" = u32))),
    )
)]
pub async fn logs(State(app): State<Arc<App>>, params: Params) -> Result<Response, Failure> {
    params.finish()?;
    let place = app.stream_place()?;
    let (recent, live) = app.logs.subscribe();
    let recent = stream::iter(recent);
    let live = stream::unfold((live, place), |(mut live, place)| async {
        loop {
            match live.recv().await {
                Ok(line) => return Some((line, (live, place))),
                Err(RecvError::Lagged(_)) => {}
                Err(RecvError::Closed) => return None,
            }
        }
    });
    let events = recent.chain(live).map(|line| Ok::<_, Infallible>(sse(&line)));
    let events = events.take_until(app.stop.clone().cancelled_owned());
    let unbuffered = (HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no"));
    Ok(([unbuffered], Sse::new(events).keep_alive(KeepAlive::default())).into_response())
}

fn sse(line: &LogLine) -> Event {
    // JSON holds no line breaks.
    Event::default().event("log").data(serde_json::to_string(line).unwrap_or_default())
}
