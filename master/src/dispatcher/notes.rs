//! What people are told without being asked: states of jobs on MQTT, coalesced and bounded, and a few lines of log.

use std::collections::HashMap;

use bytes::Bytes;
use flota_common::clock;
use flota_proto::mqtt::{JobStatus, JobsStatus};
use flota_proto::rest::JobState;
use flota_proto::{JobId, Kind, Timestamp, WorkerId};
use tracing::{debug, info, warn};

use super::Dispatcher;
use crate::core::{Event, What};

/// Jobs in one message: it stays below the largest packet.
const STATES_MAX: usize = 1000;
/// Lines of log a second about jobs; beyond it the topic of states tells more.
const LINES_PER_SECOND: u32 = 20;

/// What was noted since the last flush.
#[derive(Debug, Default)]
pub struct Notes {
    states: HashMap<JobId, JobStatus>,
    dropped: u64,
    second: u64,
    lines: u32,
}

impl Notes {
    /// Whether there is something to flush.
    pub fn has_states(&self) -> bool {
        !self.states.is_empty()
    }

    /// Notes an event of a job.
    pub fn event(&mut self, job: JobId, kind: Kind, event: &Event) {
        match &event.what {
            What::State { state, worker, error } => {
                self.state(job, kind, *state, worker.clone(), event.attempt, None);
                if self.may_log(event.at) {
                    log(job, kind, *state, worker.as_ref(), error.as_ref().map(|error| error.message.as_str()));
                }
            }
            What::Progress { fraction, .. } => {
                self.state(job, kind, JobState::Computing, None, event.attempt, Some(*fraction));
            }
            What::Delta { .. } => {}
        }
    }

    fn state(
        &mut self,
        job_id: JobId,
        kind: Kind,
        state: JobState,
        worker_id: Option<WorkerId>,
        attempt: u64,
        progress: Option<f64>,
    ) {
        if self.states.len() >= STATES_MAX && !self.states.contains_key(&job_id) {
            self.dropped += 1;
            return;
        }
        let attempt = (attempt > 0).then_some(attempt);
        self.states.insert(job_id, JobStatus { job_id, kind, state, worker_id, attempt, progress });
    }

    fn may_log(&mut self, now: Timestamp) -> bool {
        let second = now.0 / 1000;
        if second != self.second {
            self.second = second;
            self.lines = 0;
        }
        self.lines += 1;
        self.lines <= LINES_PER_SECOND
    }

    fn take(&mut self) -> JobsStatus {
        JobsStatus {
            timestamp: clock::now(),
            dropped: std::mem::take(&mut self.dropped),
            jobs: std::mem::take(&mut self.states).into_values().collect(),
        }
    }
}

fn log(job_id: JobId, kind: Kind, state: JobState, worker: Option<&WorkerId>, error: Option<&str>) {
    // Left out where there is none.
    let worker_id = worker.map(WorkerId::as_str);
    match (state, error) {
        (JobState::Failed, error) => {
            warn!(%job_id, worker_id, "{kind} failed: {}", error.unwrap_or("no reason was given"));
        }
        (JobState::Scheduled | JobState::Pending, Some(error)) => {
            info!(%job_id, worker_id, "{kind} will be tried again: {error}");
        }
        (JobState::Completed | JobState::Cancelled, _) => info!(%job_id, worker_id, "{kind} {}", state.as_str()),
        (JobState::Assigned, _) => {
            info!(%job_id, worker_id, "{kind} assigned to {}", worker_id.unwrap_or("a worker"));
        }
        (JobState::Blocked | JobState::Scheduled | JobState::Pending | JobState::Computing, _) => {
            debug!(%job_id, worker_id, "{kind} {}", state.as_str());
        }
    }
}

impl Dispatcher {
    pub(super) fn flush_states(&mut self) {
        self.flushed = clock::instant();
        if !self.notes.has_states() {
            return;
        }
        let status = self.notes.take();
        if let Ok(payload) = serde_json::to_vec(&status) {
            // Lossy by contract: QoS 0.
            let _ = self.publisher.publish(self.config.topics.jobs_status(), Bytes::from(payload), false, false);
        }
    }
}
