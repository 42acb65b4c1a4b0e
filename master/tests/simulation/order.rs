//! Who gets work: no worker passes over a higher priority that it could take, no owner is passed over again and again within a
//! priority, and nothing waits while a worker that could take it has room.

use std::collections::BTreeMap;
use std::sync::Arc;

use flota_master::core::Effect;
use flota_proto::Class;

use crate::world::World;

/// How often one owner may be served while another waits: once, and once more where the other stopped waiting in between unseen.
const TURNS_MAX: u32 = 2;

/// Turns of others, by who waits for them.
pub type Passed = BTreeMap<(Class, u8, Arc<str>), BTreeMap<Arc<str>, u32>>;

impl World {
    /// Looks at what was just assigned.
    pub fn check_order(&mut self) {
        if let Err(wrong) = self.core.audit_settled() {
            self.fail(&wrong);
        }
        let mut passed = std::mem::take(&mut self.passed);
        for effect in &self.effects {
            let Effect::Publish(assignment) = effect else { continue };
            let Some(job) = self.core.job_view(assignment.unit.job) else { continue };
            let (class, priority) = (assignment.kind.class(), job.priority);
            let owner: Arc<str> = job.owner.as_str().into();
            let waiting = self.core.waiting_for(&assignment.worker, class);
            if let Some((higher, _)) = waiting.iter().find(|(other, _)| *other > priority) {
                let (unit, worker) = (assignment.unit, &assignment.worker);
                self.fail(&format!("{worker} was given {unit} of priority {priority} while {higher} waits for it"));
            }
            passed.remove(&(class, priority, owner.clone()));
            let still = |other: &Arc<str>| waiting.iter().any(|(at, waits)| *at == priority && waits == other);
            passed.retain(|(of, at, waits), _| (*of, *at) != (class, priority) || still(waits));
            for (_, other) in waiting.iter().filter(|(at, other)| *at == priority && *other != owner) {
                let turns = passed.entry((class, priority, other.clone())).or_default();
                let turns = turns.entry(owner.clone()).or_default();
                *turns += 1;
                if *turns > TURNS_MAX {
                    self.fail(&format!("owner {owner} had {turns} turns at priority {priority} while {other} waited"));
                }
            }
        }
        self.passed = passed;
    }
}
