//! A dispatcher in memory behind the real `Handle`: it keeps jobs and events and does what the tests say, so that the web
//! side is tried without a core, a store or workers.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};

use flota_master::handle::{Command, Handle, IdempotencyKey, JobUpdate, QueueDepthRow, Refused, Subscription};
use flota_master::session::{Followed, SessionChange, SessionKey};
use flota_master::submit::{NewJob, Principal};
use flota_proto::kinds::FieldError;
use flota_proto::mqtt::WorkerState;
use flota_proto::rest::{self, Job, JobError, JobEvent, JobState, Page};
use flota_proto::{Class, JobId, Kind, Timestamp, WorkerId};
use secrecy::ExposeSecret;
use serde_json::{Value, json};
use tokio::sync::{mpsc, oneshot};
use uuid::Uuid;

/// What the fake knows.
#[derive(Default)]
pub struct World {
    jobs: BTreeMap<JobId, Entry>,
    keys: BTreeMap<String, ([u8; 32], Vec<JobId>)>,
    clock: u64,
    /// Sessions as they would be stored, with what they are to be told.
    pub sessions: BTreeMap<Uuid, (SessionKey, Vec<Followed>)>,
    /// Answered to a question for a place in the queue.
    pub position: Option<u64>,
    /// Whose answer nobody can read yet, and who asked for it.
    pub held: Option<Held>,
    /// Every submission is refused.
    pub busy: bool,
    /// The filters that lists were asked with.
    pub filters: Vec<String>,
    /// Workers by id.
    pub workers: Vec<rest::Worker>,
    /// Rows for metrics.
    pub depths: Vec<QueueDepthRow>,
}

pub struct Held {
    pub job: JobId,
    pub waiting: Vec<oneshot::Sender<Result<Job, Refused>>>,
}

struct Entry {
    job: Job,
    fingerprint: Option<[u8; 16]>,
    api_key: Option<String>,
    events: Vec<JobEvent>,
    waiters: Vec<oneshot::Sender<Result<Job, Refused>>>,
    live: Vec<mpsc::Sender<Arc<JobUpdate>>>,
}

/// The fake, shared between the loop and the test.
#[derive(Clone, Default)]
pub struct Fake(Arc<Mutex<World>>);

impl Fake {
    /// Starts to answer what comes through the handle.
    pub fn start() -> (Self, Handle) {
        let fake = Self::default();
        let (handle, mut commands) = Handle::channel();
        let world = fake.clone();
        tokio::spawn(async move {
            while let Some(command) = commands.recv().await {
                world.world().answer(command);
            }
        });
        (fake, handle)
    }

    pub fn world(&self) -> MutexGuard<'_, World> {
        self.0.lock().unwrap()
    }

    pub fn jobs(&self) -> Vec<Job> {
        self.world().jobs.values().map(|entry| entry.job.clone()).collect()
    }

    pub fn api_key(&self, id: JobId) -> Option<String> {
        self.world().jobs[&id].api_key.clone()
    }

    /// Lets a worker take the job.
    pub fn compute(&self, id: JobId) {
        let mut world = self.world();
        let now = world.tick();
        let entry = world.jobs.get_mut(&id).unwrap();
        entry.job.state = JobState::Computing;
        entry.job.started_at = Some(now);
        entry.job.workers = vec!["w-1".parse().unwrap()];
        entry.tell(now, "computing", json!({ "worker_id": "w-1" }));
    }

    pub fn delta(&self, id: JobId, text: &str) {
        let mut world = self.world();
        let now = world.tick();
        world.jobs.get_mut(&id).unwrap().tell(now, "delta", json!({ "text": text }));
    }

    pub fn progress(&self, id: JobId, note: &str) {
        let mut world = self.world();
        let now = world.tick();
        world.jobs.get_mut(&id).unwrap().tell(now, "progress", json!({ "note": note }));
    }

    pub fn complete(&self, id: JobId, result: &Value) {
        let result = serde_json::value::to_raw_value(result).unwrap();
        self.world().end(id, JobState::Completed, Some(result), None);
    }

    pub fn answer(&self, id: JobId, text: &str) {
        let usage = json!({ "input_tokens": 3, "output_tokens": 5, "thought_tokens": 0 });
        let result = json!({ "text": text, "model": "m", "provider": "demo", "finish": "complete", "usage": usage });
        self.complete(id, &result);
    }

    /// Lets the answer be read that was held.
    pub fn let_go(&self) {
        let mut world = self.world();
        let held = world.held.take().unwrap();
        let job = world.job(held.job, true);
        held.waiting.into_iter().for_each(|reply| drop(reply.send(job.clone())));
    }

    pub fn fail(&self, id: JobId, code: &str, message: &str) {
        let error = JobError { code: code.into(), message: message.into() };
        self.world().end(id, JobState::Failed, None, Some(error));
    }

    /// Cuts every live subscription off, as the dispatcher does with readers that are too slow.
    pub fn cut_off(&self, id: JobId) {
        self.world().jobs.get_mut(&id).unwrap().live.clear();
    }

    pub fn readers(&self, id: JobId) -> usize {
        self.world().jobs[&id].live.iter().filter(|live| !live.is_closed()).count()
    }
}

