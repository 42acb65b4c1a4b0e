//! What users do, and what they were promised.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use flota_master::core::record::StoredJob;
use flota_master::core::{Dependency, Input};
use flota_master::submit::{NewJob, Work};
use flota_proto::rest::{JobState, OnDependencyFailure, Requires};
use flota_proto::{Algorithm, JobId, Kind};
use rand::Rng;
use uuid::Uuid;

use crate::master::Answer;
use crate::worker::LIE;
use crate::world::World;

/// What was promised about a job.
pub struct Promise {
    kind: Kind,
    work: Work,
    max_attempts: u32,
    deadline: bool,
    policy: OnDependencyFailure,
    dependent: bool,
    /// Its user was told that it is cancelled.
    pub cancelled: bool,
    /// Its user asked for that; whether it was stored is not known where the answer was lost.
    cancel_sent: bool,
    /// Its user was told of a failure: it may have been accepted all the same.
    pub unsure: bool,
}

impl World {
    pub fn user(&mut self) {
        if self.chance(15) {
            self.submit();
        }
        match self.rng.random_range(0..100) {
            0..2 => self.cancel(),
            2..4 => {
                if let Some(id) = self.some_job(false) {
                    let priority = self.rng.random_range(0..10);
                    self.input(Input::SetPriority(id, priority));
                }
            }
            4..7 => self.retry(),
            7..14 => {
                let watched = self.some_job(false).and_then(|id| Some((id, self.core.events(id, None)?)));
                if let Some((id, backlog)) = watched {
                    let live = self.core.job_view(id).is_some_and(|job| !job.state.ended());
                    if live && !self.watches.contains_key(&id) {
                        self.answers.push(Answer::Watching(id, backlog));
                    }
                }
            }
            _ => {}
        }
    }

    fn cancel(&mut self) {
        let Some(id) = self.some_job(false) else { return };
        self.answers.push(Answer::Cancelled(id));
        let place = self.answers.len() - 1;
        self.promised.entry(id).and_modify(|promise| promise.cancel_sent = true);
        if self.core.require_live(id).is_err() {
            self.answers.truncate(place);
            return;
        }
        self.input(Input::Cancel(id));
    }

    fn retry(&mut self) {
        let Some(id) = self.some_job(true) else { return };
        let Some(stored) = self.disk.job(id) else { return };
        let may = matches!(stored.row.state, JobState::Failed | JobState::Cancelled);
        if may && self.core.job_view(id).is_none() {
            self.answers.push(Answer::Retried(id));
            self.input(Input::Retry(Box::new(stored)));
        }
    }

    fn some_job(&mut self, ended: bool) -> Option<JobId> {
        let jobs: Vec<JobId> = self.promised.keys().filter(|id| self.ended.contains(id) == ended).copied().collect();
        (!jobs.is_empty()).then(|| jobs[self.rng.random_range(0..jobs.len())])
    }

    fn some_work(&mut self) -> (Kind, Work) {
        match self.rng.random_range(0..12) {
            0..5 => (Kind::Echo, Work::Single),
            5..8 => (Kind::AiChat, Work::Single),
            8..10 => {
                let start = self.rng.random_range(0..100);
                let end = start + self.rng.random_range(1..300);
                (Kind::Search(some_algorithm(start)), Work::Range { start, end, first: self.chance(40) })
            }
            _ => {
                let length = self.rng.random_range(1..100);
                (Kind::Hash(some_algorithm(length)), Work::List(length))
            }
        }
    }

    fn submit(&mut self) {
        let (kind, work) = self.some_work();
        // The core must have it, as the shell looks it up there.
        let dependency =
            if self.chance(15) { self.some_job(false).filter(|id| self.core.known(*id).is_some()) } else { None };
        let delayed = self.chance(10);
        let clock = self.clock();
        let deadline = self.chance(10).then(|| clock.after_ms(self.rng.random_range(1_000..60_000)));
        let id = JobId(Uuid::from_u128(self.rng.random()));
        let policies = [OnDependencyFailure::Fail, OnDependencyFailure::Cancel, OnDependencyFailure::Continue];
        let policy = policies[self.rng.random_range(0..policies.len())];
        let job = NewJob {
            id,
            fingerprint: None,
            kind,
            payload: Bytes::from_static(b"{}"),
            work,
            model: None,
            randomx_key: None,
            unit_max: None,
            queue: "q".into(),
            project: None,
            priority: self.rng.random_range(0..10),
            max_attempts: self.rng.random_range(1..6),
            timeout: Duration::from_secs(self.rng.random_range(5..100)),
            deadline,
            run_at: delayed.then(|| clock.after_ms(5000)),
            requires: Requires { cores: self.chance(10).then_some(1), ..Requires::default() },
            depends_on: dependency.into_iter().collect(),
            on_dependency_failure: policy,
            labels: BTreeMap::new(),
            cache: false,
            retry: None,
            owner: format!("o{}", self.rng.random_range(0..3)),
            api_key: None,
            conversation: None,
            turn: None,
            tokens: (0, 0),
            texts: 0,
            cache_key: None,
            ready: None,
            shares: None,
        };
        let dependencies = dependency.map(|id| Dependency { id, ended: None }).into_iter().collect();
        self.note(format!("{id} {kind} is submitted"));
        let promise = Promise {
            kind,
            work,
            max_attempts: job.max_attempts,
            deadline: deadline.is_some(),
            policy,
            dependent: dependency.is_some(),
            cancelled: false,
            cancel_sent: false,
            unsure: false,
        };
        // Promised only once it is stored; a failed commit answers with an error.
        self.promised.insert(id, promise);
        self.submitted.push(id);
        self.answers.push(Answer::Submitted(id));
        self.input(Input::Submit { job: Box::new(job), dependencies });
    }

