//! What is particular about AI jobs: limits before they are asked, what they used, models that nobody serves, and results that
//! are there already.

use std::collections::BTreeMap;

use bytes::Bytes;
use flota_proto::kinds::{ChatResult, EmbedResult, FieldError, PartialChat, Usage};
use flota_proto::rest::{JobError, JobState, ModelInfo};
use flota_proto::{Class, JobId, Kind, Timestamp};
use serde::Deserialize;

use super::fleet::{DEMO_MODEL, Worker};
use super::job::{Job, Seq, Unit, UnitState};
use super::meter::{Meter, Turn, Wish};
use super::queue::{Entry, REMAINDER, ShapeId};
use super::record::StoredJob;
use super::{Core, Effect, Moment, Timer};
use crate::ledger::{self, AiLimits, Budget, Spent, UsageRow};
use crate::submit::NewJob;

/// How long questions wait for somebody who serves their model, while others are there.
const UNSERVED_MS: u64 = 60_000;
/// Names told in a message.
const NAMES_MAX: usize = 20;

/// What a job used, for the ledger and the metrics.
#[derive(Clone, Debug)]
pub struct Used {
    /// To be added to the ledger.
    pub row: UsageRow,
}

impl Core {
    /// Takes over limits, and what was spent of `day` before.
    pub fn meter(&mut self, limits: AiLimits, day: u32, spent: Vec<(String, Spent)>) {
        self.meter = Meter::new(limits, day, spent);
    }

    /// What an owner may use a day, and has used of it.
    pub fn standing(&mut self, now: Timestamp, owner: &str) -> (Budget, Spent) {
        self.meter.standing(now, owner)
    }

    /// A digest of the key that a job came with.
    pub fn note_key(&mut self, id: JobId, digest: u64) {
        if let Some(job) = self.by_id.get(&id).and_then(|seq| self.jobs.get_mut(seq)) {
            job.key = Some(digest);
        }
    }

    /// Counts for the limits a question that another master has asked.
    pub fn recall(&mut self, stored: &StoredJob) {
        let (head, row) = (&stored.head, &stored.row);
        let Some(at) = row.started_at.filter(|_| !row.cached) else { return };
        if head.rest.model.as_deref() == Some(DEMO_MODEL) {
            return;
        }
        let key = self.by_id.get(&head.id).and_then(|seq| self.jobs.get(seq)).and_then(|job| job.key);
        let owner = self.name(&head.owner);
        let wish = Wish {
            seq: row.seq,
            owner: &owner,
            model: head.rest.model.as_deref(),
            key,
            own_key: head.rest.credential,
            tokens: head.rest.tokens.0,
            output_tokens_max: output_max(head.kind, head.rest.tokens),
        };
        let used = serde_json::from_slice::<Told>(row.result.as_deref().unwrap_or_default()).ok();
        let used = used.map(|told| told.usage.input_tokens + told.usage.output_tokens + told.usage.thought_tokens);
        self.meter.recall(at, &wish, used.filter(|tokens| *tokens > 0));
    }

    /// Why an owner's budget does not hold a new job.
    pub fn over_budget(&mut self, now: Timestamp, new: &NewJob) -> Option<JobError> {
        let own_key = new.api_key.is_some();
        let free = own_key || new.model.as_deref() == Some(DEMO_MODEL);
        if new.kind.class() != Class::Ai || free || !self.meter.limits().has_budgets() {
            return None;
        }
        let owner = self.name(&new.owner);
        let wish = Wish {
            seq: 0,
            owner: &owner,
            model: new.model.as_deref(),
            key: None,
            own_key,
            tokens: new.tokens.0,
            output_tokens_max: output_max(new.kind, new.tokens),
        };
        self.meter.over_budget(now, &wish)
    }

    /// Whether a waiting question may be asked now. One that may not is given its time, or ends.
    pub(super) fn may_be_asked(&mut self, at: Moment, entry: Entry, out: &mut Vec<Effect>) -> bool {
        let (seq, index) = entry;
        if !self.meter.limits_any() {
            return true;
        }
        let Some(job) = self.jobs.get(&seq).filter(|job| job.single()) else { return true };
        if job.unit(index).is_some_and(|unit| unit.granted) {
            return true;
        }
        let shape = self.queue.shape(job.spec.shape);
        if shape.model.as_deref() == Some(DEMO_MODEL) {
            return true;
        }
        let wish = Wish {
            seq,
            owner: &job.spec.owner,
            model: shape.model.as_deref(),
            key: job.key,
            own_key: shape.credential,
            tokens: job.spec.tokens.0,
            output_tokens_max: output_max(job.spec.kind, job.spec.tokens),
        };
        match self.meter.ask(at.now, &wish) {
            Turn::Go => true,
            Turn::Wait(run_at, error) => {
                self.hold_back(at, entry, run_at, error, out);
                false
            }
            Turn::Refuse(error) => {
                self.end(at, seq, JobState::Failed, Some(error), out);
                false
            }
        }
    }

