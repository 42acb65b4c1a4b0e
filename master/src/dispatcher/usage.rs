//! The ledger: what AI jobs used, stored in the commit of their end, counted in the metrics, and told.

use flota_common::clock;
use flota_proto::rest::{UsageBudget, UsageItem, UsageReport, UsageTotals};
use flota_proto::{JobId, Timestamp};
use metrics::counter;

use super::{Dispatcher, Moment};
use crate::aside::Aside;
use crate::handle::{Refused, Reply};
use crate::ledger::{self, UsageRow};
use crate::store::{StoreError, UsageFilter};

/// Rows of one answer.
const ROWS_MAX: usize = 5_000;
const MICROS: f64 = 1_000_000.0;
/// What a bucket holds.
const MINUTE_MS: u64 = 60_000;

/// Which part of the ledger.
#[derive(Clone, Debug)]
pub struct UsageQuery {
    /// The first day, since 1970; without it thirty days to the last.
    pub from: Option<u32>,
    /// The last day; today without it.
    pub to: Option<u32>,
    /// Of this owner only.
    pub owner: Option<String>,
    /// Who asks: whose budget is told where no owner is named.
    pub caller: String,
}

impl Dispatcher {
    /// Stores what an AI job used that ended in this batch.
    pub(super) fn account(&mut self, at: Moment, id: JobId) {
        let Some(used) = self.core.account(at.now, id) else { return };
        let row = used.row;
        if row.requests + row.failed + row.cached == 0 {
            return;
        }
        if row.cached == 0 {
            self.tokens.count(&row);
        }
        self.asides.push(Aside::Used(row));
    }

    /// Limits and what was spent today, for a core that begins.
    pub(super) fn meter_again(&mut self) -> Result<(), StoreError> {
        let day = ledger::day_of(self.time.now());
        let spent = if self.config.ai.has_budgets() { self.store.own_reader().spent(day)? } else { Vec::new() };
        self.core.meter(self.config.ai.clone(), day, spent);
        Ok(())
    }

    /// What was asked within the last minute stands in the buckets of a core that begins.
    pub(super) fn recall_asked(&mut self) -> Result<(), StoreError> {
        if self.config.ai.rates.is_empty() {
            return Ok(());
        }
        let since = Timestamp(self.time.now().0.saturating_sub(MINUTE_MS));
        for stored in self.store.own_reader().asked_since(since)? {
            self.core.recall(&stored);
        }
        Ok(())
    }

    pub(super) fn usage(&mut self, at: Moment, query: UsageQuery, reply: Reply<UsageReport>) {
        let today = ledger::day_of(at.now);
        let to = query.to.unwrap_or(today);
        let from = query.from.unwrap_or(to.saturating_sub(29));
        let owner = query.owner.clone().unwrap_or(query.caller);
        let (budget, used) = self.core.standing(at.now, &owner);
        let money = |micros: u64| micros as f64 / MICROS;
        let budget = UsageBudget {
            owner,
            tokens: budget.tokens,
            tokens_used: used.tokens,
            cost: budget.micros.map(money),
            cost_used: money(used.micros),
            resets_at: ledger::day_begin(today + 1),
        };
        let currency = self.config.ai.currency.clone();
        let filter = UsageFilter { from, to, owner: query.owner, limit: ROWS_MAX + 1 };
        self.readers.read(reply, move |reader| {
            let failed = |error: StoreError| Refused::Unavailable(format!("failed to {error}"));
            let mut rows = reader.usage(&filter).map_err(failed)?;
            let truncated = rows.len() > ROWS_MAX;
            rows.truncate(ROWS_MAX);
            let totals = rows.iter().fold(UsageTotals::default(), add);
            let items = rows.into_iter().map(item).collect();
            let (from, to) = (date(filter.from), date(filter.to));
            Ok(UsageReport { from, to, currency, items, totals, budget, truncated })
        });
    }
}

/// `2026-11-21`
fn date(day: u32) -> String {
    ledger::day_begin(day).to_rfc3339().chars().take(10).collect()
}

fn item(row: UsageRow) -> UsageItem {
    UsageItem {
        day: date(row.day),
        totals: add(UsageTotals::default(), &row),
        owner: row.owner,
        provider: row.provider,
        model: row.model,
        own_key: row.own_key,
    }
}

fn add(totals: UsageTotals, row: &UsageRow) -> UsageTotals {
    UsageTotals {
        requests: totals.requests + row.requests,
        failed: totals.failed + row.failed,
        cached: totals.cached + row.cached,
        estimated: totals.estimated + row.estimated,
        input_tokens: totals.input_tokens + row.input_tokens,
        output_tokens: totals.output_tokens + row.output_tokens,
        thought_tokens: totals.thought_tokens + row.thought_tokens,
        cost: totals.cost + row.micros as f64 / MICROS,
    }
}

/// How long until the day ends, for who must wait for it.
pub(super) fn seconds_left() -> u32 {
    let now = clock::now();
    let left = ledger::day_begin(ledger::day_of(now) + 1).since_ms(now);
    u32::try_from(left.div_ceil(1_000)).unwrap_or(86_400)
}

/// Counts an answer for the metrics, whatever its result was.
pub(super) fn count_outcome(row: &UsageRow, provider: String, model: String) {
    let outcome = if row.failed > 0 { "failed" } else { "answered" };
    let labels = [("provider", provider), ("model", model), ("outcome", outcome.to_owned())];
    counter!("flota_ai_requests_total", &labels).increment(1);
    if row.micros > 0 {
        counter!("flota_ai_cost_micros_total", &labels[..2]).increment(row.micros);
    }
}
