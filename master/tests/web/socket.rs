//! Socket.IO word by word.

use std::time::Duration;

use flota_proto::JobId;
use secrecy::SecretString;
use serde_json::{Value, json};

use crate::fake::{Fake, Held, worker};
use crate::server::{Server, config, line, until};
use crate::ws::Socket;

fn job_id(value: &Value) -> JobId {
    value["jobId"].as_str().unwrap_or_else(|| panic!("no jobId in {value}")).parse().unwrap()
}

#[tokio::test]
async fn a_client_is_told_its_session_first_of_all() {
    let server = Server::start().await;
    let mut socket = Socket::open(&server, &json!({}), None).await.unwrap();
    let (name, id) = socket.next().await;
    assert_eq!(name, "session-id");
    assert_eq!(id.as_str().unwrap().parse::<uuid::Uuid>().unwrap().get_version_num(), 4);
    let (name, secret) = socket.next().await;
    assert_eq!(name, "session-secret");
    assert!(secret.as_str().unwrap().len() >= 32);
}

#[tokio::test]
async fn a_page_that_knows_only_four_events_works() {
    let server = Server::start().await;
    server.fake.world().position = Some(3);
    let mut socket = Socket::connect(&server).await;
    socket.emit("user-query", &json!({ "query": "hello?", "apiKey": "" })).await;
    let queued = socket.event("task-queued").await;
    assert_eq!(queued["position"], 3);
    let job = job_id(&queued);
    server.fake.compute(job);
    server.fake.answer(job, "hello!");
    let response = socket.event("ai-response").await;
    let expected = json!({
        "query": "hello?", "response": "hello!", "workerId": "w-1", "processingTime": 10, "jobId": job, "model": "m",
        "provider": "demo", "finish": "complete",
        "usage": { "input_tokens": 3, "output_tokens": 5, "thought_tokens": 0 },
        "timestamp": response["timestamp"].as_u64().unwrap(),
    });
    assert_eq!(response, expected);
    let stored = server.fake.jobs().pop().unwrap();
    assert_eq!(stored.owner, socket.id);
    assert_eq!(server.fake.api_key(job), None);
    assert!(socket.settled().await.iter().all(|(name, _)| name != "ai-response" && name != "task-queued"));
}

#[tokio::test]
async fn without_a_queue_nothing_is_queued_and_the_text_comes_before_the_answer() {
    let server = Server::start().await;
    let mut socket = Socket::connect(&server).await;
    let ack = socket.ask("user-query", &json!({ "query": "q", "apiKey": "k-9", "model": "m" })).await;
    let job = job_id(&ack);
    assert_eq!(server.fake.api_key(job).as_deref(), Some("k-9"));
    let fake = server.fake.clone();
    until("it is followed", || fake.readers(job) == 1).await;
    server.fake.compute(job);
    let words: Vec<_> = (0..200).map(|n| format!("{n} ")).collect();
    for word in &words {
        server.fake.delta(job, word);
    }
    server.fake.answer(job, &words.concat());
    let (mut text, mut deltas, mut types) = (String::new(), 0, Vec::new());
    let response = loop {
        match socket.next().await {
            (name, event) if name == "job-event" => {
                assert_eq!(job_id(&event), job);
                if event["type"] == "delta" {
                    text.push_str(event["data"]["text"].as_str().unwrap());
                    deltas += 1;
                } else {
                    types.push(event["type"].as_str().unwrap().to_owned());
                }
            }
            (name, response) => {
                assert_eq!(name, "ai-response");
                break response;
            }
        }
    };
    assert_eq!(types, ["pending", "computing", "completed"]);
    assert_eq!(text, response["response"].as_str().unwrap());
    assert!(deltas < 20, "{deltas} events for 200 deltas");
}

