//! Follows a node's chain: a new block means a new template, and shows whether ours are on the main chain.

use std::sync::Arc;
use std::time::{Duration, Instant};

use flota_common::clock;
use flota_proto::sources::{BlockState, MonerodConfig};
use tokio::sync::{Notify, mpsc};
use tracing::{info, warn};

use super::address::{self, Network};
use super::rpc::{Info, Node, NodeError};
use super::{POLL, Template};
use crate::sources::desk::{Account, backoff};

/// A template this old is replaced, so that new transactions get in and its time stays right.
const TEMPLATE_AGE: Duration = Duration::from_secs(30);
/// Without an answer of the node for so long its template is worth nothing: blocks could not be handed over.
const AWAY_MAX: Duration = Duration::from_secs(15);
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
    heard: Option<Instant>,
}

impl Chain {
    /// Nothing is known yet. A poke asks for a new template at once.
    pub fn new(node: Node, config: MonerodConfig, account: Account, poke: Arc<Notify>) -> Self {
        Self { node, config, account, poke, given: None, heard: None }
    }

    /// Follows until nobody listens.
    pub async fn follow(mut self, events: mpsc::Sender<Event>) {
        let mut failures = 0;
        while !events.is_closed() {
            let (event, wait) = match self.step().await {
                Ok(template) => {
                    failures = 0;
                    (template.map(Event::Template), POLL)
                }
                Err(trouble) => {
                    failures += 1;
                    // When it is right again, a new template says so.
                    self.given = None;
                    (Some(trouble), backoff(failures).max(POLL))
                }
            };
            if let Some(event) = event
                && events.send(event).await.is_err()
            {
                return;
            }
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = self.poke.notified() => self.given = None,
            }
        }
    }

    /// Looks once; answers with a template where the fleet needs another.
    async fn step(&mut self) -> Result<Option<Template>, Event> {
        let tip = match self.node.tip().await {
            Ok(tip) => tip,
            Err(error) => return Err(self.away(&error)),
        };
        if self.heard.replace(clock::instant()).is_none() {
            self.account.status.connected(&self.config.url);
        }
        let fits = |given: &Given| given.prev == tip.hash && given.at.elapsed() < TEMPLATE_AGE;
        if self.given.as_ref().is_some_and(fits) {
            return Ok(None);
        }
        let new_block = self.given.as_ref().is_none_or(|given| given.prev != tip.hash);
        let template = self.template().await?;
        self.given = Some(Given { prev: template.prev(), at: clock::instant() });
        if new_block {
            self.look_at_blocks(tip.height).await;
        }
        Ok(Some(template))
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

    async fn template(&mut self) -> Result<Template, Event> {
        let stale = |detail: String| Event::Trouble { detail, stale: true };
        let info = self.node.info().await.map_err(|error| self.away(&error))?;
        check(&info, &self.config.wallet_address).map_err(stale)?;
        match self.node.template(&self.config.wallet_address).await {
            Ok(raw) => {
                Template::parse(&raw).map_err(|error| stale(format!("the node's template is malformed: {error}")))
            }
            Err(error @ NodeError::Refused { .. }) => Err(stale(error.to_string())),
            Err(error) => Err(self.away(&error)),
        }
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
