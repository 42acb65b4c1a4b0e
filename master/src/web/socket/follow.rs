//! Tells a session what happens to one job: the log so far, then live, text deltas gathered for some milliseconds, and
//! for a question the answer at the end. A client that is behind makes it wait; what it misses meanwhile comes from the log.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use flota_proto::JobId;
use flota_proto::rest::{JobEvent, JobState};
use flota_proto::socket::{self as names, JobHappened, TaskQueued};
use serde::Serialize;
use tokio::time::{Instant, Sleep};

use super::answer;
use super::session::{Session, Step, Told, Turn};
use crate::handle::{Refused, Subscription};
use crate::session::SessionChange;
use crate::web::App;
use crate::web::events::Reader;
use crate::web::problem::Failure;

/// Text that comes faster is sent together.
const GATHER: Duration = Duration::from_millis(40);
/// Text that is gathered is at most about this long.
const GATHERED_BYTES_MAX: usize = 64 * 1024;
/// Before trying again to send to a client that is behind.
const FULL_PAUSE: Duration = Duration::from_millis(50);

/// How long an answer waits for the one before it, whose telling may have failed.
const ORDER_MAX: Duration = Duration::from_secs(5);

/// How the telling of a job begins.
pub enum Begin {
    /// It was just submitted.
    Submitted,
    /// The client came back.
    Resumed,
    /// With what was asked for already.
    Subscribed(Box<Subscription>),
}

/// Starts to tell `session` of `job`, which it follows; ends by itself.
pub fn start(app: &Arc<App>, session: &Arc<Session>, job: JobId, begin: Begin) {
    session.hand_over(job, |turn| {
        let follower = Follower { app: app.clone(), session: session.clone(), turn };
        app.tasks.spawn(follower.run(begin)).abort_handle()
    });
}

struct Follower {
    app: Arc<App>,
    session: Arc<Session>,
    turn: Turn,
}

/// Nobody listens any more.
struct Gone;

impl Follower {
    async fn run(self, begin: Begin) {
        let stop = self.app.stop.clone();
        tokio::select! {
            // A client that closed the connection is no failure, and what it missed is told when it resumes.
            _ = self.tell_all(begin) => {}
            () = stop.cancelled() => {}
        }
    }

    async fn tell_all(&self, begin: Begin) -> Result<(), Gone> {
        let job = self.turn.job;
        let asked = matches!(begin, Begin::Submitted) && self.turn.question;
        let subscription = match begin {
            Begin::Subscribed(subscription) => Ok(*subscription),
            Begin::Submitted | Begin::Resumed => self.app.handle.subscribe(job, self.turn.after).await,
        };
        match subscription {
            Ok(subscription) => {
                // Where a worker was free, it was assigned in the commit of its acceptance.
                if asked && subscription.job.state == JobState::Pending {
                    self.tell_position().await?;
                }
                self.tell_events(subscription).await?;
            }
            Err(Refused::Unavailable(_) | Refused::StoreFull(_)) => return Err(Gone),
            // Its events have gone with their retention time; the job itself may still be there.
            Err(refused) => tracing::debug!(%job, %refused, "a job can't be followed"),
        }
        if self.turn.question {
            self.tell_answer().await?;
        } else if self.session.end(self.turn) != Told::Sent {
            return Err(Gone);
        }
        if self.turn.kept {
            self.note_told();
        }
        Ok(())
    }

    /// On a task of its own, for which the stop waits: what was heard must not be told again after it.
    fn note_told(&self) {
        let (app, told) = (self.app.clone(), SessionChange::Told(self.session.id(), self.turn.job));
        self.app.tasks.spawn(async move { app.handle.keep_sessions(vec![told]).await });
    }

    async fn tell_position(&self) -> Result<(), Gone> {
        match self.app.handle.queue_position(self.turn.job).await {
            Ok(Some(position)) => {
                let queued = TaskQueued { position, job_id: self.turn.job };
                self.tell(names::TASK_QUEUED, &queued, Step::Aside).await
            }
            Ok(None) | Err(_) => Ok(()),
        }
    }

    async fn tell_events(&self, subscription: Subscription) -> Result<(), Gone> {
        let mut reader = Reader::new(self.app.handle.clone(), self.turn.job, self.turn.after, subscription);
        let mut gathered = Gathered::default();
        loop {
            let event = tokio::select! {
                event = reader.next() => event,
                () = gathered.due() => {
                    if let Some(delta) = gathered.take_due(Instant::now()) {
                        self.tell_event(delta).await?;
                    }
                    continue;
                }
            };
            let Some(event) = event else { break };
            for event in gathered.push(Instant::now(), event).into_iter().flatten() {
                self.tell_event(event).await?;
            }
        }
        match gathered.text.take() {
            Some(delta) => self.tell_event(delta).await,
            None => Ok(()),
        }
    }

    async fn tell_event(&self, event: JobEvent) -> Result<(), Gone> {
        let step = Step::Upto(event.seq);
        self.tell(names::JOB_EVENT, &JobHappened { job_id: self.turn.job, event }, step).await
    }

    async fn tell_answer(&self) -> Result<(), Gone> {
        let response = match self.app.handle.job(self.turn.job, true).await {
            Ok(job) if !job.state.ended() => return Err(Gone),
            Ok(job) => answer::of_job(&job),
            Err(Refused::Unavailable(_) | Refused::StoreFull(_)) => return Err(Gone),
            Err(refused) => answer::refused(Some(self.turn.job), String::new(), &Failure::from(refused)),
        };
        self.let_the_one_before_pass().await;
        self.tell(names::AI_RESPONSE, &response, Step::End).await
    }

