//! One attempt as its providers see it: waits end with a cancel or with the attempt's time, and show that it is alive.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep_until};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

use super::super::{Context, Observer};
use super::fault::Fault;

const ALIVE_EVERY: Duration = Duration::from_secs(1);
/// The time ends here a little before it ends for the runner, which doesn't know whether the user has seen text.
const MARGIN_MAX: Duration = Duration::from_millis(250);

/// One attempt.
pub struct Call {
    context: Context,
    until: Instant,
    /// Rings for the next sign of life, or when the time is up. Kept from wait to wait, as is `cancelled`: pieces of text come far
    /// more often than either.
    alarm: Pin<Box<Sleep>>,
    cancelled: Pin<Box<WaitForCancellationFutureOwned>>,
    said: bool,
}

impl Call {
    /// An attempt that may take `timeout` from now.
    pub fn new(context: Context, timeout: Duration) -> Self {
        let now = Instant::now();
        // A timeout beyond what the clock can hold is a year.
        let until =
            now.checked_add(timeout - MARGIN_MAX.min(timeout / 10)).unwrap_or(now + Duration::from_secs(31_536_000));
        let alarm = Box::pin(sleep_until(until.min(now + ALIVE_EVERY)));
        let cancelled = Box::pin(context.cancel.clone().cancelled_owned());
        Self { context, until, alarm, cancelled, said: false }
    }

    /// A call that belongs to no attempt.
    pub fn background(timeout: Duration) -> Self {
        Self::new(Context { cancel: CancellationToken::new(), observer: Arc::new(Nobody) }, timeout)
    }

    /// Waits for `work`, which is dropped (and its connection closed) on a cancel and when the time is up.
    ///
    /// # Errors
    /// [`Fault::Cancelled`], [`Fault::TimedOut`]
    pub async fn wait<T>(&mut self, work: impl Future<Output = T>) -> Result<T, Fault> {
        tokio::pin!(work);
        loop {
            tokio::select! {
                biased;
                () = &mut self.cancelled => return Err(Fault::Cancelled),
                done = &mut work => return Ok(done),
                () = &mut self.alarm => {
                    let now = Instant::now();
                    if now >= self.until {
                        return Err(Fault::TimedOut);
                    }
                    self.context.observer.alive();
                    self.alarm.as_mut().reset(self.until.min(now + ALIVE_EVERY));
                }
            }
        }
    }

    /// The next piece of the answer's text.
    pub fn text(&mut self, text: &str) {
        if !text.is_empty() {
            self.said = true;
            self.context.observer.delta(text);
        }
    }

    /// So many of `all` are done.
    pub fn share(&self, done: usize, all: usize) {
        self.context.observer.progress(done as f64 / all.max(1) as f64, "");
    }

    /// Whether the user has seen text of the answer.
    pub fn said(&self) -> bool {
        self.said
    }

    /// Tells the user about something beside the answer.
    pub fn note(&self, note: &str) {
        self.context.observer.progress(0.0, note);
    }
}

/// Nobody watches.
struct Nobody;

impl Observer for Nobody {
    fn progress(&self, _fraction: f64, _note: &str) {}
    fn delta(&self, _text: &str) {}
    fn alive(&self) {}
}
