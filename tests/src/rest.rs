//! A client of REST that keeps status and body as they came.

use std::time::Duration;

use reqwest::Method;
use reqwest::header::HeaderMap;
use serde_json::{Value, json};

use crate::until;

/// What REST answered.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// The headers.
    pub headers: HeaderMap,
    /// The body; `null` where it is no JSON.
    pub body: Value,
    /// The body as it came.
    pub text: String,
}

impl Answer {
    /// The answer, when it has `status`.
    ///
    /// # Panics
    /// When it has another.
    #[allow(clippy::must_use_candidate, clippy::return_self_not_must_use)] // often only the check is wanted
    pub fn expect(self, status: u16) -> Self {
        assert_eq!(self.status, status, "{}", self.text);
        self
    }

    /// A header as text.
    #[must_use]
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }
}

/// REST of one master.
#[derive(Clone, Debug)]
pub struct Rest {
    base: String,
    client: reqwest::Client,
}

impl Rest {
    /// Of the master at `url`.
    ///
    /// # Panics
    /// When no client can be made.
    #[must_use]
    pub fn new(url: &str) -> Self {
        let client = reqwest::Client::builder().timeout(Duration::from_secs(60)).no_proxy().build();
        Self { base: url.to_owned(), client: client.expect("failed to make an HTTP client") }
    }

    /// Of the master at `url`, which wants `token`.
    ///
    /// # Panics
    /// When no client can be made.
    #[must_use]
    pub fn with_token(url: &str, token: &str) -> Self {
        let mut headers = reqwest::header::HeaderMap::new();
        let value = format!("Bearer {token}").parse().expect("a token is a header's value");
        headers.insert(reqwest::header::AUTHORIZATION, value);
        let client =
            reqwest::Client::builder().timeout(Duration::from_secs(60)).no_proxy().default_headers(headers).build();
        Self { base: url.to_owned(), client: client.expect("failed to make an HTTP client") }
    }

    /// A request to `path` below `/api/v1`, or to `path` itself where that begins with `//`.
    pub fn request(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        let path =
            path.strip_prefix('/').filter(|p| p.starts_with('/')).map_or(format!("/api/v1{path}"), str::to_owned);
        self.client.request(method, format!("{}{path}", self.base))
    }

    /// Sends `request`.
    ///
    /// # Panics
    /// When there is no answer.
    pub async fn send(&self, request: reqwest::RequestBuilder) -> Answer {
        self.try_send(request).await.unwrap_or_else(|e| panic!("no answer: {e:?}"))
    }

    /// Sends `request`.
    ///
    /// # Errors
    /// When there is no answer.
    pub async fn try_send(&self, request: reqwest::RequestBuilder) -> Result<Answer, reqwest::Error> {
        let response = request.send().await?;
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        let text = response.text().await?;
        Ok(Answer { status, headers, body: serde_json::from_str(&text).unwrap_or(Value::Null), text })
    }

    /// `GET`
    pub async fn get(&self, path: &str) -> Answer {
        self.send(self.request(Method::GET, path)).await
    }

    /// `POST` of JSON.
    pub async fn post(&self, path: &str, body: &Value) -> Answer {
        self.send(self.request(Method::POST, path).json(body)).await
    }

    /// `POST` of any text as JSON.
    pub async fn post_text(&self, path: &str, body: impl Into<String>) -> Answer {
        let request = self.request(Method::POST, path).header("content-type", "application/json");
        self.send(request.body(body.into())).await
    }

    /// `PATCH` of JSON.
    pub async fn patch(&self, path: &str, body: &Value) -> Answer {
        self.send(self.request(Method::PATCH, path).json(body)).await
    }

    /// Submits a job and gives its id.
    ///
    /// # Panics
    /// When it is not accepted.
    pub async fn submit(&self, job: Value) -> String {
        let answer = self.post("/jobs", &job).await.expect(201);
        id(&answer.body)
    }

    /// Submits an `echo` that takes `sleep_ms`.
    pub async fn echo(&self, value: impl Into<Value>, sleep_ms: u64) -> String {
        self.submit(json!({"kind": "echo", "payload": {"value": value.into(), "sleep_ms": sleep_ms}})).await
    }

    /// Submits as one batch and gives the ids in order.
    ///
    /// # Panics
    /// When one is not accepted.
    pub async fn batch(&self, jobs: Vec<Value>) -> Vec<String> {
        let answer = self.post("/jobs/batch", &Value::Array(jobs)).await.expect(201);
        answer.body.as_array().unwrap_or_else(|| panic!("no list: {}", answer.text)).iter().map(id).collect()
    }

    /// The job.
    ///
    /// # Panics
    /// When there is none.
    pub async fn job(&self, id: &str) -> Value {
        self.get(&format!("/jobs/{id}")).await.expect(200).body
    }

    /// The units of a job.
    ///
    /// # Panics
    /// When there is no such job.
    pub async fn units(&self, id: &str) -> Vec<Value> {
        let answer = self.get(&format!("/jobs/{id}/units?limit=500")).await.expect(200);
        answer.body["items"].as_array().cloned().unwrap_or_default()
    }

    /// Waits until the job has one of `states`, and gives it.
    ///
    /// # Panics
    /// After the deadline, with the job.
    pub async fn reaches(&self, id: &str, states: &[&str]) -> Value {
        until(&format!("job {id} is {}", states.join(" or ")), || async {
            let job = self.job(id).await;
            if states.iter().any(|state| job["state"] == *state) { Ok(job) } else { Err(job) }
        })
        .await
    }

    /// Waits until the job has ended.
    pub async fn ended(&self, id: &str) -> Value {
        self.reaches(id, &["completed", "failed", "cancelled"]).await
    }

    /// Waits until the job has completed.
    ///
    /// # Panics
    /// When it ends otherwise.
    pub async fn completed(&self, id: &str) -> Value {
        let job = self.ended(id).await;
        assert_eq!(job["state"], "completed", "{job}");
        job
    }
}

fn id(body: &Value) -> String {
    body["id"].as_str().unwrap_or_else(|| panic!("no id in {body}")).to_owned()
}

/// The time after `wait`, as REST takes it.
#[must_use]
pub fn in_future(wait: Duration) -> String {
    flota_common::clock::now().after(wait).to_rfc3339()
}
