//! Whom a question is put to, one after the other: Gemini, with the question's own key or else the worker's, and the local AI.
//! Only while the user has seen no text, and only after failures that the next one may not have.

use bytes::Bytes;
use flota_common::clock;
use flota_proto::kinds::{ChatPayload, ChatResult, EmbedPayload, Finish};
use secrecy::SecretString;

use super::super::Failure;
use super::breaker::Breakers;
use super::call::Call;
use super::fault::{Fault, Place};
use super::provider::{Ask, Provider};
use super::rests::Rests;

/// One provider, one model, one key.
#[derive(Clone)]
pub struct Candidate<'a> {
    /// Who is asked.
    pub provider: &'a dyn Provider,
    /// Its name of the model.
    pub model: String,
    /// The credential.
    pub key: Option<&'a SecretString>,
    /// The credential in words: `your API key`.
    pub whose: &'static str,
    /// It is the question's own.
    pub own: bool,
}

impl Candidate<'_> {
    fn place(&self) -> Place<'_> {
        Place { provider: self.provider.title(), model: &self.model, key: self.whose }
    }

    fn ask(&self) -> Ask<'_> {
        Ask { model: &self.model, key: self.key }
    }

    /// Whether what happened to `before` happens to this one too.
    fn shares(&self, fault: &Fault, before: &Candidate<'_>) -> bool {
        let same_provider = self.provider.name() == before.provider.name();
        match fault {
            Fault::BadKey => same_provider && self.whose == before.whose,
            Fault::Unreachable(_) => same_provider,
            _ => false,
        }
    }
}

/// Who is spared: keys and models that rest, providers that failed too often.
#[derive(Debug, Default)]
pub struct Care {
    rests: Rests,
    breakers: Breakers,
}

/// What is asked.
#[derive(Clone, Copy)]
pub enum Task<'a> {
    /// `ai.chat`
    Chat(&'a ChatPayload),
    /// `ai.embed`
    Embed(&'a EmbedPayload),
}

/// Asks `candidates` in order, each once; the result as JSON.
///
/// # Errors
/// The failure of the attempt.
pub async fn run(candidates: &[Candidate<'_>], task: Task<'_>, care: &Care, call: &mut Call) -> Result<Bytes, Failure> {
    let mut failures: Vec<Failure> = Vec::new();
    let mut notes: Vec<String> = Vec::new();
    let mut left: Vec<&Candidate<'_>> = candidates.iter().rev().collect();
    while let Some(candidate) = left.pop() {
        let fault = match ask_unless_resting(candidate, task, &notes, care, call).await {
            Ok(json) => return Ok(json),
            Err(fault) => fault,
        };
        if call.said() || fault == Fault::Cancelled {
            return Err(fault.failure_after_text(&candidate.place()));
        }
        failures.push(fault.failure(&candidate.place()));
        left.retain(|other| fault.next() && !other.shares(&fault, candidate));
        if let Some(next) = left.last() {
            let message = fault.message(&candidate.place());
            let note = format!("{message}; asking {} for '{}'", next.provider.title(), next.model);
            call.note(&note);
            if candidate.own {
                notes.push(note);
            }
        }
    }
    Err(combined(failures))
}

async fn ask_unless_resting(
    candidate: &Candidate<'_>,
    task: Task<'_>,
    notes: &[String],
    care: &Care,
    call: &mut Call,
) -> Result<Bytes, Fault> {
    let (provider, model) = (candidate.provider.name(), candidate.model.as_str());
    care.rests.admit(candidate.key, model, clock::instant(), clock::now())?;
    care.breakers.admit(provider, model, clock::instant())?;
    let result = ask(candidate, task, notes, call).await;
    care.breakers.note(provider, model, &result, clock::instant());
    if let Err(fault) = &result {
        care.rests.note(candidate.key, model, fault, clock::instant(), clock::now());
    }
    result
}

async fn ask(candidate: &Candidate<'_>, task: Task<'_>, notes: &[String], call: &mut Call) -> Result<Bytes, Fault> {
    let provider = candidate.provider;
    let json = match task {
        Task::Chat(chat) => {
            let answer = provider.stream(candidate.ask(), chat, call).await?;
            let blocked = answer.finish == Finish::Blocked;
            serde_json::to_vec(&ChatResult {
                text: answer.text,
                model: answer.model.unwrap_or_else(|| candidate.model.clone()),
                provider: provider.name().to_owned(),
                finish: answer.finish,
                finish_reason: blocked.then_some(answer.reason),
                usage: answer.usage,
                dropped_turns: chat.dropped_turns,
                notes: notes.to_vec(),
            })
        }
        Task::Embed(embed) => {
            let mut result = provider.embed(candidate.ask(), embed, call).await?;
            comparable(&result.vectors)?;
            result.notes = notes.to_vec();
            serde_json::to_vec(&result)
        }
    };
    json.map(Bytes::from).map_err(|_| Fault::Unreadable("no result that can be written as JSON"))
}

/// Vectors of one length, of numbers: a model that was exchanged between two batches makes others.
fn comparable(vectors: &[Vec<f32>]) -> Result<(), Fault> {
    let dimensions = vectors.first().map_or(0, Vec::len);
    if dimensions == 0 || vectors.iter().any(|vector| vector.len() != dimensions) {
        return Err(Fault::Unreadable("vectors of no or of different lengths"));
    }
    if vectors.iter().flatten().any(|number| !number.is_finite()) {
        return Err(Fault::Unreadable("vectors with numbers beyond 32 bits"));
    }
    Ok(())
}

/// One failure for all: of one that a retry can mend, if there is any, with what happened at each.
fn combined(failures: Vec<Failure>) -> Failure {
    let message = failures.iter().map(|failure| failure.message.as_str()).collect::<Vec<_>>().join("; then ");
    let retry_after = failures.iter().filter_map(|failure| failure.retry_after).min();
    let main = failures.iter().find(|failure| failure.retryable).or(failures.first()).cloned();
    let main = main.unwrap_or_else(|| Failure::permanent("no_provider", ""));
    let unasked = failures.iter().all(|failure| failure.unasked);
    Failure { message, retry_after, unasked, ..main }
}
