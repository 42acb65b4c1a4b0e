//! Where a source and the fleet meet: the source lays down its newest work, which becomes a job; what the job gives
//! comes back. Laying down new work takes the old off the workers.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use flota_common::clock;
use flota_proto::kinds::{Find, Found, SearchPayload, SearchResult, wins};
use flota_proto::rest::{JobState, Requires, SubmitJob};
use flota_proto::sources::{SourceState, SourceWork};
use flota_proto::{Algorithm, HexBytes, JobId, WorkerId};
use serde_json::json;
use tokio::sync::mpsc;
use tracing::{debug, info, warn};

use super::book::Book;
use super::listeners::{Listeners, NEWS_MAX, News, SOURCE_LABEL};
use super::monerod::block;
use super::offers::{FINDS_MAX, GuestFind, Offer, Offers, divide};
use super::status::{Status, Verdict};
use crate::handle::{Command, Handle, Refused};
use crate::submit::{NewJob, Principal};
use crate::verifier::Verifier;

/// Works of which results may still be under way.
const REMEMBERED: usize = 8;
/// A unit of a source's job is as good as another: it is tried until the work is stale.
const ATTEMPTS: u32 = 100;

/// What the fleet is to search.
#[derive(Clone, Debug)]
pub struct Work {
    /// The RandomX key.
    pub key: [u8; 32],
    /// The key that follows, where known.
    pub next_key: Option<[u8; 32]>,
    /// What is hashed.
    pub blob: Vec<u8>,
    /// Where the nonce stands in it.
    pub nonce_offset: usize,
    /// Which nonces.
    pub nonces: (u64, u64),
    /// What a hash must be below, little endian.
    pub target: [u8; 32],
    /// How many hashes a find takes on average.
    pub difficulty: u64,
    /// The first find is all that is wanted.
    pub find: Find,
    /// Of the block, where known.
    pub height: Option<u64>,
    /// The pool's name for it.
    pub pool_job_id: Option<String>,
}

/// What a source is known by, and what it reports to.
#[derive(Clone)]
pub struct Account {
    /// Its name.
    pub id: String,
    /// How it is doing.
    pub status: Arc<Status>,
    /// Where that is kept.
    pub book: Book,
    /// Who computes hashes once more.
    pub verifier: Verifier,
    /// Of its jobs.
    pub priority: u8,
    /// What a worker must have.
    pub requires: Requires,
    /// Where guests see its work.
    pub offers: Offers,
}

impl Account {
    /// Keeps what changed.
    pub async fn save(&self) {
        if let Some(record) = self.status.take_unsaved()
            && let Err(error) = self.book.record(self.id.clone(), record).await
        {
            warn!("source {}: {error}", self.id);
            self.status.still_unsaved();
        }
    }

    /// Says that it has no work because of `detail`.
    pub fn failing(&self, detail: &str) {
        if self.status.set(SourceState::Failing, detail) {
            warn!("source {}: {detail}", self.id);
        }
    }

    /// The hash of a nonce, computed here, whoever found it.
    ///
    /// # Errors
    /// Why it is worth nothing.
    pub async fn verify(&self, work: &Work, nonce: u32, claimed: &[u8]) -> Result<[u8; 32], String> {
        let input = block::with_nonce(&work.blob, work.nonce_offset, nonce);
        let hash = self.verifier.hash(Algorithm::Randomx, &work.key, &input).await;
        let hash = hash.map_err(|error| error.to_string())?;
        if hash != *claimed {
            return Err("the worker's hash is wrong".into());
        }
        if wins(&hash, &work.target) { Ok(hash) } else { Err("the hash does not win".into()) }
    }

    /// Says what became of a find.
    pub fn judged(&self, verdict: Verdict, reason: &str) {
        self.status.judged(verdict, reason);
        match verdict {
            Verdict::Accepted => info!("source {}: accepted", self.id),
            Verdict::Rejected => warn!("source {}: rejected: {reason}", self.id),
            Verdict::Stale => info!("source {}: too late: {reason}", self.id),
            Verdict::Invalid => warn!("source {}: not submitted: {reason}", self.id),
        }
    }
}

/// A winning nonce with the work that it belongs to.
#[derive(Debug)]
pub struct Hit<W> {
    /// What was searched.
    pub work: Arc<W>,
    /// The nonce, and its hash by the worker's word.
    pub found: Found,
    /// Who found it.
    pub worker: WorkerId,
    /// The work is the newest.
    pub current: bool,
}

