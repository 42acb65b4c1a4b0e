//! What the worker says on `{root}/logs`, bounded a second. Never a payload, a prompt, a token or a key.

use std::sync::Mutex;

use flota_common::clock;
use flota_proto::mqtt::LogLine;
use flota_proto::{JobId, Timestamp, WorkerId};
use tokio::sync::mpsc;

/// How many lines a second leave this worker.
const LINES_PER_SECOND_MAX: u32 = 50;
/// How many lines wait for the broker.
const LINES_WAITING_MAX: usize = 256;
const MESSAGE_CHARS_MAX: usize = 1000;

/// Says lines to whoever watches the fleet, and to the process's own log.
#[derive(Debug)]
pub(crate) struct Log {
    worker: WorkerId,
    lines: mpsc::Sender<LogLine>,
    window: Mutex<Window>,
}

#[derive(Debug, Default)]
struct Window {
    second: u64,
    said: u32,
    left_out: u64,
}

impl Log {
    /// A log, and the lines that are to be published.
    pub(crate) fn new(worker: WorkerId) -> (Self, mpsc::Receiver<LogLine>) {
        let (lines, receiver) = mpsc::channel(LINES_WAITING_MAX);
        (Self { worker, lines, window: Mutex::default() }, receiver)
    }

    pub(crate) fn info(&self, job: Option<JobId>, message: &str) {
        tracing::info!(job = job.map(tracing::field::display), "{message}");
        self.publish("info", job, message, clock::now());
    }

    pub(crate) fn warn(&self, job: Option<JobId>, message: &str) {
        tracing::warn!(job = job.map(tracing::field::display), "{message}");
        self.publish("warn", job, message, clock::now());
    }

    fn publish(&self, level: &str, job: Option<JobId>, message: &str, now: Timestamp) {
        let left_out = {
            let mut window = self.window.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            let Some(left_out) = window.admit(now) else { return };
            left_out
        };
        if left_out > 0 {
            self.send("warn", None, &format!("{left_out} log lines of this worker were left out: too many"), now);
        }
        self.send(level, job, message, now);
    }

    fn send(&self, level: &str, job: Option<JobId>, message: &str, now: Timestamp) {
        let line = LogLine {
            timestamp: now,
            source: self.worker.to_string(),
            level: Some(level.to_owned()),
            message: message.chars().take(MESSAGE_CHARS_MAX).collect(),
            job_id: job,
            worker_id: Some(self.worker.clone()),
        };
        // A full channel means that the broker is away: the process's own log has the line.
        let _ = self.lines.try_send(line);
    }
}

impl Window {
    /// Whether a line may go out at `now`, and how many were left out before it.
    fn admit(&mut self, now: Timestamp) -> Option<u64> {
        let second = now.0 / 1000;
        if second != self.second {
            (self.second, self.said) = (second, 0);
        }
        if self.said >= LINES_PER_SECOND_MAX {
            self.left_out += 1;
            return None;
        }
        self.said += 1;
        Some(std::mem::take(&mut self.left_out))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_bounded_a_second_and_the_next_says_how_many_were_left_out() {
        let (log, mut lines) = Log::new("w".parse().unwrap());
        for _ in 0..LINES_PER_SECOND_MAX + 7 {
            log.publish("info", None, "a line", Timestamp(5_000));
        }
        log.publish("info", None, "later", Timestamp(6_000));
        let said: Vec<String> = std::iter::from_fn(|| lines.try_recv().ok()).map(|line| line.message).collect();
        assert_eq!(said.len(), LINES_PER_SECOND_MAX as usize + 2);
        assert!(said[said.len() - 2].starts_with("7 log lines"));
        assert_eq!(said[said.len() - 1], "later");
    }
}
