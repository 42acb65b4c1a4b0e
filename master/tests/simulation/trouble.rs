//! What can go wrong, by name, so that a failing seed can be tried without it; and the search for the smallest history that
//! still fails.

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};

use flota_master::core::Limits;

use crate::world::{STEPS, World};

/// One sort of trouble.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Trouble {
    WorkersDie,
    StreamsBreak,
    WorkersHang,
    WorkersAreSlow,
    WorkersLie,
    SimpleWorkersDie,
    UnitsFail,
    MessagesAreLost,
    MessagesComeTwice,
    MessagesAreLate,
    TheBrokerForgets,
    TheMasterRestarts,
    CommitsFail,
    CommitsAreStoredButReportedAsFailed,
    TheDiskIsFullForAWhile,
    EffectsAreLost,
    TheClockJumps,
    OperatorsDrainAndPause,
}

impl Trouble {
    const ALL: [Self; 18] = [
        Self::WorkersDie,
        Self::StreamsBreak,
        Self::WorkersHang,
        Self::WorkersAreSlow,
        Self::WorkersLie,
        Self::SimpleWorkersDie,
        Self::UnitsFail,
        Self::MessagesAreLost,
        Self::MessagesComeTwice,
        Self::MessagesAreLate,
        Self::TheBrokerForgets,
        Self::TheMasterRestarts,
        Self::CommitsFail,
        Self::CommitsAreStoredButReportedAsFailed,
        Self::TheDiskIsFullForAWhile,
        Self::EffectsAreLost,
        Self::TheClockJumps,
        Self::OperatorsDrainAndPause,
    ];
}

/// What a seed is run with.
#[derive(Clone, Debug)]
pub struct Knobs {
    /// Steps with trouble.
    pub steps: u64,
    /// Sorts of trouble that do not come.
    pub without: BTreeSet<Trouble>,
    /// The whole history is shown.
    pub whole: bool,
}

impl Default for Knobs {
    fn default() -> Self {
        Self { steps: STEPS, without: BTreeSet::new(), whole: false }
    }
}

impl Knobs {
    /// What goes wrong, for people.
    pub fn describe(&self) -> String {
        let left: Vec<String> =
            Trouble::ALL.iter().filter(|one| !self.without.contains(one)).map(|one| format!("{one:?}")).collect();
        format!("{} steps with {}", self.steps, if left.is_empty() { "no trouble".into() } else { left.join(", ") })
    }
}

/// Runs a seed; one that fails is made as small as it can be and fails again, with its whole history.
pub fn run(seed: u64, limits: Limits) {
    // What is tried on the way is not to be read.
    let loud = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    let failed = fails(seed, limits, &Knobs::default());
    let small = failed.then(|| smallest(|knobs| fails(seed, limits, knobs)));
    std::panic::set_hook(loud);
    let Some(small) = small else { return };
    World::new(seed, limits, Knobs { whole: true, ..small }).run();
    World::new(seed, limits, Knobs::default()).run();
}

/// Whether a seed fails with these.
pub fn fails(seed: u64, limits: Limits, knobs: &Knobs) -> bool {
    let world = World::new(seed, limits, knobs.clone());
    catch_unwind(AssertUnwindSafe(|| world.run())).is_err()
}

/// Leaves out sorts of trouble, then steps, as long as it still fails.
pub fn smallest(fails: impl Fn(&Knobs) -> bool) -> Knobs {
    let mut knobs = Knobs::default();
    for trouble in Trouble::ALL {
        let mut fewer = knobs.clone();
        fewer.without.insert(trouble);
        if fails(&fewer) {
            knobs = fewer;
        }
    }
    for part in [2, 4, 8, 16] {
        loop {
            let fewer = Knobs { steps: knobs.steps - knobs.steps / part, ..knobs.clone() };
            if fewer.steps == knobs.steps || !fails(&fewer) {
                break;
            }
            knobs = fewer;
        }
    }
    knobs
}

#[test]
fn the_smallest_history_has_only_what_it_needs() {
    let needs = |knobs: &Knobs| knobs.steps >= 37 && !knobs.without.contains(&Trouble::CommitsFail);
    let small = smallest(needs);
    assert_eq!(small.without.len(), Trouble::ALL.len() - 1);
    assert!((37..45).contains(&small.steps), "{}", small.describe());
    assert!(small.describe().ends_with("steps with CommitsFail"), "{}", small.describe());
}
