//! Who hears what the jobs of sources gave: the way from the loop back to the source that submitted a job.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use bytes::Bytes;
use flota_proto::kinds::Found;
use flota_proto::rest::JobState;
use flota_proto::{JobId, WorkerId};
use tokio::sync::mpsc;
use tracing::warn;

/// The label by which a source's jobs are known.
pub const SOURCE_LABEL: &str = "source";
/// What may wait for one source.
pub const NEWS_MAX: usize = 4096;

/// What happened to a job of a source.
#[derive(Clone, Debug)]
pub enum News {
    /// A unit completed.
    Output {
        /// By whom.
        worker: WorkerId,
        /// A [`flota_proto::kinds::SearchResult`], JSON.
        output: Bytes,
    },
    /// A unit that goes on found something.
    Found {
        /// Who computes it.
        worker: WorkerId,
        /// What.
        found: Vec<Found>,
    },
    /// Hashes computed by an attempt that came to nothing, about.
    Wasted(u64),
    /// The job ended.
    Ended(JobState),
}

/// Sources by their jobs.
#[derive(Debug, Default)]
pub struct Listeners(Mutex<HashMap<JobId, mpsc::Sender<(JobId, News)>>>);

impl Listeners {
    /// From now on `listener` hears of `job`.
    pub fn add(&self, job: JobId, listener: mpsc::Sender<(JobId, News)>) {
        self.lock().insert(job, listener);
    }

    /// Nobody hears of `job` any more.
    pub fn remove(&self, job: JobId) {
        self.lock().remove(&job);
    }

    /// Tells whoever submitted `job`, without waiting.
    pub fn tell(&self, job: JobId, news: News) {
        let listener = self.lock().get(&job).cloned();
        if let Some(listener) = listener
            && listener.try_send((job, news)).is_err()
        {
            warn!(job_id = %job, "a source does not keep up with its results: one was dropped");
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<JobId, mpsc::Sender<(JobId, News)>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
