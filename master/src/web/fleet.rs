//! REST for workers and the fleet as a whole.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use flota_proto::rest;

use super::App;
use super::extract::{Caller, Params, WorkerPath, bad_parameter};
use super::problem::Failure;
use crate::handle::{Refused, WorkerControl};

/// Lists the workers that the master knows, by id.
#[utoipa::path(
    get, path = "/workers", tag = "fleet", operation_id = "list_workers",
    params(
        ("limit" = Option<u32>, Query, description = "1 to 500, 50 without it"),
        ("cursor" = Option<String>, Query, description = "`next_cursor` of the page before"),
    ),
    responses((status = 200, body = rest::Page<rest::Worker>))
)]
pub async fn workers(
    State(app): State<Arc<App>>,
    mut params: Params,
) -> Result<Json<rest::Page<rest::Worker>>, Failure> {
    let (limit, cursor) = params.page()?;
    params.finish()?;
    let after = cursor.map(|cursor| decode(&cursor)).transpose()?;
    let mut items = app.handle.workers().await?;
    items.sort_unstable_by(|a, b| a.worker_id.cmp(&b.worker_id));
    items.retain(|worker| after.as_deref().is_none_or(|after| worker.worker_id.as_str() > after));
    let more = items.len() > limit;
    items.truncate(limit);
    let last = items.last().filter(|_| more);
    let next_cursor = last.map(|worker| hex::encode(worker.worker_id.as_str()));
    Ok(Json(rest::Page { items, next_cursor }))
}

fn decode(cursor: &str) -> Result<String, Failure> {
    let bytes = hex::decode(cursor).ok();
    bytes
        .and_then(|bytes| String::from_utf8(bytes).ok())
        .ok_or_else(|| bad_parameter("cursor", "is no cursor of this list"))
}

/// One worker.
#[utoipa::path(
    get, path = "/workers/{id}", tag = "fleet", operation_id = "get_worker",
    params(("id" = String, Path, description = "The worker's id")),
    responses(
        (status = 200, body = rest::Worker),
        (status = 404, description = "There is no such worker", body = rest::Problem, content_type = "application/problem+json"),
    )
)]
pub async fn worker(State(app): State<Arc<App>>, WorkerPath(id): WorkerPath) -> Result<Json<rest::Worker>, Failure> {
    let workers = app.handle.workers().await?;
    let found = workers.into_iter().find(|worker| worker.worker_id == id);
    found.map(Json).ok_or_else(|| Refused::NotFound(format!("worker {id}")).into())
}

/// Lets a worker finish what runs and gives it nothing new.
#[utoipa::path(
    post, path = "/workers/{id}/drain", tag = "fleet", operation_id = "drain_worker",
    params(("id" = String, Path, description = "The worker's id")),
    responses(
        (status = 200, body = rest::Worker),
        (status = 404, description = "There is no such worker", body = rest::Problem, content_type = "application/problem+json"),
    )
)]
pub async fn drain(state: State<Arc<App>>, caller: Caller, id: WorkerPath) -> Result<Json<rest::Worker>, Failure> {
    control(state, caller, id, WorkerControl::Drain).await
}

/// Takes back what runs on a worker and gives it nothing new.
#[utoipa::path(
    post, path = "/workers/{id}/pause", tag = "fleet", operation_id = "pause_worker",
    params(("id" = String, Path, description = "The worker's id")),
    responses(
        (status = 200, body = rest::Worker),
        (status = 404, description = "There is no such worker", body = rest::Problem, content_type = "application/problem+json"),
    )
)]
pub async fn pause(state: State<Arc<App>>, caller: Caller, id: WorkerPath) -> Result<Json<rest::Worker>, Failure> {
    control(state, caller, id, WorkerControl::Pause).await
}

/// Gives a drained or paused worker work again.
#[utoipa::path(
    post, path = "/workers/{id}/resume", tag = "fleet", operation_id = "resume_worker",
    params(("id" = String, Path, description = "The worker's id")),
    responses(
        (status = 200, body = rest::Worker),
        (status = 404, description = "There is no such worker", body = rest::Problem, content_type = "application/problem+json"),
    )
)]
pub async fn resume(state: State<Arc<App>>, caller: Caller, id: WorkerPath) -> Result<Json<rest::Worker>, Failure> {
    control(state, caller, id, WorkerControl::Resume).await
}

async fn control(
    State(app): State<Arc<App>>,
    caller: Caller,
    WorkerPath(id): WorkerPath,
    control: WorkerControl,
) -> Result<Json<rest::Worker>, Failure> {
    Ok(Json(app.handle.control(caller.principal, id, control).await?))
}

/// The fleet in numbers.
#[utoipa::path(
    get, path = "/fleet", tag = "fleet", operation_id = "get_fleet",
    responses((status = 200, body = rest::Fleet))
)]
pub async fn fleet(State(app): State<Arc<App>>) -> Result<Json<rest::Fleet>, Failure> {
    Ok(Json(app.handle.fleet().await?))
}