#[tokio::test]
async fn a_question_that_failed_or_was_cancelled_is_answered_too() {
    let server = Server::start().await;
    let mut socket = Socket::connect(&server).await;
    let failed = job_id(&socket.ask("user-query", &json!({ "query": "a" })).await);
    server.fake.fail(failed, "timeout", "the attempt took longer than 120 s");
    let response = socket.event("ai-response").await;
    assert_eq!((&response["finish"], &response["query"]), (&json!("error"), &json!("a")));
    assert!(response["response"].as_str().unwrap().contains("longer than 120 s"));
    assert_eq!(response["error"], json!({ "code": "timeout", "message": "the attempt took longer than 120 s" }));
    let cancelled = job_id(&socket.ask("user-query", &json!({ "query": "b" })).await);
    let ack = socket.ask("job-cancel", &json!({ "jobId": cancelled })).await;
    assert_eq!(ack["job"]["state"], "cancelled");
    let response = socket.event("ai-response").await;
    assert_eq!((job_id(&response), &response["error"]["code"]), (cancelled, &json!("cancelled")));
    let again = socket.ask("job-cancel", &json!({ "jobId": cancelled })).await;
    assert_eq!(again["error"]["code"], "job_ended");
}

#[tokio::test]
async fn a_question_that_is_refused_is_answered_with_the_error() {
    let server = Server::start().await;
    let mut socket = Socket::connect(&server).await;
    for (payload, path) in [
        (json!("hello"), ""),
        (Value::Null, ""),
        (json!([1]), ""),
        (json!({}), "query"),
        (json!({ "query": 7 }), "query"),
        (json!({ "query": " " }), "query"),
        (json!({ "query": "x", "apiKey": 7 }), "apiKey"),
        (json!({ "query": "x", "colour": 7 }), "colour"),
        (json!({ "query": "x", "model": "m".repeat(201) }), "model"),
    ] {
        let ack = socket.ask("user-query", &payload).await;
        let response = socket.event("ai-response").await;
        assert_eq!((&response["finish"], &response["jobId"]), (&json!("error"), &Value::Null), "{payload}");
        assert_eq!(response["error"]["code"], "invalid_field");
        assert!(response["response"].as_str().is_some_and(|text| !text.is_empty()));
        assert_eq!(response["query"], payload["query"].as_str().unwrap_or_default());
        assert_eq!(ack["error"]["field"].as_str().unwrap_or_default(), path, "{payload}");
    }
    server.fake.world().busy = true;
    socket.emit("user-query", &json!({ "query": "x" })).await;
    assert_eq!(socket.event("ai-response").await["error"]["code"], "busy");
    assert!(socket.settled().await.is_empty());
    assert!(server.fake.jobs().is_empty());
}

