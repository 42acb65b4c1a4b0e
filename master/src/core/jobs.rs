//! The life of a job: accepted, held back, started, cancelled, ended.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use flota_proto::kinds::{PartialChat, Usage};
use flota_proto::rest::{AttemptOutcome, JobError, JobState, OnDependencyFailure};
use flota_proto::{JobId, Timestamp, UnitId, WorkerId};

use super::defect::Defect;
use super::fleet::Owed;
use super::gather::Gather;
use super::job::{Hold, Job, Seq, Spec, UnitState, What};
use super::queue::{REMAINDER, Shape};
use super::record::{StoredJob, UnitRow};
use super::{Core, Dependency, Effect, Moment, Timer};
use crate::handle::Refused;
use crate::submit::NewJob;
use crate::tokens;

/// The code of what fails, or is refused, because something stored can't be read any more.
pub const STORE_UNREADABLE: &str = "store_unreadable";
/// Payloads up to this stay in memory with their job.
const PAYLOAD_IN_MEMORY_BYTES_MAX: usize = 1024;

impl Core {
    pub(super) fn submit(
        &mut self,
        at: Moment,
        new: NewJob,
        dependencies: &[Dependency],
        out: &mut Vec<Effect>,
    ) -> Result<(), Refused> {
        self.check_room(&new.owner, 1)?;
        if new.payload.len() > self.limits.payload_bytes_max {
            let most = self.limits.payload_bytes_max;
            let message = format!("has {} bytes, at most {most} are taken (FLOTA_PAYLOAD_MAX)", new.payload.len());
            return Err(flota_proto::kinds::FieldError::new("payload", message).into());
        }
        if self.by_id.contains_key(&new.id) {
            return Err(Refused::Conflict("id_taken", format!("there is a job {} already", new.id)));
        }
        let seq = self.next_seq;
        self.next_seq += 1;
        let mut new = new;
        let ready = new.ready.take();
        let job = self.new_job(at.now, seq, new);
        let id = job.spec.id;
        let (run_at, deadline) = (job.run_at, job.spec.deadline);
        self.by_id.insert(id, seq);
        self.jobs.insert(seq, job);
        *self.counts.entry(JobState::Blocked).or_default() += 1;
        self.owner_has_more(seq);
        if let Some(deadline) = deadline {
            self.timers.insert((deadline, Timer::Deadline(seq)));
        }
        if let Some(run_at) = run_at {
            self.timers.insert((run_at, Timer::Start(seq)));
        }
        self.mark(seq);
        let failed = self.wait_for(seq, dependencies);
        if let Some(dependency) = failed {
            self.dependency_failed(at, seq, dependency, out);
        } else if let Some(result) = ready {
            self.end_with_cached(at, seq, result, out);
        } else {
            self.open_for_work(at, seq, out);
        }
        Ok(())
    }

    fn new_job(&mut self, now: Timestamp, seq: Seq, new: NewJob) -> Job {
        let shape = Shape {
            kind: new.kind,
            requires: new.requires,
            model: new.model,
            credential: new.api_key.is_some(),
            randomx_key: new.randomx_key.map(|key| Arc::from(flota_proto::HexBytes(key).to_hex())),
        };
        let spec = Spec {
            id: new.id,
            fingerprint: new.fingerprint,
            kind: new.kind,
            queue: self.name(&new.queue),
            project: new.project.as_deref().map(|name| self.name(name)),
            owner: self.name(&new.owner),
            labels: (!new.labels.is_empty()).then(|| Arc::new(new.labels)),
            max_attempts: new.max_attempts,
            timeout_ms: u64::try_from(new.timeout.as_millis()).unwrap_or(u64::MAX),
            deadline: new.deadline,
            shape: self.queue.acquire(shape),
            on_dependency_failure: new.on_dependency_failure,
            created_at: now,
            work: new.work,
            unit_max: new.unit_max,
            cache: new.cache,
            turn: new.turn,
            retry: new.retry.map(Arc::new),
            tokens: new.tokens,
            texts: new.texts,
        };
        let mut job = Job::fresh(seq, spec, new.priority);
        job.shares = new.shares;
        job.run_at = new.run_at.filter(|run_at| *run_at > now);
        // Kept until the first commit in any case: the store takes it from here.
        job.payload = Some(new.payload);
        job
    }

