//! `POST /jobs/batch`: the hot path. Each item is parsed once, straight from the body; what is wrong with one is told
//! in its place and stops no other.

use std::sync::Arc;

use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use flota_proto::kinds::FieldError;
use flota_proto::rest::{self, Submitted};
use serde_json::value::RawValue;

use super::App;
use super::extract::{self, Body, Caller};
use super::problem::Failure;
use super::submit::{idempotency, job_from};
use crate::handle;
use crate::submit::NewJob;

/// The most jobs of one batch.
const JOBS_MAX: usize = 10_000;
/// After so many other requests get their turn.
const SLICE: usize = 1_000;

/// Submits 1 to 10,000 jobs.
///
/// Not atomic: a job that is refused doesn't stop the others. The answers are in the order of the jobs.
#[utoipa::path(
    post, path = "/jobs/batch", tag = "jobs", operation_id = "submit_jobs",
    request_body = Vec<rest::SubmitJob>,
    params(
        ("Idempotency-Key" = Option<String>, Header, description = "One for the whole batch; at most 255 bytes, kept 24 h"),
        ("X-Flota-Owner" = Option<String>, Header, description = "Who submits; `local` without it"),
        ("X-Flota-Api-Key" = Option<String>, Header, description = "The user's own key for the AI provider; never stored"),
    ),
    responses(
        (status = 201, description = "An answer for each job", body = Vec<Submitted>),
        (status = 422, description = "Empty, too long, or no array", body = rest::Problem, content_type = "application/problem+json"),
        (status = 429, description = "Too many; none was accepted", body = rest::Problem, content_type = "application/problem+json", headers(("Retry-After" = u32))),
    )
)]
pub async fn submit_batch(
    State(app): State<Arc<App>>,
    caller: Caller,
    headers: HeaderMap,
    Body(body): Body,
) -> Result<Response, Failure> {
    let key = idempotency(&headers, &caller, "/api/v1/jobs/batch", &body)?;
    let items: Vec<&RawValue> = extract::json(&body)?;
    if !(1..=JOBS_MAX).contains(&items.len()) {
        let error = FieldError::new("", format!("a batch is 1 to {JOBS_MAX} jobs, this has {}", items.len()));
        return Err(Failure::invalid(&error));
    }
    let (jobs, wrong) = parse(&items, &caller).await;
    let answers = if jobs.is_empty() { Vec::new() } else { app.handle.submit(caller.principal, jobs, key).await? };
    let body = answer(items.len(), answers, wrong);
    let json = HeaderValue::from_static("application/json");
    Ok((StatusCode::CREATED, [(header::CONTENT_TYPE, json)], body).into_response())
}

async fn parse(items: &[&RawValue], caller: &Caller) -> (Vec<NewJob>, Vec<(usize, FieldError)>) {
    let mut jobs = Vec::with_capacity(items.len());
    let mut wrong = Vec::new();
    for (index, item) in items.iter().enumerate() {
        if index > 0 && index % SLICE == 0 {
            tokio::task::yield_now().await;
        }
        match job_from(item.get(), caller) {
            Ok(job) => jobs.push(job),
            Err(error) => wrong.push((index, error)),
        }
    }
    (jobs, wrong)
}

/// `[{id} | {error}]` in the order of the items: `wrong` ones never reached the dispatcher, `answers` are for the others.
fn answer(items: usize, answers: handle::Submitted, wrong: Vec<(usize, FieldError)>) -> Vec<u8> {
    let mut answers = answers.into_iter();
    let mut wrong = wrong.into_iter().peekable();
    let mut out = Vec::with_capacity(items * 48);
    for index in 0..items {
        out.push(if index == 0 { b'[' } else { b',' });
        let submitted = match wrong.next_if(|(at, _)| *at == index) {
            Some((_, error)) => Submitted::Refused { error: Failure::invalid(&error).into_problem() },
            None => match answers.next() {
                Some(Ok(id)) => Submitted::Accepted { id },
                Some(Err(refused)) => Submitted::Refused { error: Failure::from(refused).into_problem() },
                None => Submitted::Refused { error: unanswered().into_problem() },
            },
        };
        // Writing to memory does not fail.
        let _ = serde_json::to_writer(&mut out, &submitted);
    }
    out.push(b']');
    out
}

fn unanswered() -> Failure {
    Failure::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", "the job was not answered")
}
