//! REST for work sources: make, list, look, start, stop, remove.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use flota_proto::{rest, sources as shape};

use super::App;
use super::extract::{Body, json_object};
use super::problem::Failure;

/// Lists the work sources, by name.
#[utoipa::path(
    get, path = "/sources", tag = "sources", operation_id = "list_sources",
    responses((status = 200, body = shape::Sources))
)]
pub async fn list(State(app): State<Arc<App>>) -> Json<shape::Sources> {
    Json(shape::Sources { items: app.sources.list() })
}

/// Makes a work source and, unless told otherwise, starts it. Passwords are never shown again.
#[utoipa::path(
    post, path = "/sources", tag = "sources", operation_id = "create_source", request_body = shape::NewSource,
    responses(
        (status = 201, body = shape::Source, headers(("Location" = String, description = "Where it is"))),
        (status = 409, description = "The name is taken", body = rest::Problem, content_type = "application/problem+json"),
        (status = 422, description = "A field is wrong", body = rest::Problem, content_type = "application/problem+json"),
    )
)]
pub async fn create(
    State(app): State<Arc<App>>,
    Body(body): Body,
) -> Result<(StatusCode, HeaderMap, Json<shape::Source>), Failure> {
    let source = app.sources.create(json_object(&body)?).await?;
    let mut headers = HeaderMap::new();
    if let Ok(location) = HeaderValue::from_str(&format!("/api/v1/sources/{}", source.id)) {
        headers.insert(header::LOCATION, location);
    }
    Ok((StatusCode::CREATED, headers, Json(source)))
}

/// One work source.
#[utoipa::path(
    get, path = "/sources/{id}", tag = "sources", operation_id = "get_source",
    params(("id" = String, Path, description = "Its name")),
    responses(
        (status = 200, body = shape::Source),
        (status = 404, description = "There is no such source", body = rest::Problem, content_type = "application/problem+json"),
    )
)]
pub async fn get(State(app): State<Arc<App>>, Path(id): Path<String>) -> Result<Json<shape::Source>, Failure> {
    Ok(Json(app.sources.get(&id)?))
}

/// Stops a work source and forgets it with its counters.
#[utoipa::path(
    delete, path = "/sources/{id}", tag = "sources", operation_id = "remove_source",
    params(("id" = String, Path, description = "Its name")),
    responses(
        (status = 204, description = "It is gone"),
        (status = 404, description = "There is no such source", body = rest::Problem, content_type = "application/problem+json"),
    )
)]
pub async fn remove(State(app): State<Arc<App>>, Path(id): Path<String>) -> Result<StatusCode, Failure> {
    app.sources.remove(&id).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Starts a work source, also after a restart of the master.
#[utoipa::path(
    post, path = "/sources/{id}/start", tag = "sources", operation_id = "start_source",
    params(("id" = String, Path, description = "Its name")),
    responses(
        (status = 200, body = shape::Source),
        (status = 404, description = "There is no such source", body = rest::Problem, content_type = "application/problem+json"),
    )
)]
pub async fn start(State(app): State<Arc<App>>, Path(id): Path<String>) -> Result<Json<shape::Source>, Failure> {
    Ok(Json(app.sources.start(&id).await?))
}

/// Stops a work source; what it has at workers is taken back.
#[utoipa::path(
    post, path = "/sources/{id}/stop", tag = "sources", operation_id = "stop_source",
    params(("id" = String, Path, description = "Its name")),
    responses(
        (status = 200, body = shape::Source),
        (status = 404, description = "There is no such source", body = rest::Problem, content_type = "application/problem+json"),
    )
)]
pub async fn stop(State(app): State<Arc<App>>, Path(id): Path<String>) -> Result<Json<shape::Source>, Failure> {
    Ok(Json(app.sources.stop(&id).await?))
}