    /// Notes what a job waits for; answers with a dependency that has failed already.
    fn wait_for(&mut self, seq: Seq, dependencies: &[Dependency]) -> Option<JobId> {
        let on_failure = self.jobs.get(&seq)?.spec.on_dependency_failure;
        for dependency in dependencies {
            let ended = match dependency.ended {
                Some(state) => Some(state),
                // One that ended in this very batch is still in memory.
                None => self.by_id.get(&dependency.id).and_then(|s| self.jobs.get(s)).map(|job| job.state),
            };
            match ended {
                Some(JobState::Failed | JobState::Cancelled) if on_failure != OnDependencyFailure::Continue => {
                    // Kept for a retry.
                    self.jobs.get_mut(&seq)?.waits_for.insert(dependency.id);
                    return Some(dependency.id);
                }
                Some(state) if state.ended() => {}
                Some(_) | None => {
                    self.dependents.entry(dependency.id).or_default().insert(seq);
                    if let Some(job) = self.jobs.get_mut(&seq) {
                        job.waits_for.insert(dependency.id);
                    }
                }
            }
        }
        None
    }

    fn dependency_failed(&mut self, at: Moment, seq: Seq, dependency: JobId, out: &mut Vec<Effect>) {
        let Some(job) = self.jobs.get(&seq) else { return };
        let error = JobError {
            code: "dependency_failed".into(),
            message: format!("job {dependency}, which this one waits for, did not complete"),
        };
        let state = match job.spec.on_dependency_failure {
            OnDependencyFailure::Cancel => JobState::Cancelled,
            OnDependencyFailure::Fail | OnDependencyFailure::Continue => JobState::Failed,
        };
        self.end(at, seq, state, Some(error), out);
    }

    /// Lets a job into the queue if nothing holds it back, and tells its state.
    pub(super) fn open_for_work(&mut self, at: Moment, seq: Seq, out: &mut Vec<Effect>) {
        let Some(job) = self.jobs.get(&seq) else { return };
        if job.state.ended() {
            return;
        }
        if job.waits_for.is_empty() && job.run_at.is_none() {
            let entries = waiting_entries(job);
            let (shape, priority, owner) = (job.spec.shape, job.priority, job.spec.owner.clone());
            for entry in entries {
                self.queue.insert(shape, priority, &owner, entry);
            }
        }
        self.refresh(at, seq, 0, None, None, out);
    }

    pub(super) fn start_timer(&mut self, at: Moment, seq: Seq, out: &mut Vec<Effect>) {
        let Some(job) = self.jobs.get_mut(&seq) else { return };
        if job.run_at.is_some_and(|run_at| run_at <= at.now) {
            job.run_at = None;
            self.mark(seq);
            self.open_for_work(at, seq, out);
        }
    }

    pub(super) fn deadline_timer(&mut self, at: Moment, seq: Seq, out: &mut Vec<Effect>) {
        let Some(job) = self.jobs.get(&seq) else { return };
        if job.state.ended() || job.spec.deadline.is_none_or(|deadline| deadline > at.now) {
            return;
        }
        let error = JobError { code: "deadline".into(), message: "the job's deadline has passed".into() };
        self.end(at, seq, JobState::Failed, Some(error), out);
    }

    pub(super) fn cancel(&mut self, at: Moment, id: JobId, out: &mut Vec<Effect>) -> Result<(), Refused> {
        let seq = self.live(id)?;
        if self.has(Defect::CancelLost) {
            return Ok(());
        }
        let error = JobError { code: "cancelled".into(), message: "the job was cancelled".into() };
        self.end(at, seq, JobState::Cancelled, Some(error), out);
        Ok(())
    }

