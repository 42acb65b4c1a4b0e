//! Follows a node's chain: a new block means a new template, and shows whether ours are on the main chain.

use std::sync::Arc;
use std::time::{Duration, Instant};

use flota_common::clock;
use flota_proto::sources::{BlockState, MonerodConfig};
use tokio::sync::{Notify, mpsc};
use tracing::{info, warn};

use super::address::{self, Network};
use super::rpc::{Info, Node, NodeError, Tip};
use super::{POLL, Template};
use crate::sources::desk::{Account, backoff};

/// A template this old is replaced, so that new transactions get in and its time stays right.
const TEMPLATE_AGE: Duration = Duration::from_secs(30);
/// Without an answer of the node for so long its template is worth nothing: blocks could not be handed over.
const AWAY_MAX: Duration = Duration::from_secs(15);
/// How long work on a block that is no longer the newest may stand while the next template is on its way.
const STALE_MAX: Duration = Duration::from_millis(400);
/// Together with [`POLL`]: stale work stops within a second.
const _: () = assert!(STALE_MAX.as_millis() + POLL.as_millis() < 1000);
/// A node that does not say in this time which block is its newest does not answer.
const TIP_MAX: Duration = Duration::from_secs(5);
const _: () = assert!(3 * TIP_MAX.as_secs() <= AWAY_MAX.as_secs());
/// Blocks so deep are not looked at again.
const SETTLED_DEPTH: u64 = 60;

/// What its follower is told.
pub enum Event {
    /// The newest work.
    Template(Template),
    /// Something is wrong.
    Trouble {
        /// What.
        detail: String,
        /// What is being computed is worth nothing any more.
        stale: bool,
    },
}

/// The template that the fleet has.
struct Given {
    prev: String,
    at: Instant,
}

/// Follows the chain of one node.
pub struct Chain {
    node: Node,
    config: MonerodConfig,
    account: Account,
    poke: Arc<Notify>,
    given: Option<Given>,
    /// On which block the work is that the fleet may have.
    builds_on: Option<String>,
    heard: Option<Instant>,
}

impl Chain {
    /// Nothing is known yet. A poke asks for a new template at once.
    pub fn new(node: Node, config: MonerodConfig, account: Account, poke: Arc<Notify>) -> Self {
        Self { node, config, account, poke, given: None, builds_on: None, heard: None }
    }

