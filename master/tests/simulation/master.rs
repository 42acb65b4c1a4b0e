//! The shell around the core: batches, commits that fail, effects that are lost, and the promises that it must keep.

use std::collections::BTreeSet;

use flota_master::core::record::decode_events;
use flota_master::core::{Assignment, Check, Effect, Event, Input, Moment, Verdict, What};
use flota_master::handle::StreamId;
use flota_proto::rest::JobEvent;
use flota_proto::{JobId, UnitId};
use rand::Rng;

use crate::trouble::Trouble;
use crate::worker::LIE;
use crate::world::{Message, ToWorker, World};

/// What a user is told once the batch is stored.
pub enum Answer {
    Submitted(JobId),
    Cancelled(JobId),
    Retried(JobId),
    Watching(JobId, Vec<JobEvent>),
}

/// Somebody who reads a job's events to their end, and comes again after the last where the reading breaks off.
#[derive(Default)]
pub struct Watch {
    last: Option<u64>,
    seen: BTreeSet<u64>,
}

impl Watch {
    fn see(&mut self, seq: u64) {
        if self.last.is_none_or(|last| seq > last) {
            self.last = Some(seq);
            self.seen.insert(seq);
        }
    }
}

impl World {
    /// Applies an input; the batch may go on behind it.
    pub fn input(&mut self, input: Input) -> bool {
        let at = Moment { now: self.clock(), entropy: self.rng.random() };
        let applied = self.core.apply(at, input, &mut self.effects).is_ok();
        if self.chance(60) {
            self.commit();
        }
        applied
    }

    /// The end of a batch: assigned, stored, answered, released; each of which can go wrong.
    pub fn commit(&mut self) {
        let at = Moment { now: self.clock(), entropy: self.rng.random() };
        self.core.settle(at, &mut self.effects);
        self.check_order();
        let (effects, answers) = (std::mem::take(&mut self.effects), std::mem::take(&mut self.answers));
        let changes = self.core.take_changes();
        let full = self.faults && self.now < self.full_until;
        if !changes.is_empty() && (self.trouble(Trouble::CommitsFail, 2) || full) {
            self.note("the commit fails".into());
            for answer in answers {
                self.refused(answer);
            }
            return self.restart();
        }
        let mut effects = Some(effects);
        if self.publishes_early() {
            effects.take().into_iter().flatten().for_each(|effect| self.release(effect));
        }
        if let Some(real) = &mut self.real {
            real.commit(&changes);
        }
        self.disk.commit(changes);
        self.core.forget_ended();
        if self.trouble(Trouble::CommitsAreStoredButReportedAsFailed, 1) {
            self.note("the commit is stored and reported as failed".into());
            for answer in answers {
                self.unsure(answer);
            }
            return self.restart();
        }
        for answer in answers {
            self.answered(answer);
        }
        if self.trouble(Trouble::EffectsAreLost, 1) {
            self.note("the master dies between commit and effects".into());
            return self.restart();
        }
        effects.into_iter().flatten().for_each(|effect| self.release(effect));
    }

    fn publishes_early(&self) -> bool {
        #[cfg(feature = "seeded-defects")]
        return self.limits.defect == Some(flota_master::core::Defect::PublishBeforeCommit);
        #[cfg(not(feature = "seeded-defects"))]
        false
    }

    fn answered(&mut self, answer: Answer) {
        match answer {
            Answer::Submitted(_) => {}
            Answer::Cancelled(id) => {
                self.note(format!("{id} is cancelled by its user"));
                self.promised.entry(id).and_modify(|promise| promise.cancelled = true);
            }
            Answer::Retried(id) => {
                self.note(format!("{id} is retried by its user"));
                self.ended.remove(&id);
                self.promised.entry(id).and_modify(|promise| promise.cancelled = false);
            }
            Answer::Watching(id, backlog) => {
                let watch = self.watches.entry(id).or_default();
                backlog.iter().for_each(|event| watch.see(event.seq));
            }
        }
    }

