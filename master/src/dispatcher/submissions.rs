//! Jobs come in: known ids, dependencies, slices of large batches, and the answer after the commit.

use flota_proto::kinds::FieldError;
use flota_proto::{JobId, Kind};

use super::idempotency::Before;
use super::{Dispatcher, Moment};
use crate::aside::Aside;
use crate::core::{Dependency, Input};
use crate::handle::{IdempotencyKey, Refused, Reply, Submitted};
use crate::session::{Followed, SessionChange, SessionKey};
use crate::submit::NewJob;

/// Jobs taken into one batch, so that one caller does not hold up the loop.
const SLICE: usize = 1000;

/// A submission in work.
pub struct Submission {
    jobs: std::vec::IntoIter<NewJob>,
    /// Answers of earlier slices: they are in the store.
    stored: Submitted,
    /// Answers of the slice in this batch: they count when its commit succeeds.
    slice: Submitted,
    /// Where it came with an idempotency key.
    pub keyed: Option<Keyed>,
    /// Who is to be told of its jobs.
    session: Option<SessionKey>,
    reply: Reply<Submitted>,
}

/// A submission with an idempotency key.
pub struct Keyed {
    /// The key.
    pub key: IdempotencyKey,
    /// The ids of all its jobs, in order.
    pub ids: Vec<JobId>,
    /// It was begun before: jobs that are there already are its own.
    pub resumed: bool,
}

impl Keyed {
    /// Jobs of a submission that was begun before get the ids that they had.
    fn begin(key: IdempotencyKey, before: Before, jobs: &mut [NewJob]) -> Self {
        let ids = match before {
            Before::Begun(ids) if ids.len() == jobs.len() => ids,
            Before::Begun(_) | Before::New | Before::Answered(_) => {
                return Self { key, ids: jobs.iter().map(|job| job.id).collect(), resumed: false };
            }
        };
        for (job, id) in jobs.iter_mut().zip(&ids) {
            job.id = *id;
        }
        Self { key, ids, resumed: true }
    }
}

impl Submission {
    /// Ends it unfinished: what earlier slices accepted stays accepted, so the answer says so where there is one.
    pub fn refuse(self, refused: &Refused) {
        let Self { jobs, stored, slice, reply, .. } = self;
        let _ = reply.send(unfinished(stored, slice.len() + jobs.len(), refused));
    }
}

/// The answer where `lost` jobs behind those that are stored are not.
fn unfinished(stored: Submitted, lost: usize, refused: &Refused) -> Result<Submitted, Refused> {
    if stored.is_empty() {
        return Err(refused.clone());
    }
    Ok(stored.into_iter().chain((0..lost).map(|_| Err(refused.clone()))).collect())
}

impl Dispatcher {
    pub(super) fn submit(
        &mut self,
        jobs: Vec<NewJob>,
        key: Option<IdempotencyKey>,
        session: Option<SessionKey>,
        reply: Reply<Submitted>,
    ) {
        if let Some(refused) = self.not_accepting() {
            return drop(reply.send(Err(refused)));
        }
        let mut jobs = jobs;
        let mut keyed = None;
        if let Some(key) = key {
            match self.before(&key) {
                Ok(Before::Answered(answer)) => return drop(reply.send(Ok(answer))),
                Ok(before) => keyed = Some(Keyed::begin(key, before, &mut jobs)),
                Err(refused) => return drop(reply.send(Err(refused))),
            }
        }
        if let Err(refused) = self.core.check_room(jobs.first().map_or("", |job| &job.owner), jobs.len()) {
            let _ = reply.send(Err(refused));
            return;
        }
        let (stored, slice) = (Vec::with_capacity(jobs.len()), Vec::new());
        self.submissions.push_back(Submission { jobs: jobs.into_iter(), stored, slice, keyed, session, reply });
    }

    /// Takes the next slice of what was submitted.
    pub(super) fn submission_slice(&mut self, at: Moment) {
        let mut left = SLICE;
        while left > 0
            && let Some(mut submission) = self.submissions.pop_front()
        {
            // Where the commit of an earlier slice has failed, the submission was refused.
            submission.stored.append(&mut submission.slice);
            let resumed = submission.keyed.as_ref().is_some_and(|keyed| keyed.resumed);
            for job in submission.jobs.by_ref().take(left) {
                let question = job.kind == Kind::AiChat;
                let answer = self.accept(at, job, resumed);
                if let (Some(key), Ok(job)) = (submission.session, &answer) {
                    let followed = Followed { job: *job, after: None, question };
                    self.asides.push(Aside::Session(SessionChange::Follow(key, followed), at.now));
                }
                submission.slice.push(answer);
            }
            left -= submission.slice.len();
            if submission.jobs.len() > 0 {
                if let Some(keyed) = submission.keyed.as_ref().filter(|_| submission.stored.is_empty()) {
                    self.keep_begun(keyed);
                }
                self.submissions.push_front(submission);
                return;
            }
            self.answer_last(submission);
        }
    }

    fn answer_last(&mut self, submission: Submission) {
        let Submission { stored, slice, keyed, reply, .. } = submission;
        let before = stored.len();
        let mut answer = stored;
        answer.extend(slice);
        if let Some(keyed) = keyed {
            self.keep_answer(keyed, &answer);
        }
        self.answers.push(Box::new(move |outcome| {
            let lost = answer.len() - before;
            let _ = reply.send(match outcome {
                Ok(()) => Ok(answer),
                Err(refused) => {
                    answer.truncate(before);
                    unfinished(answer, lost, &refused)
                }
            });
        }));
    }

    fn accept(&mut self, at: Moment, job: NewJob, resumed: bool) -> Result<JobId, Refused> {
        let id = job.id;
        if (resumed || job.fingerprint.is_some())
            && let Some(before) = self.fingerprint_of(id)?
        {
            // A client's id seen before: the same body answers the existing job.
            if before == job.fingerprint {
                return Ok(id);
            }
            return Err(Refused::Conflict("id_taken", format!("there is a job {id} already, with another body")));
        }
        let mut job = job;
        let mut dependencies = self.dependencies(&job)?;
        self.core.check_model(&job)?;
        self.look_up(&mut job);
        if job.ready.is_none()
            && job.shares.is_none()
            && let Some(error) = self.core.over_budget(at.now, &job)
        {
            let retry_after_seconds = super::usage::seconds_left();
            return Err(Refused::BudgetSpent { detail: error.message, retry_after_seconds });
        }
        dependencies.extend(job.shares.map(|id| Dependency { id, ended: None }));
        dependencies.extend(self.place_question(&mut job)?);
        let key = job.api_key.clone();
        let (cache_key, alone) = (job.cache_key, job.ready.is_none() && job.shares.is_none());
        let turn = job.turn.map(|turn| (turn, job.payload.clone()));
        self.core.apply(at, Input::Submit { job: Box::new(job), dependencies }, &mut self.effects)?;
        self.note_work(id, cache_key, alone);
        if let Some(key) = key {
            self.keep_key(id, &key);
        }
        if let Some((turn, payload)) = turn {
            self.question_accepted(at, id, turn, &payload);
        }
        Ok(id)
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