    /// A question waits for its turn, which it then has.
    fn hold_back(
        &mut self,
        at: Moment,
        (seq, index): Entry,
        run_at: Timestamp,
        error: JobError,
        out: &mut Vec<Effect>,
    ) {
        let Some(job) = self.jobs.get_mut(&seq) else { return };
        let (shape, priority, owner) = (job.spec.shape, job.priority, job.spec.owner.clone());
        self.queue.remove(shape, priority, &owner, (seq, index));
        let index = if index == REMAINDER {
            let cut = job.next_index;
            job.units.push(Unit::cut(cut, job.next_from, job.end()));
            job.next_from = job.end();
            job.next_index += 1;
            cut
        } else {
            index
        };
        let Some(unit) = job.unit_mut(index) else { return };
        unit.state = UnitState::Scheduled { run_at };
        unit.granted = true;
        unit.dirty = true;
        let attempt = unit.attempt;
        self.timers.insert((run_at, Timer::Unit(seq, index)));
        self.mark(seq);
        self.refresh(at, seq, attempt, None, Some(error), out);
    }

    /// What a job that ended in this batch used, once.
    pub fn account(&mut self, now: Timestamp, id: JobId) -> Option<Used> {
        let seq = *self.by_id.get(&id)?;
        let job = self.jobs.get(&seq).filter(|job| job.spec.kind.class() == Class::Ai && job.state.ended())?;
        let shape = self.queue.shape(job.spec.shape);
        let base = UsageRow {
            day: ledger::day_of(now),
            owner: job.spec.owner.to_string(),
            model: bounded(shape.model.as_deref().unwrap_or_default()),
            own_key: shape.credential,
            ..UsageRow::default()
        };
        let used = self.used(job, base)?;
        let owner = job.spec.owner.clone();
        let row = &used.row;
        let tokens = row.input_tokens.saturating_add(row.output_tokens).saturating_add(row.thought_tokens);
        self.meter.settle(now, seq, &owner, row.own_key, Spent { tokens, micros: row.micros });
        Some(used)
    }

    fn used(&self, job: &Job, base: UsageRow) -> Option<Used> {
        if job.cached {
            return Some(Used { row: UsageRow { cached: 1, ..base } });
        }
        let result = job.result.as_deref().unwrap_or_default();
        let (provider, model, usage) = if job.state != JobState::Completed {
            if job.started_at.is_none() {
                // It was never asked, but something may be set aside for it.
                return Some(Used { row: base });
            }
            // Nobody says what an answer used that broke off: what came of it was paid for.
            let usage = serde_json::from_slice::<PartialChat>(result).ok().and_then(|partial| partial.usage);
            let row = UsageRow { failed: 1, ..self.priced(base, usage.unwrap_or_default()) };
            return Some(Used { row });
        } else if job.spec.kind == Kind::AiChat {
            let chat: ChatResult = serde_json::from_slice(result).ok()?;
            (chat.provider, chat.model, chat.usage)
        } else {
            let embed: EmbedResult = serde_json::from_slice(result).ok()?;
            (embed.provider, embed.model, embed.usage)
        };
        let model = if model.is_empty() { base.model.clone() } else { bounded(&model) };
        // A worker has nobody else for the question's own key; a simple one that is given it does not say whom it asks.
        let own_key = base.own_key && ["gemini", "simple"].contains(&provider.as_str());
        let base = UsageRow { provider: bounded(&provider), model, own_key, requests: 1, ..base };
        Some(Used { row: self.priced(base, usage) })
    }

    fn priced(&self, row: UsageRow, usage: Usage) -> UsageRow {
        let output = usage.output_tokens.saturating_add(usage.thought_tokens);
        let price = self.meter.limits().price(&row.model);
        UsageRow {
            input_tokens: usage.input_tokens,
            output_tokens: usage.output_tokens,
            thought_tokens: usage.thought_tokens,
            estimated: u64::from(usage.estimated),
            micros: price.map_or(0, |price| price.micros(usage.input_tokens, output)),
            ..row
        }
    }

