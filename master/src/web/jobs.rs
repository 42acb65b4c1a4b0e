//! REST for jobs that are there: list, look, wait, cancel, retry, change.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use flota_proto::kinds::{FieldError, Kind};
use flota_proto::{JobId, rest, rest::JobState};
use utoipa::IntoParams;

use super::App;
use super::extract::{self, Body, Caller, JobPath, Params, bad_parameter};
use super::problem::Failure;
use crate::handle::{JobFilter, Refused};

/// The longest wait of one request; asking for more waits as long.
const WAIT_MS_MAX: u64 = 30_000;
/// Jobs looked at together by a retry of many.
const RETRY_PAGE: usize = 500;
/// So many times in one call.
const RETRY_PAGES_MAX: usize = 20;

/// What `GET /jobs` can be narrowed to.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
#[allow(dead_code)] // Read by OpenAPI only: `filter` says more about what is wrong than serde would.
pub struct ListParams {
    /// In this state; several times or with commas for any of several.
    state: Option<JobState>,
    /// Of this kind.
    kind: Option<Kind>,
    /// In this queue.
    queue: Option<String>,
    /// Of this project.
    project: Option<String>,
    /// `NAME=VALUE`
    label: Option<String>,
    /// Submitted by this owner.
    owner: Option<String>,
    /// Whose error has this code.
    code: Option<String>,
    /// 1 to 500, 50 without it.
    limit: Option<u32>,
    /// `next_cursor` of the page before.
    cursor: Option<String>,
}

/// Lists jobs, newest first, without their payloads.
#[utoipa::path(
    get, path = "/jobs", tag = "jobs", operation_id = "list_jobs", params(ListParams),
    responses(
        (status = 200, body = rest::Page<rest::Job>),
        (status = 400, description = "A parameter is wrong", body = rest::Problem, content_type = "application/problem+json"),
    )
)]
pub async fn list(State(app): State<Arc<App>>, params: Params) -> Result<Json<rest::Page<rest::Job>>, Failure> {
    Ok(Json(app.handle.jobs(filter(params)?).await?))
}

fn filter(mut params: Params) -> Result<JobFilter, Failure> {
    let mut states = Vec::new();
    for text in params.all("state") {
        for state in text.split(',').filter(|state| !state.is_empty()) {
            states.push(state.parse().map_err(|e: String| bad_parameter("state", &e))?);
        }
    }
    let kind = match params.one("kind")? {
        Some(text) => Some(text.parse::<Kind>().map_err(|e| bad_parameter("kind", &e.message))?),
        None => None,
    };
    let label = match params.one("label")? {
        Some(text) => Some(split_label(&text)?),
        None => None,
    };
    let (limit, cursor) = params.page()?;
    if cursor.as_ref().is_some_and(|cursor| cursor.parse::<u64>().is_err()) {
        return Err(bad_parameter("cursor", "is no cursor of this list"));
    }
    let filter = JobFilter {
        states,
        kind,
        queue: params.one("queue")?,
        project: params.one("project")?,
        label,
        owner: params.one("owner")?,
        code: params.one("code")?,
        limit,
        cursor,
    };
    params.finish()?;
    Ok(filter)
}

fn split_label(text: &str) -> Result<(String, String), Failure> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err(bad_parameter("label", "must be NAME=VALUE")),
    }
}

/// One job. With `wait_ms` as soon as it has ended, or as it is when the time is up.
#[utoipa::path(
    get, path = "/jobs/{id}", tag = "jobs", operation_id = "get_job",
    params(
        ("id" = String, Path, description = "The job's UUID"),
        ("wait_ms" = Option<u64>, Query, description = "How long to wait for its end, at most 30000"),
    ),
    responses(
        (status = 200, body = rest::Job),
        (status = 404, description = "There is no such job", body = rest::Problem, content_type = "application/problem+json"),
        (status = 503, description = "Too many calls wait", body = rest::Problem, content_type = "application/problem+json", headers(("Retry-After" = u32))),
    )
)]
pub async fn get(
    State(app): State<Arc<App>>,
    JobPath(id): JobPath,
    mut params: Params,
) -> Result<Json<rest::Job>, Failure> {
    let wait_ms = params.number("wait_ms", 0..=u64::MAX)?.unwrap_or(0).min(WAIT_MS_MAX);
    params.finish()?;
    let job = app.handle.job(id, true).await?;
    if wait_ms == 0 || job.state.ended() {
        return Ok(Json(job));
    }
    let _place = app.stream_place()?;
    tokio::select! {
        waited = tokio::time::timeout(Duration::from_millis(wait_ms), app.handle.wait(id)) => match waited {
            // The payload is known already: reading it again would only make the answer later.
            Ok(ended) => Ok(Json(rest::Job { payload: job.payload, ..ended? })),
            Err(_) => Ok(Json(app.handle.job(id, true).await?)),
        },
        () = app.stop.cancelled() => Err(Refused::Unavailable("the master is stopping".into()).into()),
    }
}

