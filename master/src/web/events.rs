//! `GET /jobs/{id}/events`: a job's event log as server-sent events, what was and what comes, until the job ends.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use flota_proto::{JobId, rest};
use futures::{StreamExt, stream};
use tokio::sync::mpsc::Receiver;

use super::App;
use super::extract::{self, JobPath, Params};
use super::problem::Failure;
use crate::handle::{Handle, JobUpdate, Subscription};

const LAST_EVENT_ID: &str = "Last-Event-ID";
/// Before asking again for what a reader that was too slow has missed.
const RESUBSCRIBE_PAUSE: Duration = Duration::from_millis(50);

/// What happens to a job, as server-sent events.
///
/// `id` is the event's `seq`, `event` its type, `data` the event. The stream closes after the job's end. A resume with
/// `Last-Event-ID` that has nothing more to send is 204.
#[utoipa::path(
    get, path = "/jobs/{id}/events", tag = "jobs", operation_id = "job_events",
    params(
        ("id" = String, Path, description = "The job's UUID"),
        ("Last-Event-ID" = Option<u64>, Header, description = "The last event that is known"),
    ),
    responses(
        (status = 200, description = "`id: seq`, `event: type`, `data: JobEvent`", body = rest::JobEvent, content_type = "text/event-stream"),
        (status = 204, description = "Nothing more will come"),
        (status = 404, description = "There is no such job", body = rest::Problem, content_type = "application/problem+json"),
        (status = 503, description = "Too many streams are open", body = rest::Problem, content_type = "application/problem+json", headers(("Retry-After" = u32))),
    )
)]
pub async fn events(
    State(app): State<Arc<App>>,
    JobPath(job): JobPath,
    params: Params,
    headers: HeaderMap,
) -> Result<Response, Failure> {
    params.finish()?;
    let after = last_event_id(&headers)?;
    let place = app.stream_place()?;
    let subscription = app.handle.subscribe(job, after).await?;
    if after.is_some() && subscription.live.is_none() && subscription.backlog.is_empty() {
        return Ok(StatusCode::NO_CONTENT.into_response());
    }
    let reader = Reader::new(app.handle.clone(), job, after, subscription);
    let events = stream::unfold((reader, place), |(mut reader, place)| async {
        let event = reader.next().await?;
        Some((Ok::<_, Infallible>(sse(&event)), (reader, place)))
    });
    let events = events.take_until(app.stop.clone().cancelled_owned());
    // A proxy that gathers what it passes on would hold events back.
    let unbuffered = (HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no"));
    Ok(([unbuffered], Sse::new(events).keep_alive(KeepAlive::default())).into_response())
}

fn last_event_id(headers: &HeaderMap) -> Result<Option<u64>, Failure> {
    let Some(text) = extract::header_text(headers, LAST_EVENT_ID, 32)? else { return Ok(None) };
    let bad = || Failure::bad_request("bad_header", format!("{LAST_EVENT_ID}: is the id of an event, a whole number"));
    text.parse().map(Some).map_err(|_| bad().at(LAST_EVENT_ID))
}

fn sse(event: &rest::JobEvent) -> Event {
    // An event's JSON holds no line breaks, and its types are our own words.
    let data = serde_json::to_string(event).unwrap_or_default();
    Event::default().id(event.seq.to_string()).event(&event.r#type).data(data)
}

/// Reads a job's events in order, each once, also when the dispatcher cut it off for being slow.
pub struct Reader {
    handle: Handle,
    job: JobId,
    after: Option<u64>,
    backlog: VecDeque<rest::JobEvent>,
    live: Option<Receiver<Arc<JobUpdate>>>,
}

impl Reader {
    /// Reads on from `subscription`, which was opened with `after`.
    pub fn new(handle: Handle, job: JobId, after: Option<u64>, subscription: Subscription) -> Self {
        Self { handle, job, after, backlog: subscription.backlog.into(), live: subscription.live }
    }

    /// The next event; `None` after the last. Nothing is lost when the future is dropped.
    pub async fn next(&mut self) -> Option<rest::JobEvent> {
        loop {
            if let Some(event) = self.backlog.pop_front() {
                if self.is_new(&event) {
                    self.after = Some(event.seq);
                    return Some(event);
                }
                continue;
            }
            match self.live.as_mut()?.recv().await {
                Some(update) => {
                    if update.last {
                        self.live = None;
                    }
                    self.backlog.push_back(update.event.clone());
                }
                None => self.subscribe_again().await?,
            }
        }
    }

    fn is_new(&self, event: &rest::JobEvent) -> bool {
        self.after.is_none_or(|after| event.seq > after)
    }

    async fn subscribe_again(&mut self) -> Option<()> {
        tokio::time::sleep(RESUBSCRIBE_PAUSE).await;
        let subscription = self.handle.subscribe(self.job, self.after).await.ok()?;
        self.backlog = subscription.backlog.into();
        self.live = subscription.live;
        Some(())
    }
}
