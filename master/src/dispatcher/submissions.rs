//! Jobs come in: known ids, dependencies, slices of large batches, and the answer after the commit.

use flota_proto::JobId;
use flota_proto::kinds::FieldError;

use super::{Dispatcher, Moment};
use crate::core::{Dependency, Input};
use crate::handle::{IdempotencyKey, Refused, Reply, Submitted};
use crate::submit::NewJob;

/// Jobs taken into one batch, so that one caller does not hold up the loop.
const SLICE: usize = 1000;

/// A submission in work.
pub struct Submission {
    jobs: std::vec::IntoIter<NewJob>,
    /// Answers so far; those of earlier slices are committed.
    done: Submitted,
    /// Its idempotency key.
    pub key: Option<IdempotencyKey>,
    reply: Reply<Submitted>,
}

impl Submission {
    /// Ends it unfinished: what earlier slices accepted stays accepted, so the answer says so where there is one.
    pub fn refuse(self, refused: &Refused) {
        let Self { jobs, mut done, reply, .. } = self;
        if done.is_empty() {
            let _ = reply.send(Err(refused.clone()));
            return;
        }
        done.extend(jobs.map(|_| Err(refused.clone())));
        let _ = reply.send(Ok(done));
    }
}

impl Dispatcher {
    pub(super) fn submit(&mut self, jobs: Vec<NewJob>, key: Option<IdempotencyKey>, reply: Reply<Submitted>) {
        if self.refuse_until > flota_common::clock::now() {
            let detail = "the store failed a moment ago; nothing is accepted until it works again";
            let _ = reply.send(Err(Refused::Unavailable(detail.into())));
            return;
        }
        if let Some(key) = &key {
            match self.answered_before(key) {
                Ok(None) => {}
                Ok(Some(answer)) => {
                    let _ = reply.send(Ok(answer));
                    return;
                }
                Err(refused) => {
                    let _ = reply.send(Err(refused));
                    return;
                }
            }
        }
        if let Err(refused) = self.core.check_room(jobs.len()) {
            let _ = reply.send(Err(refused));
            return;
        }
        let done = Vec::with_capacity(jobs.len());
        self.submissions.push_back(Submission { jobs: jobs.into_iter(), done, key, reply });
    }

    /// Takes the next slice of what was submitted.
    pub(super) fn submission_slice(&mut self, at: Moment) {
        let mut left = SLICE;
        while left > 0
            && let Some(mut submission) = self.submissions.pop_front()
        {
            let mut slice = Vec::new();
            for job in submission.jobs.by_ref().take(left) {
                slice.push(self.accept(at, job));
                left -= 1;
            }
            if submission.jobs.len() > 0 {
                self.answer_slice(submission, slice);
                return;
            }
            self.answer_last(submission, slice);
        }
    }

    /// The slice is part of the answer only once it is in the store.
    fn answer_slice(&mut self, mut submission: Submission, slice: Submitted) {
        // The commit follows before the next slice is taken; where it fails, all submissions in work are refused.
        submission.done.extend(slice);
        self.submissions.push_front(submission);
    }

    fn answer_last(&mut self, submission: Submission, slice: Submitted) {
        let Submission { done: mut answer, key, reply, .. } = submission;
        answer.extend(slice);
        if let Some(key) = key {
            self.keep_answer(key, &answer);
        }
        self.answer(reply, answer);
    }

    fn accept(&mut self, at: Moment, job: NewJob) -> Result<JobId, Refused> {
        let id = job.id;
        if job.fingerprint.is_some()
            && let Some(before) = self.fingerprint_of(id)?
        {
            // A client's id seen before: the same body answers the existing job.
            if before == job.fingerprint {
                return Ok(id);
            }
            return Err(Refused::Conflict("id_taken", format!("there is a job {id} already, with another body")));
        }
        let dependencies = self.dependencies(&job)?;
        if let Some(key) = job.api_key.clone() {
            self.credentials.keep(id, key);
        }
        self.core.apply(at, Input::Submit { job: Box::new(job), dependencies }, &mut self.effects).map(|()| id)
    }

    fn fingerprint_of(&mut self, id: JobId) -> Result<Option<Option<[u8; 16]>>, Refused> {
        if let Some(known) = self.core.known(id) {
            return Ok(Some(known));
        }
        let found = self.store.own_reader().state(id);
        let found = found.map_err(|error| Refused::Unavailable(format!("failed to {error}")))?;
        Ok(found.map(|(_, fingerprint)| fingerprint))
    }

    fn dependencies(&mut self, job: &NewJob) -> Result<Vec<Dependency>, Refused> {
        let mut dependencies = Vec::with_capacity(job.depends_on.len());
        for (index, id) in job.depends_on.iter().enumerate() {
            let ended = if self.core.known(*id).is_some() {
                None
            } else {
                let found = self.store.own_reader().state(*id);
                match found.map_err(|error| Refused::Unavailable(format!("failed to {error}")))? {
                    Some((state, _)) => Some(state),
                    None => {
                        let path = format!("depends_on[{index}]");
                        return Err(FieldError::new(path, format!("there is no job {id}")).into());
                    }
                }
            };
            dependencies.push(Dependency { id: *id, ended });
        }
        Ok(dependencies)
    }

    /// Answers once the batch is in the store.
    pub(super) fn answer<T: Send + 'static>(&mut self, reply: Reply<T>, value: T) {
        self.answers.push(Box::new(move |stored| {
            let _ = reply.send(stored.map(|()| value));
        }));
    }
}