impl Entry {
    fn tell(&mut self, now: Timestamp, kind: &str, data: Value) {
        let seq = self.events.last().map_or(1, |event| event.seq + 1);
        let event = JobEvent { seq, attempt: 1, timestamp: now, r#type: kind.into(), data };
        self.events.push(event.clone());
        let last = self.job.state.ended();
        let update = Arc::new(JobUpdate { job: self.job.id, event, last });
        self.live.retain(|live| live.try_send(update.clone()).is_ok());
        if last {
            self.live.clear();
        }
    }
}

impl World {
    fn tick(&mut self) -> Timestamp {
        self.clock += 10;
        Timestamp(1_795_254_600_000 + self.clock)
    }

    fn end(
        &mut self,
        id: JobId,
        state: JobState,
        result: Option<Box<serde_json::value::RawValue>>,
        error: Option<JobError>,
    ) {
        let now = self.tick();
        let entry = self.jobs.get_mut(&id).unwrap();
        entry.job.state = state;
        entry.job.finished_at = Some(now);
        entry.job.result = result;
        entry.job.error = error;
        entry.tell(now, state.as_str(), json!({}));
        for waiter in entry.waiters.drain(..) {
            let _ = waiter.send(Ok(Job { payload: None, ..entry.job.clone() }));
        }
    }

    fn accept(&mut self, new: NewJob) -> Result<JobId, Refused> {
        if let Some(known) = self.jobs.get(&new.id) {
            let same = known.fingerprint == new.fingerprint;
            return if same { Ok(new.id) } else { Err(Refused::Conflict("id_taken", "another body".into())) };
        }
        if new.labels.contains_key("refuse") {
            return Err(Refused::Conflict("refused", "this one is refused".into()));
        }
        let now = self.tick();
        let job = Job {
            id: new.id,
            kind: new.kind,
            state: JobState::Pending,
            queue: new.queue,
            project: new.project,
            priority: new.priority,
            owner: new.owner,
            labels: new.labels,
            payload: Some(serde_json::from_slice(&new.payload).unwrap()),
            created_at: now,
            started_at: None,
            finished_at: None,
            failures: 0,
            max_attempts: new.max_attempts,
            progress: rest::Progress::default(),
            workers: Vec::new(),
            result: None,
            error: None,
            waiting: None,
            suspect: false,
            cached: false,
        };
        let mut entry = Entry {
            job,
            fingerprint: new.fingerprint,
            api_key: new.api_key.map(|key| key.expose_secret().to_owned()),
            events: Vec::new(),
            waiters: Vec::new(),
            live: Vec::new(),
        };
        entry.tell(now, "pending", json!({}));
        self.jobs.insert(new.id, entry);
        Ok(new.id)
    }

