//! Hashes that are checked before they count: which of them, how closely, and what follows. What is computed again is the
//! shell's business, which answers with [`Input::Checked`](super::Input::Checked).

use bytes::Bytes;
use flota_proto::kinds::SearchResult;
use flota_proto::rest::{AttemptOutcome, JobError};
use flota_proto::{Algorithm, Kind, UnitId, WorkerId};
use serde::Deserialize;
use serde::de::IgnoredAny;

use super::fleet::WorkerIdx;
use super::job::{Answer, Phase, Seq, UnitState};
use super::units::Loss;
use super::{Core, Effect, Moment, Timer, Verify};
use crate::handle::UnitResult;

/// A check that takes longer has been forgotten.
const CHECK_MS_MAX: u64 = 10 * 60_000;

/// A result to be checked.
#[derive(Clone, Debug)]
pub struct Check {
    /// Whose result.
    pub worker: WorkerId,
    /// Of which job.
    pub seq: Seq,
    /// Of which unit.
    pub unit: UnitId,
    /// The fencing token.
    pub attempt: u64,
    /// What was asked.
    pub kind: Kind,
    /// The part of the job.
    pub part: (u64, u64),
    /// The job's payload where it is in memory.
    pub payload: Option<Bytes>,
    /// What the worker sent.
    pub output: Bytes,
    /// How many hashes (of a search: groups of its proof), beside all that were found, are to be computed again.
    pub samples: u32,
    /// Chooses them; no worker can know it.
    pub entropy: u64,
}

/// What came of a check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// So many samples and finds were computed again, and all were right.
    Right(u32),
    /// Why it is wrong.
    Wrong(String),
    /// Why it could not be checked.
    Unable(String),
}

/// Only whether there are finds and a proof.
#[derive(Deserialize)]
struct Finds {
    found: Vec<IgnoredAny>,
    proof: Option<IgnoredAny>,
}

impl Core {
    /// Begins to check a result where that is due. Answers whether it is, so that it does not count yet.
    pub(super) fn check_result(
        &mut self,
        at: Moment,
        idx: WorkerIdx,
        seq: Seq,
        result: &UnitResult,
        out: &mut Vec<Effect>,
    ) -> bool {
        let Some(job) = self.jobs.get(&seq) else { return false };
        let (kind, class) = (job.spec.kind, job.spec.kind.class());
        let Some(worker) = self.fleet.get(idx) else { return false };
        if !self.checks(class) {
            return false;
        }
        let index = result.unit.index;
        let finds =
            if matches!(kind, Kind::Search(_)) { serde_json::from_slice::<Finds>(&result.output).ok() } else { None };
        if self.limits.verify == Verify::Strict && finds.as_ref().is_some_and(|finds| finds.proof.is_none()) {
            // Refused when it is to count.
            return false;
        }
        let entropy = mix(mix(mix(at.entropy) ^ seq) ^ (result.attempt << 32) ^ u64::from(index));
        let samples = worker.standing.samples(entropy);
        // What is no result at all is refused later.
        if samples == 0 && finds.is_none_or(|finds| finds.found.is_empty()) {
            return false;
        }
        let (worker, payload) = (worker.id.clone(), job.payload.clone());
        let until = at.now.after_ms(CHECK_MS_MAX);
        let Some(unit) = self.jobs.get_mut(&seq).and_then(|job| job.unit_mut(index)) else { return false };
        let part = (unit.from, unit.to);
        let UnitState::Held(hold) = &mut unit.state else { return false };
        hold.phase = Phase::Checking;
        hold.until = until;
        hold.timeout_at = None;
        let UnitResult { unit, attempt, output, elapsed_ms, hashes } = result;
        hold.answer = Some(Box::new(Answer { output: output.clone(), elapsed_ms: *elapsed_ms, hashes: *hashes }));
        self.timers.insert((until, Timer::Unit(seq, index)));
        self.unlist_waiting(class, seq, index);
        self.fleet.check(idx, class);
        let (unit, attempt, output) = (*unit, *attempt, output.clone());
        let check = Check { worker, seq, unit, attempt, kind, part, payload, output, samples, entropy };
        out.push(Effect::Check(Box::new(check)));
        true
    }

    /// A check has ended; of an attempt that is no longer the current one it says nothing.
    pub(super) fn checked(&mut self, at: Moment, unit: UnitId, attempt: u64, verdict: Verdict, out: &mut Vec<Effect>) {
        let Some(seq) = self.by_id.get(&unit.job).copied() else { return };
        let Some(found) = self.jobs.get_mut(&seq).and_then(|job| job.unit_mut(unit.index)) else { return };
        let current = found.attempt == attempt;
        let UnitState::Held(hold) = &mut found.state else { return };
        if !current || hold.phase != Phase::Checking {
            return;
        }
        let idx = hold.worker;
        match verdict {
            Verdict::Right(hashes) => {
                let Some(answer) = hold.answer.take() else { return };
                self.fleet.update(idx, |worker| {
                    worker.standing.checked = worker.standing.checked.saturating_add(hashes);
                });
                self.count(at, idx, seq, unit.index, *answer, out);
            }
            Verdict::Wrong(why) => self.caught(at, idx, unit, &why, out),
            Verdict::Unable(why) => {
                let message = format!("the master could not check the result: {why}");
                let error = JobError { code: "unchecked".into(), message };
                let outcome = AttemptOutcome::Failed;
                let loss = Loss { outcome, error, counts: true, retryable: true, wait_ms: Some(0) };
                self.lose_unit(at, seq, unit.index, loss, out);
            }
        }
    }

    /// A result counts.
    pub(super) fn count(
        &mut self,
        at: Moment,
        idx: WorkerIdx,
        seq: Seq,
        index: u32,
        answer: Answer,
        out: &mut Vec<Effect>,
    ) {
        let Answer { output, elapsed_ms, hashes } = answer;
        let kind = self.jobs.get(&seq).map(|job| job.spec.kind);
        if let Some(algorithm) = kind.and_then(Kind::algorithm).filter(|_| hashes > 0) {
            out.push(Effect::Hashes(algorithm, hashes));
            if elapsed_ms > 0 {
                self.measure(idx, algorithm, hashes as f64 * 1000.0 / elapsed_ms as f64);
            }
        }
        let output = match kind {
            Some(Kind::Search(algorithm)) => {
                match without_proof(algorithm, output, self.limits.verify == Verify::Strict) {
                    Ok(output) => output,
                    Err(why) => return self.refuse_result(at, seq, index, why, out),
                }
            }
            _ => output,
        };
        self.complete_unit(at, seq, index, output, out);
    }
}

/// The output as it is kept.
fn without_proof(algorithm: Algorithm, output: Bytes, strict: bool) -> Result<Bytes, &'static str> {
    match serde_json::from_slice::<SearchResult>(&output) {
        Ok(result) if result.proof.is_empty() && strict => {
            Err("it has no proof of what it covered (FLOTA_VERIFY is strict)")
        }
        Ok(result) if result.proof_fits(algorithm) => {
            let kept = SearchResult { proof: Vec::new().into(), ..result };
            Ok(serde_json::to_vec(&kept).map_or(output, Bytes::from))
        }
        // What does not fit is refused with all of it.
        Ok(_) | Err(_) => Ok(output),
    }
}

/// Spreads what little `entropy` differs in (`SplitMix64`, Steele et al. 2014).
pub(crate) fn mix(entropy: u64) -> u64 {
    let mut z = entropy.wrapping_add(0x9E37_79B9_7F4A_7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}
