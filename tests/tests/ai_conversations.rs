//! Conversations: what was said is sent along, kept, and opened by its owner or by its secret.
#![allow(clippy::unwrap_used)]

use flota_tests::fake_gemini::{End, FakeGemini, Script, Trouble};
use flota_tests::socket::Socket;
use flota_tests::{Node, Rest, node::workers_ready, until};
use reqwest::Method;
use serde_json::{Value, json};

async fn fleet(fake: &FakeGemini) -> Node {
    let node = Node::up().with("GEMINI_API_KEY", "k").with("FLOTA_GEMINI_BASE_URL", fake.base_url()).start().await;
    workers_ready(&node.rest(), 1).await;
    node
}

async fn begin(rest: &Rest, body: Value) -> String {
    let answer = rest.post("/conversations", &body).await.expect(201);
    let id = answer.body["id"].as_str().unwrap().to_owned();
    assert_eq!(answer.header("location"), format!("/api/v1/conversations/{id}"));
    id
}

fn question(conversation: &str, text: &str) -> Value {
    json!({"kind": "ai.chat", "conversation_id": conversation,
        "payload": {"messages": [{"role": "user", "content": text}]}})
}

async fn messages(rest: &Rest, id: &str) -> Vec<Value> {
    let page = rest.get(&format!("/conversations/{id}/messages?limit=500")).await.expect(200);
    page.body["items"].as_array().unwrap().clone()
}

fn said(messages: &[Value]) -> Vec<(&str, &str)> {
    messages.iter().map(|m| (m["role"].as_str().unwrap(), m["content"].as_str().unwrap())).collect()
}

