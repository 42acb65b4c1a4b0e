//! Defects built in on purpose, to prove that the simulation finds them. Without the feature `seeded-defects` there are
//! none, and what stands here costs nothing.

use super::{Changes, Core};

/// What can be made wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(not(feature = "seeded-defects"), allow(dead_code))]
pub enum Defect {
    /// Effects are let out before their batch is stored; made by whoever drives the core.
    PublishBeforeCommit,
    /// Any attempt of a unit counts.
    NoFencing,
    /// Assignments are not stored.
    LeaseNotPersisted,
    /// A result counts twice.
    EffectTwice,
    /// A cancelled job goes on.
    CancelLost,
}

impl Defect {
    /// Every one.
    #[cfg(feature = "seeded-defects")]
    pub const ALL: [Self; 5] =
        [Self::PublishBeforeCommit, Self::NoFencing, Self::LeaseNotPersisted, Self::EffectTwice, Self::CancelLost];
}

impl Core {
    #[cfg(feature = "seeded-defects")]
    pub(super) fn has(&self, defect: Defect) -> bool {
        self.limits.defect == Some(defect)
    }

    #[cfg(not(feature = "seeded-defects"))]
    #[allow(clippy::unused_self)]
    pub(super) const fn has(&self, _: Defect) -> bool {
        false
    }

    pub(super) fn spoil(&self, changes: &mut Changes) {
        if !self.has(Defect::LeaseNotPersisted) {
            return;
        }
        let singles = changes.jobs.iter_mut().filter_map(|job| job.unit.as_mut());
        for unit in changes.units.iter_mut().chain(singles).filter(|unit| unit.worker.is_some()) {
            unit.worker = None;
            unit.attempt = unit.attempt.saturating_sub(1);
        }
    }
}
