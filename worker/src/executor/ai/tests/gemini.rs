//! What is sent to Gemini and what its streams become.

use flota_proto::kinds::{EmbedResult, Finish, Usage};
use flota_tests::fake_gemini::{End, Piece};
use serde_json::json;

use super::*;

#[tokio::test]
async fn an_answer_streams_and_says_who_gave_it() {
    let fake = FakeGemini::start().await.unwrap();
    let mut script = Script::text(&["Hel", "lo ñ", "🙂"], "STOP");
    script.model_version = Some("gemini-3.5-flash-lite-002".to_owned());
    fake.next(script);
    let outcome = ask_gemini(&fake).await;
    assert_eq!(outcome.seen.text(), "Hello ñ🙂");
    let expected = ChatResult {
        text: "Hello ñ🙂".to_owned(),
        model: "gemini-3.5-flash-lite-002".to_owned(),
        provider: "gemini".to_owned(),
        finish: Finish::Complete,
        finish_reason: None,
        dropped_turns: 0,
        notes: Vec::new(),
        usage: Usage { input_tokens: 7, output_tokens: 11, thought_tokens: 13, estimated: false },
    };
    assert_eq!(outcome.answer(), expected);
}

#[tokio::test]
async fn the_request_is_what_the_api_knows_and_the_key_stands_in_its_header_only() {
    let fake = FakeGemini::start().await.unwrap();
    let say = |role, content: &str| Message { role, content: content.to_owned() };
    let chat = ChatPayload {
        messages: vec![
            say(Role::System, "Be brief."),
            say(Role::User, "One"),
            say(Role::User, "Two"),
            say(Role::Assistant, "Three"),
            say(Role::User, "Four"),
        ],
        model: Some("models/gemini-3.5-pro".to_owned()),
        temperature: Some(0.5),
        max_output_tokens: Some(99),
        chain: None,
        dropped_turns: 0,
    };
    ask(&AiExecutor::new(config(&fake)), chat).await.answer();
    let seen = &fake.requests()[0];
    assert_eq!(
        seen.body,
        json!({
            "systemInstruction": {"parts": [{"text": "Be brief."}]},
            "contents": [
                {"role": "user", "parts": [{"text": "One"}, {"text": "Two"}]},
                {"role": "model", "parts": [{"text": "Three"}]},
                {"role": "user", "parts": [{"text": "Four"}]},
            ],
            "generationConfig": {"temperature": 0.5, "maxOutputTokens": 99},
        })
    );
    assert_eq!(seen.path, "/v1beta/models/gemini-3.5-pro:streamGenerateContent");
    assert_eq!((seen.query.as_str(), seen.header("x-goog-api-key")), ("alt=sse", Some(SECRET)));
    let holding = seen.headers.iter().filter(|(_, value)| value.contains(SECRET)).count();
    assert_eq!((holding, seen.header("authorization")), (1, None));
    // Nothing that was not asked for.
    ask_gemini(&fake).await.answer();
    assert_eq!(fake.requests()[1].body, json!({"contents": [{"role": "user", "parts": [{"text": PROMPT}]}]}));
}

#[tokio::test]
async fn a_models_name_cant_leave_its_place_in_the_url() {
    let fake = FakeGemini::start().await.unwrap();
    let chat = ChatPayload { model: Some("../x?key=1#y/z".to_owned()), ..question() };
    assert_eq!(ask(&AiExecutor::new(config(&fake)), chat).await.code(), ("model_gone", false));
    let seen = &fake.requests()[0];
    assert_eq!(
        (seen.path.as_str(), seen.query.as_str()),
        ("/v1beta/models/..%2Fx%3Fkey=1%23y%2Fz:streamGenerateContent", "alt=sse")
    );
}

#[tokio::test]
async fn an_answer_is_the_same_however_it_is_cut() {
    for size in [1, 2, 3, 7, 64] {
        for lf in [false, true] {
            for end in [End::Whole, End::WithoutBlankLine] {
                let mut script = Script::text(&["añb", "🙂\n\nx"], "STOP").cut(size).end(end);
                script.lf = lf;
                assert_eq!(answer_to(script).await.answer().text, "añb🙂\n\nx", "cut {size} lf {lf}");
            }
        }
    }
}