/// What the provider was sent as the conversation.
fn sent(call: &Value) -> Vec<(&str, &str)> {
    let turns = call["contents"].as_array().unwrap();
    turns.iter().map(|t| (t["role"].as_str().unwrap(), t["parts"][0]["text"].as_str().unwrap())).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn questions_are_answered_in_order_with_what_was_said_before_and_survive_a_restart() {
    let fake = FakeGemini::start().await.unwrap();
    let mut node = fleet(&fake).await;
    let rest = node.rest();
    let id = begin(&rest, json!({})).await;
    fake.next(Script::text(&["The sea ", "is salty."], "STOP").after(std::time::Duration::from_millis(300)));
    fake.next(Trouble::Status(400));
    fake.next(Script::text(&["Three"], "MAX_TOKENS"));
    let mut jobs = Vec::new();
    for text in ["Why  is\nthe sea salty?", "two", "three"] {
        jobs.push(rest.submit(question(&id, text)).await);
    }
    for job in &jobs {
        rest.ended(job).await;
    }
    let calls = fake.calls();
    assert_eq!(sent(&calls[0].body), [("user", "Why  is\nthe sea salty?")]);
    let first = ("user", "Why  is\nthe sea salty?");
    assert_eq!(sent(&calls[1].body), [first, ("model", "The sea is salty."), ("user", "two")]);
    // A question that came to nothing is not sent again.
    assert_eq!(sent(&calls[2].body), [first, ("model", "The sea is salty."), ("user", "three")]);

    node.kill();
    node.start_again().await;
    let all = messages(&rest, &id).await;
    let expected = [
        first,
        ("assistant", "The sea is salty."),
        ("user", "two"),
        ("assistant", ""),
        ("user", "three"),
        ("assistant", "Three"),
    ];
    assert_eq!(said(&all), expected);
    let answers: Vec<&Value> = all.iter().filter(|m| m["role"] == "assistant").map(|m| &m["answer"]).collect();
    assert_eq!(answers[0]["finish"], "complete");
    assert_eq!(answers[0]["usage"], json!({"input_tokens": 7, "output_tokens": 11, "thought_tokens": 13}));
    assert_eq!(answers[0]["model"], "gemini-3.5-flash-lite");
    assert_eq!((&answers[1]["finish"], &answers[1]["error"]["code"]), (&json!("error"), &json!("bad_request")));
    assert_eq!(answers[2]["finish"], "max_tokens");
    assert_eq!(all[1]["job_id"], json!(jobs[0]));
    let conversation = rest.get(&format!("/conversations/{id}")).await.expect(200).body;
    assert_eq!((&conversation["title"], &conversation["messages"]), (&json!("Why is the sea salty?"), &json!(6)));

    let markdown = rest.get(&format!("/conversations/{id}/export")).await.expect(200);
    assert!(markdown.header("content-type").starts_with("text/markdown"));
    assert!(markdown.header("content-disposition").contains(&id));
    for part in ["# Why is the sea salty?", "## User\n\ntwo", "The sea is salty.", "(max_tokens)", "bad_request"] {
        assert!(markdown.text.contains(part), "{part} in {}", markdown.text);
    }
    let json = rest.get(&format!("/conversations/{id}/export?format=json")).await.expect(200).body;
    assert_eq!(json["items"].as_array().map(Vec::len), Some(6));
    assert!(json["secret"].is_null());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_id_alone_opens_nothing_and_the_secret_opens_it_on_another_device() {
    let fake = FakeGemini::start().await.unwrap();
    let node = fleet(&fake).await;
    let rest = node.rest();
    let as_ann = |method: Method, path: &str| rest.request(method, path).header("X-Flota-Owner", "ann");
    let made =
        rest.send(as_ann(Method::POST, "/conversations").json(&json!({"title": "Plans"}))).await.expect(201).body;
    let (id, secret) = (made["id"].as_str().unwrap(), made["secret"].as_str().unwrap());
    let path = format!("/conversations/{id}");

    for path in [path.clone(), format!("{path}/messages"), format!("{path}/export")] {
        assert_eq!(rest.get(&path).await.expect(404).body["code"], "not_found");
    }
    rest.patch(&path, &json!({"title": "x"})).await.expect(404);
    rest.send(rest.request(Method::DELETE, &path)).await.expect(404);
    let refused = rest.post("/jobs", &question(id, "x")).await.expect(422);
    assert_eq!(refused.body["field"], "conversation_id");
    let wrong = rest.request(Method::GET, &path).header("X-Flota-Conversation-Secret", "0".repeat(64));
    rest.send(wrong).await.expect(404);

    let opened = rest.request(Method::POST, "/jobs").header("X-Flota-Conversation-Secret", secret);
    let job = rest.send(opened.json(&question(id, "from the phone"))).await.expect(201).body;
    rest.completed(job["id"].as_str().unwrap()).await;
    let seen = rest.request(Method::GET, &format!("{path}/messages")).header("X-Flota-Conversation-Secret", secret);
    assert_eq!(rest.send(seen).await.expect(200).body["items"][0]["content"], "from the phone");
    assert_eq!(rest.get("/conversations").await.expect(200).body["items"], json!([]), "lists are the owner's own");
    let list = rest.send(as_ann(Method::GET, "/conversations?q=PHONE")).await.expect(200).body;
    assert_eq!(list["items"][0]["title"], "Plans");
    assert!(list["items"][0]["secret"].is_null());
    let none = rest.send(as_ann(Method::GET, "/conversations?q=100%25")).await.expect(200).body;
    assert_eq!(none["items"], json!([]), "a percent sign is a percent sign");
}

#[tokio::test(flavor = "multi_thread")]
async fn conversations_are_listed_renamed_shortened_and_deleted() {
    let fake = FakeGemini::start().await.unwrap();
    let node = fleet(&fake).await;
    let rest = node.rest();
    let mut ids = Vec::new();
    for title in ["one", "two", "three"] {
        ids.push(begin(&rest, json!({"title": title})).await);
    }
    let page = rest.get("/conversations?limit=2").await.expect(200).body;
    let titles = |page: &Value| -> Vec<String> {
        page["items"].as_array().unwrap().iter().map(|c| c["title"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(titles(&page), ["three", "two"]);
    let next = rest.get(&format!("/conversations?limit=2&cursor={}", page["next_cursor"].as_str().unwrap())).await;
    assert_eq!((titles(&next.body), next.body["next_cursor"].is_null()), (vec!["one".to_owned()], true));

    let path = format!("/conversations/{}", ids[0]);
    assert_eq!(rest.patch(&path, &json!({"title": " uno "})).await.expect(200).body["title"], "uno");
    assert_eq!(rest.patch(&path, &json!({"title": ""})).await.expect(422).body["field"], "title");
    assert_eq!(titles(&rest.get("/conversations").await.body), ["uno", "three", "two"]);
    rest.post("/conversations", &json!({"id": ids[0]})).await.expect(409);

    for text in ["a", "b"] {
        rest.completed(&rest.submit(question(&ids[0], text)).await).await;
    }
    let cut = rest.send(rest.request(Method::DELETE, &format!("{path}/messages?from=2"))).await.expect(200).body;
    assert_eq!(cut["messages"], 2);
    rest.send(rest.request(Method::DELETE, &format!("{path}/messages?from=1"))).await.expect(400);
    rest.completed(&rest.submit(question(&ids[0], "c")).await).await;
    assert_eq!(messages(&rest, &ids[0]).await[2]["content"], "c");

    fake.next(Script::unfinished(&["half an ", "answer"]).end(End::Stall));
    let job = rest.submit(question(&ids[0], "d")).await;
    until("the answer has begun", || async {
        // Three states, then the text: in one piece or two, as it was read.
        let events = flota_tests::sse::read(&rest, &job, None, 4).await.1;
        if events.iter().any(|e| e.name == "delta") { Ok(()) } else { Err(events) }
    })
    .await;
    let busy = rest.send(rest.request(Method::DELETE, &format!("{path}/messages?from=4"))).await.expect(409);
    assert_eq!(busy.body["code"], "conversation_busy");
    rest.post(&format!("/jobs/{job}/cancel"), &Value::Null).await.expect(200);
    let last = until("the stopped answer is kept", || async {
        let last = messages(&rest, &ids[0]).await.pop().unwrap();
        if last["answer"].is_null() { Err(last) } else { Ok(last) }
    })
    .await;
    assert!(last["content"].as_str().unwrap().starts_with("half an "), "{last}");
    assert_eq!(last["answer"]["error"]["code"], "cancelled");
    let usage = &last["answer"]["usage"];
    assert_eq!((&usage["estimated"], usage["output_tokens"].as_u64() > Some(0)), (&json!(true), true), "{usage}");
    assert_eq!(&rest.job(&job).await["result"]["usage"], usage);
    let totals = rest.get("/usage").await.expect(200).body["totals"].clone();
    assert_eq!((&totals["failed"], &totals["estimated"]), (&json!(1), &json!(1)), "{totals}");

    fake.next(Script::unfinished(&["x"]).end(End::Stall));
    let job = rest.submit(question(&ids[0], "e")).await;
    rest.send(rest.request(Method::DELETE, &path)).await.expect(204);
    assert_eq!(rest.ended(&job).await["state"], "cancelled");
    rest.get(&path).await.expect(404);
    rest.get(&format!("{path}/messages")).await.expect(404);
}

#[tokio::test(flavor = "multi_thread")]
async fn only_as_much_is_sent_as_fits_and_the_answer_says_what_was_left_out() {
    let fake = FakeGemini::start().await.unwrap();
    let node = Node::up().with("GEMINI_API_KEY", "k").with("FLOTA_GEMINI_BASE_URL", fake.base_url());
    let node = node.with("FLOTA_CONVERSATION_TOKENS", "300").start().await;
    let rest = node.rest();
    workers_ready(&rest, 1).await;
    let id = begin(&rest, json!({})).await;
    for turn in 0..5 {
        fake.next(Script::text(&[&format!("answer {turn} {}", "y".repeat(200))], "STOP"));
        let job = rest.submit(question(&id, &format!("question {turn} {}", "x".repeat(200)))).await;
        let result = rest.completed(&job).await["result"].clone();
        // A turn takes about 120 tokens, so that one or two fit beside the question.
        assert_eq!(result["dropped_turns"].as_u64().unwrap_or(0), u64::saturating_sub(turn, 2), "{result}");
    }
    let last = fake.calls().pop().unwrap();
    let sent = sent(&last.body);
    assert_eq!(sent.len(), 5);
    assert!(sent[0].1.starts_with("question 2") && sent[1].1.starts_with("answer 2"), "{sent:?}");
    let all = messages(&rest, &id).await;
    assert_eq!(all[9]["answer"]["dropped_turns"], 2);
    assert_eq!(all.len(), 10, "all of it is kept");

    let secret = rest.get(&format!("/conversations/{id}")).await.expect(200).body["secret"].clone();
    let mut socket = Socket::connect(node.web_port).await;
    let query = json!({"query": "and on the phone?", "conversationId": id, "conversationSecret": secret});
    socket.ask("user-query", &query).await;
    let answer = socket.event("ai-response").await;
    assert_eq!(answer["droppedTurns"], 3, "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_go_with_a_conversation_is_refused_with_its_field() {
    let node = Node::master("mqtt://127.0.0.1:1").start().await;
    let rest = node.rest();
    let id = begin(&rest, json!({})).await;
    let two = json!([{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}, {"role": "user", "content": "c"}]);
    for (change, field) in [
        (json!({"payload": {"messages": two}}), "payload.messages"),
        (json!({"cache": true}), "cache"),
        (json!({"depends_on": [id]}), "depends_on"),
        (json!({"kind": "echo", "payload": {"value": 1}}), "conversation_id"),
        (json!({"conversation_id": "00000000-0000-7000-8000-000000000000"}), "conversation_id"),
    ] {
        let mut job = question(&id, "x");
        job.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        assert_eq!(rest.post("/jobs", &job).await.expect(422).body["field"], field, "{change}");
    }
    assert_eq!(rest.post("/conversations", &json!({"titel": "x"})).await.expect(422).body["field"], "titel");
    rest.get("/conversations/x").await.expect(400);
    for cursor in ["x", "1", "1:x", "x:00000000-0000-0000-0000-000000000000"] {
        let refused = rest.get(&format!("/conversations?cursor={cursor}")).await.expect(400);
        assert_eq!((&refused.body["code"], &refused.body["field"]), (&json!("bad_parameter"), &json!("cursor")));
    }
}
