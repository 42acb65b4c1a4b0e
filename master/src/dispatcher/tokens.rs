//! Counts the tokens of answers by provider, model and direction.

use std::collections::BTreeSet;

use flota_proto::kinds::ChatResult;
use metrics::counter;

/// Models named in the metrics; workers name them, so beyond it they count as one.
const MODELS_MAX: usize = 200;
const MODEL_CHARS_MAX: usize = 100;
const OTHER: &str = "(other)";

/// Which models have been named.
#[derive(Debug, Default)]
pub struct Tokens {
    models: BTreeSet<(String, String)>,
}

impl Tokens {
    /// Counts those of one `ai.chat` result.
    pub fn count(&mut self, result: &[u8]) {
        let Ok(result) = serde_json::from_slice::<ChatResult>(result) else { return };
        let (provider, model) = self.names(&result);
        let usage = result.usage;
        for (direction, tokens) in
            [("input", usage.input_tokens), ("output", usage.output_tokens), ("thought", usage.thought_tokens)]
        {
            if tokens > 0 {
                let labels =
                    [("provider", provider.clone()), ("model", model.clone()), ("direction", direction.into())];
                counter!("flota_ai_tokens_total", &labels).increment(tokens);
            }
        }
    }

    fn names(&mut self, result: &ChatResult) -> (String, String) {
        let bounded = |text: &str| text.chars().take(MODEL_CHARS_MAX).collect::<String>();
        let names = (bounded(&result.provider), bounded(&result.model));
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
    use flota_proto::kinds::{Finish, Usage};

    #[test]
    fn a_worker_that_invents_models_does_not_fill_the_metrics() {
        let mut tokens = Tokens::default();
        let named = |model: String| ChatResult {
            text: String::new(),
            model,
            provider: "local".into(),
            finish: Finish::Complete,
            finish_reason: None,
            dropped_turns: 0,
            usage: Usage::default(),
        };
        for index in 0..2 * MODELS_MAX {
            tokens.names(&named(format!("m{index}")));
        }
        assert_eq!(tokens.models.len(), MODELS_MAX);
        assert_eq!(tokens.names(&named("new".into())).1, OTHER);
        assert_eq!(tokens.names(&named("m0".into())).1, "m0");
        assert_eq!(tokens.names(&named("x".repeat(1000))).1, OTHER);
    }
}