    /// Follows until nobody listens.
    pub async fn follow(mut self, events: mpsc::Sender<Event>) {
        let mut failures = 0;
        while !events.is_closed() {
            let wait = match self.step(&events).await {
                Ok(()) => {
                    failures = 0;
                    POLL
                }
                Err(trouble) => {
                    failures += 1;
                    // When it is right again, a new template says so.
                    self.given = None;
                    self.tell(&events, trouble).await;
                    if self.builds_on.is_some() { POLL } else { backoff(failures).max(POLL) }
                }
            };
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = self.poke.notified() => self.given = None,
            }
        }
    }

    async fn tell(&mut self, events: &mpsc::Sender<Event>, event: Event) {
        match &event {
            Event::Template(template) => self.builds_on = Some(template.prev()),
            Event::Trouble { stale: true, .. } => self.builds_on = None,
            Event::Trouble { stale: false, .. } => {}
        }
        // Nobody listens: the loop ends with that.
        let _ = events.send(event).await;
    }

    /// Looks once; tells a template where the fleet needs another.
    async fn step(&mut self, events: &mpsc::Sender<Event>) -> Result<(), Event> {
        let tip = self.tip().await?;
        let fits = |given: &Given| given.prev == tip.hash && given.at.elapsed() < TEMPLATE_AGE;
        if self.given.as_ref().is_some_and(fits) {
            return Ok(());
        }
        let new_block = self.given.as_ref().is_none_or(|given| given.prev != tip.hash);
        let height = tip.height;
        let template = self.template(tip, events).await?;
        self.given = Some(Given { prev: template.prev(), at: clock::instant() });
        self.tell(events, Event::Template(template)).await;
        if new_block {
            self.look_at_blocks(height).await;
        }
        Ok(())
    }

    async fn tip(&mut self) -> Result<Tip, Event> {
        let asked = tokio::time::timeout(TIP_MAX, self.node.tip()).await;
        let tip = match asked.unwrap_or_else(|_| Err(NodeError::Away("no answer in time".into()))) {
            Ok(tip) => tip,
            Err(error) => return Err(self.away(&error)),
        };
        if self.heard.replace(clock::instant()).is_none() {
            self.account.status.connected(&self.config.url);
        }
        Ok(tip)
    }

    fn away(&mut self, error: &NodeError) -> Event {
        let stale = self.heard.is_none_or(|heard| heard.elapsed() > AWAY_MAX);
        if stale {
            self.heard = None;
            self.given = None;
            self.account.status.disconnected();
        }
        Event::Trouble { detail: error.to_string(), stale }
    }

    /// The template after `tip`. While it is on its way the chain is looked at: work on another block ends soon.
    async fn template(&mut self, mut tip: Tip, events: &mpsc::Sender<Event>) -> Result<Template, Event> {
        let fetching = fetch(self.node.clone(), self.config.wallet_address.clone());
        tokio::pin!(fetching);
        let fetched = loop {
            tokio::select! {
                biased;
                fetched = &mut fetching => break fetched,
                () = tokio::time::sleep(STALE_MAX) => {
                    if self.is_stale(&tip) {
                        let detail = format!("{}: waits for the node's template", overtaken(&tip));
                        self.tell(events, Event::Trouble { detail, stale: true }).await;
                    }
                    tip = self.tip().await?;
                }
            }
        };
        match fetched {
            // The chain may have grown meanwhile.
            Ok(template) if template.prev() != tip.hash && template.prev() != self.tip().await?.hash => {
                let detail = format!("the node's template is on {}, which is not its newest block", template.prev());
                Err(Event::Trouble { detail, stale: true })
            }
            Ok(template) => Ok(template),
            Err(Unfit::Worthless(detail)) => Err(Event::Trouble { detail, stale: true }),
            Err(Unfit::Failed(error)) if self.is_stale(&tip) => {
                let detail = format!("{}: {error}", overtaken(&tip));
                Err(Event::Trouble { detail, stale: true })
            }
            Err(Unfit::Failed(error)) => Err(self.away(&error)),
        }
    }

    /// The fleet's work is on another block than the newest.
    fn is_stale(&self, tip: &Tip) -> bool {
        self.builds_on.as_ref().is_some_and(|prev| *prev != tip.hash)
    }

    /// Which of our blocks are on the main chain, which has `height` blocks.
    async fn look_at_blocks(&self, height: u64) {
        let mut news = false;
        for block in self.account.status.blocks_since(height.saturating_sub(SETTLED_DEPTH)) {
            let Ok(Some(there)) = self.node.block_at(block.height).await else { continue };
            let state = if there == block.hash { BlockState::Confirmed } else { BlockState::Orphaned };
            if self.account.status.block_is(&block.hash, state) {
                news = true;
                match state {
                    BlockState::Confirmed | BlockState::Submitted => {
                        info!(
                            "source {}: block {} is on the main chain: {}",
                            self.account.id, block.height, block.hash
                        );
                    }
                    BlockState::Orphaned => {
                        warn!("source {}: another block has the place of ours at {}", self.account.id, block.height);
                    }
                }
            }
        }
        if news {
            self.account.save().await;
        }
    }
}

fn overtaken(tip: &Tip) -> String {
    format!("a new block ({}) came", tip.hash)
}

/// Why there is no template.
enum Unfit {
    /// The work at hand is worth nothing either.
    Worthless(String),
    /// The node did not give one.
    Failed(NodeError),
}

async fn fetch(node: Node, wallet: String) -> Result<Template, Unfit> {
    let info = node.info().await.map_err(Unfit::Failed)?;
    check(&info, &wallet).map_err(Unfit::Worthless)?;
    match node.template(&wallet).await {
        Ok(raw) => Template::parse(&raw)
            .map_err(|error| Unfit::Worthless(format!("the node's template is malformed: {error}"))),
        Err(error @ NodeError::Refused { .. }) => Err(Unfit::Worthless(error.to_string())),
        Err(error) => Err(Unfit::Failed(error)),
    }
}

/// Whether blocks mined there now would be worth something to the wallet.
fn check(info: &Info, wallet: &str) -> Result<(), String> {
    let network = address::check(wallet).map_err(|error| format!("the wallet address is wrong: {error}"))?;
    let fits = match info.nettype.as_str() {
        "mainnet" | "fakechain" => network == Network::Main,
        other => other == network.as_str(),
    };
    if !fits {
        let (is, chain) = (network.as_str(), &info.nettype);
        return Err(format!("the node is on another chain: it follows {chain}, the wallet address is of {is}"));
    }
    if info.nettype != "fakechain" && (!info.synchronized || info.height < info.target_height) {
        return Err(format!(
            "the node is still synchronising: it has {} of {} blocks",
            info.height, info.target_height
        ));
    }
    Ok(())
}
