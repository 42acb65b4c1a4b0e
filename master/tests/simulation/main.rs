//! Ring 2: whole fleets from a seed. Messages are lost, doubled and late; workers die, hang and come back with old
//! results; the master dies between commit and publish; commits fail; the clock jumps. Once the faults stop, every
//! accepted job ends, with a result that is right and counted once.
//!
//! `FLOTA_SIM_SEED=n` runs one seed, `FLOTA_SIM_SEEDS=n` so many (200 without it).

mod disk;
mod worker;
mod world;

use world::World;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name} must be a number, is '{text}'")))
}

#[test]
fn every_accepted_job_ends_once_whatever_dies() {
    if let Some(seed) = number("FLOTA_SIM_SEED") {
        return World::new(seed).run();
    }
    for seed in 0..number("FLOTA_SIM_SEEDS").unwrap_or(200) {
        World::new(seed).run();
    }
}
