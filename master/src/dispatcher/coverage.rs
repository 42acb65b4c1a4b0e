//! The audit of a job that was cut into units: whether every nonce or input was computed exactly once, and by whom.

use std::collections::BTreeMap;

use flota_proto::kinds::SearchResult;
use flota_proto::rest::{AttemptOutcome, Audit, AuditPiece, AuditWorker, JobState};
use flota_proto::{JobId, Kind, UnitId, WorkerId};

use super::Dispatcher;
use super::reads::{find, unavailable};
use crate::core::record::{StoredJob, UnitRow, WorkRow, decode_tries};
use crate::handle::{Refused, Reply};
use crate::store::Reader;

/// Units read at once.
const SLICE: usize = 2_000;
/// Gaps and overlaps named; how much there is of each is counted in full.
const NAMED_MAX: usize = 1_000;

impl Dispatcher {
    pub(super) fn audit(&mut self, id: JobId, limit: usize, from: u32, reply: Reply<Audit>) {
        self.readers.read(reply, move |reader| audit(reader, id, limit, from));
    }
}

fn audit(reader: &mut dyn Reader, id: JobId, limit: usize, from: u32) -> Result<Audit, Refused> {
    let job = find(reader, id)?;
    let range = match job.head.rest.work {
        Some(WorkRow::Range(start, end, _)) => [start, end],
        Some(WorkRow::List(length)) => [0, length],
        None => {
            let detail =
                format!("job {id} ({}) is one unit: there is nothing to be left out or done twice", job.head.kind);
            return Err(Refused::Conflict("not_divided", detail));
        }
    };
    let mut sums = Sums::new(range);
    let mut page = Vec::new();
    let mut next_cursor = None;
    let mut index = 0;
    loop {
        let rows = reader.units(job.row.seq, index, SLICE, true).map_err(unavailable)?;
        let Some(last) = rows.last().map(|row| row.index) else { break };
        for row in rows.iter().filter(|row| row.state == JobState::Completed) {
            let piece = piece(&job, row);
            sums.add(&piece);
            if row.index >= from && page.len() < limit {
                page.push(piece);
            } else if row.index >= from && next_cursor.is_none() {
                next_cursor = Some(row.index.to_string());
            }
        }
        index = last.saturating_add(1);
    }
    Ok(sums.end(&job, page, next_cursor))
}

fn piece(job: &StoredJob, row: &UnitRow) -> AuditPiece {
    let output = row.output.as_deref().unwrap_or_default();
    let mut covered = match job.head.kind {
        Kind::Search(_) => {
            serde_json::from_slice::<SearchResult>(output).map_or_else(|_| Vec::new(), |result| result.covered)
        }
        Kind::Hash(_) | Kind::AiChat | Kind::AiEmbed | Kind::Echo => vec![[row.from, row.to]],
    };
    covered.sort_unstable();
    let tries = decode_tries(&row.tries);
    let done = tries.into_iter().rfind(|ended| ended.outcome == AttemptOutcome::Completed);
    AuditPiece {
        unit_id: UnitId { job: job.head.id, index: row.index },
        range: [row.from, row.to],
        covered,
        attempt: done.as_ref().map_or(row.attempt, |ended| ended.attempt),
        worker_id: done.map(|ended| ended.worker),
        suspect: row.suspect,
    }
}

/// What is known after the units so far, which come in the order of their ranges.
struct Sums {
    range: [u64; 2],
    reached: u64,
    covered: u64,
    suspect: u64,
    gaps: Ranges,
    overlaps: Ranges,
    workers: BTreeMap<WorkerId, AuditWorker>,
}

/// Ranges with their whole length, of which the first are named.
#[derive(Default)]
struct Ranges {
    named: Vec<[u64; 2]>,
    total: u64,
}

impl Ranges {
    fn add(&mut self, from: u64, to: u64) {
        self.total += to - from;
        let room = self.named.len() < NAMED_MAX;
        if let Some(last) = self.named.last_mut().filter(|last| last[1] == from) {
            last[1] = to;
        } else if room {
            self.named.push([from, to]);
        }
    }
}

impl Sums {
    fn new(range: [u64; 2]) -> Self {
        let (gaps, overlaps) = (Ranges::default(), Ranges::default());
        Self { range, reached: range[0], covered: 0, suspect: 0, gaps, overlaps, workers: BTreeMap::new() }
    }

    fn add(&mut self, piece: &AuditPiece) {
        let mut nonces = 0;
        for [from, to] in piece.covered.iter().copied().filter(|[from, to]| from < to) {
            nonces += to - from;
            if self.reached < from {
                self.gaps.add(self.reached, from);
            } else if from < self.reached {
                self.overlaps.add(from, to.min(self.reached));
            }
            self.covered += to.saturating_sub(self.reached.max(from));
            self.reached = self.reached.max(to);
        }
        let suspect = if piece.suspect { nonces } else { 0 };
        self.suspect += suspect;
        let Some(id) = &piece.worker_id else { return };
        let new = || AuditWorker { worker_id: id.clone(), units: 0, computed: 0, suspect: 0 };
        let worker = self.workers.entry(id.clone()).or_insert_with(new);
        worker.units += 1;
        worker.computed += nonces;
        worker.suspect += suspect;
    }

    fn end(mut self, job: &StoredJob, units: Vec<AuditPiece>, next_cursor: Option<String>) -> Audit {
        if self.reached < self.range[1] {
            self.gaps.add(self.reached, self.range[1]);
        }
        Audit {
            job_id: job.head.id,
            kind: job.head.kind,
            state: job.row.state,
            range: self.range,
            exact: self.gaps.total == 0 && self.overlaps.total == 0,
            covered: self.covered,
            missing: self.gaps.total,
            repeated: self.overlaps.total,
            suspect: self.suspect,
            gaps: self.gaps.named,
            overlaps: self.overlaps.named,
            workers: self.workers.into_values().collect(),
            units,
            next_cursor,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sums(range: [u64; 2], covered: &[&[[u64; 2]]]) -> Sums {
        let mut sums = Sums::new(range);
        for (index, covered) in covered.iter().enumerate() {
            let worker = if index.is_multiple_of(2) { "even" } else { "odd" };
            sums.add(&AuditPiece {
                unit_id: UnitId { job: JobId::generate(), index: 0 },
                range: [0, 0],
                covered: covered.to_vec(),
                worker_id: Some(worker.parse().unwrap()),
                attempt: 1,
                suspect: index == 1,
            });
        }
        sums
    }

    #[test]
    fn ranges_that_meet_are_exact() {
        let sums = sums([7, 30], &[&[[7, 10]], &[[10, 20], [20, 25]], &[[25, 30]]]);
        assert_eq!((sums.covered, sums.reached, sums.gaps.total, sums.overlaps.total), (23, 30, 0, 0));
        let computed: Vec<(u64, u64)> = sums.workers.values().map(|w| (w.computed, w.suspect)).collect();
        assert_eq!((computed, sums.suspect), (vec![(8, 0), (15, 15)], 15));
    }

    #[test]
    fn what_is_left_out_or_done_twice_is_named_and_counted() {
        let sums = sums([0, 100], &[&[[0, 10], [15, 20]], &[[18, 40]], &[[30, 60]]]);
        assert_eq!((sums.gaps.named, sums.gaps.total), (vec![[10, 15]], 5));
        assert_eq!((sums.overlaps.named, sums.overlaps.total), (vec![[18, 20], [30, 40]], 12));
        assert_eq!((sums.covered, sums.reached), (55, 60));
    }
}