/// A job's work units, by index, with their attempts.
#[utoipa::path(
    get, path = "/jobs/{id}/units", tag = "jobs", operation_id = "list_units",
    params(
        ("id" = String, Path, description = "The job's UUID"),
        ("limit" = Option<u32>, Query, description = "1 to 500, 50 without it"),
        ("cursor" = Option<String>, Query, description = "`next_cursor` of the page before"),
    ),
    responses(
        (status = 200, body = rest::Page<rest::Unit>),
        (status = 404, description = "There is no such job", body = rest::Problem, content_type = "application/problem+json"),
    )
)]
pub async fn units(
    State(app): State<Arc<App>>,
    JobPath(id): JobPath,
    mut params: Params,
) -> Result<Json<rest::Page<rest::Unit>>, Failure> {
    let (limit, cursor) = params.page()?;
    params.finish()?;
    index(cursor.as_deref())?;
    Ok(Json(app.handle.units(id, limit, cursor).await?))
}

/// Whether every nonce or input of a job that was cut into units was computed exactly once, and by whom.
#[utoipa::path(
    get, path = "/jobs/{id}/audit", tag = "jobs", operation_id = "audit_job",
    params(
        ("id" = String, Path, description = "The job's UUID"),
        ("limit" = Option<u32>, Query, description = "Of the units, 1 to 500, 50 without it"),
        ("cursor" = Option<String>, Query, description = "`next_cursor` of the page before"),
    ),
    responses(
        (status = 200, body = rest::Audit),
        (status = 400, description = "A parameter is wrong", body = rest::Problem, content_type = "application/problem+json"),
        (status = 404, description = "There is no such job", body = rest::Problem, content_type = "application/problem+json"),
        (status = 409, description = "It is one unit", body = rest::Problem, content_type = "application/problem+json"),
    )
)]
pub async fn audit(
    State(app): State<Arc<App>>,
    JobPath(id): JobPath,
    mut params: Params,
) -> Result<Json<rest::Audit>, Failure> {
    let (limit, cursor) = params.page()?;
    params.finish()?;
    let from = index(cursor.as_deref())?;
    Ok(Json(app.handle.audit(id, limit, from).await?))
}

/// The index of a unit with which a page begins.
fn index(cursor: Option<&str>) -> Result<u32, Failure> {
    cursor.map_or(Ok(0), str::parse).map_err(|_| bad_parameter("cursor", "is no cursor of this list"))
}

/// Cancels a job that has not ended.
#[utoipa::path(
    post, path = "/jobs/{id}/cancel", tag = "jobs", operation_id = "cancel_job",
    params(("id" = String, Path, description = "The job's UUID")),
    responses(
        (status = 200, body = rest::Job),
        (status = 404, description = "There is no such job", body = rest::Problem, content_type = "application/problem+json"),
        (status = 409, description = "It has ended", body = rest::Problem, content_type = "application/problem+json"),
    )
)]
pub async fn cancel(
    State(app): State<Arc<App>>,
    caller: Caller,
    JobPath(id): JobPath,
) -> Result<Json<rest::Job>, Failure> {
    Ok(Json(app.handle.cancel(caller.principal, id).await?))
}

/// Starts a failed or cancelled job again, under the same id and without its failures.
#[utoipa::path(
    post, path = "/jobs/{id}/retry", tag = "jobs", operation_id = "retry_job",
    params(("id" = String, Path, description = "The job's UUID")),
    responses(
        (status = 200, body = rest::Job),
        (status = 404, description = "There is no such job", body = rest::Problem, content_type = "application/problem+json"),
        (status = 409, description = "It has not failed and was not cancelled", body = rest::Problem, content_type = "application/problem+json"),
    )
)]
pub async fn retry(
    State(app): State<Arc<App>>,
    caller: Caller,
    JobPath(id): JobPath,
) -> Result<Json<rest::Job>, Failure> {
    Ok(Json(app.handle.retry(caller.principal, id).await?))
}

