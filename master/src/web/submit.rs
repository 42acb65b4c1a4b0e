//! `POST /jobs`: one job in, the job out. And the steps that single and batch submission share.

use std::sync::Arc;

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use flota_proto::kinds::FieldError;
use flota_proto::rest::{self, SubmitJob};
use sha2::{Digest, Sha256};

use super::App;
use super::extract::{self, Body, Caller};
use super::problem::Failure;
use crate::handle::IdempotencyKey;
use crate::submit::NewJob;

const KEY: &str = "Idempotency-Key";
const KEY_BYTES_MAX: usize = 255;

/// Submits a job.
///
/// It is in the store when this answers. With an `Idempotency-Key` the same request can be repeated for 24 hours; with an
/// `id` of the client's own, for ever.
#[utoipa::path(
    post, path = "/jobs", tag = "jobs", operation_id = "submit_job",
    request_body = SubmitJob,
    params(
        ("Idempotency-Key" = Option<String>, Header, description = "At most 255 bytes, kept 24 h"),
        ("X-Flota-Owner" = Option<String>, Header, description = "Who submits; `local` without it"),
        ("X-Flota-Api-Key" = Option<String>, Header, description = "The user's own key for the AI provider; kept sealed until the job ends"),
        ("X-Flota-Conversation-Secret" = Option<String>, Header, description = "Opens a conversation of somebody else's"),
    ),
    responses(
        (status = 201, description = "Accepted", body = rest::Job, headers(("Location" = String))),
        (status = 400, description = "No JSON", body = rest::Problem, content_type = "application/problem+json"),
        (status = 409, description = "The id was used with another body, or the key's first request is in work", body = rest::Problem, content_type = "application/problem+json"),
        (status = 413, description = "Larger than 32 MiB", body = rest::Problem, content_type = "application/problem+json"),
        (status = 422, description = "A field is wrong", body = rest::Problem, content_type = "application/problem+json"),
        (status = 429, description = "Too many", body = rest::Problem, content_type = "application/problem+json", headers(("Retry-After" = u32))),
    )
)]
pub async fn submit(
    State(app): State<Arc<App>>,
    caller: Caller,
    headers: HeaderMap,
    Body(body): Body,
) -> Result<Response, Failure> {
    let key = idempotency(&headers, &caller, "/api/v1/jobs", &body)?;
    let job = extract::json_object::<SubmitJob>(&body)?;
    let job = NewJob::from_submit(job, &caller.principal, caller.api_key).map_err(|e| Failure::invalid(&e))?;
    let job = job.with_conversation_secret(caller.conversation_secret);
    let answers = app.handle.submit(caller.principal, vec![job], key).await?;
    let Some(answer) = answers.into_iter().next() else {
        return Err(Failure::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", "the job was not answered"));
    };
    let job = app.handle.job(answer?, true).await?;
    let location = format!("/api/v1/jobs/{}", job.id);
    Ok((StatusCode::CREATED, [(header::LOCATION, location)], axum::Json(job)).into_response())
}

/// One job from its JSON.
pub fn job_from(json: &str, caller: &Caller) -> Result<NewJob, FieldError> {
    flota_proto::kinds::object("", json)?;
    let job: SubmitJob = flota_proto::kinds::parse("", json)?;
    let job = NewJob::from_submit(job, &caller.principal, caller.api_key.clone())?;
    Ok(job.with_conversation_secret(caller.conversation_secret.clone()))
}

/// The request's key, with the digest that tells whether it comes with the same body again.
pub fn idempotency(
    headers: &HeaderMap,
    caller: &Caller,
    path: &str,
    body: &[u8],
) -> Result<Option<IdempotencyKey>, Failure> {
    let Some(key) = extract::header_text(headers, KEY, KEY_BYTES_MAX)? else { return Ok(None) };
    let digest =
        Sha256::new().chain_update("POST ").chain_update(path).chain_update("\n").chain_update(body).finalize();
    Ok(Some(IdempotencyKey { owner: caller.principal.owner.clone(), key: key.to_owned(), body_digest: digest.into() }))
}
