//! Questions that are none: refused with the field that is wrong, over REST and over a socket, and never with a key in the answer.
#![allow(clippy::unwrap_used)]

use flota_tests::Node;
use flota_tests::socket::Socket;
use reqwest::Method;
use serde_json::{Value, json};

fn chat(messages: Value) -> Value {
    json!({"kind": "ai.chat", "payload": {"messages": messages}})
}

fn say(role: &str, content: &str) -> Value {
    json!({"role": role, "content": content})
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_question_is_refused_with_the_field_that_is_wrong() {
    let node = Node::master("mqtt://127.0.0.1:1").start().await;
    let rest = node.rest();
    let large = "x".repeat(2 << 20);
    for (messages, field) in [
        (json!([]), "payload.messages"),
        (json!([say("user", "")]), "payload.messages[0].content"),
        (json!([say("user", " \n\t ")]), "payload.messages[0].content"),
        (json!([say("user", &large)]), "payload.messages"),
        (json!([say("assistant", "a"), say("user", "b")]), "payload.messages[0].role"),
        (json!([say("user", "a"), say("assistant", "b")]), "payload.messages[1].role"),
        (json!([say("user", "a"), say("system", "b"), say("user", "c")]), "payload.messages[1].role"),
        (json!([say("robot", "a")]), "payload.messages[0].role"),
    ] {
        let answer = rest.post("/jobs", &chat(messages)).await.expect(422);
        assert_eq!(answer.body["field"], field, "{}", answer.text);
        assert!(answer.text.len() < 2_000, "the answer does not repeat the question");
    }
    let mut strange = chat(json!([say("user", "a")]));
    strange["payload"]["chain"] = json!(["local", "openai"]);
    assert_eq!(rest.post("/jobs", &strange).await.expect(422).body["field"], "payload.chain[1]");
    // Anything else is text like any other.
    let control = "\u{0}\u{1b}[31m\r\n<script>alert(1)</script>\u{202e}";
    let id = rest.submit(chat(json!([say("user", control)]))).await;
    assert_eq!(rest.job(&id).await["payload"]["messages"][0]["content"], control);
    let none = json!({"kind": "ai.embed", "payload": {"texts": []}});
    assert_eq!(rest.post("/jobs", &none).await.expect(422).body["field"], "payload.texts");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_question_over_a_socket_is_refused_as_an_answer_and_an_acknowledgement() {
    let node = Node::master("mqtt://127.0.0.1:1").start().await;
    let mut socket = Socket::connect(node.web_port).await;
    let large = "x".repeat(2 << 20);
    for (query, field) in [
        (json!({"query": ""}), "query"),
        (json!({"query": " \n "}), "query"),
        (json!({ "query": large }), "messages"),
        (json!({"query": "x", "apiKey": "two words-0123456789"}), "apiKey"),
        (json!({"query": "x", "apiKey": "line\nbreak-0123456789"}), "apiKey"),
        (json!({"query": "x", "apiKey": "\u{7f}ñ-0123456789"}), "apiKey"),
        (json!({"query": "x", "conversationId": "00000000-0000-7000-8000-000000000000"}), "conversation_id"),
        (json!({"query": "x", "conversationId": "x"}), "conversationId"),
    ] {
        let ack = socket.ask("user-query", &query).await;
        assert_eq!(ack["error"]["field"], field, "{}", ack["error"]);
        assert!(!ack.to_string().contains("0123456789"), "{ack}");
        let answer = socket.event("ai-response").await;
        assert_eq!((&answer["finish"], &answer["jobId"]), (&json!("error"), &Value::Null));
        assert!(!answer["error"].to_string().contains("0123456789"), "{answer}");
    }
    // What surrounds a key is not part of it: people paste line ends.
    let ack = socket.ask("user-query", &json!({"query": "x", "apiKey": " AIza-fine\n"})).await;
    assert!(ack["jobId"].is_string(), "{ack}");
    assert!(!node.log().contains("0123456789"));
    let rest = node.rest();
    let wrong = rest.request(Method::POST, "/jobs").header("X-Flota-Api-Key", "a b-0123456789");
    let answer = rest.send(wrong.json(&chat(json!([say("user", "x")])))).await.expect(400);
    assert_eq!(answer.body["field"], "X-Flota-Api-Key");
    assert!(!answer.text.contains("0123456789"));
}
