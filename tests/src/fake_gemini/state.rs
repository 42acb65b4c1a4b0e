//! What the stand-in keeps: scripts that wait, and what it was sent.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use flota_common::clock;
use serde::Serialize;
use serde_json::Value;
use tokio::sync::Notify;

use super::Options;
use super::errors::Trouble;
use super::reply::{Piece, Reply, Script};

/// A request as it came.
#[derive(Clone, Debug, Serialize)]
pub struct Seen {
    /// `GET` or `POST`.
    pub method: String,
    /// Without the query.
    pub path: String,
    /// After the question mark.
    pub query: String,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    /// `null` where there was none.
    pub body: Value,
    /// How it ended.
    pub ended: Ended,
}

impl Seen {
    /// The value of a header.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }
}

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Ended {
    /// It has not.
    Open,
    /// Everything was written.
    Answered,
    /// The client closed the connection before.
    Closed,
}

#[derive(Debug)]
pub struct State {
    pub options: Options,
    /// Calls that are being answered.
    open: AtomicUsize,
    go_on: Notify,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    seen: Vec<Seen>,
    queue: VecDeque<Reply>,
    models: HashMap<String, Reply>,
    questions: HashMap<String, VecDeque<Reply>>,
    calls: HashMap<String, VecDeque<Instant>>,
}

impl State {
    pub fn new(options: Options) -> Self {
        Self { options, open: AtomicUsize::new(0), go_on: Notify::new(), inner: Mutex::default() }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn queue(&self, reply: Reply) {
        self.lock().queue.push_back(reply);
    }

    pub fn set_model(&self, model: String, reply: Reply) {
        self.lock().models.insert(model, reply);
    }

    pub fn queue_question(&self, question: String, reply: Reply) {
        self.lock().questions.entry(question).or_default().push_back(reply);
    }

    /// The reply that waits for this question.
    pub fn for_question(&self, question: &str) -> Option<Reply> {
        self.lock().questions.get_mut(question)?.pop_front()
    }

    pub fn seen(&self) -> Vec<Seen> {
        self.lock().seen.clone()
    }

    /// The stream that holds goes on; one that is about to will not stop.
    pub fn go_on(&self) {
        self.go_on.notify_one();
    }

    pub fn open(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }

    pub fn last_ended(&self) -> Option<Ended> {
        self.lock().seen.last().map(|seen| seen.ended)
    }

    /// The reply to a chat call of `model`; `None`: the default one.
    pub fn scripted(&self, model: &str) -> Option<Reply> {
        let inner = &mut *self.lock();
        inner.models.get(model).cloned().or_else(|| inner.queue.pop_front())
    }

    pub fn default_script(&self, question: &str, finish: &str) -> Script {
        let answer = format!("You said: {question}. And so it goes on,");
        let fill = (1..).map(|number| format!(" word {number}"));
        let words = answer.split_inclusive(' ').map(str::to_owned).chain(fill);
        let mut script = Script::of(words.take(self.options.words).map(Piece::Text));
        script.pieces.push(Piece::Finish(finish.to_owned()));
        script.pause_ms = self.options.word_pause.as_millis() as u64;
        script.after(self.options.first_delay)
    }

    /// Counts a call of `key`; an error when it is one too many in this minute.
    pub fn count(&self, key: &str) -> Result<(), Trouble> {
        let Some(limit) = self.options.per_minute else { return Ok(()) };
        let now = clock::instant();
        let inner = &mut *self.lock();
        let calls = inner.calls.entry(key.to_owned()).or_default();
        calls.retain(|at| now.saturating_duration_since(*at) < Duration::from_secs(60));
        if let Some(first) = calls.front().filter(|_| calls.len() >= limit) {
            let wait = 60.0 - now.saturating_duration_since(*first).as_secs_f64();
            return Err(Trouble::PerMinute(Some(format!("{wait:.1}s"))));
        }
        calls.push_back(now);
        Ok(())
    }

    /// Keeps a request; what is dropped before [`Tracked::answered`] was closed by the client.
    pub fn track(self: &Arc<Self>, seen: Seen) -> Tracked {
        self.open.fetch_add(1, Ordering::Relaxed);
        let mut inner = self.lock();
        inner.seen.push(seen);
        Tracked { state: self.clone(), index: inner.seen.len() - 1, ended: Ended::Closed }
    }
}

/// Lives as long as the answer to one request.
#[derive(Debug)]
pub struct Tracked {
    state: Arc<State>,
    index: usize,
    ended: Ended,
}

impl Tracked {
    pub fn answered(&mut self) {
        self.ended = Ended::Answered;
    }

    pub async fn told_to_go_on(&self) {
        self.state.go_on.notified().await;
    }
}

impl Drop for Tracked {
    fn drop(&mut self) {
        let ended = self.ended;
        self.state.open.fetch_sub(1, Ordering::Relaxed);
        if let Some(seen) = self.state.lock().seen.get_mut(self.index) {
            seen.ended = ended;
        }
    }
}
