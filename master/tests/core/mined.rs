//! What jobs of work sources tell their source while they run.

use std::collections::BTreeMap;

use flota_master::core::{Effect, Mined};
use flota_master::handle::Report;
use flota_master::sources::SOURCE_LABEL;
use flota_master::submit::{NewJob, Work};
use flota_proto::kinds::Found;
use flota_proto::{Algorithm, HexBytes, JobId, Kind};

use super::fleet::*;

fn search(label: &str) -> NewJob {
    let labels = BTreeMap::from([(label.to_owned(), "solo".to_owned())]);
    NewJob { labels, ..job(Kind::Search(Algorithm::Randomx), Work::Range { start: 0, end: 1 << 32, first: false }) }
}

fn found(nonces: &[u64]) -> Vec<Found> {
    nonces.iter().map(|nonce| Found { nonce: *nonce, hash: HexBytes(vec![0; 32]) }).collect()
}

fn told(effects: &[Effect]) -> Vec<(JobId, Vec<u64>)> {
    let finds = effects.iter().filter_map(|effect| match effect {
        Effect::Mined(job, Mined::Found(_, found)) => Some((*job, found.iter().map(|found| found.nonce).collect())),
        _ => None,
    });
    finds.collect()
}

#[test]
fn a_find_is_told_while_its_unit_goes_on_if_it_is_of_the_current_attempt_and_in_its_range() {
    let mut fleet = Fleet::new();
    let (stream, _) = fleet.worker("w1");
    let task = task(&fleet.submit(search(SOURCE_LABEL)));
    fleet.accept(stream, &task);
    let (from, to) = task.part.unwrap();
    let say =
        |attempt: u64| Report { found: vec![(task.unit, attempt, found(&[from, to, to - 1]))], ..Report::default() };
    assert_eq!(told(&fleet.report(stream, say(task.attempt))), [(task.unit.job, vec![from, to - 1])]);
    assert_eq!(told(&fleet.report(stream, say(task.attempt + 1))), []);
}

#[test]
fn finds_of_jobs_that_no_source_submitted_are_told_by_their_result_alone() {
    let mut fleet = Fleet::new();
    let (stream, _) = fleet.worker("w1");
    let task = task(&fleet.submit(search("other")));
    fleet.accept(stream, &task);
    let report = Report { found: vec![(task.unit, task.attempt, found(&[0]))], ..Report::default() };
    assert_eq!(told(&fleet.report(stream, report)), []);
}

#[test]
fn hashes_of_an_attempt_that_is_cancelled_are_counted_as_wasted() {
    let mut fleet = Fleet::new();
    let (stream, _) = fleet.worker("w1");
    let search = search(SOURCE_LABEL);
    let id = search.id;
    let task = task(&fleet.submit(search));
    fleet.accept(stream, &task);
    let (from, to) = task.part.unwrap();
    let report = Report { progress: vec![(task.unit, task.attempt, 0.5, String::new())], ..Report::default() };
    fleet.report(stream, report);
    let effects = fleet.handle(flota_master::core::Input::Cancel(id)).unwrap();
    let wasted = effects.iter().find_map(|effect| match effect {
        Effect::Mined(_, Mined::Wasted(hashes)) => Some(*hashes),
        _ => None,
    });
    assert_eq!(wasted, Some((to - from) / 2));
}
