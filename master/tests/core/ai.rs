//! What is particular about AI jobs: limits, budgets, models that nobody serves, results that are there already.

use std::collections::BTreeMap;

use bytes::Bytes;
use flota_master::ledger::{AiLimits, Budget, Rate, Spent, day_of};

use super::*;

fn limited(requests: u64) -> AiLimits {
    let rate = Rate { requests: Some(requests), tokens: None };
    AiLimits { rates: BTreeMap::from([("owner".to_owned(), rate)]), ..AiLimits::default() }
}

fn question() -> NewJob {
    NewJob { tokens: (100, 100), ..job(Kind::AiChat, Work::Single) }
}

const ANSWER: &str = r#"{"text":"x","model":"m","provider":"gemini","finish":"complete",
    "usage":{"input_tokens":10,"output_tokens":20,"thought_tokens":30}}"#;

/// A worker with room for many questions.
fn wide(id: &str) -> Register {
    Register { slots: BTreeMap::from([(Class::Ai, 100)]), ..register(id) }
}

fn code(fleet: &Fleet, id: flota_proto::JobId) -> String {
    fleet.core.job_view(id).unwrap().error.map(|error| error.code).unwrap_or_default()
}

#[test]
fn a_question_over_the_limit_waits_for_its_turn_and_has_it_then() {
    let mut fleet = Fleet::new();
    fleet.core.meter(limited(2), 0, Vec::new());
    let (stream, _) = fleet.worker_as(wide("w1"));
    let (mut ids, mut held) = (Vec::new(), Vec::new());
    for _ in 0..4 {
        let job = question();
        ids.push(job.id);
        for task in tasks(&fleet.submit(job)) {
            fleet.accept(stream, &task);
            held.push(task);
        }
    }
    let states: Vec<_> = ids.iter().map(|id| fleet.state(*id)).collect();
    assert_eq!(states, [JobState::Computing, JobState::Computing, JobState::Scheduled, JobState::Scheduled]);
    let waiting = fleet.core.job_view(ids[2]).unwrap().waiting.unwrap();
    assert_eq!(waiting.reason, "rate_limit");
    assert!(waiting.detail.contains("2 requests a minute"), "{}", waiting.detail);
    for task in held {
        fleet.report(stream, result(task.unit, task.attempt, ANSWER));
    }
    let effects = fleet.after(30_000);
    assert!(tasks(&effects).iter().any(|task| task.unit.job == ids[2]));
    assert_eq!(fleet.state(ids[3]), JobState::Scheduled);
    fleet.handle(Input::Cancel(ids[3])).unwrap();
    assert_eq!(fleet.core.job_view(ids[2]).unwrap().failures, 0);
    let demo = NewJob { model: Some("demo".into()), ..question() };
    assert_eq!(tasks(&fleet.submit(demo)).len(), 1, "the demo costs nobody anything");
    assert_eq!(tasks(&fleet.submit(NewJob { owner: "other".into(), ..question() })).len(), 1);
}

#[test]
fn a_question_that_no_worker_accepted_is_not_charged_twice() {
    let mut fleet = Fleet::new();
    fleet.core.meter(limited(1), 0, Vec::new());
    fleet.worker_as(wide("deaf"));
    let job = question();
    let id = job.id;
    fleet.submit(job);
    fleet.worker_as(wide("w2"));
    let effects = fleet.after(5_000);
    assert_eq!((tasks(&effects)[0].unit.job, tasks(&effects)[0].attempt), (id, 2));
}

