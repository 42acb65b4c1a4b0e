//! What was asked of AIs and what it cost, as REST shows it.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::Timestamp;
use crate::time::rfc3339;

/// `GET /usage`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct UsageReport {
    /// The first day, UTC.
    pub from: String,
    /// The last day, UTC.
    pub to: String,
    /// What `cost` is counted in.
    pub currency: String,
    /// By day, owner, provider and model, latest day first.
    pub items: Vec<UsageItem>,
    /// Of all items.
    pub totals: UsageTotals,
    /// What one owner may use today.
    pub budget: UsageBudget,
    /// There are more items than are told: ask for fewer days, or one owner.
    pub truncated: bool,
}

/// One line of the ledger.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct UsageItem {
    /// Such as `2026-11-21`, UTC.
    pub day: String,
    /// Who asked.
    pub owner: String,
    /// Who served it; empty where nobody answered.
    pub provider: String,
    /// Which model answered, else the one that was asked for.
    pub model: String,
    /// The questions brought a key of their own, so they don't count against the owner's budget.
    pub own_key: bool,
    /// How much.
    #[serde(flatten)]
    pub totals: UsageTotals,
}

/// What was used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct UsageTotals {
    /// Questions that were answered.
    pub requests: u64,
    /// Questions that failed or were stopped.
    pub failed: u64,
    /// Questions that an earlier answer served.
    pub cached: u64,
    /// Questions whose answers broke off, so that nobody told their tokens: those are estimated.
    #[serde(default)]
    pub estimated: u64,
    /// Tokens of the questions.
    pub input_tokens: u64,
    /// Tokens of the answers.
    pub output_tokens: u64,
    /// Tokens of thinking.
    pub thought_tokens: u64,
    /// Money, by the prices that are set.
    pub cost: f64,
}

/// What an owner may use today, and has.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct UsageBudget {
    /// Whose.
    pub owner: String,
    /// Tokens a day; `null` for no limit.
    pub tokens: Option<u64>,
    /// Of them used.
    pub tokens_used: u64,
    /// Money a day; `null` for no limit.
    pub cost: Option<f64>,
    /// Of it used.
    pub cost_used: f64,
    /// When it is new.
    #[serde(with = "rfc3339")]
    #[schema(value_type = String)]
    pub resets_at: Timestamp,
}
