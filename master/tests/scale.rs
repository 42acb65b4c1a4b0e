//! How much a master holds, and how soon it is back: jobs that wait in a store and in memory, workers by the thousand. Few
//! where nothing is said, so that it runs every day; `FLOTA_SCALE_JOBS=1000000 FLOTA_SCALE_WORKERS=10000` for the figures
//! (with `--nocapture`, in release). Speeds are printed, not asserted.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use flota_common::clock;
use flota_master::core::{Core, Effect, Input, Limits, Moment};
use flota_master::handle::{Hello, Report, StreamId, UnitResult};
use flota_master::store::{Retention, SqliteStore, Store};
use flota_master::submit::{NewJob, Work};
use flota_proto::mqtt::{Capabilities, Register};
use flota_proto::rest::{JobState, OnDependencyFailure, Requires};
use flota_proto::{Class, JobId, Kind, Timestamp};

const NOW: Timestamp = Timestamp(1_795_254_600_000);
const SLICE: usize = 10_000;

fn number(name: &str, default: usize) -> usize {
    std::env::var(name).ok().map_or(default, |text| text.parse().unwrap())
}

fn at(ms: u64) -> Moment {
    Moment { now: NOW.after_ms(ms), entropy: 7 }
}

fn echo(owner: usize) -> NewJob {
    NewJob {
        id: JobId::generate(),
        fingerprint: None,
        kind: Kind::Echo,
        payload: Bytes::from_static(br#"{"value":"a payload of some forty bytes"}"#),
        work: Work::Single,
        model: None,
        randomx_key: None,
        unit_max: None,
        queue: "default".into(),
        project: None,
        priority: 5,
        max_attempts: 3,
        timeout: Duration::from_secs(600),
        deadline: None,
        run_at: None,
        requires: Requires::default(),
        depends_on: Vec::new(),
        on_dependency_failure: OnDependencyFailure::Fail,
        labels: BTreeMap::new(),
        cache: false,
        retry: None,
        owner: format!("owner{}", owner % 100),
        api_key: None,
        conversation: None,
        turn: None,
        tokens: (0, 0),
        texts: 0,
        cache_key: None,
        ready: None,
        shares: None,
    }
}

/// What the kernel counts of this process, in MiB.
fn memory_mib(what: &str) -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let kib = status.lines().find_map(|line| line.strip_prefix(what)?.trim().strip_suffix("kB")?.trim().parse().ok());
    kib.map_or(0.0, |kib: f64| kib / 1024.0)
}

fn resident_mib() -> f64 {
    memory_mib("VmRSS:")
}

fn submit(core: &mut Core, count: usize) -> Vec<JobId> {
    let mut out = Vec::new();
    let jobs = (0..count).map(echo);
    jobs.map(|job| {
        let id = job.id;
        core.apply(at(0), Input::Submit { job: Box::new(job), dependencies: Vec::new() }, &mut out).unwrap();
        out.clear();
        id
    })
    .collect()
}

fn fill(store: &mut SqliteStore, core: &mut Core, count: usize, end: bool) {
    let mut left = count;
    while left > 0 {
        let slice = left.min(SLICE);
        let ids = submit(core, slice);
        store.commit(&core.take_changes(), &[]).unwrap();
        if end {
            let mut out = Vec::new();
            for id in ids {
                core.apply(at(10), Input::Cancel(id), &mut out).unwrap();
            }
            store.commit(&core.take_changes(), &[]).unwrap();
            core.forget_ended();
        }
        left -= slice;
    }
}

#[test]
fn a_master_is_back_with_all_that_waits_and_what_has_ended_costs_nothing() {
    let count = number("FLOTA_SCALE_JOBS", 20_000);
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("flota.db");
    for ended in [0, count] {
        let mut store = SqliteStore::open(&path).unwrap();
        store.take_charge().unwrap();
        let loaded = store.load().unwrap();
        let mut core = store.rebuild(Limits::default(), NOW, loaded).unwrap();
        let missing = count - core.live_jobs();
        fill(&mut store, &mut core, missing, false);
        fill(&mut store, &mut core, ended, true);
        drop((store, core));

        let begun = clock::instant();
        let mut store = SqliteStore::open(&path).unwrap();
        store.take_charge().unwrap();
        let loaded = store.load().unwrap();
        let counts = loaded.ended.clone();
        let core = store.rebuild(Limits::default(), NOW, loaded).unwrap();
        let took = begun.elapsed().as_secs_f64();
        println!("recovery: {count} queued and {ended} ended jobs: {took:.2} s");
        let waiting = core.fleet_view(NOW).jobs.get(&JobState::Pending).copied();
        assert_eq!(waiting, Some(count as u64));
        assert_eq!(counts.iter().map(|(_, n)| *n).sum::<u64>(), ended as u64);
        core.audit().unwrap();
        // The database that the first round leaves is what the second adds to.
        while ended > 0
            && store
                .prune(
                    &|age| Timestamp(NOW.after_ms(20).0.saturating_sub(age)),
                    Retention {
                        age_ms: 0,
                        bytes_max: u64::MAX,
                        conversations_age_ms: u64::MAX,
                        sessions_max: u64::MAX,
                    },
                )
                .unwrap()
        {}
    }
}

