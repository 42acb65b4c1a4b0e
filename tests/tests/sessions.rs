//! Socket.IO sessions over restarts of the master: each question is answered once to who comes back.

use flota_tests::socket::Socket;
use flota_tests::{Mosquitto, Node, node::workers_ready, until};
use serde_json::{Value, json};

async fn ask(socket: &mut Socket, query: &str) -> String {
    let ack = socket.ask("user-query", &json!({"query": query, "model": "demo"})).await;
    ack["jobId"].as_str().unwrap_or_else(|| panic!("not accepted: {ack}")).to_owned()
}

/// What a session is opened with.
fn resume(socket: &Socket) -> Value {
    json!({"sessionId": socket.session, "secret": socket.secret})
}

/// A new connection that has resumed the session.
async fn back(node: &Node, resume: &Value) -> Socket {
    let mut socket = Socket::connect(node.web_port).await;
    let ack = socket.ask("session-resume", resume).await;
    assert_eq!(ack, json!({"sessionId": resume["sessionId"]}));
    socket
}

/// The next answers are to these questions, once each, and no others come.
async fn hears(socket: &mut Socket, jobs: &[&str]) {
    let mut heard = Vec::new();
    for _ in jobs {
        let answer = socket.event("ai-response").await;
        assert_eq!(answer["finish"], "complete", "{answer}");
        heard.push(answer["jobId"].as_str().unwrap_or_default().to_owned());
    }
    heard.sort();
    let mut expected = jobs.to_vec();
    expected.sort_unstable();
    assert_eq!(heard, expected);
    // What ends at once, and is told behind what was there before.
    let last = ask(socket, "is that all?").await;
    socket.ask("job-cancel", &json!({"jobId": last})).await;
    assert_eq!(socket.event("ai-response").await["jobId"], last.as_str(), "something was answered twice");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_question_that_was_asked_before_the_master_was_killed_is_answered_once() {
    let broker = Mosquitto::start().await;
    let mut master = Node::master(&broker.url()).start().await;
    let mut socket = Socket::connect(master.web_port).await;
    let session = resume(&socket);
    let idle = resume(&Socket::connect(master.web_port).await);
    let open = ask(&mut socket, "is anybody there?").await;
    // kill -9, then an orderly stop.
    for first in [true, false] {
        if first {
            master.kill()
        } else {
            assert!(master.stop().await.success(), "{}", master.log())
        }
        master.start_again().await;
        let mut thief = Socket::connect(master.web_port).await;
        for secret in [thief.secret.clone(), String::new()] {
            let wrong = json!({"sessionId": session["sessionId"], "secret": secret});
            let refused = thief.ask("session-resume", &wrong).await;
            assert_eq!(
                (&refused["error"]["code"], &refused["error"]["status"]),
                (&json!("unknown_session"), &json!(404))
            );
        }
    }
    back(&master, &idle).await;
    let _worker = Node::worker("w1", &broker.url()).start().await;
    hears(&mut back(&master, &session).await, &[&open]).await;
    hears(&mut back(&master, &session).await, &[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_came_while_nobody_was_there_outlives_the_master() {
    let mut fleet = Node::up().start().await;
    let rest = fleet.rest();
    workers_ready(&rest, 1).await;
    let mut socket = Socket::connect(fleet.web_port).await;
    let session = resume(&socket);
    let heard = ask(&mut socket, "what is heard?").await;
    hears(&mut socket, &[&heard]).await;

    // They wait until this one ends, which no worker takes.
    let nobody = json!({"worker_id": "nobody"});
    let echo = |after: &str| json!({"kind": "echo", "payload": {"value": 1}, "depends_on": [after], "on_dependency_failure": "continue"});
    let gate = rest.submit(json!({"kind": "echo", "payload": {"value": 1}, "requires": nobody})).await;
    let later = rest.submit(json!({"kind": "echo", "payload": {"value": 1}, "requires": nobody})).await;
    let question = json!({
        "kind": "ai.chat", "payload": {"messages": [{"role": "user", "content": "missed?"}], "model": "demo"},
        "depends_on": [gate], "on_dependency_failure": "continue",
    });
    let missed = socket.ask("job-submit", &question).await["jobId"].as_str().unwrap().to_owned();
    let followed = socket.ask("job-submit", &echo(&later)).await["jobId"].clone();
    drop(socket);
    until("the browser has gone", || async {
        let text = rest.get("//metrics").await.text;
        let clients = text.lines().find(|line| line.starts_with("flota_socket_clients ")).map(str::to_owned);
        if clients.as_deref() == Some("flota_socket_clients 0") { Ok(()) } else { Err(clients) }
    })
    .await;
    rest.post(&format!("/jobs/{gate}/cancel"), &json!({})).await.expect(200);
    rest.completed(&missed).await;
    fleet.kill();
    fleet.start_again().await;

    let mut socket = back(&fleet, &session).await;
    hears(&mut socket, &[&missed]).await;
    rest.post(&format!("/jobs/{later}/cancel"), &json!({})).await.expect(200);
    loop {
        let event = socket.event("job-event").await;
        if event["jobId"] == followed && event["type"] == "completed" {
            break;
        }
    }
    let mut second = back(&fleet, &session).await;
    hears(&mut second, &[]).await;
    // A browser that does not answer holds up an orderly stop for a while.
    drop((socket, second));
    assert!(fleet.stop().await.success(), "{}", fleet.log());
    fleet.start_again().await;
    hears(&mut back(&fleet, &session).await, &[]).await;
}
