//! Waiting for a job: a bar on a terminal, silence elsewhere; and what its end means for the exit code.

use std::future::Future;

use bytes::Bytes;
use flota_proto::JobId;
use flota_proto::rest::{Job, JobState};

use crate::api::{Api, WAIT_MS};
use crate::failure::Failure;
use crate::output::{Hue, Out};

/// How often the bar moves.
const BAR_MS: u64 = 500;
/// A job that still waits after this long says why, also where no bar shows.
const PATIENCE_MS: u64 = 2_000;

/// A job that has ended: as it was sent, and parsed.
pub struct Ended {
    /// As the master sent it.
    pub raw: Bytes,
    /// Parsed.
    pub job: Job,
}

/// Waits until the job has ended.
pub async fn until_ended(api: &Api, out: &Out, id: JobId) -> Result<Ended, Failure> {
    let bar = out.bar(1000, "{prefix:.cyan} {bar:32} {percent:>3} %  {msg}");
    let mut wait_ms = if bar.is_hidden() { PATIENCE_MS } else { BAR_MS };
    let mut told = None;
    loop {
        let raw = api.job_within(id, wait_ms).await?;
        let job: Job = api.parse(&raw)?;
        if job.state.ended() {
            bar.finish_and_clear();
            return Ok(Ended { raw, job });
        }
        if bar.is_hidden() {
            wait_ms = WAIT_MS;
            if told.as_ref() != job.waiting.as_ref().map(|waiting| &waiting.detail) {
                told = job.waiting.as_ref().map(|waiting| waiting.detail.clone());
                tell_why_it_waits(out, &job);
            }
        }
        bar.set_prefix(job.state.as_str());
        bar.set_position((job.progress.fraction * 1000.0) as u64);
        bar.set_message(what_happens(&job));
    }
}

/// A job that no worker can take looks like one that hangs.
pub fn tell_why_it_waits(out: &Out, job: &Job) {
    if let Some(waiting) = &job.waiting {
        out.note(out.paint_note(Hue::Dim, format!("waiting: {}", waiting.detail)));
    }
}

/// Why it waits, or who computes it.
pub fn what_happens(job: &Job) -> String {
    if let Some(waiting) = &job.waiting {
        return waiting.detail.clone();
    }
    let workers: Vec<&str> = job.workers.iter().map(|worker| worker.as_str()).collect();
    let units = if job.progress.units_total > 1 {
        format!("{} of about {} units", job.progress.units_done, job.progress.units_total)
    } else {
        String::new()
    };
    match (workers.as_slice(), units.is_empty()) {
        ([], _) => units,
        (workers, true) => format!("on {}", workers.join(", ")),
        (workers, false) => format!("{units}, on {}", workers.join(", ")),
    }
}

/// What a job's end means: nothing for a completed one, exit code 1 for the others.
pub fn verdict(job: &Job) -> Result<(), Failure> {
    let why = job.error.as_ref().map(|error| format!(": {} ({})", error.message, error.code)).unwrap_or_default();
    match job.state {
        JobState::Failed => Err(Failure::Job(format!("job {} failed{why}", job.id))),
        JobState::Cancelled => Err(Failure::Job(format!("job {} was cancelled{why}", job.id))),
        JobState::Completed
        | JobState::Blocked
        | JobState::Scheduled
        | JobState::Pending
        | JobState::Assigned
        | JobState::Computing => Ok(()),
    }
}

/// `work`, unless Ctrl-C comes first.
pub async fn unless_interrupted<T>(work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    tokio::select! {
        result = work => result,
        _ = tokio::signal::ctrl_c() => Err(Failure::Interrupted(String::new())),
    }
}

/// Waits for the job's end; Ctrl-C cancels the job, because nobody else waits for it.
pub async fn or_cancel<T>(
    api: &Api,
    out: &Out,
    id: JobId,
    work: impl Future<Output = Result<T, Failure>>,
) -> Result<T, Failure> {
    match unless_interrupted(work).await {
        Err(Failure::Interrupted(_)) => {
            let cancelled: Result<Job, Failure> = api.post(&format!("/jobs/{id}/cancel"), None::<&()>).await;
            match cancelled {
                Ok(_) => out.note("\nstopped"),
                Err(failure) => out.note(format!("\ncan't stop job {id}: {}", failure.message())),
            }
            Err(Failure::Interrupted(String::new()))
        }
        result => result,
    }
}