/// Starts the failed (or cancelled) jobs that fit a filter again, newest first, up to 10,000 of them a call.
///
/// With `dry_run` it only counts them. Where `next_cursor` is not null, there is more to look at.
#[utoipa::path(
    post, path = "/jobs/retry", tag = "jobs", operation_id = "retry_jobs",
    request_body = rest::RetryJobs,
    responses(
        (status = 200, body = rest::RetriedJobs),
        (status = 422, description = "A field is wrong", body = rest::Problem, content_type = "application/problem+json"),
    )
)]
pub async fn retry_many(
    State(app): State<Arc<App>>,
    caller: Caller,
    Body(body): Body,
) -> Result<Json<rest::RetriedJobs>, Failure> {
    let wanted: rest::RetryJobs = extract::json_object(&body)?;
    let mut filter = replayable(&wanted)?;
    let mut done = rest::RetriedJobs { matched: 0, retried: 0, refused: Vec::new(), next_cursor: None };
    for _ in 0..RETRY_PAGES_MAX {
        let page = app.handle.jobs(filter.clone()).await?;
        let ids: Vec<JobId> = page.items.iter().map(|job| job.id).collect();
        done.matched += ids.len() as u64;
        if !wanted.dry_run {
            // All at once, so that they share their commits.
            let answers = ids.iter().map(|id| app.handle.retry(caller.principal.clone(), *id));
            for (id, answer) in ids.iter().zip(futures::future::join_all(answers).await) {
                match answer {
                    Ok(_) => done.retried += 1,
                    Err(refused) => {
                        done.refused.push(rest::RefusedRetry { id: *id, error: Failure::from(refused).into_problem() })
                    }
                }
            }
        }
        done.next_cursor = page.next_cursor;
        if done.next_cursor.is_none() {
            break;
        }
        filter.cursor.clone_from(&done.next_cursor);
    }
    Ok(Json(done))
}

fn replayable(wanted: &rest::RetryJobs) -> Result<JobFilter, Failure> {
    let wrong = |path: &str, message: &str| Failure::invalid(&FieldError::new(path, message));
    let states = if wanted.state.is_empty() { vec![JobState::Failed] } else { wanted.state.clone() };
    if states.iter().any(|state| !matches!(state, JobState::Failed | JobState::Cancelled)) {
        return Err(wrong("state", "must be failed or cancelled: only those can be started again"));
    }
    let kind = wanted.kind.as_deref().map(str::parse::<Kind>).transpose();
    let kind = kind.map_err(|e| wrong("kind", &e.message))?;
    let label = match wanted.label.as_deref().map(|label| label.split_once('=')) {
        None => None,
        Some(Some((name, value))) if !name.is_empty() => Some((name.to_owned(), value.to_owned())),
        Some(_) => return Err(wrong("label", "must be NAME=VALUE")),
    };
    let rest::RetryJobs { queue, project, owner, code, cursor, .. } = wanted.clone();
    Ok(JobFilter { states, kind, queue, project, label, owner, code, limit: RETRY_PAGE, cursor })
}

/// Changes the priority of a job that has not ended.
#[utoipa::path(
    patch, path = "/jobs/{id}", tag = "jobs", operation_id = "change_job",
    params(("id" = String, Path, description = "The job's UUID")),
    request_body = rest::PatchJob,
    responses(
        (status = 200, body = rest::Job),
        (status = 404, description = "There is no such job", body = rest::Problem, content_type = "application/problem+json"),
        (status = 409, description = "It has ended", body = rest::Problem, content_type = "application/problem+json"),
        (status = 422, description = "A field is wrong", body = rest::Problem, content_type = "application/problem+json"),
    )
)]
pub async fn change(
    State(app): State<Arc<App>>,
    caller: Caller,
    JobPath(id): JobPath,
    Body(body): Body,
) -> Result<Json<rest::Job>, Failure> {
    let patch: rest::PatchJob = extract::json_object(&body)?;
    Ok(Json(app.handle.set_priority(caller.principal, id, patch.priority.0).await?))
}
