//! Providers that send too much, or never end, and questions with anything in them.

use flota_tests::fake_gemini::{End, Piece};

use super::*;

const MIB: usize = 1 << 20;

#[tokio::test]
async fn a_provider_that_sends_a_hundred_megabytes_is_cut_off() {
    for (piece, expected) in [
        (Piece::Text("x".repeat(MIB)), ("interrupted", false)),
        (Piece::Thought("x".repeat(MIB)), ("bad_answer", true)),
    ] {
        let fake = FakeGemini::start().await.unwrap();
        let script = Script::of([piece]);
        fake.next(script.end(End::Repeat { times: 100 }));
        let outcome = ask_gemini(&fake).await;
        assert_eq!(outcome.code(), expected);
        assert!(outcome.seen.text().len() <= 9 * MIB);
        until("the connection is closed", || fake.requests()[0].ended == Ended::Closed).await;
    }
    // One frame without an end.
    let fake = FakeGemini::start().await.unwrap();
    fake.next(Script::of([Piece::Raw("x".repeat(100 * MIB))]));
    assert_eq!(ask_gemini(&fake).await.code(), ("bad_answer", true));
}

#[tokio::test]
async fn a_provider_that_never_ends_is_cut_off_when_the_time_is_up() {
    let fake = FakeGemini::start().await.unwrap();
    fake.next(Script { pause_ms: 5, ..Script::of([Piece::Text("on ".into())]) }.end(End::Repeat { times: usize::MAX }));
    let unit = Unit { timeout: Duration::from_millis(600), ..unit(Payload::Chat(question())) };
    let outcome = run(&AiExecutor::new(config(&fake)), unit).await;
    assert_eq!(outcome.code(), ("interrupted", false));
    assert!(outcome.seen.text().starts_with("on on "));
    until("the connection is closed", || fake.requests()[0].ended == Ended::Closed).await;
}

#[tokio::test]
async fn whatever_stands_in_a_question_arrives_as_it_is() {
    let text = "\u{0}\u{1b}[31m\u{7f}\r\n<script>alert(1)</script> \u{202e}ñ🙂 \u{fffd}\u{feff}\\u0000\"'`";
    let fake = FakeGemini::start().await.unwrap();
    for config in [config(&fake), local_only(&fake)] {
        let messages = vec![Message { role: Role::User, content: text.to_owned() }];
        fake.next(Script::text(&[text], "STOP"));
        let outcome = ask(&AiExecutor::new(config), ChatPayload { messages, ..question() }).await;
        assert_eq!(outcome.seen.text(), text);
        let body = fake.calls().pop().unwrap().body;
        let sent = body["contents"][0]["parts"][0]["text"].as_str().or(body["messages"][0]["content"].as_str());
        assert_eq!(sent, Some(text));
    }
}
