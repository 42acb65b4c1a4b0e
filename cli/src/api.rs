//! The fleet's REST as the commands use it, and its errors as people read them.

use std::time::Duration;

use bytes::Bytes;
use flota_common::config::Settings;
use flota_proto::JobId;
use flota_proto::rest::{Job, Problem};
use reqwest::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue, RETRY_AFTER};
use reqwest::{Client, Method, RequestBuilder, Response, StatusCode};
use secrecy::{ExposeSecret, SecretString};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use url::{Url, form_urlencoded};

use crate::failure::Failure;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);
/// How long the master may hold a request for a job's end.
pub const WAIT_MS: u64 = 30_000;
/// How often and how long apart a client that waits tries again when the master is away.
const AWAY_TRIES: u32 = 12;
const AWAY_PAUSE: Duration = Duration::from_millis(2500);

/// A way to the fleet.
#[derive(Clone, Debug)]
pub struct Api {
    http: Client,
    base: String,
}

impl Api {
    /// To the fleet of `settings`.
    pub fn new(settings: &Settings) -> Result<Self, Failure> {
        let base = settings.base_url();
        let mut headers = HeaderMap::new();
        if let Some(token) = &settings.token {
            let mut value = HeaderValue::from_str(&format!("Bearer {}", token.expose_secret()))
                .map_err(|_| Failure::Usage("the token can't stand in a header".into()))?;
            value.set_sensitive(true);
            headers.insert(AUTHORIZATION, value);
        }
        let mut builder = Client::builder()
            .default_headers(headers)
            .connect_timeout(CONNECT_TIMEOUT)
            .tcp_nodelay(true)
            .redirect(reqwest::redirect::Policy::none())
            .user_agent(concat!("flota/", env!("CARGO_PKG_VERSION")));
        if is_local(&base) {
            builder = builder.no_proxy();
        }
        let http = builder.build().map_err(|error| Failure::Failed(format!("can't make an HTTP client: {error}")))?;
        Ok(Self { http, base })
    }

    /// Where the fleet is.
    pub fn base(&self) -> &str {
        &self.base
    }

    /// A request to `path` below `/api/v1`.
    pub fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.http.request(method, format!("{}/api/v1{path}", self.base)).timeout(ANSWER_TIMEOUT)
    }

    /// A request outside the prefix.
    pub fn root_request(&self, path: &str) -> RequestBuilder {
        self.http.get(format!("{}{path}", self.base)).timeout(ANSWER_TIMEOUT)
    }

    /// Sends, and turns whatever is no success into a [`Failure`].
    pub async fn send(&self, request: RequestBuilder) -> Result<Response, Failure> {
        let response = request.send().await.map_err(|error| self.unreachable(&error))?;
        if response.status().is_success() { Ok(response) } else { Err(self.refusal(response).await) }
    }

    /// Sends and reads the whole answer.
    pub async fn bytes(&self, request: RequestBuilder) -> Result<Bytes, Failure> {
        self.send(request).await?.bytes().await.map_err(|error| self.unreachable(&error))
    }

    /// As [`Api::bytes`]; `None` where the fleet takes nothing more for now (429).
    pub async fn bytes_unless_busy(&self, request: RequestBuilder) -> Result<Option<Bytes>, Failure> {
        let response = request.send().await.map_err(|error| self.unreachable(&error))?;
        match response.status() {
            StatusCode::TOO_MANY_REQUESTS => Ok(None),
            status if status.is_success() => response.bytes().await.map(Some).map_err(|error| self.unreachable(&error)),
            _ => Err(self.refusal(response).await),
        }
    }

    /// Sends and reads the answer as JSON.
    pub async fn json<T: DeserializeOwned>(&self, request: RequestBuilder) -> Result<T, Failure> {
        self.parse(&self.bytes(request).await?)
    }

    /// An answer as JSON.
    pub fn parse<'a, T: Deserialize<'a>>(&self, bytes: &'a [u8]) -> Result<T, Failure> {
        serde_json::from_slice(bytes).map_err(|error| {
            Failure::Failed(format!("{} answers something that this flota does not understand: {error}", self.base))
        })
    }

    /// `GET path`
    pub async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, Failure> {
        self.json(self.request(Method::GET, path)).await
    }

    /// `POST path` with a body where there is one.
    pub async fn post<T: DeserializeOwned>(&self, path: &str, body: Option<&impl Serialize>) -> Result<T, Failure> {
        let request = self.request(Method::POST, path);
        self.json(match body {
            Some(body) => request.json(body),
            None => request,
        })
        .await
    }

    /// Submits a job, with the user's own key where given.
    pub async fn submit(&self, job: &impl Serialize, key: Option<&SecretString>) -> Result<Job, Failure> {
        let mut request = self.request(Method::POST, "/jobs").json(job);
        if let Some(key) = key {
            let mut value = HeaderValue::from_str(key.expose_secret())
                .map_err(|_| Failure::Usage("GEMINI_API_KEY can't stand in a header".into()))?;
            value.set_sensitive(true);
            request = request.header("x-flota-api-key", value);
        }
        self.json(request).await
    }

    /// A job as soon as it has ended or `wait_ms` are over. A master that is away for a while (it restarts) is waited
    /// for.
    pub async fn job_within(&self, id: JobId, wait_ms: u64) -> Result<Bytes, Failure> {
        let path = format!("/jobs/{id}?wait_ms={wait_ms}");
        let mut tries = 0;
        loop {
            match self.bytes(self.request(Method::GET, &path)).await {
                Err(Failure::Unreachable(_)) if tries < AWAY_TRIES => tries += 1,
                answer => return answer,
            }
            tokio::time::sleep(AWAY_PAUSE).await;
        }
    }

    /// What a failed transfer means.
    pub fn unreachable(&self, error: &reqwest::Error) -> Failure {
        let base = &self.base;
        if error.is_builder() {
            return Failure::Usage(format!("can't ask {base}: {}", innermost(error)));
        }
        let what = if error.is_timeout() { "it does not answer in time".into() } else { innermost(error) };
        let hint = if error.is_connect() && is_local(base) {
            "Start it with `flota up`, or say with --url (FLOTA_URL) where it is."
        } else {
            "Check --url (FLOTA_URL) and the network."
        };
        Failure::Unreachable(format!("can't reach the fleet at {base}: {what}. {hint}"))
    }

    async fn refusal(&self, response: Response) -> Failure {
        let status = response.status();
        let retry_after = response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok()).map(str::to_owned);
        let body = response.bytes().await.unwrap_or_default();
        let problem: Option<Problem> = serde_json::from_slice(&body).ok();
        describe(&self.base, status, retry_after.as_deref(), problem)
    }

    /// An event stream of `path`, from after `last` where given.
    pub fn events_request(&self, path: &str, last: Option<u64>) -> RequestBuilder {
        let request = self.http.get(format!("{}/api/v1{path}", self.base)).header(ACCEPT, "text/event-stream");
        match last {
            Some(seq) => request.header("last-event-id", seq.to_string()),
            None => request,
        }
    }

    /// `POST` of a body that was formatted by hand.
    pub fn post_raw(&self, path: &str, body: impl Into<reqwest::Body>) -> RequestBuilder {
        self.request(Method::POST, path).header(CONTENT_TYPE, "application/json").body(body)
    }
}