#[tokio::test]
async fn text_after_the_first_finish_reason_belongs_to_the_answer() {
    let mut script = Script::text(&["one"], "STOP");
    script.pieces.extend([Piece::Text(" two".into()), Piece::Finish("STOP".into())]);
    assert_eq!(answer_to(script).await.answer().text, "one two");
}

#[tokio::test]
async fn thoughts_are_not_the_answer() {
    let thought = || Piece::Thought("hm".into());
    let script = Script::of([thought(), Piece::Text("yes".into()), thought(), Piece::Finish("STOP".into())]);
    let outcome = answer_to(script).await;
    assert_eq!(outcome.seen.text(), "yes");
    let answer = outcome.answer();
    assert_eq!((answer.text.as_str(), answer.usage.thought_tokens), ("yes", 13));
    let outcome = answer_to(Script::of([thought(), Piece::Finish("STOP".into())])).await;
    assert_eq!((outcome.code(), outcome.seen.text().as_str()), (("empty", true), ""));
}

#[tokio::test]
async fn an_answer_ends_complete_at_the_limit_or_blocked_with_its_reason() {
    let ended = |answer: ChatResult| (answer.finish, answer.finish_reason, answer.text);
    let outcome = answer_to(Script::text(&["par"], "MAX_TOKENS")).await;
    assert_eq!(ended(outcome.answer()), (Finish::MaxTokens, None, "par".into()));
    for reason in ["SAFETY", "RECITATION", "PROHIBITED_CONTENT", "SPII", "BLOCKLIST", "LANGUAGE"] {
        let outcome = answer_to(Script::text(&["par"], reason)).await;
        assert_eq!(ended(outcome.answer()), (Finish::Blocked, Some(reason.into()), "par".into()));
    }
    for reason in ["SAFETY", "OTHER", "A_REASON_OF_TOMORROW"] {
        let outcome = answer_to(Script::of([Piece::Block(reason.into())])).await;
        assert_eq!(ended(outcome.answer()), (Finish::Blocked, Some(reason.into()), String::new()));
    }
    // A candidate whose content has no parts.
    let frame = json!({"candidates": [{"content": {"role": "model"}, "finishReason": "SAFETY"}]});
    let outcome = answer_to(Script::of([Piece::Raw(frame.to_string())])).await;
    assert_eq!(ended(outcome.answer()), (Finish::Blocked, Some("SAFETY".into()), String::new()));
}

#[tokio::test]
async fn a_reason_that_nobody_knows_is_no_whole_answer() {
    let outcome = answer_to(Script::text(&[], "A_REASON_OF_TOMORROW")).await;
    assert_eq!(outcome.code(), ("stopped", true));
    assert!(outcome.result.unwrap_err().message.contains("A_REASON_OF_TOMORROW"));
    assert_eq!(answer_to(Script::text(&["par"], "OTHER")).await.code(), ("interrupted", false));
    let odd = format!("{PROMPT} <odd>");
    assert!(answer_to(Script::text(&[], &odd)).await.result.unwrap_err().message.contains("unknown"));
}

#[tokio::test]
async fn embeddings_come_one_a_text_in_batches_the_api_takes() {
    let fake = FakeGemini::start().await.unwrap();
    let executor = AiExecutor::new(config(&fake));
    let texts: Vec<String> = (0..205).map(|n| "x".repeat(n)).collect();
    let output =
        executor.execute(unit(Payload::Embed(EmbedPayload { texts, model: None })), context().0).await.unwrap();
    let result: EmbedResult = serde_json::from_slice(&output.json).unwrap();
    let lengths: Vec<f32> = result.vectors.iter().map(|vector| vector[0]).collect();
    assert_eq!(lengths, (0..205_u16).map(f32::from).collect::<Vec<_>>());
    assert_eq!((result.model.as_str(), fake.calls().len()), ("gemini-embedding-001", 3));
    assert!(fake.calls().iter().all(|seen| seen.query.is_empty() && seen.header("x-goog-api-key") == Some(SECRET)));
}
