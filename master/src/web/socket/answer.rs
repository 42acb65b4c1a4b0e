//! `ai-response`: what a question came to, made from its job.

use flota_common::clock;
use flota_proto::JobId;
use flota_proto::kinds::{ChatPayload, ChatResult, PartialChat, Role};
use flota_proto::rest::{Job, JobError, JobState};
use flota_proto::socket::{AiResponse, Finish};

use crate::web::problem::Failure;

/// The answer of a job that has ended.
pub fn of_job(job: &Job) -> AiResponse {
    let base = AiResponse {
        query: question(job).unwrap_or_default(),
        response: String::new(),
        worker_id: job.workers.last().cloned(),
        processing_time: match (job.started_at, job.finished_at) {
            (Some(started), Some(finished)) => finished.since_ms(started),
            _ => 0,
        },
        timestamp: job.finished_at.unwrap_or_else(clock::now),
        job_id: Some(job.id),
        model: None,
        provider: None,
        finish: Finish::Error,
        usage: job.result.as_ref().and_then(|result| serde_json::from_str::<PartialChat>(result.get()).ok()?.usage),
        dropped_turns: 0,
        notes: Vec::new(),
        error: None,
    };
    match (job.state, job.result.as_ref().map(|result| serde_json::from_str::<ChatResult>(result.get()))) {
        (JobState::Completed, Some(Ok(result))) => AiResponse {
            response: result.text,
            // A simple worker does not say.
            model: Some(result.model).filter(|model| !model.is_empty()),
            provider: Some(result.provider),
            finish: result.finish.into(),
            usage: Some(result.usage),
            dropped_turns: result.dropped_turns,
            notes: result.notes,
            ..base
        },
        (JobState::Completed, _) => failed(base, "bad_result", "The worker's answer could not be read."),
        (JobState::Cancelled, _) => match &job.error {
            Some(error) => failed(base, &error.code, &error.message),
            None => failed(base, "cancelled", "The question was cancelled."),
        },
        _ => match &job.error {
            Some(error) => failed(base, &error.code, &error.message),
            None => failed(base, "failed", "The question failed."),
        },
    }
}

/// The answer to a question that was not taken.
pub fn refused(job_id: Option<JobId>, query: String, failure: &Failure) -> AiResponse {
    let problem = failure.problem();
    let base = AiResponse {
        query,
        response: String::new(),
        worker_id: None,
        processing_time: 0,
        timestamp: clock::now(),
        job_id,
        model: None,
        provider: None,
        finish: Finish::Error,
        usage: None,
        dropped_turns: 0,
        notes: Vec::new(),
        error: None,
    };
    failed(base, &problem.code, &problem.detail)
}

fn failed(base: AiResponse, code: &str, message: &str) -> AiResponse {
    let error = JobError { code: code.to_owned(), message: message.to_owned() };
    AiResponse { response: format!("Error: {message}"), finish: Finish::Error, error: Some(error), ..base }
}

/// The last thing that the user said.
fn question(job: &Job) -> Option<String> {
    let payload: ChatPayload = serde_json::from_str(job.payload.as_ref()?.get()).ok()?;
    payload.messages.into_iter().rev().find(|message| message.role == Role::User).map(|message| message.content)
}