    /// Ends the jobs whose users' keys are not `here`.
    pub fn fail_credential_lost(&mut self, at: Moment, here: impl Fn(JobId) -> bool, out: &mut Vec<Effect>) {
        let needs = |job: &&Job| !job.state.ended() && self.queue.shape(job.spec.shape).credential;
        let lost: Vec<Seq> =
            self.jobs.values().filter(needs).filter(|job| !here(job.spec.id)).map(|job| job.seq).collect();
        for seq in lost {
            let message = "its API key can no longer be opened, as the master's sealing key is another one: ask again with the key".to_owned();
            let error = JobError { code: "credential_lost".into(), message };
            self.end(at, seq, JobState::Failed, Some(error), out);
        }
    }

    /// Something stored of a job can't be read, so it can't go on: it fails when the batch in work, or the next one, settles.
    pub fn damaged(&mut self, job: JobId, what: String) {
        self.damaged.push((job, what));
    }

    pub(super) fn fail_damaged(&mut self, at: Moment, out: &mut Vec<Effect>) {
        for (job, what) in std::mem::take(&mut self.damaged) {
            let Ok(seq) = self.live(job) else { continue };
            let message = format!(
                "the store holds something of this job that can't be read: {what}. It is damaged, or was written by a newer flota: use \
                 that one, restore a backup, or submit the job again"
            );
            let error = JobError { code: STORE_UNREADABLE.into(), message };
            self.end(at, seq, JobState::Failed, Some(error), out);
        }
    }

    /// The key of a job that has not ended.
    pub(super) fn live(&self, id: JobId) -> Result<Seq, Refused> {
        let seq = *self.by_id.get(&id).ok_or_else(|| Refused::NotFound(format!("job {id} that has not ended")))?;
        match self.jobs.get(&seq) {
            Some(job) if !job.state.ended() => Ok(seq),
            Some(job) => {
                Err(Refused::Conflict("job_ended", format!("job {id} has ended: it is {}", job.state.as_str())))
            }
            None => Err(Refused::NotFound(format!("job {id}"))),
        }
    }

    pub(super) fn set_priority(&mut self, id: JobId, priority: u8) -> Result<(), Refused> {
        let seq = self.live(id)?;
        let Some(job) = self.jobs.get_mut(&seq) else { return Ok(()) };
        let before = std::mem::replace(&mut job.priority, priority);
        let (shape, owner, entries) = (job.spec.shape, job.spec.owner.clone(), waiting_entries(job));
        for entry in entries {
            if self.queue.remove(shape, before, &owner, entry) {
                self.queue.insert(shape, priority, &owner, entry);
            }
        }
        self.mark(seq);
        Ok(())
    }

    /// A job that failed or was cancelled starts again: same id, failures 0, what was computed is kept.
    pub(super) fn retry(&mut self, at: Moment, stored: StoredJob, out: &mut Vec<Effect>) -> Result<(), Refused> {
        let id = stored.head.id;
        if self.by_id.contains_key(&id) {
            return Err(Refused::Conflict("job_not_ended", format!("job {id} is being ended: try again")));
        }
        self.check_room(&stored.head.owner, 1)?;
        let seq = self.restore_job(at.now, without_suspects(stored));
        let Some(job) = self.jobs.get_mut(&seq) else { return Ok(()) };
        job.state = JobState::Blocked;
        job.finished_at = None;
        job.error = None;
        job.result = None;
        job.failures = 0;
        job.run_at = None;
        let waits_for = std::mem::take(&mut job.waits_for);
        for unit in &mut job.units {
            unit.failures = 0;
            unit.dirty = true;
            unit.state = UnitState::Pending;
        }
        // A deadline that has passed would end it at once, which is not what was asked for.
        if job.spec.deadline.is_some_and(|deadline| deadline <= at.now) {
            job.spec.deadline = None;
        }
        if let Some(deadline) = job.spec.deadline {
            self.timers.insert((deadline, Timer::Deadline(seq)));
        }
        *self.counts.entry(JobState::Blocked).or_default() += 1;
        self.owner_has_more(seq);
        self.mark(seq);
        self.wait_again(seq, waits_for);
        self.open_for_work(at, seq, out);
        Ok(())
    }