#[tokio::test]
async fn what_is_wrong_is_never_met_with_silence() {
    let server = Server::start().await;
    let mut socket = Socket::connect(&server).await;
    for event in ["job-submit", "job-cancel", "job-subscribe", "session-resume"] {
        for payload in [json!("text"), json!(7), json!([]), Value::Null, json!({ "x": 1 })] {
            let ack = socket.ask(event, &payload).await;
            assert!(ack["error"]["code"].is_string(), "{event} {payload}: {ack}");
            assert!(ack["error"]["message"].is_string(), "{event} {payload}: {ack}");
        }
    }
    socket.emit("job-subscribe", &json!({ "jobId": "x" })).await;
    let error = socket.event("error").await;
    assert_eq!((&error["event"], &error["error"]["field"]), (&json!("job-subscribe"), &json!("jobId")));
    socket.raw(r#"42["job-cancel"]"#).await;
    assert_eq!(socket.event("error").await["event"], "job-cancel");
    let unknown = socket.ask("job-subscribe", &json!({ "jobId": JobId::generate() })).await;
    assert_eq!(unknown["error"]["code"], "not_found");
    assert_eq!(socket.ask("bake-bread", &json!({})).await["error"]["code"], "unknown_event");
}

#[tokio::test]
async fn a_job_of_any_kind_can_be_submitted_and_followed() {
    let server = Server::start().await;
    let mut socket = Socket::connect(&server).await;
    let body = json!({ "kind": "echo", "payload": { "value": 1 }, "priority": 9, "apiKey": "k" });
    let ack = socket.ask("job-submit", &body).await;
    let job = job_id(&ack);
    assert_eq!(server.fake.api_key(job).as_deref(), Some("k"));
    assert_eq!(server.fake.jobs()[0].priority, 9);
    server.fake.complete(job, &json!({ "value": 1 }));
    let types = async {
        let mut types = Vec::new();
        while types.last().is_none_or(|last| last != "completed") {
            types.push(socket.event("job-event").await["type"].as_str().unwrap().to_owned());
        }
        types
    };
    assert_eq!(types.await, ["pending", "completed"]);
    assert!(socket.settled().await.iter().all(|(name, _)| name != "ai-response"));
    let wrong = socket.ask("job-submit", &json!({ "kind": "echo", "payload": {} })).await;
    assert_eq!(wrong["error"]["field"], "payload.value");
}

#[tokio::test]
async fn a_subscription_begins_where_the_client_says() {
    let server = Server::start().await;
    let mut owner = Socket::connect(&server).await;
    let job = job_id(&owner.ask("job-submit", &json!({ "kind": "echo", "payload": { "value": 1 } })).await);
    server.fake.compute(job);
    let mut other = Socket::connect(&server).await;
    assert_eq!(job_id(&other.ask("job-subscribe", &json!({ "jobId": job, "lastSeq": 1 })).await), job);
    let event = other.event("job-event").await;
    assert_eq!((&event["seq"], &event["type"]), (&json!(2), &json!("computing")));
    assert_eq!(event["data"], json!({ "worker_id": "w-1" }));
    other.ask("job-subscribe", &json!({ "jobId": job })).await;
    assert_eq!(other.event("job-event").await["seq"], 1);
    server.fake.complete(job, &json!({ "value": 1 }));
    while other.event("job-event").await["type"] != "completed" {}
}

#[tokio::test]
async fn who_comes_back_gets_what_was_missed_once() {
    let server = Server::start().await;
    let mut first = Socket::connect(&server).await;
    let (id, secret) = (first.id.clone(), first.secret.clone());
    let answered = job_id(&first.ask("user-query", &json!({ "query": "one" })).await);
    server.fake.answer(answered, "1");
    assert_eq!(first.event("ai-response").await["response"], "1");
    let missed = job_id(&first.ask("user-query", &json!({ "query": "two" })).await);
    let open = job_id(&first.ask("user-query", &json!({ "query": "three" })).await);
    let fake = server.fake.clone();
    until("both are followed", || fake.readers(missed) == 1 && fake.readers(open) == 1).await;
    first.close().await;
    until("nobody reads", || fake.readers(missed) + fake.readers(open) == 0).await;
    server.fake.compute(missed);
    server.fake.answer(missed, "2");

    let mut second = Socket::connect(&server).await;
    for wrong in [json!({ "sessionId": id, "secret": second.secret }), json!({ "sessionId": "x", "secret": secret })] {
        assert_eq!(second.ask("session-resume", &wrong).await["error"]["code"], "unknown_session");
    }
    let resume = json!({ "sessionId": id, "secret": secret });
    assert_eq!(second.ask("session-resume", &resume).await, json!({ "sessionId": id }));
    let response = second.event("ai-response").await;
    assert_eq!((&response["response"], &response["query"]), (&json!("2"), &json!("two")));
    assert_eq!(second.ask("session-resume", &resume).await["sessionId"], json!(id), "again changes nothing");
    server.fake.answer(open, "3");
    assert_eq!(second.event("ai-response").await["response"], "3");
    let asked = job_id(&second.ask("user-query", &json!({ "query": "four" })).await);
    assert_eq!(server.fake.jobs().iter().find(|job| job.id == asked).unwrap().owner, id);
    second.close().await;

    let mut third = Socket::connect(&server).await;
    third.ask("session-resume", &resume).await;
    server.fake.answer(asked, "4");
    assert_eq!(third.event("ai-response").await["response"], "4");
    assert!(third.settled().await.iter().all(|(name, _)| name != "ai-response"));
}

#[tokio::test]
async fn a_session_outlives_the_master_and_is_answered_once() {
    let server = Server::start().await;
    let mut first = Socket::connect(&server).await;
    let id: uuid::Uuid = first.id.parse().unwrap();
    let resume = json!({ "sessionId": first.id, "secret": first.secret });
    let heard = job_id(&first.ask("user-query", &json!({ "query": "heard" })).await);
    server.fake.answer(heard, "1");
    assert_eq!(first.event("ai-response").await["response"], "1");
    let open = job_id(&first.ask("user-query", &json!({ "query": "open" })).await);
    let echo = job_id(&first.ask("job-submit", &json!({ "kind": "echo", "payload": { "value": 1 } })).await);
    let fake = server.fake.clone();
    let kept = |fake: &Fake| -> Vec<_> {
        let world = fake.world();
        let (_, follows) = &world.sessions[&id];
        follows.iter().map(|followed| (followed.job, followed.question)).collect()
    };
    until("what was heard is marked", || kept(&fake) == [(open, true), (echo, false)]).await;
    let mut untold = vec![open, echo];
    while !untold.is_empty() {
        let told = job_id(&first.event("job-event").await);
        untold.retain(|job| *job != told);
    }

    let server = server.restart().await;
    let told = |fake: &Fake| fake.world().sessions[&id].1.iter().all(|followed| followed.after == Some(1));
    until("how far it was told is kept at an orderly end", || told(&fake)).await;
    server.fake.compute(open);
    server.fake.answer(open, "2");
    let mut second = Socket::connect(&server).await;
    let wrong = json!({ "sessionId": first.id, "secret": second.secret });
    for wrong in [wrong, json!({ "sessionId": second.id, "secret": first.secret })] {
        let refused = second.ask("session-resume", &wrong).await;
        assert_eq!(refused["error"]["code"], "unknown_session");
    }
    assert_eq!(second.ask("session-resume", &resume).await, json!({ "sessionId": first.id }));
    assert_eq!(second.event("ai-response").await["response"], "2");
    server.fake.complete(echo, &json!({ "value": 1 }));
    let event = second.event("job-event").await;
    assert_eq!((job_id(&event), &event["seq"], &event["type"]), (echo, &json!(2), &json!("completed")));
    until("all is told", || kept(&fake).is_empty()).await;
    let fresh: uuid::Uuid = second.id.parse().unwrap();
    assert!(!server.fake.world().sessions.contains_key(&fresh), "one that was not needed is forgotten");

    let server = server.restart().await;
    let mut third = Socket::connect(&server).await;
    assert_eq!(third.ask("session-resume", &resume).await["sessionId"], json!(first.id));
    assert!(third.settled().await.iter().all(|(name, _)| name == "fleet-tick"), "nothing twice");
}

#[tokio::test]
async fn events_missed_while_away_are_told_after_the_last_one_heard() {
    let server = Server::start().await;
    let mut first = Socket::connect(&server).await;
    let resume = json!({ "sessionId": first.id, "secret": first.secret });
    let job = job_id(&first.ask("job-submit", &json!({ "kind": "echo", "payload": { "value": 1 } })).await);
    assert_eq!(first.event("job-event").await["seq"], 1);
    first.close().await;
    let fake = server.fake.clone();
    until("nobody reads", || fake.readers(job) == 0).await;
    server.fake.compute(job);
    server.fake.complete(job, &json!({ "value": 1 }));
    let mut second = Socket::connect(&server).await;
    second.ask("session-resume", &resume).await;
    assert_eq!(second.event("job-event").await["seq"], 2);
    assert_eq!(second.event("job-event").await["type"], "completed");
}

#[tokio::test]
async fn the_newest_socket_takes_the_session_over() {
    let server = Server::start().await;
    let mut old = Socket::connect(&server).await;
    let resume = json!({ "sessionId": old.id, "secret": old.secret });
    let job = job_id(&old.ask("user-query", &json!({ "query": "q" })).await);
    let mut new = Socket::connect(&server).await;
    new.ask("session-resume", &resume).await;
    assert!(old.is_cut_off().await);
    server.fake.answer(job, "a");
    assert_eq!(new.event("ai-response").await["response"], "a");
    new.ask("user-query", &json!({ "query": "still mine" })).await;
}

#[tokio::test]
async fn questions_asked_before_a_resume_are_answered_as_well() {
    let server = Server::start().await;
    let old = Socket::connect(&server).await;
    let resume = json!({ "sessionId": old.id, "secret": old.secret });
    old.close().await;
    let mut socket = Socket::connect(&server).await;
    let early = job_id(&socket.ask("user-query", &json!({ "query": "early" })).await);
    socket.ask("session-resume", &resume).await;
    server.fake.answer(early, "e");
    assert_eq!(socket.event("ai-response").await["response"], "e");
}

#[tokio::test]
async fn answers_of_a_conversation_come_in_the_order_of_its_questions() {
    let server = Server::start().await;
    let mut socket = Socket::connect(&server).await;
    let conversation = uuid::Uuid::now_v7();
    let mut asked = Vec::new();
    for query in ["one", "two"] {
        let question = json!({ "query": query, "conversationId": conversation });
        asked.push(job_id(&socket.ask("user-query", &question).await));
    }
    let other = job_id(&socket.ask("user-query", &json!({ "query": "other" })).await);
    let fake = server.fake.clone();
    until("all are followed", || asked.iter().chain([&other]).all(|job| fake.readers(*job) == 1)).await;
    fake.world().held = Some(Held { job: asked[0], waiting: Vec::new() });
    fake.answer(asked[0], "1");
    until("the first answer is read", || fake.world().held.as_ref().is_some_and(|held| !held.waiting.is_empty())).await;
    fake.answer(asked[1], "2");
    fake.fail(other, "no", "not this one");
    assert_eq!(socket.event("ai-response").await["query"], "other", "it is in no conversation");
    assert!(socket.settled().await.iter().all(|(name, _)| name != "ai-response"), "the second waits for the first");
    fake.let_go();
    assert_eq!(socket.event("ai-response").await["response"], "1");
    assert_eq!(socket.event("ai-response").await["response"], "2");
}

#[tokio::test]
async fn what_a_client_sends_before_it_goes_is_still_done() {
    let server = Server::start().await;
    let mut socket = Socket::connect(&server).await;
    let resume = json!({ "sessionId": socket.id, "secret": socket.secret });
    for n in 0..5 {
        socket.emit("user-query", &json!({ "query": n.to_string() })).await;
    }
    socket.close().await;
    let fake = server.fake.clone();
    until("all are accepted", || fake.jobs().len() == 5).await;
    for job in server.fake.jobs() {
        server.fake.answer(job.id, "a");
    }
    let mut back = Socket::connect(&server).await;
    back.ask("session-resume", &resume).await;
    let mut asked = Vec::new();
    for _ in 0..5 {
        asked.push(back.event("ai-response").await["query"].as_str().unwrap().to_owned());
    }
    asked.sort();
    assert_eq!(asked, ["0", "1", "2", "3", "4"]);
}

#[tokio::test]
async fn a_client_that_reads_late_misses_nothing_and_is_kept() {
    let server = Server::start().await;
    let mut socket = Socket::connect(&server).await;
    let job = job_id(&socket.ask("user-query", &json!({ "query": "q" })).await);
    let fake = server.fake.clone();
    until("it is followed", || fake.readers(job) == 1).await;
    let note = "x".repeat(16 * 1024);
    for _ in 0..3000 {
        server.fake.progress(job, &note);
        tokio::task::yield_now().await;
    }
    server.fake.answer(job, "a");
    let mut told = Vec::new();
    let response = loop {
        match socket.next().await {
            (name, event) if name == "job-event" => told.push(event["seq"].as_u64().unwrap()),
            (_, response) => break response,
        }
    };
    assert_eq!(response["response"], "a");
    assert_eq!(told, (1..=3002).collect::<Vec<_>>());
}

#[tokio::test]
async fn the_fleet_ticks_for_who_is_connected() {
    let server = Server::start().await;
    server.fake.world().workers = vec![worker("w-1")];
    let mut socket = Socket::connect(&server).await;
    let tick = socket.event("fleet-tick").await;
    assert_eq!(tick["slots"]["ai"]["total"], 64);
    assert!(tick["timestamp"].is_u64());
    for name in ["workersList", "workers_list"] {
        assert_eq!(tick[name][0]["worker_id"], "w-1", "{name}");
    }
    let text = server.get("/metrics").send().await.unwrap().text().await.unwrap();
    assert!(text.contains("flota_socket_clients "), "{text}");
}

#[tokio::test]
async fn log_lines_come_to_who_asked_until_they_are_unwanted() {
    let server = Server::start().await;
    server.logs.receive(line("an old line"));
    let mut socket = Socket::connect(&server).await;
    let ack = socket.ask("logs-subscribe", &Value::Null).await;
    let old = json!({ "timestamp": 1, "source": "w-1", "message": "an old line", "workerId": "w-1" });
    assert_eq!(ack["items"], json!([old]));
    server.logs.receive(line("a new line"));
    assert_eq!(socket.event("log").await["message"], "a new line");
    socket.ask("logs-unsubscribe", &Value::Null).await;
    server.logs.receive(line("an unwanted line"));
    assert!(socket.settled().await.is_empty());
}

#[tokio::test]
async fn a_connection_wants_the_token_and_a_page_of_ours() {
    let token = Some(SecretString::from("s3cret"));
    let server = Server::with(flota_master::web::WebConfig { token, ..config() }).await.unwrap();
    for auth in [json!({}), json!({ "token": "wrong" }), json!({ "token": 7 }), json!("s3cret")] {
        let error = Socket::open(&server, &auth, None).await.err().unwrap();
        assert!(error["message"].as_str().unwrap().contains("unauthorized"), "{auth}: {error}");
    }
    let auth = json!({ "token": "s3cret" });
    assert!(Socket::open(&server, &auth, None).await.is_ok());
    assert!(Socket::open(&server, &auth, Some(&server.url(""))).await.is_ok());
    let error = Socket::open(&server, &auth, Some("https://evil.example")).await.err().unwrap();
    assert!(error["message"].as_str().unwrap().contains("origin"), "{error}");
}

#[tokio::test]
async fn polling_works_as_well_and_takes_the_header() {
    let token = Some(SecretString::from("s3cret"));
    let server = Server::with(flota_master::web::WebConfig { token, ..config() }).await.unwrap();
    let base = "/socket.io/?EIO=4&transport=polling";
    let open = server.get(base).bearer_auth("s3cret").send().await.unwrap().text().await.unwrap();
    let handshake: Value = serde_json::from_str(open.strip_prefix('0').unwrap()).unwrap();
    let path = format!("{base}&sid={}", handshake["sid"].as_str().unwrap());
    assert_eq!(server.post(&path, "40").send().await.unwrap().text().await.unwrap(), "ok");
    let mut text = String::new();
    tokio::time::timeout(Duration::from_secs(5), async {
        while !text.contains("session-secret") {
            text += &server.get(&path).send().await.unwrap().text().await.unwrap();
        }
    })
    .await
    .unwrap();
    assert!(text.find("session-id") < text.find("session-secret"), "{text}");
}

#[tokio::test]
async fn more_browsers_than_there_is_room_for_are_told_when_to_come_again() {
    let server = Server::with(flota_master::web::WebConfig { browsers_max: 1, ..config() }).await.unwrap();
    let mut first = Socket::connect(&server).await;
    let refused = server.get("/socket.io/?EIO=4&transport=polling").send().await.unwrap();
    assert_eq!(refused.headers()["retry-after"], "5");
    crate::server::problem(refused, 503, "too_many_browsers").await;
    first.emit("user-query", &json!({ "query": "still served?" })).await;
    let fake = server.fake.clone();
    until("the first goes on", || fake.jobs().len() == 1).await;
    drop(first);
    let again = async {
        while server.get("/socket.io/?EIO=4&transport=polling").send().await.unwrap().status() != 200 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(crate::server::DEADLINE, again).await.unwrap();
}
