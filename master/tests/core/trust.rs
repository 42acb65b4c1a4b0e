//! Nothing is believed: results that are checked before they count, workers that lie or fail again and again.

use flota_master::core::{Check, Digest, Effect, Input, Limits, Moment, Verdict, Verify};
use flota_master::handle::{Heartbeat, Hello, Report, StreamId, UnitFailure, WorkerControl};
use flota_master::submit::{NewJob, Work};
use flota_proto::mqtt::{RandomxState, WorkerState, WorkerStatus};
use flota_proto::rest::{AttemptOutcome, JobError, JobState};
use flota_proto::{Algorithm, Kind, Timestamp, WorkerId};

use crate::disk::Disk;
use crate::fleet::*;

const HOUR_MS: u64 = 3_600_000;

fn checking() -> Fleet {
    Fleet::with(Limits { verify: Verify::Samples, ..Limits::default() })
}

fn search(end: u64) -> NewJob {
    job(Kind::Search(Algorithm::Randomx), Work::Range { start: 0, end, first: false })
}

fn covered(task: &flota_master::core::Assignment) -> Report {
    let (from, to) = task.part.unwrap();
    let output = format!(r#"{{"found":[],"hashes_computed":{},"covered":[[{from},{to}]]}}"#, to - from);
    result(task.unit, task.attempt, &output)
}

fn check(effects: &[Effect]) -> Check {
    let found = effects.iter().find_map(|effect| if let Effect::Check(check) = effect { Some(check) } else { None });
    (**found.unwrap_or_else(|| panic!("{effects:?}"))).clone()
}

fn verdict(fleet: &mut Fleet, check: &Check, verdict: Verdict) -> Vec<Effect> {
    fleet.handle(Input::Checked { unit: check.unit, attempt: check.attempt, verdict }).unwrap()
}

fn wrong() -> Verdict {
    Verdict::Wrong("nonce 3 has another hash".into())
}

fn worker(id: &str) -> WorkerId {
    id.parse().unwrap()
}

fn status(fleet: &Fleet, id: &str) -> WorkerState {
    fleet.core.worker_view(&worker(id)).unwrap().status
}

#[test]
fn a_result_counts_and_is_acknowledged_only_when_it_was_found_right() {
    let mut fleet = checking();
    let (stream, _) = fleet.worker("w1");
    let job = search(5);
    let id = job.id;
    let first = task(&fleet.submit(job));
    let effects = fleet.report(stream, covered(&first));
    let check = check(&effects);
    assert_eq!((check.samples, check.part), (4, first.part.unwrap()), "a new worker is looked at closely");
    assert!(acks(&effects).is_empty());
    assert_eq!(fleet.state(id), JobState::Computing);
    assert!(acks(&fleet.report(stream, covered(&first))).is_empty(), "repeated while it is checked");
    let effects = verdict(&mut fleet, &check, Verdict::Right(4));
    assert_eq!(acks(&effects), [true]);
    assert_eq!(fleet.state(id), JobState::Completed);
    assert!(verdict(&mut fleet, &check, wrong()).is_empty(), "too late to say anything");
}

#[test]
fn a_worker_has_its_slot_back_while_its_result_is_checked() {
    let mut fleet = checking();
    let (stream, _) = fleet.worker("w1");
    let mut next = task(&fleet.submit(search(1_000)));
    for _ in 0..7 {
        next = task(&fleet.report(stream, covered(&next)));
    }
    assert!(tasks(&fleet.report(stream, covered(&next))).is_empty(), "the eighth check is one too many to go on");
}

#[test]
fn a_worker_that_was_right_often_is_looked_at_less() {
    let mut fleet = checking();
    let (stream, _) = fleet.worker("w1");
    let mut next = task(&fleet.submit(search(1 << 20)));
    let mut checks = 0;
    for round in 0..116 {
        let at = Moment { now: fleet.now, entropy: round };
        let mut effects = fleet.core.handle(at, Input::Report(stream, Box::new(covered(&next)))).unwrap();
        if effects.iter().any(|effect| matches!(effect, Effect::Check(_))) {
            let check = check(&effects);
            assert_eq!(check.samples, if round < 16 { 4 } else { 1 });
            checks += u64::from(round >= 16);
            effects.extend(verdict(&mut fleet, &check, Verdict::Right(check.samples)));
        }
        next = task(&effects);
    }
    assert!((10..=45).contains(&checks), "about one unit in four of the last hundred: {checks}");
}

#[test]
fn a_find_is_always_checked() {
    let mut fleet = checking();
    let (stream, _) = fleet.worker("w1");
    let mut next = task(&fleet.submit(search(1 << 20)));
    for round in 0..40 {
        let (from, to) = next.part.unwrap();
        let hash = "00".repeat(32);
        let output = format!(
            r#"{{"found":[{{"nonce":{from},"hash":"{hash}"}}],"hashes_computed":{},"covered":[[{from},{to}]]}}"#,
            to - from
        );
        let at = Moment { now: fleet.now, entropy: round };
        let report = Box::new(result(next.unit, next.attempt, &output));
        let mut effects = fleet.core.handle(at, Input::Report(stream, report)).unwrap();
        let check = check(&effects);
        effects.extend(verdict(&mut fleet, &check, Verdict::Right(check.samples + 1)));
        next = task(&effects);
    }
}

#[test]
fn a_liar_is_set_aside_and_all_it_did_for_live_jobs_is_computed_again() {
    let mut fleet = checking();
    let (liar, _) = fleet.worker("liar");
    let job = search(1_000);
    let id = job.id;
    let mut next = task(&fleet.submit(job));
    let mut believed = Vec::new();
    for _ in 0..3 {
        let effects = fleet.report(liar, covered(&next));
        believed.push(next.clone());
        let check = check(&effects);
        next = task(&effects);
        verdict(&mut fleet, &check, Verdict::Right(4));
    }
    assert_eq!(fleet.core.job_view(id).unwrap().progress.units_done, 3);
    let effects = fleet.report(liar, covered(&next));
    let (check, at_work) = (check(&effects), task(&effects));
    let effects = verdict(&mut fleet, &check, wrong());
    assert_eq!(acks(&effects), [true], "it need not keep it");
    assert!(effects.iter().any(|e| matches!(e, Effect::Cancel(s, unit, _) if (*s, *unit) == (liar, at_work.unit))));
    assert!(effects.iter().any(|e| matches!(e, Effect::Quarantined { reason, .. } if reason.contains("3 earlier"))));
    assert_eq!(status(&fleet, "liar"), WorkerState::Quarantined);
    let view = fleet.core.job_view(id).unwrap();
    assert_eq!((view.progress.units_done, view.state, view.failures), (0, JobState::Pending, 0));
    let told = fleet.core.events(id, None).unwrap();
    assert!(told.iter().any(|event| event.data["error"]["code"] == "wrong_result"), "{told:?}");
    assert!(tasks(&fleet.after(1_000)).is_empty(), "it gets nothing more");

    let (honest, effects) = fleet.worker("honest");
    let mut open = tasks(&effects);
    while let Some(task) = open.pop() {
        assert_eq!(task.worker.as_str(), "honest");
        let effects = fleet.report(honest, covered(&task));
        open.extend(tasks(&effects));
        if let Some(Effect::Check(check)) = effects.iter().find(|effect| matches!(effect, Effect::Check(_))) {
            open.extend(tasks(&verdict(&mut fleet, check, Verdict::Right(4))));
        }
    }
    let view = fleet.core.job_view(id).unwrap();
    let result: serde_json::Value = serde_json::from_str(view.result.unwrap().get()).unwrap();
    assert_eq!((&result["covered"], &result["hashes_computed"]), (&serde_json::json!([[0, 1_000]]), &1_000.into()));
}

#[test]
fn what_a_liar_did_for_jobs_that_have_ended_is_named() {
    let mut fleet = checking();
    let (liar, _) = fleet.worker("liar");
    let (ended, last) = (search(5), search(10));
    let ids = [ended.id, last.id];
    for (job, said) in [(ended, Verdict::Right(4)), (last, wrong())] {
        let task = task(&fleet.submit(job));
        let found = check(&fleet.report(liar, covered(&task)));
        let effects = verdict(&mut fleet, &found, said);
        fleet.core.forget_ended();
        let caught = effects.iter().find_map(|effect| match effect {
            Effect::Caught { worker, suspect } => Some((worker.as_str(), suspect.clone())),
            _ => None,
        });
        let caught = caught.map(|(name, units)| (name, units.iter().map(|unit| (unit.job, unit.index)).collect()));
        let wanted = (found.unit.job == ids[1]).then(|| ("liar", vec![(ids[0], 0)]));
        assert_eq!(caught, wanted);
    }
    assert!(fleet.core.is_set_aside(&worker("liar")));
}

fn computed(key: &[u8], digest: u8) -> Report {
    let heartbeat = Heartbeat { computed: vec![(key.to_vec(), [digest; 32])], ..Heartbeat::default() };
    Report { heartbeat: Some(heartbeat), ..Report::default() }
}

/// Lets enough of the hashes of a worker be right.
fn becomes_known(fleet: &mut Fleet, stream: StreamId) {
    let mut next = task(&fleet.submit(search(1 << 20)));
    for _ in 0..16 {
        let effects = fleet.report(stream, covered(&next));
        let found = check(&effects);
        next = task(&effects);
        verdict(fleet, &found, Verdict::Right(4));
    }
    fleet.handle(Input::Cancel(next.unit.job)).unwrap();
}

#[test]
fn the_digest_of_a_dataset_is_that_of_workers_whose_hashes_were_right() {
    let mut fleet = checking();
    let (first, _) = fleet.worker("first");
    fleet.report(first, computed(b"k", 1));
    assert_eq!(fleet.core.dataset_digest(b"k"), Digest::Unknown, "little is known of it");
    becomes_known(&mut fleet, first);
    assert_eq!(fleet.core.dataset_digest(b"k"), Digest::Accepted([1; 32]));
    assert_eq!(fleet.core.dataset_digest(b"other"), Digest::Unknown);
    fleet.handle(Input::Close(first)).unwrap();
    assert_eq!(fleet.core.dataset_digest(b"k"), Digest::Accepted([1; 32]), "it is not worth less without it");

    let (second, _) = fleet.worker("second");
    fleet.report(second, computed(b"k", 2));
    assert_eq!(fleet.core.dataset_digest(b"k"), Digest::Accepted([1; 32]));
    becomes_known(&mut fleet, second);
    assert_eq!(fleet.core.dataset_digest(b"k"), Digest::Disputed);

    // Of a known worker not every unit is checked.
    let found = (0..100).find_map(|entropy| {
        let lie = task(&fleet.submit(search(10)));
        let at = Moment { now: fleet.now, entropy };
        let effects = fleet.core.handle(at, Input::Report(second, Box::new(covered(&lie)))).unwrap();
        effects.iter().any(|effect| matches!(effect, Effect::Check(_))).then(|| check(&effects))
    });
    let found = found.unwrap();
    verdict(&mut fleet, &found, wrong());
    assert_eq!(fleet.core.dataset_digest(b"k"), Digest::Accepted([1; 32]), "a liar's word is worth nothing");
}

#[test]
fn where_nothing_is_checked_every_workers_word_on_a_dataset_counts() {
    let mut fleet = Fleet::new();
    let (stream, _) = fleet.worker("w1");
    fleet.report(stream, computed(b"k", 1));
    assert_eq!(fleet.core.dataset_digest(b"k"), Digest::Accepted([1; 32]));
}

#[test]
fn a_liar_is_let_in_after_its_time_or_by_an_operator_and_looked_at_very_closely() {
    let mut fleet = checking();
    let (stream, _) = fleet.worker("w1");
    let first = task(&fleet.submit(search(1_000)));
    let found = check(&fleet.report(stream, covered(&first)));
    verdict(&mut fleet, &found, wrong());
    fleet.after(HOUR_MS - 1);
    assert_eq!(status(&fleet, "w1"), WorkerState::Quarantined);
    let effects = fleet.after(1);
    assert_eq!(status(&fleet, "w1"), WorkerState::Busy);
    let found = check(&fleet.report(stream, covered(&task(&effects))));
    assert_eq!(found.samples, 16);
    verdict(&mut fleet, &found, wrong());
    fleet.after(HOUR_MS);
    assert_eq!(status(&fleet, "w1"), WorkerState::Quarantined, "the second time it lasts longer");
    let effects = fleet.handle(Input::Control(worker("w1"), WorkerControl::Resume)).unwrap();
    assert_eq!(tasks(&effects).len(), 1);
}

#[test]
fn a_quarantine_outlives_the_master_and_ends_in_its_time() {
    let limits = Limits { verify: Verify::Samples, ..Limits::default() };
    let mut fleet = Fleet::with(limits);
    let mut disk = Disk::default();
    let (stream, _) = fleet.worker("w1");
    let first = task(&fleet.submit(search(10)));
    let found = check(&fleet.report(stream, covered(&first)));
    let verdict = Input::Checked { unit: found.unit, attempt: found.attempt, verdict: wrong() };
    fleet.core.handle(Moment { now: fleet.now, entropy: 0 }, verdict).unwrap();
    let changes = flota_master::core::Changes { workers: fleet.core.take_changes().workers, ..Default::default() };
    disk.commit(changes);
    fleet.core = disk.restore(limits, fleet.now);
    let (_, effects) = fleet.worker("w1");
    assert!(tasks(&effects).is_empty());
    assert_eq!(status(&fleet, "w1"), WorkerState::Quarantined);
    let view = fleet.core.worker_view(&worker("w1")).unwrap();
    let detail = view.status_detail.unwrap();
    assert!(detail.contains("wrong") && detail.contains("resume"), "{detail}");
    let quarantine = view.quarantine.unwrap();
    assert!(detail.contains(&quarantine.reason), "{quarantine:?}");
    assert_eq!(quarantine.until.unwrap().since_ms(quarantine.since), HOUR_MS);
    fleet.after(HOUR_MS);
    assert_eq!(status(&fleet, "w1"), WorkerState::Idle);
    assert_eq!(fleet.core.worker_view(&worker("w1")).unwrap().quarantine, None);
}

#[test]
fn a_job_that_is_cancelled_while_its_result_is_checked_frees_the_worker_of_it() {
    let mut fleet = checking();
    let (stream, _) = fleet.worker("w1");
    let job = search(10);
    let id = job.id;
    let first = task(&fleet.submit(job));
    fleet.report(stream, covered(&first));
    assert_eq!(acks(&fleet.handle(Input::Cancel(id)).unwrap()), [false]);
}

#[test]
fn a_result_that_is_checked_stays_with_the_master_when_its_worker_goes() {
    let mut fleet = checking();
    let (stream, _) = fleet.worker("w1");
    let job = search(5);
    let id = job.id;
    let first = task(&fleet.submit(job));
    let found = check(&fleet.report(stream, covered(&first)));
    fleet.handle(Input::Close(stream)).unwrap();
    let hello = Hello { worker: worker("w1"), boot_id: "2".into(), running: Vec::new(), finished: Vec::new() };
    fleet.handle(Input::Open(hello, StreamId(9))).unwrap();
    verdict(&mut fleet, &found, Verdict::Right(4));
    assert_eq!(fleet.state(id), JobState::Completed);
}

#[test]
fn what_can_not_be_checked_is_a_failure_that_says_so() {
    let mut fleet = checking();
    let (stream, _) = fleet.worker("w1");
    let job = NewJob { max_attempts: 1, ..search(5) };
    let id = job.id;
    let first = task(&fleet.submit(job));
    let found = check(&fleet.report(stream, covered(&first)));
    verdict(&mut fleet, &found, Verdict::Unable("no memory".into()));
    assert_eq!(fleet.core.job_view(id).unwrap().error.unwrap().code, "unchecked");
    assert_eq!(status(&fleet, "w1"), WorkerState::Idle, "it is not the worker's fault");
}

#[test]
fn where_proofs_are_demanded_a_search_without_one_does_not_count() {
    let mut fleet = Fleet::with(Limits { verify: Verify::Strict, ..Limits::default() });
    let (stream, _) = fleet.worker("w1");
    let job = NewJob { max_attempts: 1, ..search(5) };
    let id = job.id;
    let first = task(&fleet.submit(job));
    fleet.report(stream, covered(&first));
    let error = fleet.core.job_view(id).unwrap().error.unwrap();
    assert!(error.code == "bad_result" && error.message.contains("proof"), "{error:?}");
}

#[test]
fn echoes_and_questions_are_not_checked() {
    let mut fleet = checking();
    let (stream, _) = fleet.worker("w1");
    let first = task(&fleet.submit(echo()));
    assert_eq!(acks(&fleet.finish(stream, &first)), [true]);
}

fn own_fault(fleet: &mut Fleet, stream: StreamId, task: &flota_master::core::Assignment) -> Vec<Effect> {
    let error = JobError { code: "out_of_memory".into(), message: "no memory".into() };
    let (unit, attempt) = (task.unit, task.attempt);
    let failure = UnitFailure { unit, attempt, error, retryable: true, retry_after_ms: 0, unasked: false };
    fleet.report(stream, Report { failures: vec![failure], ..Report::default() })
}

#[test]
fn a_worker_that_fails_again_and_again_is_set_aside_for_a_time() {
    let mut fleet = Fleet::new();
    let (stream, _) = fleet.worker("w1");
    let mut effects = fleet.submit(NewJob { max_attempts: 50, ..search(5) });
    for _ in 0..5 {
        effects = own_fault(&mut fleet, stream, &task(&effects));
        if status(&fleet, "w1") != WorkerState::Quarantined {
            effects = fleet.after(60_000);
        }
    }
    assert!(effects.iter().any(|e| matches!(e, Effect::Quarantined { reason, .. } if reason.contains("in a row"))));
    let other = echo();
    let id = other.id;
    fleet.submit(other);
    let waiting = fleet.core.job_view(id).unwrap().waiting.unwrap();
    assert_eq!(
        (&*waiting.reason, &*waiting.detail),
        ("workers_set_aside", "all workers that fit are set aside: 1 in quarantine")
    );
    assert!(tasks(&fleet.after(60_000)).is_empty());
    assert_eq!(tasks(&fleet.after(5 * 60_000)).len(), 2);
}

#[test]
fn one_success_makes_good_what_failed_before() {
    let mut fleet = Fleet::new();
    let (stream, _) = fleet.worker("w1");
    for _ in 0..4 {
        let mut effects = fleet.submit(NewJob { max_attempts: 50, ..search(5) });
        for _ in 0..4 {
            own_fault(&mut fleet, stream, &task(&effects));
            effects = fleet.after(60_000);
        }
        fleet.report(stream, covered(&task(&effects)));
    }
    assert_eq!(status(&fleet, "w1"), WorkerState::Idle);
}

#[test]
fn work_that_fails_by_its_own_fault_sets_nobody_aside() {
    let mut fleet = Fleet::new();
    let (stream, _) = fleet.worker("w1");
    for _ in 0..20 {
        let task = task(&fleet.submit(NewJob { max_attempts: 1, ..echo() }));
        fleet.break_it(stream, &task, true);
    }
    assert_eq!(status(&fleet, "w1"), WorkerState::Idle);
}

#[test]
fn units_that_are_lost_together_are_one_fault() {
    let mut fleet = Fleet::new();
    let slots = std::collections::BTreeMap::from([(flota_proto::Class::Echo, 100)]);
    fleet.worker_as(flota_proto::mqtt::Register { slots, ..register("w1") });
    for _ in 0..100 {
        fleet.submit(echo());
    }
    fleet.after(5_001);
    assert_eq!(status(&fleet, "w1"), WorkerState::Idle);
}

#[test]
fn a_unit_that_kills_its_worker_is_stopped_after_its_tries_and_says_so() {
    let mut fleet = Fleet::new();
    let job = search(5);
    let id = job.id;
    fleet.submit(job);
    for (index, name) in ["w1", "w2", "w3"].into_iter().enumerate() {
        let (stream, effects) = fleet.worker(name);
        fleet.accept(stream, &task(&effects));
        fleet.handle(Input::Close(stream)).unwrap();
        let gone = WorkerStatus {
            worker_id: worker(name),
            status: WorkerState::Offline,
            timestamp: Timestamp(0),
            boot_id: "1".into(),
            slots: Default::default(),
            running: Default::default(),
            hashrate: None,
            algorithms: std::collections::BTreeMap::new(),
            load: None,
            randomx: None,
        };
        let effects = fleet.handle(Input::Status(gone)).unwrap();
        assert_eq!(ended_as(&effects), [AttemptOutcome::LeaseExpired], "{index}");
    }
    let view = fleet.core.job_view(id).unwrap();
    let error = view.error.unwrap();
    assert_eq!((view.state, view.failures, error.code.as_str()), (JobState::Failed, 3, "worker_died"));
    assert!(error.message.contains("w3 died"), "{}", error.message);
}

#[test]
fn work_goes_first_to_a_worker_with_the_dataset_then_to_one_that_is_warm() {
    let mut fleet = Fleet::new();
    let (_, _) = fleet.worker("cold");
    let (warm, _) = fleet.worker("warm");
    let (ready, _) = fleet.worker("ready");
    for stream in [warm, ready] {
        let heartbeat = Heartbeat { warm_keys: vec!["6b".into()], ..Heartbeat::default() };
        fleet.report(stream, Report { heartbeat: Some(heartbeat), ..Report::default() });
    }
    let datasets = vec!["6b".to_owned()];
    let state = WorkerStatus {
        worker_id: worker("ready"),
        status: WorkerState::Idle,
        timestamp: Timestamp(0),
        boot_id: "1".into(),
        slots: Default::default(),
        running: Default::default(),
        hashrate: None,
        algorithms: std::collections::BTreeMap::new(),
        load: None,
        randomx: Some(Box::new(RandomxState { datasets, ..RandomxState::default() })),
    };
    fleet.handle(Input::Status(state)).unwrap();
    let order: Vec<String> = (0..3)
        .map(|_| {
            let hash = job(Kind::Hash(Algorithm::Randomx), Work::List(1));
            task(&fleet.submit(NewJob { randomx_key: Some(b"k".to_vec()), ..hash })).worker.to_string()
        })
        .collect();
    assert_eq!(order, ["ready", "warm", "cold"]);
}