    /// What a job waited for and goes on, or goes on again, is waited for. What failed is not: who retries a job without what it
    /// waits for wants it so.
    fn wait_again(&mut self, seq: Seq, waits_for: BTreeSet<JobId>) {
        let lives =
            |id: &JobId| self.by_id.get(id).and_then(|s| self.jobs.get(s)).is_some_and(|job| !job.state.ended());
        let live: BTreeSet<JobId> = waits_for.into_iter().filter(lives).collect();
        for id in &live {
            self.dependents.entry(*id).or_default().insert(seq);
        }
        if let Some(job) = self.jobs.get_mut(&seq) {
            job.waits_for = live;
        }
    }

    /// Ends a job: its units stop, its result is what there is, and jobs that wait for it go on or end too.
    pub(super) fn end(
        &mut self,
        at: Moment,
        seq: Seq,
        state: JobState,
        error: Option<JobError>,
        out: &mut Vec<Effect>,
    ) {
        let mut ends = VecDeque::from([(seq, state, error)]);
        while let Some((seq, state, error)) = ends.pop_front() {
            let Some(id) = self.end_one(at, seq, state, error, out) else { continue };
            for dependent in self.dependents.remove(&id).unwrap_or_default() {
                if let Some(end) = self.dependency_ended(at, dependent, id, state, out) {
                    ends.push_back(end);
                }
            }
        }
    }

    fn dependency_ended(
        &mut self,
        at: Moment,
        dependent: Seq,
        id: JobId,
        state: JobState,
        out: &mut Vec<Effect>,
    ) -> Option<(Seq, JobState, Option<JobError>)> {
        let job = self.jobs.get_mut(&dependent).filter(|job| !job.state.ended())?;
        job.waits_for.remove(&id);
        if job.shares.take_if(|shared| *shared == id).is_some()
            && state == JobState::Completed
            && let Some(result) = self.job_result(id)
        {
            let job = self.jobs.get_mut(&dependent)?;
            job.result = Some(result);
            job.cached = true;
            return Some((dependent, JobState::Completed, None));
        }
        let job = self.jobs.get_mut(&dependent)?;
        let policy = job.spec.on_dependency_failure;
        if state != JobState::Completed && policy != OnDependencyFailure::Continue {
            let error = JobError {
                code: "dependency_failed".into(),
                message: format!("job {id}, which this one waits for, is {}", state.as_str()),
            };
            let state = if policy == OnDependencyFailure::Cancel { JobState::Cancelled } else { JobState::Failed };
            // Kept for a retry.
            self.jobs.get_mut(&dependent)?.waits_for.insert(id);
            return Some((dependent, state, Some(error)));
        }
        self.mark(dependent);
        self.open_for_work(at, dependent, out);
        None
    }