    fn submit(
        &mut self,
        jobs: Vec<NewJob>,
        key: Option<IdempotencyKey>,
    ) -> Result<Vec<Result<JobId, Refused>>, Refused> {
        if self.busy {
            return Err(Refused::Busy { detail: "the queue is full".into(), retry_after_seconds: 7 });
        }
        let name = key.as_ref().map(|key| format!("{}/{}", key.owner, key.key));
        if let (Some(key), Some((digest, ids))) = (&key, name.as_ref().and_then(|name| self.keys.get(name))) {
            return if *digest == key.body_digest {
                Ok(ids.iter().copied().map(Ok).collect())
            } else {
                Err(Refused::Invalid(FieldError::new("Idempotency-Key", "came with another body")))
            };
        }
        let answers: Vec<_> = jobs.into_iter().map(|job| self.accept(job)).collect();
        if let (Some(key), Some(name)) = (key, name) {
            self.keys.insert(name, (key.body_digest, answers.iter().flatten().copied().collect()));
        }
        Ok(answers)
    }

    fn find(&mut self, id: JobId) -> Result<&mut Entry, Refused> {
        self.jobs.get_mut(&id).ok_or_else(|| Refused::NotFound(format!("job {id}")))
    }

    fn job(&mut self, id: JobId, payload: bool) -> Result<Job, Refused> {
        let mut job = self.find(id)?.job.clone();
        if !payload {
            job.payload = None;
        }
        Ok(job)
    }

    fn subscribe(&mut self, id: JobId, after: Option<u64>) -> Result<Subscription, Refused> {
        let entry = self.find(id)?;
        let backlog =
            entry.events.iter().filter(|event| after.is_none_or(|after| event.seq > after)).cloned().collect();
        let live = (!entry.job.state.ended()).then(|| {
            let (sender, receiver) = mpsc::channel(256);
            entry.live.push(sender);
            receiver
        });
        Ok(Subscription { backlog, live, job: entry.job.clone() })
    }

    fn cancel(&mut self, _: &Principal, id: JobId) -> Result<Job, Refused> {
        if self.find(id)?.job.state.ended() {
            return Err(Refused::Conflict("job_ended", "the job has ended".into()));
        }
        self.end(id, JobState::Cancelled, None, None);
        self.job(id, true)
    }

    fn retry(&mut self, id: JobId) -> Result<Job, Refused> {
        let entry = self.find(id)?;
        if !matches!(entry.job.state, JobState::Failed | JobState::Cancelled) {
            return Err(Refused::Conflict("not_retryable", "the job has not failed".into()));
        }
        entry.job.state = JobState::Pending;
        entry.job.finished_at = None;
        self.job(id, true)
    }

    fn set_priority(&mut self, id: JobId, priority: u8) -> Result<Job, Refused> {
        let entry = self.find(id)?;
        if entry.job.state.ended() {
            return Err(Refused::Conflict("job_ended", "the job has ended".into()));
        }
        entry.job.priority = priority;
        self.job(id, true)
    }

    fn control(&mut self, worker: &WorkerId, to: WorkerState) -> Result<rest::Worker, Refused> {
        let known = self.workers.iter_mut().find(|known| known.worker_id == *worker);
        let known = known.ok_or_else(|| Refused::NotFound(format!("worker {worker}")))?;
        known.status = to;
        Ok(known.clone())
    }

    fn keep(&mut self, change: SessionChange) {
        match change {
            SessionChange::Begin(key) => drop(self.sessions.entry(key.id).or_insert((key, Vec::new()))),
            SessionChange::Follow(key, followed) => {
                let (_, follows) = self.sessions.entry(key.id).or_insert((key, Vec::new()));
                follows.retain(|known| known.job != followed.job);
                follows.push(followed);
            }
            SessionChange::Told(id, job) => {
                self.sessions.get_mut(&id).unwrap().1.retain(|followed| followed.job != job);
            }
            SessionChange::Seen(id, told) => {
                for followed in self.sessions.get_mut(&id).into_iter().flat_map(|(_, follows)| follows) {
                    let seq = told.iter().find(|(job, _)| *job == followed.job).map(|(_, seq)| *seq);
                    followed.after = seq.or(followed.after);
                }
            }
            SessionChange::Forget(id) => drop(self.sessions.remove(&id)),
        }
    }

