//! A stand-in for the master's REST: keeps jobs in memory, ends an echo at once, and can be told to misbehave.

#![allow(clippy::unwrap_used)] // a panic here is a failed test

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::process::{Command, Output, Stdio};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread;

use axum::body::Body;
use axum::extract::{Path, Query, Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, patch, post};
use axum::{Json, Router};
use flota_proto::JobId;
use serde_json::{Value, json};
use tempfile::TempDir;

/// What the stand-in knows and does.
#[derive(Default)]
pub struct Fleet {
    /// In order of submission.
    pub jobs: Vec<Value>,
    /// What `GET /jobs/{id}/events` sends, one body a request; the last one again and again.
    pub events: Vec<String>,
    /// `last-event-id` of each of those requests.
    pub resumed_after: Vec<Option<String>>,
    /// Headers of the last `POST /jobs`.
    pub headers: HeaderMap,
    /// The next so many batches are refused with 429.
    pub busy: u32,
    /// The result of the job with this value is another one.
    pub spoiled: Option<u64>,
    /// Kinds that fail, with their error.
    pub failing: BTreeMap<String, Value>,
    /// Results of kinds other than echo.
    pub results: BTreeMap<String, Value>,
    /// The next so many looks at a job find it waiting.
    pub waits: u32,
    /// A token that every request must bring.
    pub token: Option<String>,
    /// `METHOD path` of each request.
    pub requests: Vec<String>,
}

type Shared = Arc<Mutex<Fleet>>;

/// A running stand-in.
pub struct Running {
    fleet: Shared,
    address: SocketAddr,
    home: TempDir,
}

impl Running {
    /// On a free port.
    pub fn start(fleet: Fleet) -> Self {
        let fleet = Arc::new(Mutex::new(fleet));
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let app = router(fleet.clone());
        thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let listener = tokio::net::TcpListener::from_std(listener).unwrap();
                axum::serve(listener, app).await.unwrap();
            });
        });
        Self { fleet, address, home: TempDir::new().unwrap() }
    }

    /// What it knows.
    pub fn fleet(&self) -> MutexGuard<'_, Fleet> {
        self.fleet.lock().unwrap()
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// `flota ARGS` against it.
    pub fn flota(&self, args: &[&str]) -> Ran {
        let mut command = flota();
        command.args(args).env("FLOTA_URL", format!("http://{}", self.address)).env("HOME", self.home.path());
        command.current_dir(self.home.path());
        Ran(command.output().unwrap())
    }
}

/// The command without the settings of this environment.
pub fn flota() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_flota"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("FLOTA_") || name == "GEMINI_API_KEY" {
            command.env_remove(name);
        }
    }
    command.stdin(Stdio::null());
    command
}

/// What a command did.
pub struct Ran(pub Output);

impl Ran {
    pub fn code(&self) -> i32 {
        self.0.status.code().unwrap()
    }

    pub fn stdout(&self) -> String {
        String::from_utf8(self.0.stdout.clone()).unwrap()
    }

    pub fn stderr(&self) -> String {
        String::from_utf8(self.0.stderr.clone()).unwrap()
    }

    /// Its output, when it succeeded.
    pub fn ok(&self) -> String {
        assert_eq!(self.code(), 0, "{}{}", self.stdout(), self.stderr());
        self.stdout()
    }

    /// Its error, when it failed with `code`.
    pub fn failed(&self, code: i32) -> String {
        assert_eq!(self.code(), code, "{}{}", self.stdout(), self.stderr());
        self.stderr()
    }
}

fn router(fleet: Shared) -> Router {
    let api = Router::new()
        .route("/jobs", get(list).post(submit))
        .route("/jobs/batch", post(batch))
        .route("/jobs/{id}", get(one).merge(patch(priority)))
        .route("/jobs/{id}/units", get(|| async { Json(json!({"items": [], "next_cursor": null})) }))
        .route("/jobs/{id}/events", get(events))
        .route("/jobs/{id}/{action}", post(act))
        .route("/workers", get(|| async { Json(json!({"items": [worker("idle")], "next_cursor": null})) }))
        .route("/workers/{id}", get(|| async { Json(worker("idle")) }))
        .route("/workers/{id}/drain", post(|| async { Json(worker("draining")) }))
        .route("/fleet", get(totals));
    Router::new()
        .nest("/api/v1", api)
        .route("/livez", get(|| async { "ok" }))
        .route("/readyz", get(|| async { problem(503, "the broker is away", "not_ready") }))
        .layer(middleware::from_fn_with_state(fleet.clone(), gate))
        .with_state(fleet)
}

