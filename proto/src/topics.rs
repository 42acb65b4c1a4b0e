//! The MQTT topics, spelt once.

use crate::WorkerId;

/// The topics below one root (`FLOTA_TOPIC_ROOT`, default `flota`).
#[derive(Clone, Debug)]
pub struct Topics {
    root: String,
}

impl Topics {
    /// Topics below `root`.
    ///
    /// # Errors
    /// What is wrong with `root` when it can't be the beginning of a topic.
    pub fn new(root: &str) -> Result<Self, String> {
        let bad = root.is_empty()
            || root.len() > 128
            || root.starts_with(['/', '$'])
            || root.ends_with('/')
            || root.contains(['+', '#', '\0'])
            || root.chars().any(char::is_whitespace);
        if bad {
            return Err(
                "a topic root is 1 to 128 characters without '+', '#', spaces, and no '/' or '$' in front".into()
            );
        }
        Ok(Self { root: root.to_owned() })
    }

    /// The root itself.
    #[must_use]
    pub fn root(&self) -> &str {
        &self.root
    }

    /// Whether the master is there (retained, its last will).
    #[must_use]
    pub fn master_status(&self) -> String {
        format!("{}/master/status", self.root)
    }

    /// Where workers say that they have come.
    #[must_use]
    pub fn register(&self) -> String {
        format!("{}/workers/register", self.root)
    }

    /// The live stream of workers' states.
    #[must_use]
    pub fn workers_status(&self) -> String {
        format!("{}/workers/status", self.root)
    }

    /// One worker's latest state (retained, its last will).
    #[must_use]
    pub fn worker_state(&self, worker: &WorkerId) -> String {
        format!("{}/workers/{worker}/state", self.root)
    }

    /// The filter of all workers' states.
    #[must_use]
    pub fn worker_state_filter(&self) -> String {
        format!("{}/workers/+/state", self.root)
    }

    /// Units for one worker.
    #[must_use]
    pub fn tasks(&self, worker: &WorkerId) -> String {
        format!("{}/workers/{worker}/tasks", self.root)
    }

    /// Commands for one worker.
    #[must_use]
    pub fn worker_control(&self, worker: &WorkerId) -> String {
        format!("{}/workers/{worker}/control", self.root)
    }

    /// Commands for all workers.
    #[must_use]
    pub fn control(&self) -> String {
        format!("{}/control", self.root)
    }

    /// Changes of jobs' states, coalesced.
    #[must_use]
    pub fn jobs_status(&self) -> String {
        format!("{}/jobs/status", self.root)
    }

    /// Log lines of all.
    #[must_use]
    pub fn logs(&self) -> String {
        format!("{}/logs", self.root)
    }
}
