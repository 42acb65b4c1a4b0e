//! What can go wrong, by name, so that a failing seed can be tried without it; and the search for the smallest history that
//! still fails.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;

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
    /// No trouble, but what is not needed makes a history no clearer.
    UsersDoThings,
}

impl Trouble {
    const ALL: [Self; 19] = [
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
        Self::UsersDoThings,
    ];
}

/// When a trouble came: the step, its sort, and which of its sort in that step.
pub type Came = (u64, Trouble, u32);

/// What a seed is run with.
#[derive(Clone, Debug)]
pub struct Knobs {
    /// Steps with trouble.
    pub steps: u64,
    /// Sorts of trouble that do not come.
    pub without: BTreeSet<Trouble>,
    /// Single ones that do not come.
    pub skipped: BTreeSet<Came>,
    /// The whole history is shown.
    pub whole: bool,
    /// What came.
    came: Rc<RefCell<Vec<Came>>>,
}

impl Default for Knobs {
    fn default() -> Self {
        Self { steps: STEPS, without: BTreeSet::new(), skipped: BTreeSet::new(), whole: false, came: Rc::default() }
    }
}

impl Knobs {
    /// What goes wrong, for people.
    pub fn describe(&self) -> String {
        let left: Vec<String> =
            Trouble::ALL.iter().filter(|one| !self.without.contains(one)).map(|one| format!("{one:?}")).collect();
        let single = if self.skipped.is_empty() { "" } else { ", and of these the fewest" };
        format!(
            "{} steps with {}{single}",
            self.steps,
            if left.is_empty() { "nothing".into() } else { left.join(", ") }
        )
    }

    /// Whether a trouble comes.
    pub fn lets(&self, came: Came) -> bool {
        let lets = !self.without.contains(&came.1) && !self.skipped.contains(&came);
        if lets {
            self.came.borrow_mut().push(came);
        }
        lets
    }

    /// What came since the last call.
    fn take_came(&self) -> Vec<Came> {
        self.came.take()
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

/// Leaves out steps from the end, then sorts of trouble, then single ones, as long as it still fails.
pub fn smallest(fails: impl Fn(&Knobs) -> bool) -> Knobs {
    let mut knobs = fewer_steps(Knobs::default(), &fails);
    for trouble in Trouble::ALL {
        let mut fewer = knobs.clone();
        fewer.without.insert(trouble);
        if fails(&fewer) {
            knobs = fewer;
        }
    }
    knobs = fewer_troubles(fewer_steps(knobs, &fails), &fails);
    fewer_steps(knobs, &fails)
}

fn fewer_steps(mut knobs: Knobs, fails: &impl Fn(&Knobs) -> bool) -> Knobs {
    let mut cut = knobs.steps / 2;
    while cut > 0 {
        let fewer = Knobs { steps: knobs.steps.saturating_sub(cut), ..knobs.clone() };
        if fails(&fewer) {
            knobs = fewer;
        } else {
            cut /= 2;
        }
        cut = cut.min(knobs.steps);
    }
    knobs
}

/// Half of what came, a quarter, … is left out, until each single one is needed.
fn fewer_troubles(mut knobs: Knobs, fails: &impl Fn(&Knobs) -> bool) -> Knobs {
    knobs.take_came();
    fails(&knobs);
    let mut came = knobs.take_came();
    let mut size = came.len().div_ceil(2);
    while size > 0 {
        let mut from = 0;
        while from < came.len() {
            let mut fewer = knobs.clone();
            fewer.skipped.extend(&came[from..came.len().min(from + size)]);
            knobs.take_came();
            if fails(&fewer) {
                // What is left, and what came only because of what is gone.
                came = fewer.take_came();
                knobs = fewer;
            } else {
                from += size;
            }
        }
        size = if size == 1 { 0 } else { size.div_ceil(2) };
    }
    knobs
}

#[test]
fn the_smallest_history_has_only_what_it_needs() {
    let needed = [(11, Trouble::CommitsFail, 1), (37, Trouble::WorkersDie, 2)];
    let history = |knobs: &Knobs| {
        let all = (1..=knobs.steps).flat_map(|step| {
            Trouble::ALL.into_iter().flat_map(move |trouble| [(step, trouble, 1), (step, trouble, 2)])
        });
        let came: BTreeSet<Came> =
            all.filter(|came| came.0 % 3 == 2 || came.0 == 37).filter(|came| knobs.lets(*came)).collect();
        needed.iter().all(|one| came.contains(one))
    };
    let small = smallest(history);
    assert_eq!((small.without.len(), small.steps), (Trouble::ALL.len() - 2, 37), "{}", small.describe());
    small.take_came();
    assert!(history(&small));
    assert_eq!(small.take_came(), needed);
}
