//! Errors as answers: RFC 9457 problem documents. Every error leaves the web through here, so that it has the same
//! form everywhere and a trace id under which the log knows it.

use std::fmt;

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use flota_proto::kinds::FieldError;
use flota_proto::rest;
use uuid::Uuid;

/// An error on its way to the client.
#[derive(Clone, Debug)]
pub struct Failure {
    problem: Box<rest::Problem>,
    retry_after_seconds: Option<u32>,
}

impl Failure {
    /// An error of `status`; `code` is for programs and never changes, `detail` for people.
    pub fn new(status: StatusCode, code: &str, detail: impl Into<String>) -> Self {
        let problem = rest::Problem {
            r#type: format!("urn:flota:problem:{code}"),
            title: status.canonical_reason().unwrap_or("Error").to_owned(),
            status: status.as_u16(),
            detail: detail.into(),
            code: code.to_owned(),
            trace_id: Uuid::new_v4().simple().to_string(),
            field: None,
        };
        Self { problem: Box::new(problem), retry_after_seconds: None }
    }

    /// 400.
    pub fn bad_request(code: &str, detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, code, detail)
    }

    /// 422 for a field of the body, with its path.
    pub fn invalid(error: &FieldError) -> Self {
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid_field", describe(error)).at(&error.path)
    }

    /// 404 for an address that leads nowhere.
    pub fn no_route(path: &str) -> Self {
        let detail = format!("there is no {path}; /api/v1/openapi.json says what there is");
        Self::new(StatusCode::NOT_FOUND, "no_such_route", detail)
    }

    /// Names the field, parameter or header that is wrong.
    #[must_use]
    pub fn at(mut self, field: &str) -> Self {
        self.problem.field = (!field.is_empty()).then(|| field.to_owned());
        self
    }

    /// Says when to try again.
    #[must_use]
    pub fn retry_after(mut self, seconds: u32) -> Self {
        self.retry_after_seconds = Some(seconds.max(1));
        self
    }

    /// The document.
    pub fn problem(&self) -> &rest::Problem {
        &self.problem
    }

    /// The document, to put into another.
    pub fn into_problem(self) -> Box<rest::Problem> {
        self.problem
    }

    fn log(&self) {
        let rest::Problem { status, code, trace_id, detail, .. } = &*self.problem;
        if *status >= 500 {
            tracing::warn!(status, code, trace_id, detail, "could not answer a request");
        } else {
            tracing::debug!(status, code, trace_id, "refused a request");
        }
    }
}

fn describe(error: &FieldError) -> String {
    if error.path.is_empty() || error.path == "." { error.message.clone() } else { error.to_string() }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.problem.detail)
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        self.log();
        let status = StatusCode::from_u16(self.problem.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let body = serde_json::to_vec(&self.problem).unwrap_or_default();
        let mut response = (status, body).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if let Some(seconds) = self.retry_after_seconds {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"flota\""));
        }
        response
    }
}

/// What a panic in a handler becomes.
pub fn of_panic(_: Box<dyn std::any::Any + Send + 'static>) -> Response {
    Failure::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", "the master made a mistake; its log says more")
        .into_response()
}
