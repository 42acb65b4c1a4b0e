//! A disk that is full: nothing new is accepted, with a clear error; what is there stays and can be read; with space again it goes
//! on by itself. On a file system of its own, which needs root.

use flota_tests::chaos::Disk;
use flota_tests::{Node, node::workers_ready, until};
use serde_json::json;

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_stops_accepting_keeps_what_is_there_and_recovers_by_itself() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("store");
    let disk = match Disk::mount(&path) {
        Ok(disk) => disk,
        Err(error) => return eprintln!("SKIPPED: no file system of its own for the store: {error:#}"),
    };
    let store = format!("sqlite:{}", path.join("flota.db").display());
    let fleet = Node::up().with("FLOTA_STORE_URL", store).with("FLOTA_STORE_RESERVE", "off").start().await;
    let rest = fleet.rest();
    workers_ready(&rest, 1).await;
    let before = rest.batch((0..200).map(|n| json!({"kind": "echo", "payload": {"value": n}})).collect()).await;
    for job in &before {
        rest.completed(job).await;
    }
    let long = rest.echo("runs on", 2_000).await;
    rest.reaches(&long, &["computing"]).await;

    disk.fill();
    let echo = json!({"kind": "echo", "payload": {"value": "x".repeat(300)}});
    // The log of the database may still have some room of its own.
    let refused = until("a job is refused", || async {
        let answer = rest.post("/jobs", &echo).await;
        if answer.status == 503 { Ok(answer) } else { Err(answer.status) }
    })
    .await;
    assert_eq!(refused.body["code"], "store_full", "{}", refused.text);
    assert!(!refused.header("retry-after").is_empty());
    assert!(refused.body["detail"].as_str().is_some_and(|detail| detail.contains("full")), "{}", refused.text);
    for job in before.iter().take(20) {
        assert_eq!(rest.job(job).await["state"], "completed", "what is there can be read");
    }
    assert!(fleet.process().status().is_none(), "{}", fleet.log());

    disk.free();
    let after = until("a job is accepted again", || async {
        let answer = rest.post("/jobs", &echo).await;
        if answer.status == 201 {
            Ok(answer.body["id"].as_str().unwrap_or_default().to_owned())
        } else {
            Err(answer.text)
        }
    })
    .await;
    rest.completed(&after).await;
    assert_eq!(rest.completed(&long).await["result"], json!({"value": "runs on"}));
    for job in &before {
        assert_eq!(rest.job(job).await["state"], "completed");
    }
}
