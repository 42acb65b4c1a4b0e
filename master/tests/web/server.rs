//! One web side on a free port, and how to talk HTTP to it.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use flota_master::handle::Handle;
use flota_master::logs::LogHub;
use flota_master::seal::Sealer;
use flota_master::sources::{Book, Sources};
use flota_master::verifier::Verifier;
use flota_master::web::{self, WebConfig, WebError};
use flota_proto::mqtt::LogLine;
use reqwest::{Client, Method, RequestBuilder, Response, StatusCode};
use serde_json::Value;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

use crate::fake::Fake;

pub const DEADLINE: Duration = Duration::from_secs(10);

pub fn line(message: &str) -> LogLine {
    let json = serde_json::json!({ "timestamp": 1, "source": "w-1", "message": message, "worker_id": "w-1" });
    serde_json::from_value(json).unwrap()
}

pub struct Server {
    pub address: SocketAddr,
    pub fake: Fake,
    handle: Handle,
    pub logs: LogHub,
    pub http: Client,
    pub tasks: TaskTracker,
    pub stop: CancellationToken,
    _stop: DropGuard,
}

pub fn config() -> WebConfig {
    WebConfig {
        listen: ([127, 0, 0, 1], 0).into(),
        token: None,
        allowed_origins: Vec::new(),
        browsers_max: 1000,
        streams_max: 1000,
        version: "1.2.3".into(),
        tasks: TaskTracker::new(),
    }
}

impl Server {
    pub async fn start() -> Self {
        Self::with(config()).await.unwrap()
    }

    pub async fn with(config: WebConfig) -> Result<Self, WebError> {
        let (fake, handle) = Fake::start();
        Self::over(fake, handle, config).await
    }

    /// A master that comes after this one, which stops: what was stored is there, what was in memory is not.
    pub async fn restart(self) -> Self {
        self.stop.cancel();
        self.tasks.close();
        tokio::time::timeout(DEADLINE, self.tasks.wait()).await.expect("it stops");
        Self::over(self.fake, self.handle, config()).await.unwrap()
    }

    async fn over(fake: Fake, handle: Handle, config: WebConfig) -> Result<Self, WebError> {
        let logs = LogHub::new();
        let stop = CancellationToken::new();
        let tasks = config.tasks.clone();
        let prometheus = web::metrics::install().unwrap();
        let book = Book::open(Path::new(":memory:"), 0, Sealer::ephemeral()).unwrap();
        let sources = Sources::new(handle.clone(), Arc::default(), Verifier::start().unwrap(), book);
        let address = web::start(config, handle.clone(), sources, logs.clone(), prometheus, stop.clone()).await?;
        let http = Client::builder().timeout(DEADLINE).no_proxy().build().unwrap();
        Ok(Self { address, fake, handle, logs, http, tasks, _stop: stop.clone().drop_guard(), stop })
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    pub fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.http.request(method, self.url(path))
    }

    pub fn get(&self, path: &str) -> RequestBuilder {
        self.request(Method::GET, path)
    }

    pub fn post(&self, path: &str, body: impl Into<reqwest::Body>) -> RequestBuilder {
        self.request(Method::POST, path).header("content-type", "application/json").body(body)
    }

    /// Submits `body` and answers with the job.
    pub async fn submit(&self, body: &Value) -> Value {
        let response = self.post("/api/v1/jobs", body.to_string()).send().await.unwrap();
        assert_eq!(response.status(), StatusCode::CREATED);
        response.json().await.unwrap()
    }
}

/// Asserts that an answer is a problem document and answers with it.
pub async fn problem(response: Response, status: u16, code: &str) -> Value {
    assert_eq!(response.headers()["content-type"], "application/problem+json");
    let got = response.status().as_u16();
    let problem: Value = response.json().await.unwrap();
    assert_eq!((got, problem["code"].as_str()), (status, Some(code)), "{problem}");
    assert_eq!(problem["status"], status);
    for field in ["type", "title", "detail", "trace_id"] {
        assert!(problem[field].as_str().is_some_and(|text| !text.is_empty()), "{field} is missing in {problem}");
    }
    problem
}

/// Waits until `done`, checking often.
pub async fn until(what: &str, mut done: impl FnMut() -> bool) {
    let wait = async {
        while !done() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(DEADLINE, wait).await.unwrap_or_else(|_| panic!("timed out: {what}"));
}