    fn end_one(
        &mut self,
        at: Moment,
        seq: Seq,
        state: JobState,
        error: Option<JobError>,
        out: &mut Vec<Effect>,
    ) -> Option<JobId> {
        let job = self.jobs.get(&seq).filter(|job| !job.state.ended())?;
        let (shape, priority, owner) = (job.spec.shape, job.priority, job.spec.owner.clone());
        for entry in waiting_entries(job) {
            self.queue.remove(shape, priority, &owner, entry);
        }
        self.owner_has_less(&owner);
        let job = self.jobs.get(&seq)?;
        let open: Vec<u32> = job
            .units
            .iter()
            .filter(|unit| !matches!(unit.state, UnitState::Completed | UnitState::Failed))
            .map(|unit| unit.index)
            .collect();
        for index in open {
            self.stop_unit(at, seq, index, out);
        }
        let job = self.jobs.get_mut(&seq)?;
        let id = job.spec.id;
        job.failures = job.failures();
        job.finished_at = Some(at.now);
        job.error = error.clone();
        job.result = job.result.take().or_else(|| job.gather.result());
        job.gather = Gather::Single;
        if state != JobState::Completed && job.result.is_none() {
            // The part of an answer that came is kept.
            let partial = job.told_text().map(|text| {
                let (input_tokens, output_tokens) = (job.spec.tokens.0, tokens::estimate(&text));
                let usage = Usage { input_tokens, output_tokens, thought_tokens: 0, estimated: true };
                PartialChat { text, partial: true, usage: Some(usage) }
            });
            job.result = partial.and_then(|partial| serde_json::to_vec(&partial).ok()).map(Bytes::from);
        }
        job.clear_ring();
        let (deadline, run_at) = (job.spec.deadline, job.run_at.take());
        let waits_for = job.waits_for.clone();
        for dependency in waits_for {
            if let Some(waiting) = self.dependents.get_mut(&dependency)
                && waiting.remove(&seq)
                && waiting.is_empty()
            {
                self.dependents.remove(&dependency);
            }
        }
        if let Some(deadline) = deadline {
            self.timers.remove(&(deadline, Timer::Deadline(seq)));
        }
        if let Some(run_at) = run_at {
            self.timers.remove(&(run_at, Timer::Start(seq)));
        }
        let attempt = self.jobs.get(&seq).and_then(|job| job.units.last()).map_or(0, |unit| unit.attempt);
        let worker = self.jobs.get(&seq).and_then(|job| job.workers.last().cloned());
        self.active.remove(&seq);
        self.set_state(at, seq, state, attempt, worker, error, out);
        self.ended.push(seq);
        out.push(Effect::Ended(id));
        Some(id)
    }

    /// Cancels one unit of a job that ends.
    fn stop_unit(&mut self, at: Moment, seq: Seq, index: u32, out: &mut Vec<Effect>) {
        let attempt = self.jobs.get(&seq).and_then(|job| job.unit(index)).map_or(0, |unit| unit.attempt);
        if let Some((hold, unit)) = self.take_hold(at, seq, index, AttemptOutcome::Cancelled, None, out) {
            self.tell_cancel(&hold, unit, out);
            self.owe(&hold, unit, attempt);
        }
        if let Some(unit) = self.jobs.get_mut(&seq).and_then(|job| job.unit_mut(index)) {
            unit.state = UnitState::Cancelled;
            unit.dirty = true;
        }
    }

    /// A simple worker can't be told to stop: it is free when it has answered, or its time has passed.
    fn owe(&mut self, hold: &Hold, unit: UnitId, attempt: u64) {
        if self.fleet.get(hold.worker).is_some_and(|worker| worker.simple) {
            let owed = Owed { unit, attempt, assigned_at: hold.assigned_at, until: hold.until };
            self.fleet.update(hold.worker, |worker| worker.owes = Some(owed));
            self.timers.insert((hold.until, Timer::Worker(hold.worker)));
        }
    }

    /// Derives a job's state and tells it where it changed.
    pub(super) fn refresh(
        &mut self,
        at: Moment,
        seq: Seq,
        attempt: u64,
        worker: Option<WorkerId>,
        error: Option<JobError>,
        out: &mut Vec<Effect>,
    ) {
        let Some(job) = self.jobs.get(&seq) else { return };
        let state = derive(job);
        if state != job.state || job.log.is_empty() {
            self.set_state(at, seq, state, attempt, worker, error, out);
        }
    }

    /// Tells a job's state again, with what happened meanwhile.
    pub(super) fn tell_state(&mut self, at: Moment, seq: Seq, error: Option<JobError>, out: &mut Vec<Effect>) {
        let Some(job) = self.jobs.get(&seq) else { return };
        let state = derive(job);
        self.set_state(at, seq, state, 0, None, error, out);
    }