    /// Who was not told anything else was promised nothing.
    fn refused(&mut self, answer: Answer) {
        if let Answer::Submitted(id) = answer {
            self.promised.remove(&id);
        }
    }

    /// Who was told of a failure does not know what became of what was asked for.
    fn unsure(&mut self, answer: Answer) {
        match answer {
            Answer::Submitted(id) => drop(self.promised.entry(id).and_modify(|promise| promise.unsure = true)),
            Answer::Retried(id) => drop(self.promised.entry(id).and_modify(|promise| promise.cancelled = false)),
            Answer::Cancelled(_) | Answer::Watching(..) => {}
        }
    }

    pub fn restart(&mut self) {
        self.effects.clear();
        for answer in std::mem::take(&mut self.answers) {
            self.refused(answer);
        }
        let now = self.clock();
        self.core = match &mut self.real {
            Some(real) => real.restore(self.limits, now, &self.disk.live()),
            None => self.disk.restore(self.limits, now),
        };
        self.passed.clear();
        self.texts.values_mut().for_each(|(_, here)| *here = false);
        for unit in self.disk.distrusted() {
            self.completed.remove(&unit);
        }
        self.streams.clear();
        for worker in &mut self.workers {
            worker.stream = None;
        }
        for worker in &mut self.simple {
            worker.registered = self.core.worker_view(&worker.id).is_some();
        }
        // What ended in the batch whose effects were lost is on the disk all the same.
        let ended = |id: &&JobId| self.disk.job(**id).is_some_and(|job| job.row.state.ended());
        let ended: BTreeSet<JobId> = self.promised.keys().filter(ended).copied().collect();
        self.ended.clone_from(&ended);
        let watched: Vec<JobId> = self.watches.keys().copied().collect();
        for id in watched {
            self.watch_again(id);
            if ended.contains(&id) {
                self.check_watch(id);
            }
        }
    }

    fn watch_again(&mut self, id: JobId) {
        let Some(watch) = self.watches.get_mut(&id) else { return };
        let stored = || self.disk.job(id).map(|job| decode_events(&job.row.events)).unwrap_or_default();
        let events: Vec<u64> = match self.core.events(id, watch.last) {
            Some(events) => events.iter().map(|event| event.seq).collect(),
            None => stored().iter().map(|event| event.seq).collect(),
        };
        events.into_iter().for_each(|seq| watch.see(seq));
    }

    /// Whoever read to the end of a job has seen all that its log has.
    fn check_watch(&mut self, id: JobId) {
        let Some(watch) = self.watches.remove(&id) else { return };
        let Some(stored) = self.disk.job(id) else { return };
        let missed = decode_events(&stored.row.events).into_iter().find(|event| !watch.seen.contains(&event.seq));
        if let Some(Event { seq, what, .. }) = missed {
            self.fail(&format!("who watched {id} missed its event {seq}: {what:?}"));
        }
    }

    fn release(&mut self, effect: Effect) {
        match effect {
            Effect::Publish(assignment) => self.publish(*assignment),
            Effect::Ack { stream, unit, attempt, applied } => {
                if applied {
                    self.note(format!("{unit} attempt {attempt} counts"));
                    self.counts(unit, attempt);
                }
                self.tell_worker(stream, ToWorker::Ack(unit, attempt));
            }
            Effect::Cancel(stream, unit, attempt) | Effect::TakeBack(stream, unit, attempt) => {
                self.tell_worker(stream, ToWorker::Cancel(unit, attempt));
            }
            Effect::Goodbye(stream, _) => {
                self.tell_worker(stream, ToWorker::Goodbye);
                self.streams.remove(&stream);
            }
            Effect::Event { job, event, last, .. } => self.tell(job, &event, last),
            Effect::Desired(worker, control) => {
                let delay = self.delay();
                self.send(delay, Message::Wanted(worker, control));
            }
            Effect::Check(check) => self.check(&check),
            // It counted, and counts again.
            Effect::Caught { .. } => {}
            Effect::Distrusted(unit) => drop(self.completed.remove(&unit)),
            Effect::Quarantined { worker, reason, .. } => self.note(format!("{worker} is set aside: {reason}")),
            Effect::Ended(_) | Effect::Worker(_) | Effect::Attempt(_) | Effect::Hashes(..) | Effect::Mined(..) => {}
        }
    }

