//! What is in memory, in the shapes of REST.

use std::collections::BTreeMap;

use flota_proto::rest::{self, JobState, QueueDepth, Slots};
use flota_proto::{Algorithm, Class, JobId, Kind, Timestamp, UnitId, WorkerId};
use serde_json::{Value, json};

use super::fleet::Worker;
use super::job::{Event, Job, Seq, Unit, What, estimate};
use super::record::{JobHead, JobRow, StoredJob, UnitRow, WorkRow, decode_tries};
use super::{Core, Effect, Quarantine};
use crate::aside::Turn;
use crate::handle::{JobFilter, QueueDepthRow, Refused};

/// Live jobs looked at for one page of a list.
const SCAN_MAX: usize = 20_000;

impl Core {
    /// A job that has not been forgotten, without its payload.
    #[must_use]
    pub fn job_view(&self, id: JobId) -> Option<rest::Job> {
        self.by_id.get(&id).and_then(|seq| self.jobs.get(seq)).map(|job| self.view(job))
    }

    /// The payload of a live job, where it is in memory, with its key.
    #[must_use]
    pub fn payload(&self, id: JobId) -> Option<(Seq, Option<bytes::Bytes>)> {
        let seq = *self.by_id.get(&id)?;
        Some((seq, self.jobs.get(&seq)?.payload.clone()))
    }

    /// Whether a job is in memory, and the digest of the body it came with.
    #[must_use]
    pub fn known(&self, id: JobId) -> Option<Option<[u8; 16]>> {
        self.by_id.get(&id).and_then(|seq| self.jobs.get(seq)).map(|job| job.spec.fingerprint)
    }

    /// A job's place in a conversation.
    #[must_use]
    pub fn turn(&self, id: JobId) -> Option<Turn> {
        self.by_id.get(&id).and_then(|seq| self.jobs.get(seq))?.spec.turn
    }