/// `path` with a query.
pub fn with_query(path: &str, query: &[(&str, String)]) -> String {
    let mut text = form_urlencoded::Serializer::new(String::new());
    format!("{path}?{}", text.extend_pairs(query).finish())
}

/// Encodes what stands in a path: ids hold no `/`, but may hold `%` or `?`.
pub fn segment(id: &str) -> String {
    let mut text = String::with_capacity(id.len());
    for byte in id.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~:@!$&'()*,;=".contains(&byte) {
            text.push(char::from(byte));
        } else {
            text.push_str(&format!("%{byte:02X}"));
        }
    }
    text
}

fn is_local(base: &str) -> bool {
    let url = Url::parse(base).ok();
    let host = url.as_ref().and_then(Url::host_str).unwrap_or_default().trim_matches(['[', ']']);
    host == "localhost" || host.parse().is_ok_and(|ip: std::net::IpAddr| ip.is_loopback())
}

/// The last cause says what happened; what stands before it is the library's.
fn innermost(error: &dyn std::error::Error) -> String {
    let mut last = error;
    while let Some(source) = last.source() {
        last = source;
    }
    last.to_string()
}

fn describe(base: &str, status: StatusCode, retry_after: Option<&str>, problem: Option<Problem>) -> Failure {
    let Some(problem) = problem else {
        let text = format!("{base} answers {status}: is there a fleet? Check --url (FLOTA_URL).");
        return if status.is_server_error() { Failure::Unreachable(text) } else { Failure::Usage(text) };
    };
    let mut text = match &problem.field {
        Some(field) if !problem.detail.starts_with(field.as_str()) => format!("{field}: {}", problem.detail),
        _ => problem.detail.clone(),
    };
    if text.is_empty() {
        text = problem.title.clone();
    }
    match status {
        StatusCode::UNAUTHORIZED => Failure::Usage(format!(
            "{base} wants a token: {text}. Set FLOTA_TOKEN or give --token-file with the one that the master was started with."
        )),
        StatusCode::TOO_MANY_REQUESTS => {
            let when = retry_after.map_or_else(String::new, |seconds| format!(" Try again in {seconds} s."));
            Failure::Unreachable(format!("the fleet takes nothing more now: {text}.{when}"))
        }
        StatusCode::SERVICE_UNAVAILABLE | StatusCode::BAD_GATEWAY | StatusCode::GATEWAY_TIMEOUT => {
            Failure::Unreachable(format!("the fleet is not ready: {text}"))
        }
        status if status.is_server_error() => {
            Failure::Failed(format!("the master failed: {text} (trace {}, to be found in its log)", problem.trace_id))
        }
        _ => Failure::Usage(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem(status: u16, detail: &str, field: Option<&str>) -> Problem {
        Problem {
            r#type: "about:blank".into(),
            title: "Title".into(),
            status,
            detail: detail.into(),
            code: "code".into(),
            trace_id: "abc".into(),
            field: field.map(str::to_owned),
        }
    }

    #[test]
    fn a_refusal_names_field_and_reason() {
        let describe =
            |status: u16, problem| describe("http://f", StatusCode::from_u16(status).unwrap(), None, problem);
        let refused = describe(422, Some(problem(422, "needs at least one input", Some("payload.inputs"))));
        assert!(matches!(&refused, Failure::Usage(text) if text == "payload.inputs: needs at least one input"));
        let twice = describe(422, Some(problem(422, "payload.key: too long", Some("payload.key"))));
        assert_eq!(twice.message(), "payload.key: too long");
        assert!(describe(401, Some(problem(401, "no token", None))).message().contains("FLOTA_TOKEN"));
        assert!(matches!(describe(503, Some(problem(503, "stopping", None))), Failure::Unreachable(_)));
        assert!(describe(500, Some(problem(500, "oh", None))).message().contains("trace abc"));
        assert!(matches!(describe(404, None), Failure::Usage(_)));
    }

    #[test]
    fn ids_cannot_leave_their_place_in_a_path() {
        assert_eq!(segment("node-1:2"), "node-1:2");
        assert_eq!(segment("a?b%/\""), "a%3Fb%25%2F%22");
    }
}
