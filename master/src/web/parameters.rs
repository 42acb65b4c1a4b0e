//! Which query parameters a call takes: those that the OpenAPI document names. All others are refused here, for every call.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use axum::extract::{MatchedPath, Query, Request, State};
use axum::http::Method;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use utoipa::openapi::OpenApi;
use utoipa::openapi::path::{Operation, ParameterIn};

use super::extract::bad_parameter;
use super::problem::Failure;

/// By path, the names that each method takes.
pub struct Parameters(BTreeMap<String, Vec<(Method, BTreeSet<String>)>>);

impl Parameters {
    /// As `document` has them; its own path is not in it and takes none.
    pub fn of(document: &OpenApi) -> Self {
        let calls = document.paths.paths.iter().map(|(path, item)| {
            let calls = [
                (Method::GET, &item.get),
                (Method::POST, &item.post),
                (Method::PATCH, &item.patch),
                (Method::PUT, &item.put),
                (Method::DELETE, &item.delete),
            ];
            let calls = calls.into_iter().filter_map(|(method, call)| Some((method, names(call.as_ref()?))));
            (path.clone(), calls.collect())
        });
        Self(calls.collect())
    }

    fn takes(&self, path: &str, method: &Method, name: &str) -> bool {
        // Who asks only for the headers asks as for the whole.
        let method = if method == Method::HEAD { &Method::GET } else { method };
        let calls = self.0.get(path).map(Vec::as_slice).unwrap_or_default();
        // Another method than there is gets its own answer.
        let call = calls.iter().find(|(known, _)| known == method);
        call.map_or(!calls.is_empty(), |(_, names)| names.contains(name))
    }
}

fn names(call: &Operation) -> BTreeSet<String> {
    let parameters = call.parameters.iter().flatten();
    parameters.filter(|one| one.parameter_in == ParameterIn::Query).map(|one| one.name.clone()).collect()
}

/// Refuses a call of the API with a parameter that it does not take.
pub async fn check(State(parameters): State<Arc<Parameters>>, request: Request, next: Next) -> Response {
    match unknown(&parameters, &request) {
        Some(failure) => failure.into_response(),
        None => next.run(request).await,
    }
}

fn unknown(parameters: &Parameters, request: &Request) -> Option<Failure> {
    let path = request.extensions().get::<MatchedPath>()?.as_str();
    if !path.starts_with("/api/v1/") {
        return None;
    }
    let pairs = match Query::<Vec<(String, String)>>::try_from_uri(request.uri()) {
        Ok(Query(pairs)) => pairs,
        Err(error) => return Some(Failure::bad_request("bad_query", error.body_text())),
    };
    let (name, _) = pairs.into_iter().find(|(name, _)| !parameters.takes(path, request.method(), name))?;
    Some(bad_parameter(&name, "is no parameter here"))
}
