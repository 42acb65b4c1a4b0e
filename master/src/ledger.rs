//! What AI jobs use: limits and prices as they are configured, and the rows of the ledger. Plain data.

use std::collections::BTreeMap;

use flota_proto::Timestamp;

const DAY_MS: u64 = 86_400_000;

/// A day since 1970, in UTC.
#[must_use]
pub fn day_of(at: Timestamp) -> u32 {
    u32::try_from(at.0 / DAY_MS).unwrap_or(u32::MAX)
}

/// When a day begins.
#[must_use]
pub fn day_begin(day: u32) -> Timestamp {
    Timestamp(u64::from(day) * DAY_MS)
}

/// So much a minute.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rate {
    /// Questions.
    pub requests: Option<u64>,
    /// Tokens of questions and answers.
    pub tokens: Option<u64>,
}

/// So much an owner and day.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Budget {
    /// Tokens of questions, answers and thoughts.
    pub tokens: Option<u64>,
    /// Money, in millionths.
    pub micros: Option<u64>,
}

/// What a million tokens cost, in millionths of the currency.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Price {
    /// Of the question.
    pub input: u64,
    /// Of the answer and of thinking.
    pub output: u64,
}

impl Price {
    /// What this many tokens cost, in millionths, rounded up.
    #[must_use]
    pub fn micros(&self, input: u64, output: u64) -> u64 {
        let cost = |tokens: u64, price: u64| u128::from(tokens) * u128::from(price);
        let all = cost(input, self.input) + cost(output, self.output);
        u64::try_from(all.div_ceil(1_000_000)).unwrap_or(u64::MAX)
    }
}

/// What is used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Spent {
    /// All tokens.
    pub tokens: u64,
    /// Money, in millionths.
    pub micros: u64,
}

/// Limits, budgets and prices.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AiLimits {
    /// By `owner`, `model` and `key`.
    pub rates: BTreeMap<String, Rate>,
    /// By owner; the empty one is everybody else's.
    pub budgets: BTreeMap<String, Budget>,
    /// By model, the first that fits; a name may end with `*`.
    pub prices: Vec<(String, Price)>,
    /// What money is counted in.
    pub currency: String,
}

impl AiLimits {
    /// The budget of an owner: what is not set for it is as for everybody.
    #[must_use]
    pub fn budget(&self, owner: &str) -> Budget {
        let all = self.budgets.get("").copied().unwrap_or_default();
        let own = self.budgets.get(owner).copied().unwrap_or_default();
        Budget { tokens: own.tokens.or(all.tokens), micros: own.micros.or(all.micros) }
    }

    /// Whether anybody has one.
    #[must_use]
    pub fn has_budgets(&self) -> bool {
        !self.budgets.is_empty()
    }

    /// The highest price.
    #[must_use]
    pub fn dearest(&self) -> Option<Price> {
        self.prices.iter().map(|(_, price)| *price).max_by_key(|price| price.input.saturating_add(price.output))
    }

    /// The price of a model; `None`: it is free.
    #[must_use]
    pub fn price(&self, model: &str) -> Option<Price> {
        let fits = |name: &str| name.strip_suffix('*').map_or(name == model, |start| model.starts_with(start));
        self.prices.iter().find(|(name, _)| fits(name)).map(|(_, price)| *price)
    }
}

/// Money for people: at least two decimals, as many as it takes up to six.
#[must_use]
pub fn money(micros: u64, currency: &str) -> String {
    let text = format!("{}.{:06}", micros / 1_000_000, micros % 1_000_000);
    let kept = text.trim_end_matches('0').len().max(text.len() - 4);
    format!("{} {currency}", &text[..kept])
}

/// One row of the ledger, or what is added to it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UsageRow {
    /// Since 1970, in UTC.
    pub day: u32,
    /// Who asked.
    pub owner: String,
    /// Who served it; empty where nobody answered.
    pub provider: String,
    /// Which model answered, else the one that was asked for.
    pub model: String,
    /// The questions brought a key of their own.
    pub own_key: bool,
    /// Questions that were answered.
    pub requests: u64,
    /// Questions that failed or were stopped.
    pub failed: u64,
    /// Questions that an earlier answer served.
    pub cached: u64,
    /// Questions whose tokens are estimated.
    pub estimated: u64,
    /// Tokens of the questions.
    pub input_tokens: u64,
    /// Tokens of the answers.
    pub output_tokens: u64,
    /// Tokens of thinking.
    pub thought_tokens: u64,
    /// Money, in millionths.
    pub micros: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prices_are_found_by_name_and_by_beginning_in_order() {
        let price = |input| Price { input, output: 0 };
        let limits = AiLimits {
            prices: vec![("gemini-3.5-pro".into(), price(1)), ("gemini-*".into(), price(2)), ("*".into(), price(3))],
            ..AiLimits::default()
        };
        for (model, input) in [("gemini-3.5-pro", 1), ("gemini-3.5-pro-002", 2), ("qwen3:4b", 3)] {
            assert_eq!(limits.price(model), Some(price(input)), "{model}");
        }
        assert_eq!(AiLimits::default().price("x"), None);
    }

    #[test]
    fn money_is_rounded_up_and_shown_as_far_as_it_goes() {
        let price = Price { input: 100_000, output: 400_000 };
        assert_eq!(price.micros(1_000_000, 0), 100_000);
        assert_eq!(price.micros(7, 24), 11, "0.7 and 9.6 millionths");
        assert_eq!(Price { input: 2_000_000, output: 0 }.micros(u64::MAX, 1), u64::MAX);
        for (micros, text) in [(0, "0.00 USD"), (2_500_000, "2.50 USD"), (11, "0.000011 USD"), (1_230_000, "1.23 USD")]
        {
            assert_eq!(money(micros, "USD"), text);
        }
    }
}
