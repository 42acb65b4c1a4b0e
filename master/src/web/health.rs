//! `/livez`, `/readyz` and `/metrics`.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};

use super::App;
use super::problem::Failure;

/// A loop that takes longer is not ready.
const READY_TIMEOUT: Duration = Duration::from_secs(2);

/// The process runs. Depends on nothing else, so that nobody restarts a master because its broker is away.
pub async fn livez() -> &'static str {
    "ok\n"
}

/// The dispatcher answers.
pub async fn readyz(State(app): State<Arc<App>>) -> Result<&'static str, Failure> {
    let not_ready = |detail: String| Failure::new(StatusCode::SERVICE_UNAVAILABLE, "not_ready", detail).retry_after(1);
    match tokio::time::timeout(READY_TIMEOUT, app.handle.fleet()).await {
        Ok(Ok(_)) => Ok("ok\n"),
        Ok(Err(refused)) => Err(not_ready(refused.to_string())),
        Err(_) => Err(not_ready(format!("the dispatcher did not answer within {} s", READY_TIMEOUT.as_secs()))),
    }
}

/// For Prometheus.
pub async fn metrics(State(app): State<Arc<App>>) -> Response {
    let text = app.metrics.scrape(&app.handle, app.sessions.connected()).await;
    let kind = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    ([(header::CONTENT_TYPE, kind)], text).into_response()
}