    /// The questions of conversations that have not ended, in the order of their acceptance.
    pub fn open_turns(&self) -> impl Iterator<Item = (JobId, Turn)> + '_ {
        let live = self.jobs.values().filter(|job| !job.state.ended());
        live.filter_map(|job| job.spec.turn.map(|turn| (job.spec.id, turn)))
    }

    /// The result of a job that ended in this batch.
    #[must_use]
    pub fn job_result(&self, id: JobId) -> Option<bytes::Bytes> {
        self.by_id.get(&id).and_then(|seq| self.jobs.get(seq))?.result.clone()
    }

    /// What is counted of a job that ended in this batch.
    #[must_use]
    pub fn ending(&self, id: JobId) -> Option<Ending> {
        let job = self.by_id.get(&id).and_then(|seq| self.jobs.get(seq))?;
        let finished = job.finished_at?;
        let started = job.started_at.unwrap_or(finished);
        Some(Ending {
            kind: job.spec.kind,
            wait_ms: started.since_ms(job.spec.created_at),
            duration_ms: finished.since_ms(job.spec.created_at),
        })
    }

    /// The events of a live job after `after`.
    #[must_use]
    pub fn events(&self, id: JobId, after: Option<u64>) -> Option<Vec<rest::JobEvent>> {
        let job = self.by_id.get(&id).and_then(|seq| self.jobs.get(seq))?;
        Some(job.events_after(after).iter().map(|event| event_view(event, job.result.as_deref())).collect())
    }

    fn view(&self, job: &Job) -> rest::Job {
        let spec = &job.spec;
        rest::Job {
            id: spec.id,
            kind: spec.kind,
            state: job.state,
            queue: spec.queue.to_string(),
            project: spec.project.as_deref().map(str::to_owned),
            priority: job.priority,
            owner: spec.owner.to_string(),
            labels: spec.labels.as_deref().cloned().unwrap_or_default(),
            payload: None,
            created_at: spec.created_at,
            started_at: job.started_at,
            finished_at: job.finished_at,
            failures: job.failures(),
            max_attempts: spec.max_attempts,
            progress: rest::Progress {
                fraction: job.fraction(),
                units_total: job.units_total(),
                units_done: job.units_done,
            },
            workers: job.workers.clone(),
            result: job.result.as_deref().and_then(raw),
            error: job.error.clone(),
            waiting: self.waiting(job),
            suspect: false,
            cached: job.cached,
        }
    }

    fn waiting(&self, job: &Job) -> Option<rest::Waiting> {
        let waiting = |reason: &str, detail: String| Some(rest::Waiting { reason: reason.into(), detail });
        match job.state {
            JobState::Blocked => {
                let names: Vec<String> = job.waits_for.iter().take(3).map(JobId::to_string).collect();
                let more = job.waits_for.len().saturating_sub(names.len());
                let more = if more > 0 { format!(" and {more} more") } else { String::new() };
                waiting("dependencies", format!("waits for the end of {}{more}", names.join(", ")))
            }
            JobState::Scheduled => match job.run_at {
                Some(run_at) => waiting("run_at", format!("starts at {}", run_at.to_rfc3339())),
                None => self.waiting_retry(job),
            },
            JobState::Pending => self.waiting_worker(job),
            JobState::Assigned | JobState::Computing | JobState::Completed | JobState::Failed | JobState::Cancelled => {
                None
            }
        }
    }

    fn waiting_retry(&self, job: &Job) -> Option<rest::Waiting> {
        let (run_at, last) = job
            .units
            .iter()
            .filter_map(|unit| unit.retries_at().map(|run_at| (run_at, unit.tries.last())))
            .min_by_key(|(run_at, _)| *run_at)?;
        if job.units.iter().any(|unit| unit.granted) {
            let why = job.log.last().and_then(|event| match &event.what {
                What::State { error, .. } => error.as_ref().map(|error| format!(": {}", error.message)),
                What::Progress { .. } | What::Delta { .. } => None,
            });
            let detail = format!("is asked at {}{}", run_at.to_rfc3339(), why.unwrap_or_default());
            return Some(rest::Waiting { reason: "rate_limit".into(), detail });
        }
        let why = last.and_then(|ended| ended.error.as_ref()).map(|error| format!(" after: {}", error.message));
        let detail = format!("tries again at {}{}", run_at.to_rfc3339(), why.unwrap_or_default());
        Some(rest::Waiting { reason: "retry".into(), detail })
    }

    fn waiting_worker(&self, job: &Job) -> Option<rest::Waiting> {
        let shape = self.queue.shape(job.spec.shape);
        let (reason, detail) = if !self.fleet.any_online() {
            ("no_worker", "no worker is there: start one with `flota worker`".to_owned())
        } else if !self.fleet.any_fits(shape) {
            let mut wants = vec![format!("computes {}", shape.kind)];
            wants.extend(shape.model.iter().map(|model| format!("serves the model {model}")));
            if shape.credential {
                wants.push("can be given the key of the question".to_owned());
            }
            if shape.requires != rest::Requires::default() {
                let requires = serde_json::to_string(&shape.requires).unwrap_or_default();
                wants.push(format!("has {requires}"));
            }
            ("no_fitting_worker", format!("no worker is there that {}", wants.join(" and ")))
        } else if let aside = self.fleet.set_aside(shape)
            && !aside.is_empty()
        {
            let counts: Vec<String> =
                aside.iter().map(|(aside, count)| format!("{count} {}", aside.as_str())).collect();
            ("workers_set_aside", format!("all workers that fit are set aside: {}", counts.join(", ")))
        } else {
            let position = self.queue.depth_from(shape.kind.class(), job.priority);
            ("workers_busy", format!("all workers are busy; about {position} units of its priority or above wait"))
        };
        Some(rest::Waiting { reason: reason.into(), detail })
    }

    /// Whether some worker could start a job of this kind at once.
    #[must_use]
    pub fn has_free_slot(&self, class: Class) -> bool {
        self.fleet.with_free_slot(class).next().is_some()
    }

    /// Keys of live jobs that match, newest first, below `before`; with the key where the search goes on, if it does.
    #[must_use]
    pub fn list(&self, filter: &JobFilter, before: Seq) -> (Vec<rest::Job>, Option<Seq>) {
        let mut items = Vec::new();
        let mut seen = 0;
        let held = |state: &JobState| matches!(state, JobState::Assigned | JobState::Computing);
        let few = !filter.states.is_empty() && filter.states.iter().all(held);
        let mut all;
        let mut some;
        let keys: &mut dyn Iterator<Item = Seq> = if few {
            some = self.active.range(..before).rev().copied();
            &mut some
        } else {
            all = self.jobs.range(..before).rev().map(|(seq, _)| *seq);
            &mut all
        };
        for seq in keys {
            seen += 1;
            if let Some(job) = self.jobs.get(&seq)
                && matches(job, filter)
            {
                items.push(self.view(job));
            }
            if items.len() >= filter.limit || seen >= SCAN_MAX {
                return (items, Some(seq));
            }
        }
        (items, None)
    }

    /// The units of a live job that are in memory, by index.
    #[must_use]
    pub fn live_units(&self, id: JobId) -> Option<Vec<rest::Unit>> {
        let job = self.by_id.get(&id).and_then(|seq| self.jobs.get(seq))?;
        Some(job.units.iter().map(|unit| self.unit_view(job, unit)).collect())
    }

    fn unit_view(&self, job: &Job, unit: &Unit) -> rest::Unit {
        let mut attempts: Vec<rest::Attempt> = unit.tries.iter().map(attempt_view).collect();
        let holder = unit.hold().and_then(|hold| Some((self.fleet.get(hold.worker)?.id.clone(), hold.assigned_at)));
        if let Some((worker_id, started_at)) = &holder {
            attempts.push(rest::Attempt {
                attempt: unit.attempt,
                worker_id: worker_id.clone(),
                outcome: None,
                error: None,
                started_at: *started_at,
                finished_at: None,
            });
        }
        rest::Unit {
            unit_id: job.unit_id(unit.index),
            state: unit.job_state(),
            attempt: unit.attempt,
            failures: unit.failures,
            worker_id: holder.map(|(worker, _)| worker).or_else(|| unit.tries.last().map(|ended| ended.worker.clone())),
            progress: unit.fraction,
            range: (!job.single()).then_some([unit.from, unit.to]),
            attempts,
            suspect: false,
        }
    }

    /// All workers, by id.
    #[must_use]
    pub fn workers_view(&self) -> Vec<rest::Worker> {
        let mut workers: Vec<rest::Worker> = self.fleet.iter().map(|(_, worker)| worker_view(worker)).collect();
        workers.sort_by(|a, b| a.worker_id.cmp(&b.worker_id));
        workers
    }

    /// One worker.
    #[must_use]
    pub fn worker_view(&self, id: &WorkerId) -> Option<rest::Worker> {
        self.fleet.find(id).and_then(|idx| self.fleet.get(idx)).map(worker_view)
    }

    /// Totals, of jobs only the live ones.
    #[must_use]
    pub fn fleet_view(&self, now: Timestamp) -> rest::Fleet {
        let mut fleet = rest::Fleet::default();
        for class in Class::ALL {
            fleet.slots.insert(class, Slots::default());
        }
        for (_, worker) in self.fleet.iter() {
            *fleet.workers.entry(worker.state()).or_default() += 1;
            if !worker.online() {
                continue;
            }
            fleet.hashrate += worker.hashrate;
            if let Some(randomx) = &worker.randomx {
                fleet.hashrates += randomx.hashrates;
            }
            for (algorithm, rate) in rates(worker) {
                *fleet.algorithms.entry(algorithm).or_default() += rate;
            }
            for (class, slots) in &worker.slots {
                let total = fleet.slots.entry(*class).or_default();
                total.total += u64::from(*slots);
                total.used += u64::from(worker.held_of(*class).min(*slots));
            }
        }
        for state in JobState::ALL {
            fleet.jobs.insert(state, self.counts.get(&state).copied().unwrap_or(0));
        }
        let depth = self.counts.get(&JobState::Pending).copied().unwrap_or(0);
        let mut oldest = None;
        if depth > 0 {
            // Where very many older ones wait for something else, its age is not known.
            let pending = |job: &&Job| job.state == JobState::Pending;
            oldest = self.jobs.values().take(SCAN_MAX).find(pending).map(|job| job.spec.created_at);
        }
        fleet.queue = QueueDepth { depth, oldest_age_ms: oldest.map_or(0, |at| now.since_ms(at)) };
        fleet
    }

    /// Depth and age by queue; bounded work: of very long queues an estimate from the oldest jobs.
    #[must_use]
    pub fn depths_view(&self) -> Vec<QueueDepthRow> {
        let mut rows: BTreeMap<&str, QueueDepthRow> = BTreeMap::new();
        for job in self.jobs.values().filter(|job| !job.state.ended()).take(200_000) {
            let row = rows.entry(&job.spec.queue).or_default();
            *row.by_state.entry(job.state).or_default() += 1;
            if job.state == JobState::Pending && row.oldest.is_none() {
                row.oldest = Some(job.spec.created_at);
            }
        }
        rows.into_iter().map(|(queue, row)| QueueDepthRow { queue: queue.to_owned(), ..row }).collect()
    }

    /// A job that has not ended, or why there is none.
    ///
    /// # Errors
    /// [`Refused::NotFound`] and [`Refused::Conflict`].
    pub fn require_live(&self, id: JobId) -> Result<(), Refused> {
        self.live(id).map(drop)
    }
}

