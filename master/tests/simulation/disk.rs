//! A disk in memory: takes the same records as a store and gives back the same jobs.

use std::collections::BTreeMap;

use bytes::Bytes;
use flota_master::core::record::{JobHead, JobRow, StoredJob, UnitRow, WorkerRow};
use flota_master::core::{Changes, Core, Limits, Seq};
use flota_proto::rest::JobState;
use flota_proto::{JobId, Timestamp, UnitId, WorkerId};

/// What was committed.
#[derive(Clone, Default)]
pub struct Disk {
    jobs: BTreeMap<Seq, (JobHead, Bytes, JobRow)>,
    units: BTreeMap<(Seq, u32), UnitRow>,
    workers: BTreeMap<WorkerId, WorkerRow>,
}

impl Disk {
    /// Writes a batch.
    pub fn commit(&mut self, changes: Changes) {
        for mut row in changes.jobs {
            match row.head.take() {
                Some(head) => {
                    let (head, payload) = *head;
                    let before = self.jobs.insert(row.seq, (head, payload, row));
                    assert!(before.is_none(), "a job was inserted twice");
                }
                None => {
                    let seq = row.seq;
                    self.jobs.get_mut(&seq).expect("an update of a job that is there").2 = row;
                }
            }
        }
        for row in changes.units {
            self.units.insert((row.seq, row.index), row);
        }
        for id in changes.forgotten {
            self.workers.remove(&id);
        }
        for row in changes.workers {
            self.workers.insert(row.id.clone(), row);
        }
    }

    /// A core with what is here, as after a start of the master.
    pub fn restore(&self, limits: Limits, now: Timestamp) -> Core {
        let next = self.jobs.last_key_value().map_or(1, |(seq, _)| seq + 1);
        Core::restore(limits, now, next, self.workers.values().cloned().collect(), self.live())
    }

    /// Jobs that have not ended, oldest first.
    pub fn live(&self) -> Vec<StoredJob> {
        let live = self.jobs.iter().filter(|(_, (_, _, row))| !row.state.ended());
        live.map(|(seq, _)| self.stored(*seq)).collect()
    }

    fn stored(&self, seq: Seq) -> StoredJob {
        let (head, _, row) = &self.jobs[&seq];
        let units = self.units.range((seq, 0)..=(seq, u32::MAX)).map(|(_, unit)| unit.clone()).collect();
        StoredJob { head: head.clone(), row: row.clone(), units, damaged: None }
    }

    /// The rows of a job.
    pub fn job(&self, id: JobId) -> Option<StoredJob> {
        let found = self.jobs.iter().find(|(_, (head, ..))| head.id == id)?;
        Some(self.stored(*found.0))
    }

    /// Units whose results were taken out again because of a lie.
    pub fn distrusted(&self) -> Vec<UnitId> {
        let lied = |unit: &UnitRow| unit.state != JobState::Completed && unit.tries.contains("wrong_result");
        let id = |unit: &UnitRow| UnitId { job: self.jobs[&unit.seq].0.id, index: unit.index };
        self.units.values().filter(|unit| lied(unit)).map(id).collect()
    }

    /// The stored attempt of a unit.
    pub fn attempt(&self, seq: Seq, index: u32) -> u64 {
        let single = self.jobs.get(&seq).and_then(|(_, _, row)| row.unit.as_ref()).map(|unit| unit.attempt);
        single.or_else(|| self.units.get(&(seq, index)).map(|unit| unit.attempt)).unwrap_or(0)
    }
}
