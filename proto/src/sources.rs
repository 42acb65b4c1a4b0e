//! Work sources as REST shows them: where mining work comes from, and what became of it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::ToSchema;

use crate::kinds::FieldError;
use crate::objects;
use crate::rest::{Priority, Requires};
use crate::time::{rfc3339, rfc3339_option};
use crate::{JobId, Timestamp, WorkerId};

/// Where work comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum SourceKind {
    /// A Monero node: solo mining.
    Monerod,
    /// Mining pools.
    Stratum,
}

impl SourceKind {
    /// Its name in JSON.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Monerod => "monerod",
            Self::Stratum => "stratum",
        }
    }
}

impl std::str::FromStr for SourceKind {
    type Err = FieldError;
    fn from_str(text: &str) -> Result<Self, FieldError> {
        match text {
            "monerod" => Ok(Self::Monerod),
            "stratum" => Ok(Self::Stratum),
            "api" => Err(FieldError::new(
                "source",
                "'api' needs no source: jobs come by POST /api/v1/jobs as they always did",
            )),
            _ => Err(FieldError::new("source", format!("'{text}' is no source; known are monerod, stratum"))),
        }
    }
}

/// `POST /sources`
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewSource {
    /// A name: 1 to 64 lowercase letters, digits and `-`; without it `monerod` or `stratum`, with a number where that is taken.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// `monerod` or `stratum`.
    pub source: String,
    /// Of the kind: [`MonerodConfig`] or [`StratumConfig`].
    #[schema(value_type = Object)]
    pub config: Box<RawValue>,
    /// Of its jobs: 0 to 9, 9 first, or `low`, `normal`, `high`; `low` without it, so that other work goes first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub priority: Option<Priority>,
    /// What a worker must have to get its jobs.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "objects::option")]
    pub requires: Option<Requires>,
    /// Whether it begins at once; true without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start: Option<bool>,
}

/// Solo mining on a Monero node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct MonerodConfig {
    /// The node's RPC, `http://host:18081` or `https://…`.
    pub url: String,
    /// Whom blocks pay: a primary or integrated address, no subaddress.
    pub wallet_address: String,
    /// Of the node's `--rpc-login`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// Of the node's `--rpc-login`; never shown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password: Option<String>,
}

/// Mining for pools, the first that works.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct StratumConfig {
    /// By priority: 1 to 16. While an earlier one is down the next is used; when it is back, so is the fleet.
    #[serde(deserialize_with = "objects::list")]
    pub pools: Vec<PoolConfig>,
}

/// One pool.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PoolConfig {
    /// `stratum+tcp://host:port`, or `stratum+ssl://host:port` for TLS.
    pub url: String,
    /// The login: mostly a wallet address.
    pub user: String,
    /// `x` without it; never shown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password: Option<String>,
    /// What the pool calls this fleet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rig_id: Option<String>,
    /// SHA-256 of the pool's certificate in hex: trusted instead of the system's authorities.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls_fingerprint: Option<String>,
    /// The top byte of the nonce is the pool's, also where it is 0.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub nicehash: bool,
}

/// What a source does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum SourceState {
    /// The operator stopped it.
    Stopped,
    /// It has no work yet.
    Connecting,
    /// The fleet has its work.
    Mining,
    /// It has no work because something is wrong; `detail` says what. It is tried again and again.
    Failing,
}

impl SourceState {
    /// Its name in JSON.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Stopped => "stopped",
            Self::Connecting => "connecting",
            Self::Mining => "mining",
            Self::Failing => "failing",
        }
    }
}

/// What became of nonces and hashes since the source was made.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(default)]
pub struct SourceCounters {
    /// Winning nonces that workers reported.
    pub found: u64,
    /// Taken by the node or pool.
    pub accepted: u64,
    /// Refused by the node or pool.
    pub rejected: u64,
    /// Found or refused because the work was no longer current.
    pub stale: u64,
    /// Whose hash was not what the worker said: never submitted.
    pub invalid: u64,
    /// Why, in the words of the node or pool: how often.
    pub reasons: BTreeMap<String, u64>,
    /// Blocks confirmed on the main chain (solo).
    pub blocks: u64,
    /// Blocks that were submitted and are not on the main chain (solo).
    pub orphaned: u64,
    /// Hashes that counted.
    pub hashes: u64,
    /// Hashes computed in vain, about: of attempts that were cancelled, or whose worker was lost.
    pub wasted_hashes: u64,
    /// Jobs given to the fleet.
    pub jobs: u64,
    /// Connections to a pool, or first answers of a node that was away.
    pub connects: u64,
}

/// What a source's workers compute now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SourceWork {
    /// The fleet's job.
    #[schema(value_type = Option<String>)]
    pub job_id: Option<JobId>,
    /// The pool's name for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pool_job_id: Option<String>,
    /// Of the block that is looked for, where known.
    pub height: Option<u64>,
    /// The RandomX key, hex.
    pub seed_hash: String,
    /// The key that follows, hex, once it is known.
    pub next_seed_hash: Option<String>,
    /// How many hashes a find takes on average.
    pub difficulty: u64,
    /// Since when.
    #[serde(with = "rfc3339")]
    #[schema(value_type = String)]
    pub since: Timestamp,
}

/// Where a block stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum BlockState {
    /// The node took it; not yet seen on the main chain.
    Submitted,
    /// On the main chain.
    Confirmed,
    /// Another block has its place.
    Orphaned,
}

/// A block that was found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct FoundBlock {
    /// Its height.
    pub height: u64,
    /// Its id, hex.
    pub hash: String,
    /// Where it stands.
    pub state: BlockState,
    /// Who found it.
    #[schema(value_type = Option<String>)]
    pub worker_id: Option<WorkerId>,
    /// When.
    #[serde(with = "rfc3339")]
    #[schema(value_type = String)]
    pub found_at: Timestamp,
}

/// A source as REST shows it.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Source {
    /// Its name.
    pub id: String,
    /// Where its work comes from.
    pub source: SourceKind,
    /// What it does.
    pub state: SourceState,
    /// What is wrong, or empty.
    pub detail: String,
    /// As it was made, without passwords.
    #[schema(value_type = Object)]
    pub config: Box<RawValue>,
    /// Of its jobs.
    pub priority: u8,
    /// What a worker must have to get its jobs.
    pub requires: Requires,
    /// When it was made.
    #[serde(with = "rfc3339")]
    #[schema(value_type = String)]
    pub created_at: Timestamp,
    /// The pool or node that it has work from.
    pub connected_to: Option<String>,
    /// What is computed now.
    pub work: Option<SourceWork>,
    /// What became of it all.
    pub counters: SourceCounters,
    /// Hashes a second over the last minute.
    pub hashrate: f64,
    /// Hashes since the last block or accepted share, as a part of what one takes on average.
    pub effort: f64,
    /// How long a find takes on average at this rate; absent without a rate.
    pub expected_seconds: Option<f64>,
    /// When the last one was accepted.
    #[serde(with = "rfc3339_option")]
    #[schema(value_type = Option<String>)]
    pub last_accepted_at: Option<Timestamp>,
    /// The last 50, newest first (solo).
    pub blocks: Vec<FoundBlock>,
    /// Stock miners that compute for it now.
    pub guests: u32,
}

/// `GET /sources`
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Sources {
    /// By name.
    pub items: Vec<Source>,
}