async fn gate(State(fleet): State<Shared>, request: Request, next: Next) -> Response {
    let wanted = {
        let mut fleet = fleet.lock().unwrap();
        fleet.requests.push(format!("{} {}", request.method(), request.uri()));
        fleet.token.clone()
    };
    let sent = request.headers().get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    match wanted {
        Some(token) if sent != Some(format!("Bearer {token}").as_str()) => {
            problem(401, "no token was sent", "unauthorized")
        }
        _ => next.run(request).await,
    }
}

pub fn problem(status: u16, detail: &str, code: &str) -> Response {
    let body = json!({"type": "about:blank", "title": code, "status": status, "detail": detail, "code": code, "trace_id": "t-1"});
    (StatusCode::from_u16(status).unwrap(), [(header::RETRY_AFTER, "1")], Json(body)).into_response()
}

fn job(fleet: &Fleet, asked: &Value) -> Value {
    let kind = asked["kind"].as_str().unwrap();
    let error = fleet.failing.get(kind).cloned();
    let result = match kind {
        _ if error.is_some() => Value::Null,
        "echo" if fleet.spoiled.is_some() && asked["payload"]["value"].as_u64() == fleet.spoiled => {
            json!({"value": "?"})
        }
        "echo" => json!({"value": asked["payload"]["value"]}),
        other => fleet.results.get(other).cloned().unwrap_or(Value::Null),
    };
    json!({
        "id": asked["id"].as_str().map_or_else(|| JobId::generate().to_string(), str::to_owned), "kind": kind,
        "state": if error.is_some() { "failed" } else { "completed" }, "queue": "default", "project": null,
        "priority": asked["priority"].as_u64().unwrap_or(5), "owner": "local",
        "labels": asked.get("labels").cloned().unwrap_or_else(|| json!({})), "payload": asked["payload"],
        "created_at": "2026-11-21T09:30:00.000Z", "started_at": "2026-11-21T09:30:00.100Z",
        "finished_at": "2026-11-21T09:30:01.340Z", "failures": 0, "max_attempts": 3,
        "progress": {"fraction": 1.0, "units_total": 1, "units_done": 1}, "workers": ["w-1"], "result": result,
        "error": error, "waiting": null,
    })
}

async fn submit(State(fleet): State<Shared>, headers: HeaderMap, Json(asked): Json<Value>) -> Response {
    let mut fleet = fleet.lock().unwrap();
    fleet.headers = headers;
    if asked["payload"].get("value").is_some_and(|value| value == "refuse") {
        let mut body = json!({"type": "about:blank", "title": "Invalid", "status": 422, "detail": "may not be that", "code": "invalid"});
        body["trace_id"] = json!("t-2");
        body["field"] = json!("payload.value");
        return (StatusCode::UNPROCESSABLE_ENTITY, Json(body)).into_response();
    }
    let job = job(&fleet, &asked);
    fleet.jobs.push(job.clone());
    (StatusCode::CREATED, Json(job)).into_response()
}

async fn batch(State(fleet): State<Shared>, Json(asked): Json<Vec<Value>>) -> Response {
    let mut fleet = fleet.lock().unwrap();
    if fleet.busy > 0 {
        fleet.busy -= 1;
        return problem(429, "too many jobs wait", "busy");
    }
    let jobs: Vec<Value> = asked.iter().map(|asked| job(&fleet, asked)).collect();
    let answer: Vec<Value> = jobs.iter().map(|job| json!({"id": job["id"]})).collect();
    fleet.jobs.extend(jobs);
    (StatusCode::CREATED, Json(answer)).into_response()
}