    /// Whether every job has ended that was accepted.
    pub fn all_ended(&self) -> bool {
        let ended = |(id, promise): (&JobId, &Promise)| {
            self.ended.contains(id) || promise.unsure && self.disk.job(*id).is_none()
        };
        self.promised.iter().all(ended)
    }

    pub fn check_end(&mut self) {
        let ids: Vec<JobId> = self.promised.keys().copied().collect();
        for id in ids {
            let promise = &self.promised[&id];
            let Some(stored) = self.disk.job(id) else {
                if promise.unsure {
                    continue;
                }
                self.fail(&format!("job {id} was accepted and is lost"));
            };
            self.check_covered(id, &stored);
            match stored.row.state {
                JobState::Cancelled => self.check_cancelled(id, promise),
                state if promise.cancelled => {
                    self.fail(&format!("job {id} was cancelled and is {}", state.as_str()));
                }
                JobState::Failed => self.check_failed(id, promise, &stored),
                JobState::Completed => self.check_result(id, promise, stored.row.result.as_deref()),
                state => self.fail(&format!("job {id} did not end: it is {}", state.as_str())),
            }
        }
    }

    /// What a search says that it covered is what its units covered that completed: nothing more, nothing less, also where it
    /// failed or was cancelled.
    fn check_covered(&self, id: JobId, stored: &StoredJob) {
        let Some(result) = stored.row.result.as_deref().filter(|_| matches!(stored.head.kind, Kind::Search(_))) else {
            return;
        };
        let mut done: Vec<[u64; 2]> = Vec::new();
        // Cut in order, so they are sorted.
        for unit in stored.units.iter().filter(|unit| unit.state == JobState::Completed) {
            match done.last_mut() {
                Some(last) if last[1] == unit.from => last[1] = unit.to,
                _ => done.push([unit.from, unit.to]),
            }
        }
        let json: serde_json::Value = serde_json::from_slice(result).expect("a result is JSON");
        if json["covered"] != serde_json::json!(done) {
            self.fail(&format!("job {id} says that it covered {}, its units did {done:?}", json["covered"]));
        }
    }

    fn check_cancelled(&self, id: JobId, promise: &Promise) {
        if !(promise.cancel_sent || promise.dependent && promise.policy == OnDependencyFailure::Cancel) {
            self.fail(&format!("job {id} is cancelled and nobody asked for that"));
        }
    }

    /// A job fails for a reason that its user accepted.
    fn check_failed(&self, id: JobId, promise: &Promise, stored: &StoredJob) {
        let error = stored.row.error.as_ref().map_or("", |error| error.code.as_str());
        let accepted = match error {
            "deadline" => promise.deadline,
            "dependency_failed" => promise.dependent && promise.policy == OnDependencyFailure::Fail,
            _ => stored.row.failures >= promise.max_attempts,
        };
        if !accepted {
            self.fail(&format!("job {id} failed with '{error}' after {} failures", stored.row.failures));
        }
    }

    fn check_result(&self, id: JobId, promise: &Promise, result: Option<&[u8]>) {
        let Some(result) = result else { self.fail(&format!("job {id} completed without a result")) };
        let json: serde_json::Value = serde_json::from_slice(result).expect("a result is JSON");
        match (promise.kind, promise.work) {
            (Kind::Search(_), Work::Range { start, end, first }) => {
                let whole = serde_json::json!([[start, end]]);
                let found = json["found"].as_array().is_some_and(|found| !found.is_empty());
                if json["covered"] != whole && !(first && found) {
                    self.fail(&format!("job {id} covered {} of {whole}", json["covered"]));
                }
                if result.windows(LIE.len()).any(|part| part == LIE.as_bytes()) {
                    self.fail(&format!("job {id} has an invented find"));
                }
                let ranges: Vec<[u64; 2]> = serde_json::from_value(json["covered"].clone()).expect("ranges");
                let covered: u64 = ranges.iter().map(|[from, to]| to - from).sum();
                if json["hashes_computed"] != covered {
                    self.fail(&format!("job {id} counted {} hashes of {covered}", json["hashes_computed"]));
                }
            }
            (Kind::Hash(_), Work::List(length)) => {
                let expected: Vec<String> = (0..length).map(|input| format!("{input:064x}")).collect();
                if json["hashes"] != serde_json::json!(expected) {
                    self.fail(&format!("job {id} has hashes in another order or number: {}", json["hashes"]));
                }
            }
            (kind, _) => {
                let field = if kind == Kind::AiChat { "text" } else { "value" };
                if json[field] != id.to_string() {
                    self.fail(&format!("job {id} has the result of another: {json}"));
                }
            }
        }
    }
}

fn some_algorithm(number: u64) -> Algorithm {
    Algorithm::ALL[usize::try_from(number).expect("a small number") % Algorithm::ALL.len()]
}