/// The end of a job, for the metrics.
#[derive(Clone, Copy, Debug)]
pub struct Ending {
    /// What it asked for.
    pub kind: flota_proto::Kind,
    /// From its acceptance to its first assignment.
    pub wait_ms: u64,
    /// From its acceptance to its end.
    pub duration_ms: u64,
}

impl Effect {
    /// Whether the effect tells that a job's state changed.
    #[must_use]
    pub fn is_state(&self) -> bool {
        matches!(self, Self::Event { event: Event { what: What::State { .. }, .. }, .. })
    }
}

fn matches(job: &Job, filter: &JobFilter) -> bool {
    (filter.states.is_empty() && !job.state.ended() || filter.states.contains(&job.state))
        && filter.kind.is_none_or(|kind| kind == job.spec.kind)
        && filter.queue.as_ref().is_none_or(|queue| **queue == *job.spec.queue)
        && filter.project.as_ref().is_none_or(|project| job.spec.project.as_deref() == Some(project))
        && filter
            .label
            .as_ref()
            .is_none_or(|(name, value)| job.spec.labels.as_ref().is_some_and(|labels| labels.get(name) == Some(value)))
        && filter.owner.as_ref().is_none_or(|owner| **owner == *job.spec.owner)
        && filter.code.as_ref().is_none_or(|code| job.error.as_ref().is_some_and(|error| error.code == *code))
}