#[test]
fn a_budget_that_does_not_hold_a_question_ends_it_before_it_is_sent() {
    let mut fleet = Fleet::new();
    let budget = Budget { tokens: Some(250), micros: None };
    let limits = AiLimits { budgets: BTreeMap::from([(String::new(), budget)]), ..AiLimits::default() };
    let before = vec![("local".to_owned(), Spent { tokens: 40, micros: 0 })];
    fleet.core.meter(limits, day_of(fleet.now), before);
    let (stream, _) = fleet.worker_as(wide("w1"));
    let (first, second) = (question(), question());
    let (owner, second_id) = (first.owner.clone(), second.id);
    let task = task(&fleet.submit(first));
    assert!(tasks(&fleet.submit(second)).is_empty());
    assert_eq!(code(&fleet, second_id), "budget_spent");
    let accepted = fleet.accept(stream, &task);
    assert!(acks(&accepted).is_empty());
    fleet.report(stream, result(task.unit, task.attempt, ANSWER));
    let used = fleet.core.account(fleet.now, task.unit.job).unwrap();
    assert_eq!((used.row.input_tokens, used.row.output_tokens, used.row.thought_tokens), (10, 20, 30));
    let spent = fleet.core.standing(fleet.now, &owner).1.tokens;
    assert_eq!(spent, if owner == "local" { 100 } else { 60 });
}

fn budget(tokens: u64) -> AiLimits {
    let budget = Budget { tokens: Some(tokens), micros: None };
    AiLimits { budgets: BTreeMap::from([(String::new(), budget)]), ..AiLimits::default() }
}

#[test]
fn a_budget_that_can_not_hold_a_question_refuses_it_when_it_comes() {
    let mut fleet = Fleet::new();
    let now = fleet.now;
    fleet.core.meter(budget(250), day_of(now), Vec::new());
    assert_eq!(fleet.core.over_budget(now, &question()), None);
    let unbounded = NewJob { tokens: (1, 0), ..question() };
    let error = fleet.core.over_budget(now, &unbounded).unwrap();
    assert_eq!(error.code, "budget_spent", "its answer may be of any length");
    let embed = |tokens| NewJob { tokens: (tokens, 0), ..job(Kind::AiEmbed, Work::Single) };
    assert_eq!(fleet.core.over_budget(now, &embed(250)), None, "vectors are no output");
    assert!(fleet.core.over_budget(now, &embed(251)).is_some());
    let demo = NewJob { model: Some("demo".into()), ..unbounded.clone() };
    assert_eq!(fleet.core.over_budget(now, &demo), None);
    let own = NewJob { api_key: Some("k".into()), ..unbounded.clone() };
    assert_eq!(fleet.core.over_budget(now, &own), None);

    fleet.worker_as(wide("w1"));
    let id = unbounded.id;
    assert!(tasks(&fleet.submit(unbounded)).is_empty());
    assert_eq!(code(&fleet, id), "budget_spent", "where it is asked later, the same is said");
}

#[test]
fn a_question_with_a_key_of_its_own_uses_nothing_of_the_fleets_that_is_not_set_aside() {
    let mut fleet = Fleet::new();
    let now = fleet.now;
    fleet.core.meter(budget(250), day_of(now), Vec::new());
    let (stream, _) = fleet.worker_as(wide("w1"));
    let own = || NewJob { api_key: Some("k".into()), ..question() };
    let asked: Vec<_> = (0..2).map(|_| task(&fleet.submit(own()))).collect();
    assert_eq!([asked[0].own_key_only, asked[1].own_key_only], [false, true]);
    assert!(asked.iter().all(|task| task.credential));
    let by_local = ANSWER.replace("gemini", "local");
    for (task, answer, paid_by_own, spent) in [(&asked[0], by_local.as_str(), false, 60), (&asked[1], ANSWER, true, 60)]
    {
        fleet.accept(stream, task);
        fleet.report(stream, result(task.unit, task.attempt, answer));
        let row = fleet.core.account(now, task.unit.job).unwrap().row;
        assert_eq!((row.own_key, row.requests), (paid_by_own, 1), "{answer}");
        assert_eq!(fleet.core.standing(now, "ann").1.tokens, spent);
    }
}