    /// Answers of a conversation come in the order of its questions, though each is told by a task of its own.
    async fn let_the_one_before_pass(&self) {
        let Some(before) = self.turn.before else { return };
        let ended = match self.app.handle.job(before, false).await {
            Ok(job) => job.state.ended(),
            Err(_) => false,
        };
        if ended && tokio::time::timeout(ORDER_MAX, self.session.told_to_its_end(before)).await.is_err() {
            tracing::debug!(job = %self.turn.job, %before, "an answer does not wait any longer for the one before it");
        }
    }

    async fn tell<T: Serialize>(&self, event: &str, payload: &T, step: Step) -> Result<(), Gone> {
        loop {
            match self.session.tell(self.turn, event, payload, step) {
                Told::Sent => return Ok(()),
                Told::Stale => return Err(Gone),
                Told::Full => tokio::time::sleep(FULL_PAUSE).await,
            }
        }
    }
}

/// Text deltas that wait to be sent together. The first one after a pause is not held up.
#[derive(Default)]
struct Gathered {
    text: Option<JobEvent>,
    /// What comes before is gathered.
    until: Option<Instant>,
    /// Ends then; only where something waits for it.
    window: Option<Pin<Box<Sleep>>>,
}

impl Gathered {
    /// What can be sent now that `event` has come, in order.
    fn push(&mut self, now: Instant, event: JobEvent) -> [Option<JobEvent>; 2] {
        if event.r#type != "delta" {
            return [self.text.take(), Some(event)];
        }
        let Some(until) = self.until.filter(|until| *until > now) else {
            self.until = Some(now + GATHER);
            self.window = None;
            return match self.text.take() {
                Some(text) => [Some(text), Some(event)],
                None => [Some(event), None],
            };
        };
        self.window.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(until)));
        let joined = self.text.as_mut().is_some_and(|text| join(text, &event));
        if joined { [None, None] } else { [self.text.replace(event), None] }
    }

    /// The end of the window in which text is gathered; never without one.
    async fn due(&mut self) {
        match &mut self.window {
            Some(window) => window.await,
            None => std::future::pending().await,
        }
    }

    /// What was gathered in the window that has ended.
    fn take_due(&mut self, now: Instant) -> Option<JobEvent> {
        self.window = None;
        let text = self.text.take()?;
        self.until = Some(now + GATHER);
        Some(text)
    }
}

/// Adds the text of `next` to `text`; false when they don't belong together.
fn join(text: &mut JobEvent, next: &JobEvent) -> bool {
    let more = next.data.get("text").and_then(|t| t.as_str());
    let (Some(serde_json::Value::String(whole)), Some(more)) = (text.data.get_mut("text"), more) else { return false };
    if text.attempt != next.attempt || whole.len() + more.len() > GATHERED_BYTES_MAX {
        return false;
    }
    whole.push_str(more);
    text.seq = next.seq;
    text.timestamp = next.timestamp;
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use flota_proto::Timestamp;
    use serde_json::json;

    fn delta(seq: u64, attempt: u64, text: &str) -> JobEvent {
        JobEvent { seq, attempt, timestamp: Timestamp(seq), r#type: "delta".into(), data: json!({ "text": text }) }
    }

    fn text(event: &JobEvent) -> &str {
        event.data["text"].as_str().unwrap()
    }

    #[tokio::test]
    async fn the_first_delta_goes_at_once_and_the_next_ones_together() {
        let (mut gathered, now) = (Gathered::default(), Instant::now());
        let [Some(first), None] = gathered.push(now, delta(1, 1, "a")) else { panic!("held up") };
        assert_eq!(text(&first), "a");
        assert!(gathered.window.is_none(), "nothing waits");
        for (seq, part) in [(2, "b"), (3, "c")] {
            assert!(matches!(gathered.push(now, delta(seq, 1, part)), [None, None]));
        }
        gathered.due().await;
        let joined = gathered.take_due(now + GATHER).unwrap();
        assert_eq!((text(&joined), joined.seq), ("bc", 3));
        assert!(matches!(gathered.push(now + GATHER, delta(4, 1, "d")), [None, None]));
        let [Some(late), Some(next)] = gathered.push(now + 2 * GATHER, delta(5, 1, "e")) else { panic!("held up") };
        assert_eq!((text(&late), text(&next)), ("d", "e"), "its time had come, only nobody had looked");
        assert!(gathered.window.is_none());
        let [Some(alone), None] = gathered.push(now + 3 * GATHER, delta(6, 1, "f")) else { panic!("held up") };
        assert_eq!(text(&alone), "f", "after a pause");
    }

    #[tokio::test]
    async fn text_goes_before_what_follows_it_and_attempts_stay_apart() {
        let (mut gathered, now) = (Gathered::default(), Instant::now());
        gathered.push(now, delta(1, 1, "a"));
        gathered.push(now, delta(2, 1, "b"));
        let [Some(old), None] = gathered.push(now, delta(3, 2, "x")) else { panic!("attempts were joined") };
        assert_eq!(text(&old), "b");
        let mut end = delta(4, 2, "");
        end.r#type = "completed".into();
        let [Some(new), Some(end)] = gathered.push(now, end) else { panic!("text was lost") };
        assert_eq!((text(&new), end.seq), ("x", 4));
    }
}
