//! The log of the fleet, for people: the last lines of all, live and from a ring. The master's own events become lines
//! and go to `{root}/logs`; the lines of others arrive from there.
//!
//! Nothing here may log: a line about a line would have no end. The MQTT client is left out for the same reason.

use std::collections::VecDeque;
use std::fmt::{self, Write};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use flota_common::clock;
use flota_proto::mqtt::LogLine;
use flota_proto::{JobId, Timestamp, UnitId, WorkerId};
use tokio::sync::{broadcast, mpsc};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id};
use tracing::{Event, Level, Metadata, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;
use tracing_subscriber::registry::LookupSpan;

/// What the master calls itself in [`LogLine::source`].
pub const SOURCE: &str = "master";
/// How many lines are kept.
pub const LINES_KEPT: usize = 2000;
/// How many live lines a slow reader may be behind.
const LIVE_MAX: usize = 1024;
/// How many of the master's lines wait for the broker.
const OUTGOING_MAX: usize = 256;
/// How many of the master's lines go to the broker a second.
const OUTGOING_PER_SECOND_MAX: u32 = 50;
const MESSAGE_CHARS_MAX: usize = 2000;
const SOURCE_CHARS_MAX: usize = 128;

/// The lines of all; cheap to clone.
#[derive(Clone, Debug)]
pub struct LogHub {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    ring: Mutex<VecDeque<Arc<LogLine>>>,
    live: broadcast::Sender<Arc<LogLine>>,
    outgoing: mpsc::Sender<LogLine>,
    unread: Mutex<Option<mpsc::Receiver<LogLine>>>,
    window: Mutex<Window>,
}

impl Default for LogHub {
    fn default() -> Self {
        Self::new()
    }
}

impl LogHub {
    /// An empty one.
    #[must_use]
    pub fn new() -> Self {
        let (outgoing, unread) = mpsc::channel(OUTGOING_MAX);
        Self {
            inner: Arc::new(Inner {
                ring: Mutex::new(VecDeque::with_capacity(LINES_KEPT)),
                live: broadcast::channel(LIVE_MAX).0,
                outgoing,
                unread: Mutex::new(Some(unread)),
                window: Mutex::default(),
            }),
        }
    }

    /// The lines kept, oldest first, and those that follow, without a gap or a double between them.
    #[must_use]
    pub fn subscribe(&self) -> (Vec<Arc<LogLine>>, broadcast::Receiver<Arc<LogLine>>) {
        let ring = lock(&self.inner.ring);
        (ring.iter().cloned().collect(), self.inner.live.subscribe())
    }

    /// The lines kept, oldest first.
    #[must_use]
    pub fn recent(&self) -> Vec<Arc<LogLine>> {
        lock(&self.inner.ring).iter().cloned().collect()
    }

    /// The layer that turns the master's own events into lines.
    #[must_use]
    pub fn layer(&self) -> HubLayer {
        HubLayer { hub: self.clone() }
    }

    /// Takes in a line that came from the broker; our own come back from there and are not doubled.
    pub fn receive(&self, line: LogLine) {
        if line.source != SOURCE {
            self.keep(tidy(line));
        }
    }

    /// What is to be published; once.
    pub(crate) fn outgoing(&self) -> Option<mpsc::Receiver<LogLine>> {
        lock(&self.inner.unread).take()
    }

    fn keep(&self, line: LogLine) {
        let line = Arc::new(line);
        let mut ring = lock(&self.inner.ring);
        if ring.len() == LINES_KEPT {
            ring.pop_front();
        }
        ring.push_back(line.clone());
        let _ = self.inner.live.send(line);
    }

    /// A line of our own: kept, and published as far as the bounds allow.
    fn say(&self, line: LogLine) {
        let line = tidy(line);
        self.keep(line.clone());
        let mut window = lock(&self.inner.window);
        let Some(left_out) = window.admit(line.timestamp) else { return };
        let notice = (left_out > 0).then(|| LogLine {
            level: Some("warn".into()),
            message: format!("{left_out} log lines of the master were not published: too many"),
            job_id: None,
            worker_id: None,
            ..line.clone()
        });
        for line in notice.into_iter().chain([line]) {
            if self.inner.outgoing.try_send(line).is_err() {
                window.left_out += 1;
            }
        }
    }
}

/// How many lines were let through in the current second, and how many were not since.
#[derive(Debug, Default)]
struct Window {
    second: u64,
    admitted: u32,
    left_out: u64,
}

impl Window {
    /// How many were left out before this one; `None` when this one is too.
    fn admit(&mut self, now: Timestamp) -> Option<u64> {
        let second = now.0 / 1000;
        if second != self.second {
            self.second = second;
            self.admitted = 0;
        }
        if self.admitted == OUTGOING_PER_SECOND_MAX {
            self.left_out += 1;
            return None;
        }
        self.admitted += 1;
        Some(std::mem::take(&mut self.left_out))
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Bounded, and without control characters: lines are shown in terminals.
fn tidy(mut line: LogLine) -> LogLine {
    line.message = plain(&line.message, MESSAGE_CHARS_MAX);
    line.source = plain(&line.source, SOURCE_CHARS_MAX);
    line.level = line.level.map(|level| plain(&level, 16).to_lowercase());
    if line.timestamp == Timestamp::default() {
        line.timestamp = clock::now();
    }
    line
}

fn plain(text: &str, chars_max: usize) -> String {
    text.chars().take(chars_max).map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// Turns the master's own events, info and above, into lines.
#[derive(Debug)]
pub struct HubLayer {
    hub: LogHub,
}

/// The ids among the fields of a span.
#[derive(Default)]
struct SpanIds {
    job_id: Option<JobId>,
    worker_id: Option<WorkerId>,
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for HubLayer {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let mut fields = Fields::default();
        attributes.record(&mut fields);
        if let Some(span) = context.span(id).filter(|_| fields.job_id.is_some() || fields.worker_id.is_some()) {
            span.extensions_mut().replace(SpanIds { job_id: fields.job_id, worker_id: fields.worker_id });
        }
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let metadata = event.metadata();
        if *metadata.level() > Level::INFO || !ours(metadata) {
            return;
        }
        let mut fields = Fields::default();
        event.record(&mut fields);
        let Fields { message, others, mut job_id, mut worker_id } = fields;
        // What an event does not say itself, the spans that it happened in do, the innermost first.
        for span in context.event_scope(event).into_iter().flatten() {
            if let Some(ids) = span.extensions().get::<SpanIds>() {
                job_id = job_id.or(ids.job_id);
                worker_id = worker_id.or_else(|| ids.worker_id.clone());
            }
        }
        self.hub.say(LogLine {
            timestamp: clock::now(),
            source: SOURCE.to_owned(),
            level: Some(metadata.level().as_str().to_lowercase()),
            message: message + &others,
            job_id,
            worker_id,
        });
    }
}

/// One process may also run a worker and a broker.
fn ours(metadata: &Metadata<'_>) -> bool {
    let target = metadata.target();
    target.strip_prefix("flota_master").is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
}

/// An event's fields: ids apart, the others behind the message.
#[derive(Default)]
struct Fields {
    message: String,
    others: String,
    job_id: Option<JobId>,
    worker_id: Option<WorkerId>,
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let parsed = match field.name() {
            "message" => {
                self.message = format!("{value:?}");
                true
            }
            "job_id" => {
                self.job_id = format!("{value:?}").parse().ok();
                self.job_id.is_some()
            }
            "worker_id" => {
                self.worker_id = format!("{value:?}").parse().ok();
                self.worker_id.is_some()
            }
            "unit_id" => {
                self.job_id = format!("{value:?}").parse().ok().map(|unit: UnitId| unit.job);
                false
            }
            _ => false,
        };
        if !parsed {
            let _ = write!(self.others, " {}={value:?}", field.name());
        }
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.record_debug(field, &format_args!("{value}"));
    }
}

#[cfg(test)]
mod tests {
    use tracing_subscriber::layer::SubscriberExt;

    use super::*;

    fn line(source: &str, message: &str) -> LogLine {
        LogLine {
            timestamp: Timestamp(1),
            source: source.into(),
            level: None,
            message: message.into(),
            job_id: None,
            worker_id: None,
        }
    }

    fn logging<T>(hub: &LogHub, run: impl FnOnce() -> T) -> T {
        tracing::subscriber::with_default(tracing_subscriber::registry().with(hub.layer()), run)
    }

    #[test]
    fn our_events_become_lines_with_their_ids() {
        let hub = LogHub::new();
        let job = JobId::generate();
        let worker: WorkerId = "w1".parse().expect("valid");
        logging(&hub, || {
            tracing::warn!(job_id = %job, worker_id = %worker, attempt = 3, error = "boom", "a lease has expired");
            tracing::debug!("not for people");
            tracing::info!(target: "flota_worker::runner", "another part of the same process");
            tracing::info!(target: "flota_common::mqtt", "the client that carries the lines");
            tracing::info!(target: "flota_mastermind", "not ours");
        });
        let lines = hub.recent();
        let [line] = &lines[..] else { panic!("one line: {lines:?}") };
        assert_eq!(line.message, "a lease has expired attempt=3 error=boom");
        assert_eq!((line.source.as_str(), line.level.as_deref()), (SOURCE, Some("warn")));
        assert_eq!((line.job_id, line.worker_id.clone()), (Some(job), Some(worker)));
        let mut outgoing = hub.outgoing().expect("not taken yet");
        assert_eq!(outgoing.try_recv().expect("published").message, line.message);
        assert!(outgoing.try_recv().is_err());
    }

    #[test]
    fn an_event_has_the_ids_of_the_spans_that_it_happens_in() {
        let hub = LogHub::new();
        let (job, other) = (JobId::generate(), JobId::generate());
        logging(&hub, || {
            let _worker = tracing::info_span!("stream", worker_id = "w1").entered();
            let _unit = tracing::info_span!("attempt", unit_id = %UnitId { job, index: 3 }).entered();
            tracing::info!("in both");
            tracing::info!(job_id = %other, "of another job");
        });
        let lines = hub.recent();
        let ids: Vec<_> = lines.iter().map(|line| (line.job_id, line.worker_id.clone())).collect();
        let worker: WorkerId = "w1".parse().expect("valid");
        assert_eq!(ids, [(Some(job), Some(worker.clone())), (Some(other), Some(worker))]);
        assert_eq!(lines[0].message, "in both");
    }

    #[test]
    fn the_ring_keeps_the_last_and_subscribers_see_what_follows() {
        let hub = LogHub::new();
        for i in 0..LINES_KEPT + 5 {
            hub.receive(line("w", &i.to_string()));
        }
        let (kept, mut live) = hub.subscribe();
        assert_eq!((kept.len(), kept[0].message.as_str()), (LINES_KEPT, "5"));
        hub.receive(line("w", "next"));
        assert_eq!(live.try_recv().expect("live").message, "next");
    }

    #[test]
    fn our_lines_that_come_back_are_not_doubled_and_those_of_others_are_tidied() {
        let hub = LogHub::new();
        hub.receive(line(SOURCE, "an echo"));
        hub.receive(line("w\u{1b}[2J", &format!("red \u{1b}[31m{}", "x".repeat(10_000))));
        let lines = hub.recent();
        let [line] = &lines[..] else { panic!("one line: {lines:?}") };
        assert!(!line.message.contains('\u{1b}') && !line.source.contains('\u{1b}'));
        assert_eq!(line.message.chars().count(), MESSAGE_CHARS_MAX);
    }

    #[test]
    fn a_flood_is_kept_here_but_published_within_bounds_and_the_rest_is_counted() {
        let hub = LogHub::new();
        let mut outgoing = hub.outgoing().expect("not taken yet");
        let at = |second: u64| LogLine { timestamp: Timestamp(second * 1000), ..line(SOURCE, "again") };
        for _ in 0..500 {
            hub.say(at(10));
        }
        hub.say(at(11));
        assert_eq!(hub.recent().len(), 501);
        let mut published = Vec::new();
        while let Ok(line) = outgoing.try_recv() {
            published.push(line.message);
        }
        assert_eq!(published.len(), OUTGOING_PER_SECOND_MAX as usize + 2);
        assert!(published.iter().any(|message| message.starts_with("450 log lines")), "{published:?}");
    }
}
