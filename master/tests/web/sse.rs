//! `GET /jobs/{id}/events`.

use flota_proto::JobId;
use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::server::{Server, config, problem, until};

async fn submit(server: &Server) -> JobId {
    let job = server.submit(&json!({ "kind": "echo", "payload": { "value": 1 } })).await;
    job["id"].as_str().unwrap().parse().unwrap()
}

/// `(id, event, data)` of each event in the text.
fn events(text: &str) -> Vec<(u64, String, Value)> {
    let field = |block: &str, name: &str| {
        let line = block.lines().find_map(|line| line.strip_prefix(&format!("{name}: "))).unwrap_or_default();
        line.to_owned()
    };
    let blocks = text.split("\n\n").filter(|block| block.contains("data:"));
    blocks
        .map(|block| {
            let data = serde_json::from_str(&field(block, "data")).unwrap();
            (field(block, "id").parse().unwrap(), field(block, "event"), data)
        })
        .collect()
}

#[tokio::test]
async fn the_stream_tells_what_was_and_what_comes_and_closes_after_the_end() {
    let server = Server::start().await;
    let job = submit(&server).await;
    let response = server.get(&format!("/api/v1/jobs/{job}/events")).send().await.unwrap();
    assert!(response.headers()["content-type"].to_str().unwrap().starts_with("text/event-stream"));
    server.fake.compute(job);
    server.fake.delta(job, "Hel\nlo");
    server.fake.complete(job, &json!({ "value": 1 }));
    let told = events(&response.text().await.unwrap());
    let types: Vec<_> = told.iter().map(|(_, event, _)| event.as_str()).collect();
    assert_eq!(types, ["pending", "computing", "delta", "completed"]);
    let (id, event, data) = &told[2];
    assert_eq!((*id, &data["seq"], &data["attempt"]), (3, &json!(3), &json!(1)));
    assert_eq!((&data["type"], &data["data"]), (&json!(event), &json!({ "text": "Hel\nlo" })));
    assert!(data["timestamp"].is_u64());
}

#[tokio::test]
async fn a_resume_goes_on_after_the_last_event_and_ends_with_204() {
    let server = Server::start().await;
    let job = submit(&server).await;
    server.fake.compute(job);
    server.fake.complete(job, &json!({ "value": 1 }));
    let from =
        |last: &'static str| server.get(&format!("/api/v1/jobs/{job}/events")).header("Last-Event-ID", last).send();
    let rest = events(&from("1").await.unwrap().text().await.unwrap());
    assert_eq!(rest.iter().map(|(id, _, _)| *id).collect::<Vec<_>>(), [2, 3]);
    let nothing = from("3").await.unwrap();
    assert_eq!(nothing.status(), StatusCode::NO_CONTENT);
    assert_eq!(nothing.text().await.unwrap(), "");
    assert_eq!(problem(from("x").await.unwrap(), 400, "bad_header").await["field"], "Last-Event-ID");
    let all = server.get(&format!("/api/v1/jobs/{job}/events")).send().await.unwrap().text().await.unwrap();
    assert_eq!(events(&all).len(), 3);
}

#[tokio::test]
async fn a_reader_that_was_cut_off_misses_nothing_and_hears_nothing_twice() {
    let server = Server::start().await;
    let job = submit(&server).await;
    let response = server.get(&format!("/api/v1/jobs/{job}/events")).send().await.unwrap();
    server.fake.compute(job);
    server.fake.cut_off(job);
    server.fake.delta(job, "missed");
    let fake = server.fake.clone();
    until("it reads again", || fake.readers(job) == 1).await;
    server.fake.complete(job, &json!({ "value": 1 }));
    let told = events(&response.text().await.unwrap());
    assert_eq!(told.iter().map(|(id, _, _)| *id).collect::<Vec<_>>(), [1, 2, 3, 4]);
}

#[tokio::test]
async fn a_reader_that_leaves_is_let_go() {
    let server = Server::start().await;
    let job = submit(&server).await;
    let response = server.get(&format!("/api/v1/jobs/{job}/events")).send().await.unwrap();
    let fake = server.fake.clone();
    until("it reads", || fake.readers(job) == 1).await;
    drop(response);
    until("it is gone", || fake.readers(job) == 0).await;
}

#[tokio::test]
async fn more_streams_than_there_is_room_for_are_told_when_to_come_again() {
    let server = Server::with(flota_master::web::WebConfig { streams_max: 1, ..config() }).await.unwrap();
    let job = submit(&server).await;
    let events = format!("/api/v1/jobs/{job}/events");
    let open = server.get(&events).send().await.unwrap();
    for path in [events.clone(), format!("/api/v1/jobs/{job}?wait_ms=1000")] {
        let refused = server.get(&path).send().await.unwrap();
        assert_eq!(refused.headers()["retry-after"], "5");
        problem(refused, 503, "too_many_streams").await;
    }
    assert_eq!(server.get(&format!("/api/v1/jobs/{job}")).send().await.unwrap().status(), StatusCode::OK);
    drop(open);
    let fake = server.fake.clone();
    until("the first is gone", || fake.readers(job) == 0).await;
    let again = async {
        while server.get(&events).send().await.unwrap().status() != StatusCode::OK {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(crate::server::DEADLINE, again).await.unwrap();
}

#[tokio::test]
async fn the_log_is_told_from_its_last_lines_on() {
    let server = Server::start().await;
    server.logs.receive(crate::server::line("an old line"));
    let mut response = server.get("/api/v1/logs").send().await.unwrap();
    server.logs.receive(crate::server::line("a new line"));
    let mut text = String::new();
    let told = async {
        while !text.contains("a new line") {
            text += &String::from_utf8_lossy(&response.chunk().await.unwrap().unwrap());
        }
    };
    tokio::time::timeout(crate::server::DEADLINE, told).await.unwrap();
    assert!(text.find("an old line") < text.find("a new line"), "{text}");
    let data = text.lines().find_map(|line| line.strip_prefix("data: ")).unwrap();
    let line: Value = serde_json::from_str(data).unwrap();
    assert_eq!((&line["source"], &line["worker_id"]), (&json!("w-1"), &json!("w-1")));
}
