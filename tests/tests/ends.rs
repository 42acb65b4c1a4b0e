//! How processes end: the first signal in order, the second at once; both lose nothing.

use std::collections::BTreeSet;
use std::os::unix::process::ExitStatusExt;

use flota_tests::{Mosquitto, Node, Rest, node::workers_ready};
use serde_json::{Value, json};

/// Outcomes of the attempts of a job's one unit, in order.
async fn outcomes(rest: &Rest, job: &str) -> Vec<String> {
    let units = rest.units(job).await;
    let attempts = units[0]["attempts"].as_array().cloned().unwrap_or_default();
    attempts.iter().map(|attempt| attempt["outcome"].as_str().unwrap_or_default().to_owned()).collect()
}

async fn fleet() -> (Mosquitto, Node, Node, Rest) {
    let broker = Mosquitto::start().await;
    let master = Node::master(&broker.url()).start().await;
    let worker = Node::worker("w1", &broker.url()).with("FLOTA_WORKER_SLOTS", "echo=2").start().await;
    let rest = master.rest();
    workers_ready(&rest, 1).await;
    (broker, master, worker, rest)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_is_told_to_end_finishes_what_runs_and_hands_back_what_waits() {
    let (broker, _master, worker, rest) = fleet().await;
    let mut running = Vec::new();
    for n in 0..2 {
        running.push(rest.echo(n, 4_000).await);
    }
    for job in &running {
        rest.reaches(job, &["computing"]).await;
    }
    let waiting =
        rest.batch((0..5).map(|n| json!({"kind": "echo", "payload": {"value": n, "sleep_ms": 10}})).collect()).await;
    for job in &waiting {
        rest.reaches(job, &["assigned"]).await;
    }
    assert!(worker.stop().await.success(), "{}", worker.log());
    for job in &running {
        assert_eq!(rest.completed(job).await["failures"], 0);
        assert_eq!(outcomes(&rest, job).await, ["completed"], "what ran was to be finished within the grace period");
    }
    let _second = Node::worker("w2", &broker.url()).start().await;
    for job in &waiting {
        assert_eq!(rest.completed(job).await["failures"], 0, "a worker's orderly end is no failure of a job");
        let outcomes = outcomes(&rest, job).await;
        assert_eq!(outcomes.last().map(String::as_str), Some("completed"));
        assert!(outcomes[..outcomes.len() - 1].iter().all(|outcome| outcome == "returned"), "{outcomes:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_signal_ends_a_worker_at_once_and_its_unit_goes_to_another() {
    let (broker, _master, worker, rest) = fleet().await;
    let job = rest.echo("long", 8_000).await;
    rest.reaches(&job, &["computing"]).await;
    worker.process().signal("TERM");
    worker.process().printed("once more to end at once").await;
    assert!(worker.process().status().is_none(), "it was to go on with what runs: {}", worker.log());
    worker.process().signal("TERM");
    let status = worker.process().ended().await;
    assert_eq!(status.code(), Some(130), "{status:?} {:?}", status.signal());
    assert_ne!(rest.job(&job).await["state"], "completed");
    let _second = Node::worker("w2", &broker.url()).start().await;
    let ended = rest.completed(&job).await;
    assert_eq!(ended["result"], json!({"value": "long"}));
    assert_eq!(outcomes(&rest, &job).await.iter().filter(|outcome| *outcome == "completed").count(), 1);
}

/// Submits until the master refuses or is gone; gives the ids that were answered.
async fn submit_until_refused(rest: Rest) -> Vec<String> {
    let mut accepted = Vec::new();
    loop {
        let body = json!({"kind": "echo", "payload": {"value": accepted.len()}});
        let answer = rest.try_send(rest.request(reqwest::Method::POST, "/jobs").json(&body)).await;
        match answer {
            Ok(answer) if answer.status == 201 => {
                accepted.push(answer.body["id"].as_str().unwrap_or_default().to_owned());
            }
            Ok(_) | Err(_) => return accepted,
        }
    }
}

async fn all_are_there(rest: &Rest, accepted: &[String]) {
    let mut values = BTreeSet::new();
    for id in accepted {
        let ended = rest.completed(id).await;
        values.insert(ended["result"]["value"].as_u64());
    }
    assert_eq!(values.len(), accepted.len(), "each job has its own result");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_master_that_is_told_to_end_keeps_all_that_it_accepted_while_it_was_asked() {
    let (_broker, mut master, _worker, rest) = fleet().await;
    let submitting = tokio::spawn(submit_until_refused(rest.clone()));
    master.process().printed("worker w1 is connected").await;
    let some = rest.echo("some", 0).await;
    rest.completed(&some).await;
    assert!(master.stop().await.success(), "{}", master.log());
    let accepted = submitting.await.expect("the submitter ends");
    master.start_again().await;
    assert!(!accepted.is_empty());
    all_are_there(&rest, &accepted).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_signal_ends_a_master_at_once_and_loses_nothing() {
    let (_broker, mut master, _worker, rest) = fleet().await;
    let job = rest.echo("kept", 3_000).await;
    rest.reaches(&job, &["computing"]).await;
    // An open stream of events holds up the orderly end.
    let url = format!("{}/api/v1/jobs/{job}/events", master.url());
    let stream = tokio::spawn(async move { reqwest::get(url).await });
    master.process().signal("TERM");
    master.process().printed("once more to end at once").await;
    // It may have ended by itself by now.
    let again = format!("kill -TERM {}", master.process().id());
    let _ = std::process::Command::new("sh").args(["-c", &again]).status();
    let status = master.process().ended().await;
    assert!(matches!(status.code(), Some(0 | 130)), "{status:?}");
    stream.abort();
    master.start_again().await;
    let ended = rest.completed(&job).await;
    assert_eq!(ended["result"], json!({"value": "kept"}));
    let attempts: Vec<Value> = rest.units(&job).await[0]["attempts"].as_array().cloned().unwrap_or_default();
    assert_eq!(attempts.iter().filter(|attempt| attempt["outcome"] == "completed").count(), 1);
}