/// Only recovers what a store holds, to be measured by itself: `FLOTA_SCALE_DB` names the database, which is filled with what it
/// lacks; the second run says what a start takes.
#[test]
fn a_start_takes_memory_for_its_jobs_once() {
    let count = number("FLOTA_SCALE_JOBS", 20_000);
    let directory = tempfile::tempdir().unwrap();
    let kept = std::env::var_os("FLOTA_SCALE_DB").map(std::path::PathBuf::from);
    let path = kept.clone().unwrap_or_else(|| directory.path().join("flota.db"));
    let begun = clock::instant();
    let mut store = SqliteStore::open(&path).unwrap();
    store.take_charge().unwrap();
    let loaded = store.load().unwrap();
    let mut core = store.rebuild(Limits::default(), NOW, loaded).unwrap();
    let (live, took) = (core.live_jobs(), begun.elapsed().as_secs_f64());
    println!(
        "start: {live} queued jobs: {took:.2} s, {:.0} MiB, at most {:.0} MiB",
        memory_mib("VmRSS:"),
        memory_mib("VmHWM:")
    );
    fill(&mut store, &mut core, count - live, false);
    assert_eq!(core.live_jobs(), count);
}

fn register(index: usize) -> Register {
    Register {
        worker_id: format!("w{index}").parse().unwrap(),
        language: "rust".into(),
        status: "idle".into(),
        timestamp: NOW,
        protocol: Some(1),
        boot_id: "b".into(),
        version: "0".into(),
        slots: BTreeMap::from([(Class::Echo, 4)]),
        prefetch: BTreeMap::new(),
        kinds: vec![Kind::Echo],
        models: Vec::new(),
        capabilities: Capabilities { cores: 4, memory_mib: 8000, ..Capabilities::default() },
        labels: BTreeMap::new(),
    }
}

#[test]
fn thousands_of_workers_finish_all_that_waits_in_memory() {
    let (jobs, workers) = (number("FLOTA_SCALE_JOBS", 20_000), number("FLOTA_SCALE_WORKERS", 500));
    let before = resident_mib();
    let mut core = Core::new(Limits::default());
    let begun = clock::instant();
    for _ in 0..jobs.div_ceil(SLICE) {
        submit(&mut core, SLICE.min(jobs));
        core.take_changes();
    }
    let with_jobs = resident_mib();
    println!("{jobs} waiting jobs: {:.0} MiB, {:.2} s", with_jobs - before, begun.elapsed().as_secs_f64());
    let mut effects = Vec::new();
    for index in 0..workers {
        let hello = Hello {
            worker: format!("w{index}").parse().unwrap(),
            boot_id: "b".into(),
            running: Vec::new(),
            finished: Vec::new(),
        };
        core.apply(at(0), Input::Register(Box::new(register(index))), &mut effects).unwrap();
        core.apply(at(0), Input::Open(hello, StreamId(index as u64)), &mut effects).unwrap();
    }
    println!("{workers} workers: {:.0} MiB more", resident_mib() - with_jobs);
    core.settle(at(0), &mut effects);
    let (mut done, mut published) = (0_usize, 0_usize);
    let begun = clock::instant();
    while !effects.is_empty() {
        let mut reports: BTreeMap<u64, Report> = BTreeMap::new();
        for effect in std::mem::take(&mut effects) {
            if let Effect::Publish(assignment) = effect {
                published += 1;
                let stream: u64 = assignment.worker.as_str()[1..].parse().unwrap();
                reports.entry(stream).or_default().results.push(UnitResult {
                    unit: assignment.unit,
                    attempt: assignment.attempt,
                    output: Bytes::from_static(br#"{"value":1}"#),
                    elapsed_ms: 1,
                    hashes: 0,
                });
            }
        }
        for (stream, report) in reports {
            done += report.results.len();
            core.apply(at(1), Input::Report(StreamId(stream), Box::new(report)), &mut effects).unwrap();
        }
        core.settle(at(1), &mut effects);
        core.take_changes();
        core.forget_ended();
        if core.next_deadline().is_some_and(|due| due <= at(1).now) && effects.is_empty() {
            core.settle(at(1), &mut effects);
        }
    }
    let seconds = begun.elapsed().as_secs_f64();
    println!(
        "{done} jobs assigned and finished by {workers} workers in {seconds:.2} s, {:.0} MiB at the end",
        resident_mib()
    );
    assert_eq!((done, published), (jobs.max(SLICE), jobs.max(SLICE)), "each is published and finished once");
    core.audit().unwrap();
}
