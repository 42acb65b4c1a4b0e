//! Solo mining on a Monero node: its newest template is the fleet's work, what the fleet finds becomes a block.

pub mod address;
pub mod block;
mod chain;
mod digest;
mod rpc;
mod template;

use std::sync::Arc;
use std::time::Duration;

use flota_proto::rest::JobState;
use flota_proto::sources::{MonerodConfig, SourceState};
use secrecy::SecretString;
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use self::chain::{Chain, Event};
use self::rpc::{Node, NodeError};
use self::template::Template;
use super::desk::{Account, Desk, Hit, Told, backoff};
use super::status::{Unsent, Verdict};

/// How often a found block is offered to a node that is away.
const SUBMIT_TRIES: u32 = 12;

/// A source of this kind that runs.
pub struct Solo {
    account: Account,
    desk: Desk<Template>,
    node: Node,
    config: MonerodConfig,
}

impl Solo {
    /// On the node of `config`.
    ///
    /// # Errors
    /// Why it can't run at all.
    pub fn new(account: Account, desk: Desk<Template>, config: MonerodConfig) -> Result<Self, String> {
        let password = SecretString::from(config.password.clone().unwrap_or_default());
        let login = config.user.clone().map(|user| (user, password));
        let node = Node::new(&config.url, login)?;
        Ok(Self { account, desk, node, config })
    }

    /// Mines until `stop`.
    pub async fn run(mut self, stop: CancellationToken) {
        let (events, mut chain_events) = mpsc::channel(16);
        let poke = Arc::new(Notify::new());
        let mut tasks = JoinSet::new();
        for unsent in self.account.status.unsent() {
            tasks.spawn(submit(self.node.clone(), self.account.clone(), unsent, poke.clone()));
        }
        let chain = Chain::new(self.node.clone(), self.config.clone(), self.account.clone(), poke.clone());
        tasks.spawn(chain.follow(events));
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                told = self.desk.told() => match told {
                    Told::Finds(hits) => self.found(hits, &mut tasks, &poke),
                    // After a find the answer of the node brings the next template.
                    Told::Over(JobState::Completed) => self.account.status.works_on(None),
                    Told::Over(_) => {
                        self.account.status.works_on(None);
                        poke.notify_one();
                    }
                },
                event = chain_events.recv() => match event {
                    Some(Event::Template(template)) => self.lay(template, &poke).await,
                    Some(Event::Trouble { detail, stale }) => self.trouble(&detail, stale).await,
                    None => break,
                },
                Some(_) = tasks.join_next() => {}
            }
        }
        self.desk.clear().await;
    }

    async fn lay(&mut self, template: Template, poke: &Notify) {
        let (work, height) = (template.work(), template.height);
        match self.desk.lay(&work, Arc::new(template)).await {
            Ok(job) => info!(job_id = %job, "source {}: the fleet looks for block {height}", self.account.id),
            Err(refused) => {
                self.account.failing(&refused.to_string());
                tokio::time::sleep(backoff(0)).await;
                poke.notify_one();
            }
        }
    }

    async fn trouble(&mut self, detail: &str, stale: bool) {
        if stale {
            self.desk.clear().await;
        }
        if self.desk.has_work() {
            // The work at hand is still good; what is wrong is said all the same.
            self.account.status.set(SourceState::Mining, detail);
        } else {
            self.account.failing(detail);
        }
    }

    fn found(&self, hits: Vec<Hit<Template>>, tasks: &mut JoinSet<()>, poke: &Arc<Notify>) {
        for hit in hits {
            let Ok(nonce) = u32::try_from(hit.found.nonce) else { continue };
            if !hit.current {
                self.account.judged(Verdict::Stale, "another block came first");
                continue;
            }
            tasks.spawn(check(self.node.clone(), self.account.clone(), hit, nonce, poke.clone()));
        }
    }
}

/// Computes the hash of a find once more; if it wins, it is a block.
async fn check(node: Node, account: Account, hit: Hit<Template>, nonce: u32, poke: Arc<Notify>) {
    match account.verify(&hit.work.work(), nonce, &hit.found.hash).await {
        Ok(_) => {
            let unsent = hit.work.block(nonce);
            info!(worker_id = %hit.worker, "source {}: found block {} at {}", account.id, unsent.hash, unsent.height);
            account.status.block_found(unsent.clone(), Some(hit.worker));
            submit(node, account, unsent, poke).await;
        }
        Err(reason) => {
            warn!(worker_id = %hit.worker, "source {}: worker {} claims a block: {reason}", account.id, hit.worker);
            account.judged(Verdict::Invalid, &reason);
            // The search ended with it: it begins anew.
            poke.notify_one();
        }
    }
}

/// Hands a block over, patiently: it is worth something only while it is the newest, but then much.
async fn submit(node: Node, account: Account, unsent: Unsent, poke: Arc<Notify>) {
    account.save().await;
    let mut failures = 0;
    let outcome = loop {
        match node.submit(&unsent.blob).await {
            Err(NodeError::Away(why)) if failures < SUBMIT_TRIES => {
                warn!("source {}: block {} could not be handed over: {why}; trying again", account.id, unsent.height);
                tokio::time::sleep(backoff(failures.min(2))).await;
                failures += 1;
            }
            outcome => break outcome,
        }
    };
    account.status.block_sent(&unsent.hash, outcome.is_ok());
    match outcome {
        Ok(()) => account.judged(Verdict::Accepted, ""),
        Err(error) => account.judged(Verdict::Rejected, &error.to_string()),
    }
    account.save().await;
    poke.notify_one();
}

/// Keeps two polls apart.
const POLL: Duration = Duration::from_millis(500);
