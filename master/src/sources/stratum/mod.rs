//! Mining for pools: the first that works has the fleet; while it is down the next one has, and when it is back, so is the
//! fleet.

mod link;
mod stream;
pub mod wire;

use std::sync::Arc;
use std::time::Instant;

use flota_common::clock;
use flota_proto::rest::JobState;
use flota_proto::sources::{SourceState, StratumConfig};
use tokio::sync::mpsc;
use tokio::task::{AbortHandle, JoinSet};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use self::link::{Said, Share, Teller};
use self::wire::RawJob;
use super::desk::{Account, Desk, Hit, Told, Work, backoff};
use super::status::Verdict;

pub use link::read_line;
pub use stream::{address, fingerprint_bytes};

/// Shares that may wait for a pool.
const SHARES_MAX: usize = 256;
/// What pools may say before it is heard.
const EVENTS_MAX: usize = 256;

/// A job of a pool, and the connection that it came by.
pub struct PoolWork {
    pool: usize,
    session: u64,
    work: Work,
}

struct Pool {
    config: flota_proto::sources::PoolConfig,
    link: Option<Link>,
    job: Option<RawJob>,
    failures: u32,
    retry_at: Instant,
    detail: String,
}

struct Link {
    session: u64,
    shares: mpsc::Sender<Share>,
    task: AbortHandle,
}

/// A source of this kind that runs.
pub struct Pools {
    account: Account,
    desk: Desk<PoolWork>,
    pools: Vec<Pool>,
    links: JoinSet<()>,
    checks: JoinSet<Option<(usize, u64, Share)>>,
    events: mpsc::Sender<(usize, u64, Said)>,
    sessions: u64,
    active: Option<usize>,
}

impl Pools {
    /// Of `config`, and what will happen at its pools.
    pub fn new(
        account: Account,
        desk: Desk<PoolWork>,
        config: StratumConfig,
    ) -> (Self, mpsc::Receiver<(usize, u64, Said)>) {
        let (events, happened) = mpsc::channel(EVENTS_MAX);
        let retry_at = clock::instant();
        let pool = |config| Pool { config, link: None, job: None, failures: 0, retry_at, detail: String::new() };
        let pools = config.pools.into_iter().map(pool).collect();
        let (links, checks) = (JoinSet::new(), JoinSet::new());
        (Self { account, desk, pools, links, checks, events, sessions: 0, active: None }, happened)
    }

