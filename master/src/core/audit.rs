//! Checks that what is kept twice for speed agrees with the jobs themselves. For tests and simulations.

use std::collections::{BTreeMap, BTreeSet};

use flota_proto::Class;

use super::Core;
use super::job::{Phase, Seq};
use super::queue::Entry;

impl Core {
    /// What does not agree, in words.
    ///
    /// # Errors
    /// The first contradiction found.
    pub fn audit(&self) -> Result<(), String> {
        self.audit_holds()?;
        self.audit_queue()?;
        let mut counts = BTreeMap::new();
        let mut owners = std::collections::HashMap::new();
        for job in self.jobs.values().filter(|job| !job.state.ended()) {
            *owners.entry(job.spec.owner.clone()).or_insert(0_u64) += 1;
            *counts.entry(job.state).or_insert(0_u64) += 1;
        }
        let kept: BTreeMap<_, _> = self.counts.iter().filter(|(_, n)| **n > 0).map(|(s, n)| (*s, *n)).collect();
        same("counts by owner", &self.owners, &owners)?;
        same("counts by state", &kept, &counts)
    }

    /// What waits in `class` that `worker` could take: priority and owner of each owner's first entry.
    #[must_use]
    pub fn waiting_for(&self, worker: &flota_proto::WorkerId, class: Class) -> BTreeSet<(u8, std::sync::Arc<str>)> {
        let Some(worker) = self.fleet.find(worker).and_then(|idx| self.fleet.get(idx)) else { return BTreeSet::new() };
        self.queue.waiting(class, |shape| self.fleet.fits(worker, shape))
    }

    /// Whether something waits that a worker with room could take although everything was assigned.
    ///
    /// # Errors
    /// Which.
    pub fn audit_settled(&self) -> Result<(), String> {
        for class in Class::ALL.into_iter().filter(|class| !self.more && self.fleet.has_room(*class)) {
            for shape in self.queue.active(class) {
                if self.fleet.best_for(self.queue.shape(shape)).is_some() {
                    return Err(format!("waits although a worker has room: {:?}", self.queue.shape(shape)));
                }
            }
        }
        Ok(())
    }

    fn audit_holds(&self) -> Result<(), String> {
        let mut held: BTreeMap<u32, BTreeSet<(Seq, u32)>> = BTreeMap::new();
        let mut active = BTreeSet::new();
        let mut waiting: BTreeSet<(Seq, u32)> = BTreeSet::new();
        for job in self.jobs.values() {
            if !job.units.is_sorted_by_key(|unit| unit.index) {
                return Err(format!("units of job {} are not in order", job.spec.id));
            }
            for unit in &job.units {
                let Some(hold) = unit.hold() else { continue };
                held.entry(hold.worker).or_default().insert((job.seq, unit.index));
                active.insert(job.seq);
                if hold.phase == Phase::Waiting && job.spec.kind.class() != Class::Echo {
                    waiting.insert((job.seq, unit.index));
                }
            }
        }
        let kept: BTreeMap<_, _> =
            self.fleet.iter().filter(|(_, w)| !w.held.is_empty()).map(|(idx, w)| (idx, w.held.clone())).collect();
        same("units held by workers", &kept, &held)?;
        same("jobs with units at workers", &self.active, &active)?;
        let kept: BTreeSet<_> = self.waiting.values().flatten().copied().collect();
        same("units that wait at workers", &kept, &waiting)?;
        self.fleet.audit()
    }

    fn audit_queue(&self) -> Result<(), String> {
        let mut entries: BTreeSet<Entry> = BTreeSet::new();
        for job in self.jobs.values() {
            if !job.state.ended() && job.waits_for.is_empty() && job.run_at.is_none() {
                entries.extend(super::jobs::waiting_entries(job));
            }
        }
        if let Some(shape) = self.queue.parked().find(|shape| self.fleet.any_may_fit(shape)) {
            return Err(format!("set aside although a worker could take it: {shape:?}"));
        }
        same("entries of the queue", &self.queue.entries(), &entries)
    }
}

pub(super) fn same<T: PartialEq + std::fmt::Debug>(what: &str, kept: &T, derived: &T) -> Result<(), String> {
    if kept == derived { Ok(()) } else { Err(format!("{what}: kept {kept:?}, but the jobs say {derived:?}")) }
}