fn status_detail(worker: &Worker) -> Option<String> {
    if let Some(Quarantine { reason, until, .. }) = &worker.standing.quarantine {
        let until = until.map(|until| format!("; released at {}, or by `flota workers resume`", until.to_rfc3339()));
        return Some(format!("set aside: {reason}{}", until.unwrap_or_default()));
    }
    let until = worker.muted_until?;
    Some(format!("did not accept what was published to it; tried again at {}", until.to_rfc3339()))
}

fn quarantine_view(quarantine: &Quarantine) -> rest::Quarantine {
    let Quarantine { reason, since, until } = quarantine.clone();
    rest::Quarantine { reason, since, until }
}

fn worker_view(worker: &Worker) -> rest::Worker {
    rest::Worker {
        worker_id: worker.id.clone(),
        language: worker.language.clone(),
        version: worker.version.clone(),
        simple: worker.simple,
        boot_id: worker.boot_id.clone(),
        status: worker.state(),
        status_detail: status_detail(worker),
        quarantine: worker.standing.quarantine.as_ref().map(quarantine_view),
        slots: worker.slots.clone(),
        prefetch: worker.prefetch.clone(),
        running: worker.held_by_class.iter().filter(|(_, held)| **held > 0).map(|(c, h)| (*c, *h)).collect(),
        kinds: worker.kinds.iter().copied().collect(),
        models: worker.models.iter().cloned().collect(),
        capabilities: worker.capabilities.clone(),
        labels: worker.labels.clone(),
        load: worker.load,
        hashrate: if worker.online() { worker.hashrate } else { 0.0 },
        algorithms: if worker.online() { rates(worker) } else { BTreeMap::new() },
        randomx: worker.randomx.as_deref().filter(|_| worker.online()).cloned(),
        connected_at: worker.connected_at,
        last_seen_at: worker.last_seen_at,
    }
}