async fn list(State(fleet): State<Shared>, Query(query): Query<BTreeMap<String, String>>) -> Json<Value> {
    let fleet = fleet.lock().unwrap();
    let limit: usize = query["limit"].parse().unwrap();
    assert!(limit <= 500, "the master gives at most 500");
    let from: usize = query.get("cursor").map_or(0, |cursor| cursor.parse().unwrap());
    let fits = |job: &&Value| {
        let label = query.get("label").and_then(|label| label.split_once('='));
        label.is_none_or(|(name, value)| job["labels"][name] == value)
            && query.get("state").is_none_or(|state| job["state"] == *state)
    };
    let all: Vec<&Value> = fleet.jobs.iter().rev().filter(fits).collect();
    let items: Vec<&Value> = all.iter().copied().skip(from).take(limit).collect();
    let next = (from + items.len() < all.len()).then(|| (from + items.len()).to_string());
    Json(json!({"items": items, "next_cursor": next}))
}

/// Answers with the job, as `change` left it.
fn with_job(fleet: &Shared, id: &str, change: impl FnOnce(&mut Value) -> Option<Response>) -> Response {
    let mut fleet = fleet.lock().unwrap();
    match fleet.jobs.iter_mut().find(|job| job["id"] == id) {
        Some(job) => change(job).unwrap_or_else(|| Json(job.clone()).into_response()),
        None => problem(404, &format!("there is no job {id}"), "not_found"),
    }
}

async fn one(State(fleet): State<Shared>, Path(id): Path<String>) -> Response {
    let waits = std::mem::take(&mut fleet.lock().unwrap().waits);
    fleet.lock().unwrap().waits = waits.saturating_sub(1);
    with_job(&fleet, &id, |job| {
        let mut job = job.clone();
        job["state"] = json!("pending");
        job["result"] = Value::Null;
        job["waiting"] = json!({"reason": "no_fitting_worker", "detail": "no worker is there that fits"});
        (waits > 0).then(|| Json(job).into_response())
    })
}

async fn priority(State(fleet): State<Shared>, Path(id): Path<String>, Json(body): Json<Value>) -> Response {
    with_job(&fleet, &id, |job| {
        job["priority"] = body["priority"].clone();
        None
    })
}

async fn act(State(fleet): State<Shared>, Path((id, action)): Path<(String, String)>) -> Response {
    with_job(&fleet, &id, |job| {
        if action == "cancel" {
            return Some(problem(409, "the job has ended already: completed", "ended"));
        }
        job["state"] = json!("pending");
        None
    })
}

async fn events(State(fleet): State<Shared>, headers: HeaderMap) -> Response {
    let mut fleet = fleet.lock().unwrap();
    let last = headers.get("last-event-id").and_then(|value| value.to_str().ok()).map(str::to_owned);
    fleet.resumed_after.push(last);
    let body = if fleet.events.len() > 1 { fleet.events.remove(0) } else { fleet.events[0].clone() };
    ([(header::CONTENT_TYPE, "text/event-stream")], Body::from(body)).into_response()
}

async fn totals(State(fleet): State<Shared>) -> Json<Value> {
    let completed = fleet.lock().unwrap().jobs.len();
    Json(json!({
        "workers": {"idle": 1}, "slots": {"echo": {"total": 256, "used": 0}, "ai": {"total": 64, "used": 3}},
        "queue": {"depth": 0, "oldest_age_ms": 0}, "hashrate": 0.0, "jobs": {"completed": completed},
    }))
}

fn worker(status: &str) -> Value {
    json!({
        "worker_id": "w-1", "language": "rust", "version": "0.1.0", "simple": false, "boot_id": "b", "status": status,
        "slots": {"ai": 64}, "prefetch": {}, "running": {"ai": 3}, "kinds": ["ai.chat"], "models": ["demo"],
        "capabilities": {"cores": 2, "memory_mib": 24000, "features": ["aes"], "hugepages": false, "gpus": []},
        "labels": {"zone": "a"}, "load": {"cpu": 0.5, "memory": 0.25}, "hashrate": 0.0,
        "connected_at": "2026-11-21T09:30:00.000Z", "last_seen_at": "2026-11-21T09:30:00.000Z",
    })
}