    /// Mines until `stop`.
    pub async fn run(mut self, mut happened: mpsc::Receiver<(usize, u64, Said)>, stop: CancellationToken) {
        loop {
            let retry_at = self.dial();
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                told = self.desk.told() => match told {
                    Told::Finds(hits) => self.found(hits),
                    Told::Over(JobState::Completed) => {
                        self.account.status.set(SourceState::Mining, "all nonces are done: waiting for the pool's next job");
                    }
                    Told::Over(_) => self.lay().await,
                },
                Some((pool, session, said)) = happened.recv() => self.hear(pool, session, said).await,
                Some(checked) = self.checks.join_next() => self.submit(checked.ok().flatten()),
                Some(_) = self.links.join_next() => {}
                () = tokio::time::sleep_until(retry_at.into()) => {}
            }
        }
        self.desk.clear().await;
    }

    /// Connects to the pools that are worth a try now; answers when to look again.
    fn dial(&mut self) -> Instant {
        let now = clock::instant();
        let mut look_at = now + std::time::Duration::from_secs(3600);
        for index in 0..self.pools.len() {
            let pool = &self.pools[index];
            if pool.link.is_none() && pool.retry_at <= now {
                self.connect(index);
            } else if pool.link.is_none() {
                look_at = look_at.min(pool.retry_at);
            }
            let pool = &self.pools[index];
            // The next ones are for when this one is down.
            if pool.job.is_some() || pool.failures == 0 {
                break;
            }
        }
        look_at
    }

    fn connect(&mut self, index: usize) {
        self.sessions += 1;
        let (shares, outgoing) = mpsc::channel(SHARES_MAX);
        let teller = Teller { pool: index, session: self.sessions, sender: self.events.clone() };
        let task = self.links.spawn(link::talk(self.pools[index].config.clone(), outgoing, teller));
        self.pools[index].link = Some(Link { session: self.sessions, shares, task });
    }

    async fn hear(&mut self, index: usize, session: u64, said: Said) {
        let is_current = |pool: &Pool| pool.link.as_ref().is_some_and(|link| link.session == session);
        if let Said::Share(answer) = said {
            // Also of a connection that has ended.
            return self.judge(answer);
        }
        if !self.pools.get(index).is_some_and(is_current) {
            return;
        }
        match said {
            Said::Job(job) => match job.work(self.pools[index].config.nicehash) {
                Ok(_) => self.job(index, job).await,
                Err(error) => self.lost(index, format!("the pool's job can't be computed: {error}")).await,
            },
            Said::Ended(reason) => self.lost(index, reason).await,
            Said::Share(_) => {}
        }
    }

    async fn job(&mut self, index: usize, job: RawJob) {
        let pool = &mut self.pools[index];
        if pool.job.as_ref() == Some(&job) {
            return;
        }
        pool.job = Some(job);
        pool.failures = 0;
        pool.detail.clear();
        let better = self.active.is_none_or(|active| index < active);
        if better {
            let url = pool.config.url.clone();
            info!("source {}: mining for {url}", self.account.id);
            self.account.status.connected(&url);
            self.active = Some(index);
            for later in index + 1..self.pools.len() {
                self.hang_up(later);
            }
        }
        if self.active == Some(index) {
            self.lay().await;
        }
    }

    /// Gives the fleet the newest job of the pool that it works for.
    async fn lay(&mut self) {
        let Some(index) = self.active else { return };
        let pool = &self.pools[index];
        let (Some(job), Some(link)) = (&pool.job, &pool.link) else { return };
        let Ok(work) = job.work(pool.config.nicehash) else { return };
        let known = Arc::new(PoolWork { pool: index, session: link.session, work: work.clone() });
        if let Err(refused) = self.desk.lay(&work, known).await {
            self.account.failing(&refused.to_string());
            self.lost(index, "the fleet did not take its job".into()).await;
        }
    }

    async fn lost(&mut self, index: usize, reason: String) {
        self.hang_up(index);
        let pool = &mut self.pools[index];
        pool.failures = pool.failures.saturating_add(1);
        pool.retry_at = clock::instant() + backoff(pool.failures);
        if pool.detail != reason {
            warn!("source {}: {}: {reason}", self.account.id, pool.config.url);
        }
        pool.detail = reason;
        if self.active == Some(index) {
            self.active = None;
            self.account.status.disconnected();
        }
        if self.active.is_none() {
            // What the pool gave is worth nothing without its connection.
            self.desk.clear().await;
            let details = self.pools.iter().filter(|pool| !pool.detail.is_empty());
            let details: Vec<String> = details.map(|pool| format!("{}: {}", pool.config.url, pool.detail)).collect();
            self.account.failing(&details.join("; "));
        }
    }

    fn hang_up(&mut self, index: usize) {
        let pool = &mut self.pools[index];
        pool.job = None;
        if let Some(link) = pool.link.take() {
            link.task.abort();
        }
    }

    fn found(&mut self, hits: Vec<Hit<PoolWork>>) {
        for hit in hits {
            let there = self.pools.get(hit.work.pool).and_then(|pool| pool.link.as_ref());
            let (known, newest) = (&hit.work.work, self.desk.newest());
            if there.is_none_or(|link| link.session != hit.work.session) {
                self.account.judged(Verdict::Stale, "the connection that the job came by is gone");
            } else if newest.is_some_and(|newest| newest.work.height != known.height) {
                self.account.judged(Verdict::Stale, "another block came first");
            } else if let Ok(nonce) = u32::try_from(hit.found.nonce) {
                self.checks.spawn(check(self.account.clone(), hit, nonce));
            }
        }
    }

    fn submit(&self, checked: Option<(usize, u64, Share)>) {
        let Some((index, session, share)) = checked else { return };
        let link = self.pools.get(index).and_then(|pool| pool.link.as_ref()).filter(|link| link.session == session);
        if link.is_none_or(|link| link.shares.try_send(share).is_err()) {
            self.account.judged(Verdict::Stale, "the connection that the job came by is gone");
        }
    }

    fn judge(&self, answer: Result<(), String>) {
        match answer {
            Ok(()) => self.account.judged(Verdict::Accepted, ""),
            Err(reason) => {
                let said = reason.to_ascii_lowercase();
                let late = ["stale", "expired", "invalid job", "old job", "unknown job"];
                let late = late.iter().any(|word| said.contains(word));
                self.account.judged(if late { Verdict::Stale } else { Verdict::Rejected }, &reason);
            }
        }
    }
}

impl Drop for Pools {
    fn drop(&mut self) {
        self.links.abort_all();
    }
}

/// Computes the hash of a find once more; if it wins, it is a share.
async fn check(account: Account, hit: Hit<PoolWork>, nonce: u32) -> Option<(usize, u64, Share)> {
    let PoolWork { pool, session, work } = &*hit.work;
    match account.verify(work, nonce, &hit.found.hash).await {
        Ok(hash) => {
            let job_id = work.pool_job_id.clone().unwrap_or_default();
            Some((*pool, *session, Share { job_id, nonce, hash: hash.to_vec() }))
        }
        Err(reason) => {
            warn!(worker_id = %hit.worker, "source {}: worker {} claims a share: {reason}", account.id, hit.worker);
            account.judged(Verdict::Invalid, &reason);
            None
        }
    }
}
