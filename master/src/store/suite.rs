//! The conformance suite: what every store must do. Each backend runs all of it.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use flota_proto::rest::{JobState, OnDependencyFailure, Requires};
use flota_proto::{Algorithm, JobId, Kind, Timestamp};
use uuid::Uuid;

use super::{IdempotencyRow, Retention, SqliteStore, Store, StoreError};
use crate::aside::Aside;
use crate::core::record::{UnitRow, WorkerRow};
use crate::core::{Changes, Core, Input, Limits, Moment};
use crate::handle::JobFilter;
use crate::session::{AGE_MAX_MS, Followed, SessionChange, SessionKey};
use crate::submit::{NewJob, Work};

const NOW: Timestamp = Timestamp(1_795_254_600_000);

fn at(ms: u64) -> Moment {
    Moment { now: NOW.after_ms(ms), entropy: 7 }
}

/// The past as it is so long after [`NOW`].
fn ago(ms: u64) -> impl Fn(u64) -> Timestamp {
    move |age| Timestamp(NOW.after_ms(ms).0.saturating_sub(age))
}

fn new_job(kind: Kind, work: Work, payload: &str) -> NewJob {
    NewJob {
        id: JobId::generate(),
        fingerprint: Some([3; 16]),
        kind,
        payload: Bytes::copy_from_slice(payload.as_bytes()),
        work,
        model: Some("m".into()),
        randomx_key: None,
        unit_max: None,
        queue: "q".into(),
        project: Some("p".into()),
        priority: 7,
        max_attempts: 3,
        timeout: Duration::from_secs(1),
        deadline: Some(NOW.after_ms(1_000_000)),
        run_at: None,
        requires: Requires { cores: Some(2), ..Requires::default() },
        depends_on: Vec::new(),
        on_dependency_failure: OnDependencyFailure::Cancel,
        labels: BTreeMap::from([("a".into(), "b".into())]),
        cache: true,
        retry: None,
        owner: "ann".into(),
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

fn submit(core: &mut Core, job: NewJob) -> JobId {
    let id = job.id;
    core.handle(at(0), Input::Submit { job: Box::new(job), dependencies: Vec::new() }).unwrap();
    id
}

/// Runs a check on a fresh store of every backend.
fn on_every_store(check: impl Fn(&mut dyn Store)) {
    let directory = tempfile::tempdir().unwrap();
    let mut store = SqliteStore::open(&directory.path().join("flota.db")).unwrap();
    store.take_charge().unwrap();
    check(&mut store);
}

#[test]
fn what_was_committed_comes_back_as_it_was() {
    on_every_store(|store| {
        let mut core = Core::new(Limits::default());
        let small = submit(&mut core, new_job(Kind::Echo, Work::Single, r#"{"value":1}"#));
        let large =
            submit(&mut core, new_job(Kind::Echo, Work::Single, &format!(r#"{{"value":"{}"}}"#, "x".repeat(5000))));
        let range = Work::Range { start: 5, end: 1 << 32, first: true };
        let search = submit(&mut core, new_job(Kind::Search(Algorithm::Randomx), range, "{}"));
        store.commit(&core.take_changes(), &[]).unwrap();

        let loaded = store.load().unwrap();
        assert_eq!(loaded.next_seq, 4);
        let again = store.rebuild(Limits::default(), NOW, loaded).unwrap();
        assert_eq!(again.live_jobs(), 3);
        let pages: Vec<u64> = [store.live_jobs(0, 2), store.live_jobs(2, 2), store.live_jobs(3, 2)]
            .map(|page| page.unwrap().iter().map(|job| job.row.seq).collect::<Vec<_>>())
            .concat();
        assert_eq!(pages, [1, 2, 3], "page by page");
        for id in [small, large, search] {
            assert_eq!(format!("{:?}", core.job_view(id)), format!("{:?}", again.job_view(id)));
        }
        let reader = store.own_reader();
        assert_eq!(reader.payload(2).unwrap().unwrap().len(), 5000 + 12);
        assert_eq!(reader.state(large).unwrap(), Some((JobState::Pending, Some([3; 16]))));
        assert_eq!(reader.state(JobId::generate()).unwrap(), None);
    });
}

#[test]
fn an_ended_job_is_not_loaded_and_is_deleted_in_time() {
    on_every_store(|store| {
        let mut core = Core::new(Limits::default());
        let id = submit(&mut core, new_job(Kind::Echo, Work::Single, &"x".repeat(1000)));
        store.commit(&core.take_changes(), &[]).unwrap();
        core.handle(at(10), Input::Cancel(id)).unwrap();
        store.commit(&core.take_changes(), &[]).unwrap();
        assert_eq!(store.live_jobs(0, 10).unwrap().len(), 0);
        assert_eq!(store.own_reader().job(id).unwrap().unwrap().row.state, JobState::Cancelled);

        let retention =
            Retention { age_ms: 1000, bytes_max: u64::MAX, conversations_age_ms: u64::MAX, sessions_max: u64::MAX };
        while store.prune(&ago(500), retention).unwrap() {}
        assert!(store.own_reader().job(id).unwrap().is_some());
        for _ in 0..3 {
            store.prune(&ago(2000), retention).unwrap();
        }
        assert!(store.own_reader().job(id).unwrap().is_none());
        assert!(store.own_reader().payload(1).unwrap().is_none());
    });
}

#[test]
fn a_job_of_which_something_can_not_be_read_fails_at_the_start_and_the_others_go_on() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("flota.db");
    let mut store = SqliteStore::open(&path).unwrap();
    store.take_charge().unwrap();
    let mut core = Core::new(Limits::default());
    let range = Work::Range { start: 0, end: 1 << 32, first: false };
    let damages = [
        "UPDATE jobs SET kind = 'of.tomorrow' WHERE seq = 1",
        "UPDATE jobs SET rest = '{\"work\":{\"secret\":1}}' WHERE seq = 2",
        "UPDATE jobs SET labels = '[secret]' WHERE seq = 3",
        "INSERT INTO units (seq, idx, from_, to_, state, attempt, failures, output) VALUES (4, 0, 0, 8, 99, 1, 0, NULL)",
        "INSERT INTO units (seq, idx, from_, to_, state, attempt, failures, output) VALUES (5, 0, 0, 8, 5, 1, 0, x'7b')",
    ];
    let ids: Vec<JobId> = (0..6)
        .map(|index| match index {
            3 | 4 => submit(&mut core, new_job(Kind::Search(Algorithm::Randomx), range, "{}")),
            _ => submit(&mut core, new_job(Kind::Echo, Work::Single, "{}")),
        })
        .collect();
    store.commit(&core.take_changes(), &[]).unwrap();
    let db = rusqlite::Connection::open(&path).unwrap();
    for sql in damages {
        assert_eq!(db.execute(sql, []).unwrap(), 1, "{sql}");
    }

    let loaded = store.load().unwrap();
    let mut core = store.rebuild(Limits::default(), NOW, loaded).unwrap();
    assert_eq!((core.live_jobs(), core.next_deadline()), (6, Some(Timestamp(0))), "there is something to do at once");
    core.handle(at(1), Input::Tick).unwrap();
    store.commit(&core.take_changes(), &[]).unwrap();
    assert_eq!(store.live_jobs(0, 10).unwrap().len(), 1);
    for (id, damage) in ids.iter().zip(damages) {
        let row = store.own_reader().job(*id).unwrap().unwrap().row;
        let error = row.error.unwrap();
        assert_eq!((row.state, error.code.as_str()), (JobState::Failed, "store_unreadable"), "{damage}");
        assert!(error.message.contains("restore a backup") && !error.message.contains("secret"), "{}", error.message);
    }
    let all = JobFilter { limit: 10, ..JobFilter::default() };
    assert_eq!(store.own_reader().jobs(&all, u64::MAX).unwrap().len(), 6, "they can be listed");
}

#[test]
fn what_is_old_is_deleted_whatever_stands_before_it() {
    on_every_store(|store| {
        let mut core = Core::new(Limits::default());
        for _ in 0..1_200 {
            submit(&mut core, new_job(Kind::Echo, Work::Single, "{}"));
        }
        let range = Work::Range { start: 0, end: 1 << 32, first: false };
        let old = submit(&mut core, new_job(Kind::Search(Algorithm::Randomx), range, "{}"));
        core.handle(at(10), Input::Cancel(old)).unwrap();
        store.commit(&core.take_changes(), &[]).unwrap();
        core.forget_ended();
        let units = |from: u32| UnitRow { index: from, ..unit(1_201) };
        let rows = Changes { units: (0..5_000).map(units).collect(), ..Changes::default() };
        store.commit(&rows, &[]).unwrap();
        let retention =
            Retention { age_ms: 1000, bytes_max: u64::MAX, conversations_age_ms: u64::MAX, sessions_max: u64::MAX };
        let mut slices = 0;
        while store.prune(&ago(2_000), retention).unwrap() {
            slices += 1;
        }
        assert!(store.own_reader().job(old).unwrap().is_none());
        assert!(store.own_reader().units(1_201, 0, 10, false).unwrap().is_empty());
        assert!(slices > 1, "a job of very many units takes several");
        assert_eq!(store.live_jobs(0, 10_000).unwrap().len(), 1_200);
    });
}

#[test]
fn what_a_liar_computed_is_marked_until_it_is_computed_again() {
    on_every_store(|store| {
        let mut core = Core::new(Limits::default());
        let range = Work::Range { start: 0, end: 1 << 32, first: false };
        let id = submit(&mut core, new_job(Kind::Search(Algorithm::Randomx), range, "{}"));
        core.handle(at(10), Input::Cancel(id)).unwrap();
        let output = Some(Bytes::from_static(br#"{"found":[],"hashes_computed":1,"covered":[[0,1]]}"#));
        let rows = (0..2).map(|index| UnitRow {
            index,
            from: index.into(),
            to: 1 + u64::from(index),
            output: output.clone(),
            ..unit(1)
        });
        let asides = vec![Aside::Suspect(id, Some(1)), Aside::Suspect(JobId::generate(), Some(0))];
        let changes = core.take_changes();
        store.commit(&Changes { units: rows.collect(), asides, ..changes }, &[]).unwrap();
        core.forget_ended();
        let mut stored = store.own_reader().job(id).unwrap().unwrap();
        stored.units = store.own_reader().units(1, 0, 10, true).unwrap();
        let marks: Vec<bool> = stored.units.iter().map(|unit| unit.suspect).collect();
        assert_eq!((stored.row.suspect, marks), (true, vec![false, true]));

        // Started again, it keeps the one and computes the other.
        (stored.row.units_done, stored.row.next_index, stored.row.next_from) = (2, 2, 2);
        core.handle(at(20), Input::Retry(Box::new(stored))).unwrap();
        assert_eq!(core.job_view(id).unwrap().progress.units_done, 1);
        store.commit(&core.take_changes(), &[]).unwrap();
        let units = store.own_reader().units(1, 0, 10, true).unwrap();
        let states: Vec<(JobState, bool)> = units.iter().map(|unit| (unit.state, unit.suspect)).collect();
        assert_eq!(states, [(JobState::Completed, false), (JobState::Pending, false)]);
        assert!(!store.own_reader().job(id).unwrap().unwrap().row.suspect);
    });
}

fn unit(seq: u64) -> UnitRow {
    UnitRow {
        seq,
        index: 0,
        from: 0,
        to: 1,
        state: JobState::Completed,
        attempt: 1,
        failures: 0,
        worker: None,
        assigned_at: None,
        run_at: None,
        tries: String::new(),
        output: None,
        suspect: false,
    }
}

#[test]
fn workers_that_fell_silent_are_forgotten_and_others_are_not() {
    on_every_store(|store| {
        let worker = |id: &str, silent, drain| WorkerRow {
            id: id.parse().unwrap(),
            simple: true,
            language: String::new(),
            silent,
            drain,
            paused: false,
            last_seen_at: NOW,
            standing: None,
        };
        let workers = vec![worker("gone", true, false), worker("drained", true, true), worker("there", false, false)];
        store.commit(&Changes { workers, ..Changes::default() }, &[]).unwrap();
        let retention =
            Retention { age_ms: 1000, bytes_max: u64::MAX, conversations_age_ms: u64::MAX, sessions_max: u64::MAX };
        store.prune(&ago(8 * 86_400_000), retention).unwrap();
        let known: Vec<String> = store.load().unwrap().workers.iter().map(|row| row.id.to_string()).collect();
        assert_eq!(known, ["drained", "there"]);
        let forgotten = vec!["drained".parse().unwrap(), "there".parse().unwrap(), "never".parse().unwrap()];
        let workers = vec![worker("there", false, false)];
        store.commit(&Changes { forgotten, workers, ..Changes::default() }, &[]).unwrap();
        let known: Vec<String> = store.load().unwrap().workers.iter().map(|row| row.id.to_string()).collect();
        assert_eq!(known, ["there"], "one that came again is known");
    });
}

#[test]
fn a_list_is_filtered_and_newest_first() {
    on_every_store(|store| {
        let mut core = Core::new(Limits::default());
        let first = submit(&mut core, new_job(Kind::Echo, Work::Single, "{}"));
        let second = submit(&mut core, new_job(Kind::AiChat, Work::Single, "{}"));
        core.handle(at(1), Input::Cancel(first)).unwrap();
        store.commit(&core.take_changes(), &[]).unwrap();
        let mut list = |filter: JobFilter| -> Vec<JobId> {
            let filter = JobFilter { limit: 50, ..filter };
            store.own_reader().jobs(&filter, u64::MAX).unwrap().iter().map(|job| job.head.id).collect()
        };
        assert_eq!(list(JobFilter::default()), [second, first]);
        assert_eq!(list(JobFilter { states: vec![JobState::Cancelled], ..JobFilter::default() }), [first]);
        assert_eq!(list(JobFilter { kind: Some(Kind::AiChat), ..JobFilter::default() }), [second]);
        assert_eq!(list(JobFilter { queue: Some("x".into()), ..JobFilter::default() }), []);
        assert_eq!(list(JobFilter { label: Some(("a".into(), "b".into())), ..JobFilter::default() }).len(), 2);
        assert_eq!(list(JobFilter { label: Some(("a".into(), "c".into())), ..JobFilter::default() }), []);
        assert_eq!(list(JobFilter { owner: Some("ann".into()), ..JobFilter::default() }).len(), 2);
        assert_eq!(list(JobFilter { owner: Some("bob".into()), ..JobFilter::default() }), []);
        assert_eq!(list(JobFilter { code: Some("timeout".into()), ..JobFilter::default() }), []);
        core.handle(at(2_000_000), Input::Tick).unwrap();
        store.commit(&core.take_changes(), &[]).unwrap();
        let mut with_code = |code: &str| -> Vec<JobId> {
            let filter = JobFilter { code: Some(code.into()), limit: 50, ..JobFilter::default() };
            store.own_reader().jobs(&filter, u64::MAX).unwrap().iter().map(|job| job.head.id).collect()
        };
        assert_eq!(with_code("deadline"), [second]);
        assert_eq!(with_code("dead"), []);
    });
}

#[test]
fn what_was_asked_lately_is_found_in_its_order() {
    on_every_store(|store| {
        let mut core = Core::new(Limits::default());
        let kinds = [Kind::AiChat, Kind::Echo, Kind::AiEmbed, Kind::AiChat, Kind::AiChat];
        let ids = kinds.map(|kind| submit(&mut core, new_job(kind, Work::Single, "{}")));
        let mut changes = core.take_changes();
        for (job, started) in changes.jobs.iter_mut().zip([Some(900), Some(700), Some(600), Some(499), None]) {
            job.started_at = started.map(|ms| NOW.after_ms(ms));
            job.cached = started == Some(600);
        }
        store.commit(&changes, &[]).unwrap();
        let found = store.own_reader().asked_since(NOW.after_ms(500)).unwrap();
        assert_eq!(found.iter().map(|job| job.head.id).collect::<Vec<_>>(), [ids[2], ids[0]]);
        assert_eq!(found.iter().map(|job| job.row.cached).collect::<Vec<_>>(), [true, false]);
    });
}

#[test]
fn an_idempotency_key_keeps_its_answer() {
    on_every_store(|store| {
        let row = IdempotencyRow {
            owner: "ann".into(),
            key: "k".into(),
            digest: [9; 32],
            answer: "[]".into(),
            created_at: NOW,
        };
        store.commit(&Core::new(Limits::default()).take_changes(), std::slice::from_ref(&row)).unwrap();
        assert_eq!(store.own_reader().idempotency("ann", "k").unwrap(), Some(row));
        assert_eq!(store.own_reader().idempotency("bob", "k").unwrap(), None);
        let retention =
            Retention { age_ms: 1000, bytes_max: u64::MAX, conversations_age_ms: u64::MAX, sessions_max: u64::MAX };
        store.prune(&ago(86_400_001), retention).unwrap();
        assert_eq!(store.own_reader().idempotency("ann", "k").unwrap(), None);
    });
}

#[test]
fn only_the_newest_master_commits() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("flota.db");
    let mut old = SqliteStore::open(&path).unwrap();
    let first = old.take_charge().unwrap();
    let mut new = SqliteStore::open(&path).unwrap();
    assert!(new.take_charge().unwrap() > first);
    let nothing = Core::new(Limits::default()).take_changes();
    assert!(matches!(old.commit(&nothing, &[]), Err(StoreError::Superseded { .. })));
    assert!(new.commit(&nothing, &[]).is_ok());
}

#[test]
fn a_database_that_is_not_ours_is_refused_with_what_to_do() {
    let directory = tempfile::tempdir().unwrap();
    let garbage = directory.path().join("garbage.db");
    std::fs::write(&garbage, "this is no database, it is a text that somebody wrote".repeat(100)).unwrap();
    let text = SqliteStore::open(&garbage).err().unwrap().to_string();
    assert!(text.contains("garbage.db") && text.contains("move it away"), "{text}");

    let newer = directory.path().join("newer.db");
    drop(SqliteStore::open(&newer).unwrap());
    rusqlite::Connection::open(&newer).unwrap().pragma_update(None, "user_version", 99).unwrap();
    assert!(matches!(SqliteStore::open(&newer), Err(StoreError::Newer { found: 99, .. })));

    let other = directory.path().join("other.db");
    rusqlite::Connection::open(&other).unwrap().execute_batch("CREATE TABLE t (x)").unwrap();
    assert!(matches!(SqliteStore::open(&other), Err(StoreError::Damaged { .. })));
}

#[test]
fn ended_jobs_are_counted_as_they_end_start_again_and_go() {
    on_every_store(|store| {
        let mut core = Core::new(Limits::default());
        let ids: Vec<JobId> = (0..3).map(|_| submit(&mut core, new_job(Kind::Echo, Work::Single, "{}"))).collect();
        store.commit(&core.take_changes(), &[]).unwrap();
        for id in &ids {
            core.handle(at(10), Input::Cancel(*id)).unwrap();
        }
        store.commit(&core.take_changes(), &[]).unwrap();
        core.forget_ended();
        let ended = |store: &mut dyn Store| store.load().unwrap().ended;
        let counts =
            |cancelled| vec![(JobState::Completed, 0), (JobState::Failed, 0), (JobState::Cancelled, cancelled)];
        assert_eq!(ended(store), counts(3));

        let stored = store.own_reader().job(ids[0]).unwrap().unwrap();
        core.handle(at(20), Input::Retry(Box::new(stored))).unwrap();
        store.commit(&core.take_changes(), &[]).unwrap();
        assert_eq!(ended(store), counts(2));

        let retention =
            Retention { age_ms: 0, bytes_max: u64::MAX, conversations_age_ms: u64::MAX, sessions_max: u64::MAX };
        while store.prune(&ago(2000), retention).unwrap() {}
        assert_eq!(ended(store), counts(0));
    });
}

fn session(number: u128) -> SessionKey {
    SessionKey::new(Uuid::from_u128(number), &format!("secret {number}"))
}

fn change_sessions(store: &mut dyn Store, ms: u64, changes: Vec<SessionChange>) {
    let asides = changes.into_iter().map(|change| Aside::Session(change, NOW.after_ms(ms))).collect();
    store.commit(&Changes { asides, ..Changes::default() }, &[]).unwrap();
}

#[test]
fn a_session_keeps_its_secret_and_what_it_is_to_be_told() {
    on_every_store(|store| {
        let (key, jobs) = (session(1), [JobId(Uuid::from_u128(1)), JobId(Uuid::from_u128(2))]);
        let followed = |job, after, question| Followed { job, after, question };
        let other = SessionKey::new(key.id, "another secret");
        change_sessions(
            store,
            0,
            vec![
                SessionChange::Begin(key),
                SessionChange::Begin(other),
                SessionChange::Follow(key, followed(jobs[0], None, true)),
                SessionChange::Follow(session(2), followed(jobs[0], Some(3), false)),
                SessionChange::Follow(key, followed(jobs[1], Some(4), false)),
                SessionChange::Follow(key, followed(jobs[0], Some(9), false)),
                SessionChange::Seen(key.id, vec![(jobs[1], 5), (JobId(Uuid::from_u128(3)), 6)]),
            ],
        );
        let digest = store.own_reader().session_digest(key.id).unwrap().unwrap();
        assert!(key.fits(&digest) && !other.fits(&digest));
        let told = [followed(jobs[0], Some(9), true), followed(jobs[1], Some(5), false)];
        assert_eq!(store.own_reader().follows(key.id).unwrap(), told, "a question stays one");
        change_sessions(store, 0, vec![SessionChange::Told(key.id, jobs[0]), SessionChange::Told(key.id, jobs[0])]);
        assert_eq!(store.own_reader().follows(key.id).unwrap(), told[1..]);
        change_sessions(store, 0, vec![SessionChange::Forget(key.id)]);
        assert_eq!(store.own_reader().session_digest(key.id).unwrap(), None);
        assert_eq!(store.own_reader().follows(key.id).unwrap(), []);
        assert_eq!(store.own_reader().follows(session(2).id).unwrap(), [followed(jobs[0], Some(3), false)]);
    });
}

#[test]
fn sessions_go_when_nobody_came_back_and_the_oldest_beyond_the_bound() {
    on_every_store(|store| {
        let follow = |key: SessionKey| Followed { job: JobId(key.id), after: None, question: true };
        for number in 1..=5 {
            let key = session(number);
            change_sessions(store, u64::try_from(number).unwrap(), vec![SessionChange::Follow(key, follow(key))]);
        }
        change_sessions(store, 10, vec![SessionChange::Seen(session(1).id, Vec::new())]);
        let mut retention =
            Retention { age_ms: 1000, bytes_max: u64::MAX, conversations_age_ms: u64::MAX, sessions_max: u64::MAX };
        let mut left = |after_ms, sessions_max| {
            retention.sessions_max = sessions_max;
            while store.prune(&ago(after_ms), retention).unwrap() {}
            let reader = store.own_reader();
            (1..=5)
                .filter(|number| {
                    let key = session(*number);
                    let known = reader.session_digest(key.id).unwrap().is_some();
                    assert_eq!(reader.follows(key.id).unwrap().len(), usize::from(known));
                    known
                })
                .collect::<Vec<_>>()
        };
        assert_eq!(left(AGE_MAX_MS, 5), [1, 2, 3, 4, 5]);
        assert_eq!(left(AGE_MAX_MS + 3, 5), [1, 3, 4, 5], "the second is too old");
        assert_eq!(left(AGE_MAX_MS + 3, 2), [1, 5], "the first was used last");
        assert_eq!(left(AGE_MAX_MS + 11, 2), []);
    });
}
