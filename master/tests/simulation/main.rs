//! Ring 2: whole fleets from a seed. Messages are lost, doubled and late; workers die, hang and come back with old
//! results, are slow, lie; the master dies between commit and publish; commits fail, or are stored and reported as failed; the
//! disk is full for a while; the clock jumps. Once the faults stop, every accepted job ends, with a result that is right and
//! counted once. Some seeds run over the real store beside the one in memory. A seed that fails is made as small as it can be.
//!
//! `FLOTA_SIM_SEED=n` runs one seed, `FLOTA_SIM_SEEDS=n` so many (200 without it), from `FLOTA_SIM_FIRST` on.

mod disk;
mod fleet;
mod master;
mod order;
mod real;
mod simple;
mod trouble;
mod users;
mod worker;
mod world;

use flota_master::core::Limits;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name} must be a number, is '{text}'")))
}

#[test]
fn every_accepted_job_ends_once_whatever_dies() {
    if let Some(seed) = number("FLOTA_SIM_SEED") {
        return trouble::run(seed, Limits::default());
    }
    let first = number("FLOTA_SIM_FIRST").unwrap_or(0);
    for seed in first..first + number("FLOTA_SIM_SEEDS").unwrap_or(200) {
        trouble::run(seed, Limits::default());
    }
}

/// A simulation that finds nothing proves nothing: each of these defects must be found.
#[cfg(feature = "seeded-defects")]
#[test]
fn every_seeded_defect_is_found_within_200_seeds() {
    let loud = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    let found = |defect| {
        let limits = Limits { defect: Some(defect), ..Limits::default() };
        (0..200).find(|seed| trouble::fails(*seed, limits, &trouble::Knobs::default()))
    };
    let found = flota_master::core::Defect::ALL.map(|defect| (defect, found(defect)));
    std::panic::set_hook(loud);
    assert!(found.iter().all(|(_, seed)| seed.is_some()), "{found:?}");
}