/// What the fleet has to say.
#[derive(Debug)]
pub enum Told<W> {
    /// Winning nonces.
    Finds(Vec<Hit<W>>),
    /// The newest work has ended: all nonces are done, one was found and was enough, or somebody cancelled it.
    Over(JobState),
}

/// Where a source lays down its work. `W` is what the source knows of a work.
pub struct Desk<W> {
    account: Account,
    handle: Handle,
    listeners: Arc<Listeners>,
    sender: mpsc::Sender<(JobId, News)>,
    news: mpsc::Receiver<(JobId, News)>,
    current: Option<JobId>,
    works: VecDeque<(JobId, Arc<W>)>,
    /// Finds that were told.
    told: BTreeSet<(JobId, u64)>,
    finds: mpsc::Sender<GuestFind>,
    guests: mpsc::Receiver<GuestFind>,
}

impl<W> Desk<W> {
    /// An empty one.
    pub fn new(account: Account, handle: Handle, listeners: Arc<Listeners>) -> Self {
        let (sender, news) = mpsc::channel(NEWS_MAX);
        let (finds, guests) = mpsc::channel(FINDS_MAX);
        Self {
            account,
            handle,
            listeners,
            sender,
            news,
            current: None,
            works: VecDeque::new(),
            told: BTreeSet::new(),
            finds,
            guests,
        }
    }

    /// Whether the fleet has work.
    pub fn has_work(&self) -> bool {
        self.current.is_some()
    }

    /// What was laid down last.
    pub fn newest(&self) -> Option<&W> {
        self.works.front().map(|(_, work)| &**work)
    }

    /// The fleet computes `work` from now on.
    ///
    /// # Errors
    /// When the fleet does not take it; what it had before it keeps.
    pub async fn lay(&mut self, work: &Work, known: Arc<W>) -> Result<JobId, Refused> {
        let job = self.job(work)?;
        let id = job.id;
        self.listeners.add(id, self.sender.clone());
        let principal = Principal { owner: job.owner.clone() };
        let submitted = self.handle.submit(principal, vec![job], None).await;
        if let Err(refused) = submitted.and_then(|mut answers| answers.pop().unwrap_or(Ok(id))) {
            self.listeners.remove(id);
            return Err(refused);
        }
        self.works.push_front((id, known));
        self.works.truncate(REMEMBERED);
        let works = &self.works;
        self.told.retain(|(job, _)| works.iter().any(|(id, _)| id == job));
        self.account.status.works_on(Some(shown(work, id)));
        debug!("source {}: job {id} is its newest work", self.account.id);
        let (account, finds) = (self.account.clone(), self.finds.clone());
        self.account.offers.put(Offer { account, job: id, work: Arc::new(work.clone()), finds });
        if let Some(before) = self.current.replace(id) {
            self.cancel(before).await;
        }
        if let Some(key) = work.next_key {
            // A hint only, and said again with the next work.
            let _ = self.handle.tell(Command::Prepare { key: key.to_vec() }).await;
        }
        Ok(id)
    }

    /// The fleet computes nothing for it any more.
    pub async fn clear(&mut self) {
        self.account.status.works_on(None);
        self.account.offers.take(&self.account.id);
        if let Some(before) = self.current.take() {
            self.cancel(before).await;
        }
    }

    /// Waits for what the fleet has to say. Cancel safe.
    pub async fn told(&mut self) -> Told<W> {
        loop {
            // Neither closes: a sender of each is here.
            let (job, news) = tokio::select! {
                Some(news) = self.news.recv() => news,
                Some(GuestFind { job, worker, found }) = self.guests.recv() => {
                    let finds = self.hits(job, &worker, vec![found]);
                    if finds.is_empty() {
                        continue;
                    }
                    return Told::Finds(finds);
                }
            };
            match news {
                News::Found { worker, found } => {
                    let finds = self.hits(job, &worker, found);
                    if !finds.is_empty() {
                        return Told::Finds(finds);
                    }
                }
                News::Wasted(hashes) => self.account.status.wasted(hashes),
                News::Output { worker, output } => {
                    let finds = self.finds(job, &worker, &output);
                    if !finds.is_empty() {
                        return Told::Finds(finds);
                    }
                }
                News::Ended(state) => {
                    self.listeners.remove(job);
                    if self.current == Some(job) {
                        self.current = None;
                        return Told::Over(state);
                    }
                }
            }
        }
    }