#[test]
fn embeddings_and_echoes_of_a_wrong_shape_are_failed_attempts_of_their_worker() {
    let embed = NewJob { texts: 2, max_attempts: 2, ..job(Kind::AiEmbed, Work::Single) };
    let echo = NewJob { max_attempts: 2, ..echo() };
    for (job, wrong) in [(embed, r#"{"vectors":[],"model":"m"}"#), (echo, "null")] {
        let mut fleet = Fleet::new();
        let (stream, _) = fleet.worker("w1");
        let id = job.id;
        let mut effects = fleet.submit(job);
        for failures in 1..=2 {
            let task = task(&effects);
            fleet.accept(stream, &task);
            effects = fleet.report(stream, result(task.unit, task.attempt, wrong));
            assert_eq!(ended_as(&effects), [AttemptOutcome::Failed]);
            assert_eq!(fleet.core.job_view(id).unwrap().failures, failures);
            if failures == 1 {
                effects.extend(fleet.after(5_000));
            }
        }
        assert_eq!((fleet.state(id), code(&fleet, id).as_str()), (JobState::Failed, "bad_result"));
    }
}

#[test]
fn a_question_for_a_model_that_nobody_serves_ends_when_others_are_there() {
    let mut fleet = Fleet::new();
    let lonely = NewJob { model: Some("none such".into()), ..question() };
    let id = lonely.id;
    fleet.core.check_model(&lonely).unwrap();
    fleet.submit(lonely.clone());
    fleet.after(3_600_000);
    assert_eq!(fleet.state(id), JobState::Pending, "while nobody is there, it waits");
    fleet.worker_as(Register { models: vec!["gemini".into(), "demo".into()], ..wide("w1") });
    let error = fleet.core.check_model(&lonely).unwrap_err();
    assert!(error.message.contains("there are demo, gemini"), "{error}");
    assert_eq!(fleet.state(id), JobState::Pending, "one that serves it may come");
    fleet.after(60_000);
    assert_eq!((fleet.state(id), code(&fleet, id).as_str()), (JobState::Failed, "model_not_served"));
}

#[test]
fn who_asks_the_same_shares_the_result_or_is_asked_itself() {
    for completes in [true, false] {
        let mut fleet = Fleet::new();
        let (stream, _) = fleet.worker_as(wide("w1"));
        let first = question();
        let leader = first.id;
        let task = task(&fleet.submit(first));
        let second = NewJob {
            shares: Some(leader),
            depends_on: vec![leader],
            on_dependency_failure: OnDependencyFailure::Continue,
            ..question()
        };
        let follower = second.id;
        assert!(tasks(&fleet.submit(second)).is_empty());
        assert_eq!(fleet.state(follower), JobState::Blocked);
        fleet.accept(stream, &task);
        let effects = if completes {
            fleet.report(stream, result(task.unit, task.attempt, ANSWER))
        } else {
            fleet.handle(Input::Cancel(leader)).unwrap()
        };
        if completes {
            let (one, other) = (fleet.core.job_view(leader).unwrap(), fleet.core.job_view(follower).unwrap());
            assert_eq!(other.state, JobState::Completed);
            assert_eq!(other.result.unwrap().get(), one.result.unwrap().get());
            assert_eq!(fleet.core.account(fleet.now, follower).unwrap().row.cached, 1);
        } else {
            assert_eq!(tasks(&effects)[0].unit.job, follower);
        }
    }
}

#[test]
fn a_job_whose_result_is_there_ends_at_once_and_once() {
    let mut fleet = Fleet::new();
    let kinds = [(Kind::AiChat, Work::Single), (Kind::Hash(flota_proto::Algorithm::Randomx), Work::List(3))];
    for (kind, work) in kinds {
        let new = NewJob { ready: Some(Bytes::from_static(b"{\"a\":1}")), ..job(kind, work) };
        let id = new.id;
        let effects = fleet.submit(new);
        let ends = effects.iter().filter(|effect| matches!(effect, Effect::Ended(ended) if *ended == id)).count();
        assert_eq!((ends, fleet.state(id)), (1, JobState::Completed));
        let view = fleet.core.job_view(id).unwrap();
        assert_eq!((view.result.unwrap().get(), view.progress.fraction), ("{\"a\":1}", 1.0));
        assert!(fleet.handle(Input::Cancel(id)).is_err());
    }
}