    /// Whether somebody serves the model that a new job asks for, or may once it comes back. While nobody is there, it waits.
    ///
    /// # Errors
    /// Which models there are.
    pub fn check_model(&self, new: &NewJob) -> Result<(), FieldError> {
        let Some(model) = new.model.as_deref().filter(|_| new.kind.class() == Class::Ai && new.api_key.is_none())
        else {
            return Ok(());
        };
        let known = self.fleet.iter().any(|(_, worker)| worker.registered && worker.models.contains(model));
        if known || !self.fleet.iter().any(|(_, worker)| serves_ai(worker)) {
            return Ok(());
        }
        Err(FieldError::new("payload.model", format!("no worker serves '{model}'; there are {}", self.model_names())))
    }

    fn model_names(&self) -> String {
        let all: Vec<String> = self.models_view().into_iter().map(|info| info.model).collect();
        let more = all.len().saturating_sub(NAMES_MAX);
        let names = all.iter().take(NAMES_MAX).cloned().collect::<Vec<_>>().join(", ");
        if more > 0 { format!("{names} and {more} more") } else { names }
    }

    /// The models that workers which are there serve, by name.
    #[must_use]
    pub fn models_view(&self) -> Vec<ModelInfo> {
        let mut models: BTreeMap<&str, u64> = BTreeMap::new();
        for (_, worker) in self.fleet.iter().filter(|(_, worker)| serves_ai(worker)) {
            for model in &worker.models {
                *models.entry(model).or_default() += 1;
            }
        }
        let kind = |model: &str| match model {
            DEMO_MODEL => "demo",
            "small" | "large" => "class",
            _ if model.contains("embed") => "embedding",
            _ => "model",
        };
        let info =
            |(model, workers): (&str, u64)| ModelInfo { model: model.to_owned(), kind: kind(model).into(), workers };
        models.into_iter().map(info).collect()
    }

    /// Questions of a shape that nobody known serves are looked at again after a while.
    pub(super) fn watch_unserved(&mut self, at: Moment, shape: ShapeId) {
        let asked = self.queue.shape(shape);
        if asked.kind.class() == Class::Ai && asked.model.is_some() && self.unserved.insert(shape) {
            self.timers.insert((at.now.after_ms(UNSERVED_MS), Timer::Unserved(shape)));
        }
    }

    /// They end where still nobody serves their model, although others are there.
    pub(super) fn unserved_timer(&mut self, at: Moment, shape: ShapeId, out: &mut Vec<Effect>) {
        self.unserved.remove(&shape);
        let Some(asked) = self.queue.try_shape(shape) else { return };
        let Some(model) = asked.model.clone() else { return };
        let served = self.fleet.iter().any(|(_, worker)| worker.registered && worker.models.contains(&model));
        if served || !self.fleet.iter().any(|(_, worker)| serves_ai(worker)) {
            // Whoever has its model may lack something else; where nobody is there, the question waits for somebody.
            return;
        }
        let message = format!("no worker serves '{model}'; there are {}", self.model_names());
        let waits = |job: &&Job| job.spec.shape == shape && job.state == JobState::Pending;
        let waiting: Vec<Seq> = self.jobs.values().filter(waits).map(|job| job.seq).collect();
        for seq in waiting {
            let error = JobError { code: "model_not_served".into(), message: message.clone() };
            self.end(at, seq, JobState::Failed, Some(error), out);
        }
    }

    /// A new job whose result is there already.
    pub(super) fn end_with_cached(&mut self, at: Moment, seq: Seq, result: Bytes, out: &mut Vec<Effect>) {
        if let Some(job) = self.jobs.get_mut(&seq) {
            job.result = Some(result);
            job.cached = true;
            job.next_from = job.end();
        }
        self.end(at, seq, JobState::Completed, None, out);
    }
}

/// What every result of an AI says.
#[derive(Deserialize)]
struct Told {
    usage: Usage,
}

fn output_max(kind: Kind, (_, most): (u64, u64)) -> Option<u64> {
    match (kind, most) {
        (Kind::AiEmbed, _) => Some(0),
        (_, 0) => None,
        (_, tokens) => Some(tokens),
    }
}

fn serves_ai(worker: &Worker) -> bool {
    worker.online() && !worker.simple && worker.kinds.contains(&Kind::AiChat)
}

/// Workers name models: a row of the ledger has a bounded name.
fn bounded(name: &str) -> String {
    name.chars().take(200).collect()
}