    fn tell(&mut self, job: JobId, event: &Event, last: bool) {
        let before = self.told.insert(job, event.seq);
        if before.is_some_and(|before| before >= event.seq) {
            self.fail(&format!("event {} of {job} was told after {before:?}", event.seq));
        }
        if let Some(watch) = self.watches.get_mut(&job) {
            watch.see(event.seq);
        }
        if let What::Delta { text } = &event.what {
            self.check_text(job, event.attempt, text);
        }
        let What::State { state, .. } = event.what else { return };
        self.note(format!("{job} is {}", state.as_str()));
        if last {
            if !self.ended.insert(job) {
                self.fail(&format!("job {job} ended twice"));
            }
            self.check_watch(job);
        }
    }

    /// Text is told in order and once; a piece is missing only where a master died with it.
    fn check_text(&mut self, job: JobId, attempt: u64, text: &str) {
        let piece: u64 = text.parse().expect("a number");
        let before = self.texts.insert((job, attempt), (piece, true));
        let follows = match before {
            Some((last, true)) => piece == last + 1,
            Some((last, false)) => piece > last,
            None => true,
        };
        if !follows {
            self.fail(&format!("piece {piece} of the text of {job}, attempt {attempt}, was told after {before:?}"));
        }
    }

    /// A failure may count again and again, a result of a unit only once, and only the newest attempt.
    fn counts(&mut self, unit: UnitId, attempt: u64) {
        if self.newest.get(&unit).is_some_and(|newest| *newest > attempt) {
            self.fail(&format!("attempt {attempt} of {unit} counted after a later one was published"));
        }
        let finished = self.workers.iter().find_map(|worker| worker.finished.get(&(unit, attempt)));
        let lied = self.lied.contains(&(unit, attempt));
        if finished.is_some_and(|held| !held.fails && !held.lies) && !lied && !self.completed.insert(unit) {
            self.fail(&format!("a result of {unit} counted twice"));
        }
    }

    /// The verifier sees every lie that it looks at, and finds are always looked at.
    fn check(&mut self, check: &Check) {
        let lie = check.output.windows(LIE.len()).any(|part| part == LIE.as_bytes());
        let verdict = if lie { Verdict::Wrong("it lied".into()) } else { Verdict::Right(check.samples) };
        let delay = self.delay();
        let input = Input::Checked { unit: check.unit, attempt: check.attempt, verdict };
        self.send(delay, Message::Said(Box::new(input)));
    }

    fn publish(&mut self, assignment: Assignment) {
        let (unit, attempt) = (assignment.unit, assignment.attempt);
        let stored = self.disk.attempt(assignment.seq, unit.index);
        if stored < attempt {
            self.fail(&format!("{unit} was published as attempt {attempt} but stored is {stored}"));
        }
        if self.newest.insert(unit, attempt).is_some_and(|newest| newest >= attempt) {
            self.fail(&format!("attempt {attempt} of {unit} was published twice"));
        }
        self.note(format!("{unit} attempt {attempt} to {}", assignment.worker));
        if self.trouble(Trouble::MessagesAreLost, 5) {
            return;
        }
        if self.trouble(Trouble::MessagesComeTwice, 5) {
            let delay = self.delay();
            self.send(delay, Message::Task(Box::new(assignment.clone())));
        }
        let delay = self.delay();
        self.send(delay, Message::Task(Box::new(assignment)));
    }

    fn tell_worker(&mut self, stream: StreamId, what: ToWorker) {
        let Some(index) = self.streams.get(&stream) else { return };
        let worker = self.workers[*index].id.clone();
        let delay = self.rng.random_range(0..100);
        self.send(delay, Message::ToWorker { worker, stream, what });
    }
}
