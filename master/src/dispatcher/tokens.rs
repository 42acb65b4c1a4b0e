//! Counts the tokens of answers by provider, model and direction.

use std::collections::BTreeSet;

use metrics::counter;

use super::usage::count_outcome;
use crate::ledger::UsageRow;

/// Models named in the metrics; workers name them, so beyond it they count as one.
const MODELS_MAX: usize = 200;
const MODEL_CHARS_MAX: usize = 100;
const OTHER: &str = "(other)";
const NONE: &str = "(none)";

/// Which models have been named.
#[derive(Debug, Default)]
pub struct Tokens {
    models: BTreeSet<(String, String)>,
}

impl Tokens {
    /// Counts those of one answer.
    pub fn count(&mut self, row: &UsageRow) {
        let (provider, model) = self.names(row);
        count_outcome(row, provider.clone(), model.clone());
        for (direction, tokens) in
            [("input", row.input_tokens), ("output", row.output_tokens), ("thought", row.thought_tokens)]
        {
            if tokens > 0 {
                let labels =
                    [("provider", provider.clone()), ("model", model.clone()), ("direction", direction.into())];
                counter!("flota_ai_tokens_total", &labels).increment(tokens);
            }
        }
    }

    fn names(&mut self, row: &UsageRow) -> (String, String) {
        let bounded = |text: &str| match text {
            "" => NONE.to_owned(),
            text => text.chars().take(MODEL_CHARS_MAX).collect::<String>(),
        };
        let names = (bounded(&row.provider), bounded(&row.model));
        if self.models.len() >= MODELS_MAX && !self.models.contains(&names) {
            return (OTHER.into(), OTHER.into());
        }
        self.models.insert(names.clone());
        names
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_worker_that_invents_models_does_not_fill_the_metrics() {
        let mut tokens = Tokens::default();
        let named = |model: String| UsageRow { provider: "local".into(), model, ..UsageRow::default() };
        for index in 0..2 * MODELS_MAX {
            tokens.names(&named(format!("m{index}")));
        }
        assert_eq!(tokens.models.len(), MODELS_MAX);
        assert_eq!(tokens.names(&named("new".into())).1, OTHER);
        assert_eq!(tokens.names(&named("m0".into())).1, "m0");
        assert_eq!(tokens.names(&named("x".repeat(1000))).1, OTHER);
    }
}
