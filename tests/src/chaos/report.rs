//! What a run came to, as text for people and for docs/reliability.md.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use super::Plan;
use super::verify::Verdict;

/// The result of a run.
#[derive(Debug)]
pub struct Report {
    /// What was asked for.
    pub plan: Plan,
    /// Until the last job was compared.
    pub took: Duration,
    /// How often each fault was made.
    pub faults: BTreeMap<&'static str, u64>,
    /// What this machine does not allow, in words.
    pub skipped: Vec<String>,
    /// Processes that ended although nobody killed them.
    pub ended_by_themselves: Vec<String>,
    /// How long the fleet took to finish, or what it had left.
    pub settled: Result<Duration, String>,
    /// What became of the jobs.
    pub verdict: Verdict,
}

impl Report {
    /// Nothing lost, nothing twice, nothing that can't be explained.
    #[must_use]
    pub fn good(&self) -> bool {
        let Verdict { lost, twice, refused, .. } = &self.verdict;
        self.settled.is_ok()
            && lost.is_empty()
            && twice.is_empty()
            && refused.is_empty()
            && self.ended_by_themselves.is_empty()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verdict = &self.verdict;
        let faults: u64 = self.faults.values().sum();
        let minutes = self.plan.length.as_secs_f64() / 60.0;
        writeln!(f, "| {minutes:.1} minutes of faults, seed {} | |\n| --- | ---: |", self.plan.seed)?;
        writeln!(f, "| faults | {faults} |")?;
        for (fault, count) in &self.faults {
            writeln!(f, "| · {fault} | {count} |")?;
        }
        writeln!(f, "| jobs accepted | {} |", verdict.accepted)?;
        for (kind, count) in &verdict.jobs {
            writeln!(f, "| · {kind} | {count} |")?;
        }
        writeln!(f, "| cancelled while they waited or ran | {} |", verdict.cancelled)?;
        writeln!(f, "| attempts | {} |", verdict.attempts)?;
        match &self.settled {
            Ok(took) => writeln!(f, "| from the last fault to the last job's end | {:.1} s |", took.as_secs_f64())?,
            Err(left) => writeln!(f, "| not finished | {left} |")?,
        }
        writeln!(f, "| lost | {} |\n| twice | {} |", verdict.lost.len(), verdict.twice.len())?;
        writeln!(f, "| refused for good or never answered | {} |", verdict.refused.len())?;
        writeln!(f, "| processes that ended by themselves | {} |", self.ended_by_themselves.len())?;
        for skipped in &self.skipped {
            writeln!(f, "\nNOT DONE on this machine: {skipped}")?;
        }
        for wrong in verdict.wrong().into_iter().chain(&self.ended_by_themselves) {
            writeln!(f, "\n- {wrong}")?;
        }
        Ok(())
    }
}