    fn finds(&mut self, job: JobId, worker: &WorkerId, output: &[u8]) -> Vec<Hit<W>> {
        let Ok(result) = serde_json::from_slice::<SearchResult>(output) else { return Vec::new() };
        self.account.status.hashed(result.hashes_computed);
        self.hits(job, worker, result.found)
    }

    /// Those of `found` that are new: a unit tells them at once, and again at its end.
    fn hits(&mut self, job: JobId, worker: &WorkerId, mut found: Vec<Found>) -> Vec<Hit<W>> {
        found.retain(|found| self.told.insert((job, found.nonce)));
        let Some((_, work)) = self.works.iter().find(|(id, _)| *id == job) else { return Vec::new() };
        let current = self.works.front().is_some_and(|(id, _)| *id == job);
        let find = |found| {
            self.account.status.found();
            Hit { work: work.clone(), found, worker: worker.clone(), current }
        };
        found.into_iter().map(find).collect()
    }

    async fn cancel(&self, job: JobId) {
        let principal = Principal { owner: OWNER.to_owned() };
        match self.handle.cancel(principal, job).await {
            // It has ended by itself meanwhile.
            Ok(_) | Err(Refused::Conflict(..) | Refused::NotFound(_)) => {}
            Err(refused) => warn!("source {}: job {job} could not be cancelled: {refused}", self.account.id),
        }
    }

    fn job(&self, work: &Work) -> Result<NewJob, Refused> {
        let ((nonce_start, nonce_end), _) = divide(work.nonces);
        let payload = SearchPayload {
            key: Some(HexBytes(work.key.to_vec())),
            blob: HexBytes(work.blob.clone()),
            nonce_offset: work.nonce_offset as u64,
            nonce_start,
            nonce_end,
            target: HexBytes(work.target.to_vec()),
            find: work.find,
        };
        let height = work.height.map_or_else(String::new, |height| height.to_string());
        let body = json!({
            "kind": "randomx.search", "payload": payload, "queue": "mining", "cache": false,
            "priority": self.account.priority, "requires": self.account.requires, "max_attempts": ATTEMPTS,
            "labels": { SOURCE_LABEL: self.account.id, "height": height },
        });
        let unfit = |error: String| Refused::Unavailable(format!("failed to make a job: {error}"));
        // By way of text: a payload is kept as it was written.
        let submit: SubmitJob = serde_json::from_str(&body.to_string()).map_err(|error| unfit(error.to_string()))?;
        let principal = Principal { owner: OWNER.to_owned() };
        NewJob::from_submit(submit, &principal, None).map_err(Refused::from)
    }
}

/// Who owns the jobs of all sources.
pub const OWNER: &str = "mining";

fn shown(work: &Work, job: JobId) -> SourceWork {
    SourceWork {
        job_id: Some(job),
        pool_job_id: work.pool_job_id.clone(),
        height: work.height,
        seed_hash: hex::encode(work.key),
        next_seed_hash: work.next_key.map(hex::encode),
        difficulty: work.difficulty,
        since: clock::now(),
    }
}

/// Cancels what a master that ended left behind for `source`: its templates and pool jobs are long stale.
pub async fn cancel_leftovers(handle: &Handle, source: &str) {
    let live = [JobState::Blocked, JobState::Scheduled, JobState::Pending, JobState::Assigned, JobState::Computing];
    let filter = crate::handle::JobFilter {
        states: live.to_vec(),
        label: Some((SOURCE_LABEL.to_owned(), source.to_owned())),
        limit: 500,
        ..crate::handle::JobFilter::default()
    };
    let Ok(page) = handle.jobs(filter).await else { return };
    for job in page.items.into_iter().filter(|job| job.owner == OWNER) {
        let _ = handle.cancel(Principal { owner: OWNER.to_owned() }, job.id).await;
    }
}

/// How long to wait before what failed `failures` times is tried again.
pub fn backoff(failures: u32) -> Duration {
    let longest = Duration::from_secs(30);
    let wait = Duration::from_millis(500).saturating_mul(1 << failures.min(6)).min(longest);
    wait.mul_f64(rand::Rng::random_range(&mut rand::rng(), 0.75..1.0))
}