/// Hashes a second of each algorithm: guests say only how fast they hash RandomX.
fn rates(worker: &Worker) -> BTreeMap<Algorithm, f64> {
    let randomx = (worker.hashrate > 0.0).then_some((Algorithm::Randomx, worker.hashrate));
    let others = worker.algorithms.iter().filter(|(algorithm, _)| **algorithm != Algorithm::Randomx);
    others.map(|(algorithm, rate)| (*algorithm, *rate)).chain(randomx).collect()
}

fn attempt_view(ended: &super::job::Try) -> rest::Attempt {
    rest::Attempt {
        attempt: ended.attempt,
        worker_id: ended.worker.clone(),
        outcome: Some(ended.outcome),
        error: ended.error.clone(),
        started_at: ended.started_at,
        finished_at: Some(ended.finished_at),
    }
}

/// JSON that was checked when it came; `None` where it is none after all.
fn raw(json: &[u8]) -> Option<Box<serde_json::value::RawValue>> {
    let text = std::str::from_utf8(json).ok()?;
    serde_json::value::RawValue::from_string(text.to_owned()).ok()
}

/// Results up to this are part of the event that tells them.
const RESULT_IN_EVENT_BYTES_MAX: usize = 64 * 1024;

/// An event in the shape of SSE and Socket.IO; that a job completed carries its result where that is small.
#[must_use]
pub fn event_view(event: &Event, result: Option<&[u8]>) -> rest::JobEvent {
    let (name, data) = match &event.what {
        What::State { state, worker, error } => {
            let mut data = serde_json::Map::new();
            if let Some(worker) = worker {
                data.insert("worker_id".into(), json!(worker));
            }
            if let Some(error) = error {
                data.insert("error".into(), json!(error));
            }
            if let Some(result) =
                result.filter(|r| *state == JobState::Completed && r.len() <= RESULT_IN_EVENT_BYTES_MAX)
                && let Ok(result) = serde_json::from_slice(result)
            {
                data.insert("result".into(), result);
            }
            (state.as_str(), Value::Object(data))
        }
        What::Progress { fraction, units_total, units_done, note } => {
            let mut data = json!({"fraction": fraction, "units_total": units_total, "units_done": units_done});
            if !note.is_empty() {
                data["note"] = json!(note);
            }
            ("progress", data)
        }
        What::Delta { text } => ("delta", json!({ "text": text })),
    };
    rest::JobEvent { seq: event.seq, attempt: event.attempt, timestamp: event.at, r#type: name.to_owned(), data }
}

/// A job that has ended, from its rows.
#[must_use]
pub fn stored_view(head: &JobHead, row: &JobRow) -> rest::Job {
    let units_total = stored_units_total(head, row).max(row.units_done);
    rest::Job {
        id: head.id,
        kind: head.kind,
        state: row.state,
        queue: head.queue.to_string(),
        project: head.project.as_deref().map(str::to_owned),
        priority: row.priority,
        owner: head.owner.to_string(),
        labels: head.labels.as_deref().cloned().unwrap_or_default(),
        payload: None,
        created_at: head.created_at,
        started_at: row.started_at,
        finished_at: row.finished_at,
        failures: row.failures,
        max_attempts: head.max_attempts,
        progress: rest::Progress {
            fraction: if row.state == JobState::Completed { 1.0 } else { stored_fraction(head, row) },
            units_total,
            units_done: row.units_done,
        },
        workers: row.workers.clone(),
        result: row.result.as_deref().and_then(raw),
        error: row.error.clone(),
        waiting: None,
        suspect: row.suspect,
        cached: row.cached,
    }
}

/// Where the work of a stored job begins and ends.
fn stored_range(head: &JobHead) -> Option<(u64, u64)> {
    head.rest.work.map(|work| match work {
        WorkRow::List(length) => (0, length),
        WorkRow::Range(start, end, _) => (start, end),
    })
}

fn stored_units_total(head: &JobHead, row: &JobRow) -> u64 {
    let Some((start, end)) = stored_range(head) else { return 1 };
    estimate(row.next_index.into(), row.next_from.saturating_sub(start), end.saturating_sub(row.next_from))
}

/// The part of a job that did not complete which its result is of.
fn stored_fraction(head: &JobHead, row: &JobRow) -> f64 {
    let (Some((start, end)), Some(result)) = (stored_range(head), &row.result) else { return 0.0 };
    (done(head.kind, result) as f64 / end.saturating_sub(start).max(1) as f64).clamp(0.0, 1.0)
}

/// How many inputs or nonces a result is of.
fn done(kind: Kind, result: &[u8]) -> u64 {
    #[derive(serde::Deserialize)]
    struct Covered {
        covered: Vec<[u64; 2]>,
    }
    #[derive(serde::Deserialize)]
    struct Hashes {
        hashes: Vec<serde::de::IgnoredAny>,
    }
    match kind {
        Kind::Search(_) => serde_json::from_slice::<Covered>(result)
            .map_or(0, |result| result.covered.iter().map(|[from, to]| to.saturating_sub(*from)).sum()),
        Kind::Hash(_) => serde_json::from_slice::<Hashes>(result).map_or(0, |result| result.hashes.len() as u64),
        Kind::AiChat | Kind::AiEmbed | Kind::Echo => 0,
    }
}

/// A unit from its row.
#[must_use]
pub fn stored_unit_view(stored: &StoredJob, row: &UnitRow) -> rest::Unit {
    let tries = decode_tries(&row.tries);
    let mut attempts: Vec<rest::Attempt> = tries.iter().map(attempt_view).collect();
    if let (Some(worker_id), Some(started_at)) = (&row.worker, row.assigned_at) {
        attempts.push(rest::Attempt {
            attempt: row.attempt,
            worker_id: worker_id.clone(),
            outcome: None,
            error: None,
            started_at,
            finished_at: None,
        });
    }
    rest::Unit {
        unit_id: UnitId { job: stored.head.id, index: row.index },
        state: row.state,
        attempt: row.attempt,
        failures: row.failures,
        worker_id: row.worker.clone().or_else(|| tries.last().map(|ended| ended.worker.clone())),
        progress: if row.state == JobState::Completed { 1.0 } else { 0.0 },
        range: stored.head.rest.work.map(|_| [row.from, row.to]),
        attempts,
        suspect: row.suspect,
    }
}

/// The payload as it was submitted.
#[must_use]
pub fn payload_view(payload: &[u8]) -> Option<Box<serde_json::value::RawValue>> {
    raw(payload)
}