    fn answer(&mut self, command: Command) {
        use flota_master::handle::WorkerControl as C;
        match command {
            Command::Submit { jobs, idempotency, session, reply, .. } => {
                let questions: Vec<bool> = jobs.iter().map(|job| job.kind == Kind::AiChat).collect();
                let answers = self.submit(jobs, idempotency);
                let accepted = answers.iter().flatten().flatten().copied().zip(questions);
                for (job, question) in accepted.collect::<Vec<_>>() {
                    let followed = Followed { job, after: None, question };
                    session.iter().for_each(|key| self.keep(SessionChange::Follow(*key, followed)));
                }
                drop(reply.send(answers));
            }
            Command::Session { key, reply } => {
                let known = self.sessions.get(&key.id).filter(|(known, _)| *known == key);
                let follows = known.map(|(_, follows)| follows.clone());
                drop(reply.send(follows.ok_or_else(|| Refused::NotFound("session".into()))));
            }
            Command::Sessions(changes) => changes.into_iter().for_each(|change| self.keep(change)),
            Command::Job { id, payload, reply } => match &mut self.held {
                Some(held) if held.job == id && payload => held.waiting.push(reply),
                _ => drop(reply.send(self.job(id, payload))),
            },
            Command::Await { id, reply } => match self.job(id, true) {
                Ok(job) if !job.state.ended() => self.find(id).unwrap().waiters.push(reply),
                job => drop(reply.send(job)),
            },
            Command::Jobs { filter, reply } => {
                self.filters.push(format!("{filter:?}"));
                let items: Vec<_> = self.jobs.values().rev().map(|e| e.job.clone()).take(filter.limit).collect();
                drop(reply.send(Ok(Page { items, next_cursor: None })));
            }
            Command::Units { id, reply, .. } => {
                let page = self.find(id).map(|_| Page { items: Vec::new(), next_cursor: None });
                drop(reply.send(page));
            }
            Command::Cancel { principal, id, reply } => drop(reply.send(self.cancel(&principal, id))),
            Command::Retry { id, reply, .. } => drop(reply.send(self.retry(id))),
            Command::SetPriority { id, priority, reply, .. } => drop(reply.send(self.set_priority(id, priority))),
            Command::Subscribe { id, after, reply } => drop(reply.send(self.subscribe(id, after))),
            Command::Workers { reply } => drop(reply.send(Ok(self.workers.clone()))),
            Command::Control { worker, control, reply, .. } => {
                let to = match control {
                    C::Drain => WorkerState::Draining,
                    C::Pause => WorkerState::Paused,
                    C::Resume => WorkerState::Idle,
                };
                drop(reply.send(self.control(&worker, to)));
            }
            Command::Fleet { reply } => {
                let fleet = rest::Fleet {
                    slots: [(Class::Ai, rest::Slots { total: 64, used: 3 })].into(),
                    workers: [(WorkerState::Idle, self.workers.len() as u64)].into(),
                    ..rest::Fleet::default()
                };
                drop(reply.send(Ok(fleet)));
            }
            Command::QueuePosition { reply, .. } => drop(reply.send(Ok(self.position))),
            Command::QueueDepths { reply } => drop(reply.send(Ok(self.depths.clone()))),
            other => panic!("the web side never sends {other:?}"),
        }
    }
}

pub fn worker(id: &str) -> rest::Worker {
    serde_json::from_value(json!({
        "worker_id": id, "language": "rust", "version": "0.1.0", "simple": false, "boot_id": "b", "status": "idle",
        "slots": { "ai": 64 }, "prefetch": {}, "running": {}, "kinds": ["ai.chat"], "models": [], "capabilities": {},
        "labels": {}, "load": {}, "hashrate": 0.0, "connected_at": null, "last_seen_at": "2026-11-21T09:30:00Z",
    }))
    .unwrap()
}
