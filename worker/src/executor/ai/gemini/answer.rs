//! Frames of a Gemini stream added up to one answer.

use flota_proto::kinds::{Finish, Usage};

use super::super::fault::{Fault, word};
use super::super::provider::Answer;
use super::refusal;
use super::wire::{Frame, UsageMetadata};

/// Longer than any model answers.
const TEXT_BYTES_MAX: usize = 8 << 20;

/// What came so far.
#[derive(Debug, Default)]
pub struct Tally {
    text: String,
    finish: Option<String>,
    blocked: Option<String>,
    model: Option<String>,
    usage: Usage,
}

impl Tally {
    /// Adds a frame; the text in it that belongs to the answer.
    ///
    /// # Errors
    /// When it is an error, or no frame.
    pub fn add(&mut self, bytes: &[u8]) -> Result<String, Fault> {
        let frame: Frame = serde_json::from_slice(bytes).map_err(|_| Fault::Unreadable("a frame that is no JSON"))?;
        if frame.error.is_some() {
            return Err(refusal::in_stream(bytes));
        }
        self.blocked = frame.prompt_feedback.and_then(|feedback| feedback.block_reason).or(self.blocked.take());
        self.model = frame.model_version.or(self.model.take());
        self.count(frame.usage_metadata.unwrap_or_default());
        let mut text = String::new();
        // Only one candidate was asked for.
        if let Some(candidate) = frame.candidates.into_iter().next() {
            let parts = candidate.content.unwrap_or_default().parts;
            parts.into_iter().filter(|part| !part.thought).for_each(|part| text += &part.text.unwrap_or_default());
            self.finish = candidate.finish_reason.or(self.finish.take());
        }
        self.text += &text;
        if self.text.len() > TEXT_BYTES_MAX {
            return Err(Fault::Unreadable("a text beyond 8 MiB"));
        }
        Ok(text)
    }

    fn count(&mut self, usage: UsageMetadata) {
        let set = |total: &mut u64, count: Option<u64>| *total = count.unwrap_or(*total);
        set(&mut self.usage.input_tokens, usage.prompt_token_count);
        set(&mut self.usage.output_tokens, usage.candidates_token_count);
        set(&mut self.usage.thought_tokens, usage.thoughts_token_count);
    }

    /// The answer, when the stream has ended.
    ///
    /// # Errors
    /// [`Fault::Interrupted`], [`Fault::Stopped`], [`Fault::Empty`]
    pub fn finish(self) -> Result<Answer, Fault> {
        let (finish, reason) = match (&self.blocked, &self.finish) {
            // Every reason to block the prompt is one, also those that are not known yet.
            (Some(reason), _) => (Finish::Blocked, reason),
            (None, Some(reason)) => (finish_of(reason)?, reason),
            (None, None) => return Err(Fault::Interrupted("it ended without a finish reason")),
        };
        if finish == Finish::Complete && self.text.is_empty() {
            return Err(Fault::Empty);
        }
        Ok(Answer { finish, reason: word(reason), text: self.text, model: self.model, usage: self.usage })
    }
}

fn finish_of(reason: &str) -> Result<Finish, Fault> {
    match reason {
        "STOP" => Ok(Finish::Complete),
        "MAX_TOKENS" => Ok(Finish::MaxTokens),
        "SAFETY"
        | "RECITATION"
        | "LANGUAGE"
        | "BLOCKLIST"
        | "PROHIBITED_CONTENT"
        | "SPII"
        | "IMAGE_SAFETY"
        | "IMAGE_PROHIBITED_CONTENT"
        | "IMAGE_RECITATION" => Ok(Finish::Blocked),
        // OTHER, MALFORMED_FUNCTION_CALL, and what is not known yet: no proof that the answer is whole.
        other => Err(Fault::Stopped(word(other))),
    }
}
