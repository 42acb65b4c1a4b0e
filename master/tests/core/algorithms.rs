//! Several algorithms in one fleet: who gets what, and how much of it.

use flota_master::handle::Report;
use flota_master::submit::{NewJob, Work};
use flota_proto::kinds::HASH_UNIT_MAX;
use flota_proto::mqtt::Register;
use flota_proto::{Algorithm, Class, Kind};

use crate::fleet::*;

fn search(algorithm: Algorithm) -> NewJob {
    job(Kind::Search(algorithm), Work::Range { start: 0, end: 1 << 32, first: false })
}

/// A whole unit at so many hashes a second.
fn searched(task: &flota_master::core::Assignment, rate: u64) -> Report {
    let (from, to) = task.part.unwrap();
    let output = format!(r#"{{"found":[],"hashes_computed":{},"covered":[[{from},{to}]]}}"#, to - from);
    let mut report = result(task.unit, task.attempt, &output);
    (report.results[0].hashes, report.results[0].elapsed_ms) = (to - from, ((to - from) * 1000 / rate).max(1));
    report
}

fn length(task: &flota_master::core::Assignment) -> u64 {
    let (from, to) = task.part.unwrap();
    to - from
}

fn only(id: &str, algorithm: Algorithm) -> Register {
    Register { kinds: vec![Kind::Hash(algorithm), Kind::Search(algorithm)], ..register(id) }
}

#[test]
fn work_goes_to_workers_that_compute_its_algorithm() {
    let mut fleet = Fleet::new();
    fleet.worker_as(only("monero", Algorithm::Randomx));
    let job = search(Algorithm::Sha256d);
    let id = job.id;
    assert!(tasks(&fleet.submit(job)).is_empty());
    assert!(fleet.core.job_view(id).unwrap().waiting.is_some());
    let (_, effects) = fleet.worker_as(only("bitcoin", Algorithm::Sha256d));
    assert_eq!(task(&effects).worker.as_str(), "bitcoin");
}

#[test]
fn a_speed_is_that_of_one_algorithm() {
    let mut fleet = Fleet::new();
    let (stream, _) = fleet.worker("w1");
    let mut fast = task(&fleet.submit(search(Algorithm::Sha256d)));
    for _ in 0..20 {
        fast = task(&fleet.report(stream, searched(&fast, 20_000_000)));
    }
    assert!((50_000_000..=60_000_000).contains(&length(&fast)), "three seconds of it: {}", length(&fast));
    let job = NewJob { priority: 9, ..search(Algorithm::Randomx) };
    fleet.submit(job);
    let slow = task(&fleet.report(stream, searched(&fast, 20_000_000)));
    assert_eq!(slow.kind, Kind::Search(Algorithm::Randomx));
    assert!(length(&slow) < 1_000, "{}", length(&slow));
}

#[test]
fn however_fast_a_worker_is_what_it_answers_has_a_place_in_a_message() {
    for algorithm in Algorithm::ALL {
        let mut fleet = Fleet::new();
        let (stream, _) = fleet.worker("w1");
        let mut unit = task(&fleet.submit(search(algorithm)));
        for _ in 0..5 {
            unit = task(&fleet.report(stream, searched(&unit, 1_000_000_000)));
        }
        assert_eq!(length(&unit), algorithm.search_unit_max());
        let effects = fleet.handle(flota_master::core::Input::Cancel(unit.unit.job)).unwrap();
        assert!(tasks(&effects).is_empty());
        let list = task(&fleet.submit(job(Kind::Hash(algorithm), Work::List(1_000_000))));
        assert_eq!(length(&list), HASH_UNIT_MAX);
    }
}

#[test]
fn where_finds_are_close_together_units_are_small() {
    let mut fleet = Fleet::new();
    let (stream, _) = fleet.worker("w1");
    let job = NewJob { unit_max: Some(5_000), ..search(Algorithm::Sha256d) };
    let first = task(&fleet.submit(job));
    assert_eq!(length(&first), 5_000);
    assert_eq!(length(&task(&fleet.report(stream, searched(&first, 1_000_000)))), 5_000);
}

#[test]
fn all_algorithms_share_the_slots_of_a_machine() {
    let mut fleet = Fleet::new();
    fleet.worker("w1");
    task(&fleet.submit(search(Algorithm::Sha256d)));
    assert!(tasks(&fleet.submit(search(Algorithm::Randomx))).is_empty());
    assert!(Algorithm::ALL.iter().all(|algorithm| Kind::Search(*algorithm).class() == Class::Randomx));
}