    #[allow(clippy::too_many_arguments)]
    fn set_state(
        &mut self,
        at: Moment,
        seq: Seq,
        state: JobState,
        attempt: u64,
        worker: Option<WorkerId>,
        error: Option<JobError>,
        out: &mut Vec<Effect>,
    ) {
        let Some(job) = self.jobs.get_mut(&seq) else { return };
        let before = std::mem::replace(&mut job.state, state);
        if let Some(count) = self.counts.get_mut(&before) {
            *count = count.saturating_sub(1);
        }
        if !state.ended() {
            *self.counts.entry(state).or_default() += 1;
        }
        let event = job.record(at.now, attempt, What::State { state, worker, error }, self.limits.event_bytes_max);
        out.push(Effect::Event { job: job.spec.id, kind: job.spec.kind, event, last: state.ended() });
        // That a worker has begun is no reason to write the row again: its lease stands there already.
        if state != JobState::Computing || job.events_run_ahead() {
            self.mark(seq);
        }
    }
}

impl Job {
    /// A job that was just accepted.
    pub(super) fn fresh(seq: Seq, spec: Spec, priority: u8) -> Self {
        let next_from = match spec.work {
            crate::submit::Work::Range { start, .. } => start,
            crate::submit::Work::Single | crate::submit::Work::List(_) => 0,
        };
        Self {
            seq,
            priority,
            state: JobState::Blocked,
            run_at: None,
            waits_for: BTreeSet::new(),
            started_at: None,
            finished_at: None,
            units: Vec::new(),
            next_index: 0,
            next_from,
            units_done: 0,
            failures: 0,
            gather: Gather::new(spec.kind, spec.texts),
            workers: Vec::new(),
            error: None,
            result: None,
            payload: None,
            log: Vec::new(),
            ring: VecDeque::new(),
            ring_bytes: 0,
            next_event: 1,
            stored_event: 1,
            progress_at: Timestamp(0),
            dirty: false,
            stored: false,
            key: None,
            shares: None,
            cached: false,
            spec: Box::new(spec),
        }
    }

    /// Lets go of a large payload once the store has it.
    pub(super) fn slim(&mut self) {
        if self.payload.as_ref().is_some_and(|payload| payload.len() > PAYLOAD_IN_MEMORY_BYTES_MAX) {
            self.payload = None;
        }
    }
}

/// What a liar computed is no part of what is kept.
fn without_suspects(mut stored: StoredJob) -> StoredJob {
    let suspect = |unit: &&mut UnitRow| unit.suspect && unit.state == JobState::Completed;
    for unit in stored.units.iter_mut().filter(suspect) {
        unit.state = JobState::Pending;
        unit.output = None;
        stored.row.units_done = stored.row.units_done.saturating_sub(1);
    }
    stored
}

/// What a job has, or would have, in the queue.
pub(super) fn waiting_entries(job: &Job) -> Vec<super::queue::Entry> {
    let pending = job.units.iter().filter(|unit| unit.state == UnitState::Pending).map(|unit| (job.seq, unit.index));
    let remainder = (job.uncut() > 0).then_some((job.seq, REMAINDER));
    pending.chain(remainder).collect()
}

fn derive(job: &Job) -> JobState {
    if job.state.ended() {
        return job.state;
    }
    if !job.waits_for.is_empty() {
        return JobState::Blocked;
    }
    if job.run_at.is_some() {
        return JobState::Scheduled;
    }
    let mut furthest = if job.uncut() > 0 { JobState::Pending } else { JobState::Scheduled };
    for state in job.units.iter().map(super::job::Unit::job_state).filter(|state| !state.ended()) {
        // In the order of the states: scheduled, pending, assigned, computing. Of many units one of the first computes.
        furthest = furthest.max(state);
        if furthest == JobState::Computing {
            break;
        }
    }
    furthest
}
