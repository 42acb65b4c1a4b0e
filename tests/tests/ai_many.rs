//! Five hundred questions at once from a hundred clients on four workers, a tenth of which fail in every way there is.
#![allow(clippy::unwrap_used)]

use std::collections::HashMap;

use flota_tests::fake_gemini::{End, FakeGemini, Piece, Reply, Script, Trouble};
use flota_tests::socket::Socket;
use flota_tests::{Mosquitto, Node, node::workers_ready};
use reqwest::Method;
use serde_json::{Value, json};

const CLIENTS: usize = 100;
const QUESTIONS: usize = 5;

/// What the provider does with a question, and what must come of it.
struct Case {
    replies: Vec<Reply>,
    finish: &'static str,
    code: Option<&'static str>,
    /// What the user has seen at the end.
    text: String,
}

fn pieces(number: usize) -> Vec<String> {
    let alphabet = ["ñandú ", "🙂🙂", "\u{0}\u{1b}[31m", "<script>", "日本語", "e\u{301}", "\r\n", "plain "];
    (0..6 + number % 5).map(|n| format!("{number}:{} {}", n, alphabet[(number + n) % alphabet.len()])).collect()
}

fn answer(number: usize, finish: &str) -> Script {
    let texts = pieces(number);
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    Script {
        cut: [Some(1), Some(7), Some(4096), None][number % 4],
        lf: number.is_multiple_of(2),
        ..Script::text(&texts, finish)
    }
}

fn case(number: usize) -> Case {
    let text = pieces(number).concat();
    let well = |finish: &'static str, reason: &str| Case {
        replies: vec![answer(number, reason).into()],
        finish,
        code: None,
        text: text.clone(),
    };
    let first = |reply: Reply| {
        let case = well("complete", "STOP");
        Case { replies: vec![reply, answer(number, "STOP").into()], ..case }
    };
    let fails =
        |reply: Reply, code| Case { replies: vec![reply], finish: "error", code: Some(code), text: String::new() };
    let broken = |end: End| {
        let texts = pieces(number);
        let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
        let reply = Script { cut: Some(7), ..Script::unfinished(&texts).end(end) };
        Case { replies: vec![reply.into()], finish: "error", code: Some("interrupted"), text: text.clone() }
    };
    if number % 10 != 3 {
        return well("complete", "STOP");
    }
    match number / 10 % 17 {
        0 => first(Trouble::Status(503).into()),
        1 => first(Trouble::Status(500).into()),
        2 => first(Trouble::Status(408).into()),
        3 => first(Trouble::PerMinute(Some("0.2s".into())).into()),
        4 => first(Script::unfinished(&[]).end(End::Reset).into()),
        5 => first(Script::unfinished(&[]).into()),
        6 => first(Script::of([Piece::Thought("hm".into()), Piece::Finish("STOP".into())]).into()),
        7 => first(Script::unfinished(&[]).end(End::BareError(Trouble::Status(502))).into()),
        8 => fails(Trouble::Status(400).into(), "bad_request"),
        9 => fails(Trouble::Status(402).into(), "payment_required"),
        10 => fails(Trouble::Status(403).into(), "forbidden"),
        11 => fails(Trouble::Precondition.into(), "not_available"),
        12 => fails(Trouble::BadKey.into(), "bad_key"),
        13 => broken(End::Reset),
        14 => broken(End::BareError(Trouble::Status(503))),
        15 => well("max_tokens", "MAX_TOKENS"),
        _ => well("blocked", "SAFETY"),
    }
}

/// Asks all of one client's questions at once, in one conversation.
async fn client(client: usize, port: u16, rest: flota_tests::Rest) {
    let mut socket = Socket::connect(port).await;
    let begin = rest.request(Method::POST, "/conversations").header("X-Flota-Owner", &socket.session);
    let conversation = rest.send(begin.json(&json!({}))).await.expect(201).body["id"].clone();
    let numbers: Vec<usize> = (0..QUESTIONS).map(|n| client * QUESTIONS + n).collect();
    let mut jobs = Vec::new();
    for number in &numbers {
        let query = json!({"query": format!("question {number}!"), "conversationId": conversation});
        jobs.push(socket.ask("user-query", &query).await["jobId"].clone());
    }
    let mut streamed: HashMap<String, (u64, String)> = HashMap::new();
    let mut answers: Vec<Value> = Vec::new();
    while answers.len() < QUESTIONS {
        let (name, payload) = socket.next().await;
        if name == "ai-response" {
            answers.push(payload);
        } else if name == "job-event" && payload["type"] == "delta" {
            let attempt = payload["attempt"].as_u64().unwrap();
            let told = streamed.entry(payload["jobId"].as_str().unwrap().to_owned()).or_default();
            if attempt > told.0 {
                *told = (attempt, String::new());
            }
            told.1.push_str(payload["data"]["text"].as_str().unwrap());
        }
    }
    let path = format!("/conversations/{}/messages", conversation.as_str().unwrap());
    let kept = rest.request(Method::GET, &path).header("X-Flota-Owner", &socket.session);
    let kept = rest.send(kept).await.expect(200).body["items"].clone();
    for (place, number) in numbers.iter().enumerate() {
        let (case, got) = (case(*number), &answers[place]);
        assert_eq!(got["jobId"], jobs[place], "answers come in the order of the questions");
        assert_eq!(got["query"], format!("question {number}!"));
        assert_eq!((got["finish"].as_str(), got["error"]["code"].as_str()), (Some(case.finish), case.code), "{got}");
        if case.code.is_none() {
            assert_eq!(got["response"], case.text, "{number}");
        }
        let told = streamed.remove(jobs[place].as_str().unwrap()).unwrap_or_default().1;
        // Who subscribes only after the end is told the end alone.
        assert!(told.is_empty() || told == case.text, "what was streamed of {number}: {told:?}");
        let (question, answer) = (&kept[2 * place], &kept[2 * place + 1]);
        assert_eq!(question["content"], format!("question {number}!"));
        assert_eq!(answer["content"], case.text);
        assert_eq!(answer["answer"]["finish"], case.finish);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_question_ends_as_it_must_in_order_and_to_the_byte() {
    let fake = FakeGemini::start().await.unwrap();
    let total = CLIENTS * QUESTIONS;
    for number in 0..total {
        for reply in case(number).replies {
            fake.for_question(&format!("question {number}!"), reply);
        }
    }
    let broker = Mosquitto::start().await;
    let master = Node::master(&broker.url()).start().await;
    let mut workers = Vec::new();
    for name in ["w1", "w2", "w3", "w4"] {
        let worker = Node::worker(name, &broker.url()).with("GEMINI_API_KEY", "k");
        workers.push(worker.with("FLOTA_GEMINI_BASE_URL", fake.base_url()).start().await);
    }
    let rest = master.rest();
    workers_ready(&rest, 4).await;
    let clients: Vec<_> = (0..CLIENTS).map(|n| tokio::spawn(client(n, master.web_port, rest.clone()))).collect();
    for task in clients {
        task.await.unwrap();
    }
    let used: std::collections::BTreeSet<String> = rest.get("/workers").await.body["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|w| w["worker_id"].to_string())
        .collect();
    assert_eq!(used.len(), 4);
    let report = rest.get("/usage").await.expect(200).body;
    let failed = (0..total).filter(|n| case(*n).code.is_some()).count();
    assert_eq!(report["totals"]["requests"].as_u64(), Some((total - failed) as u64));
    assert_eq!(report["totals"]["failed"].as_u64(), Some(failed as u64));
}
