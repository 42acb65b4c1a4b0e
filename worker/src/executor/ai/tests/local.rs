//! OpenAI-compatible servers.

use flota_proto::kinds::{EmbedResult, Finish, Usage};
use flota_tests::fake_gemini::{End, Piece, Reply, Trouble};
use serde_json::json;

use super::*;

async fn local_answer(script: Script) -> Outcome {
    let fake = FakeGemini::start().await.unwrap();
    fake.next(script);
    ask(&AiExecutor::new(local_only(&fake)), question()).await
}

#[tokio::test]
async fn an_answer_streams_without_its_reasoning() {
    let fake = FakeGemini::start().await.unwrap();
    let pieces = [Piece::Thought("hm".into()), Piece::Text("ye".into()), Piece::Text("s".into())];
    fake.next(Script::of(pieces.into_iter().chain([Piece::Finish("stop".into())])).cut(5));
    let chat = ChatPayload { temperature: Some(0.0), max_output_tokens: Some(5), ..question() };
    let outcome = ask(&AiExecutor::new(local_only(&fake)), chat).await;
    assert_eq!(outcome.seen.text(), "yes");
    let answer = outcome.answer();
    assert_eq!(answer.usage, Usage { input_tokens: 7, output_tokens: 11, thought_tokens: 13, estimated: false });
    assert_eq!((answer.text.as_str(), answer.provider.as_str(), answer.finish), ("yes", "local", Finish::Complete));
    let seen = &fake.requests()[0];
    assert_eq!(seen.path, "/v1/chat/completions");
    assert_eq!(
        seen.body,
        json!({"model": "local-model", "messages": [{"role": "user", "content": PROMPT}], "stream": true,
            "stream_options": {"include_usage": true}, "temperature": 0.0, "max_tokens": 5})
    );
}

#[tokio::test]
async fn an_answer_ends_as_it_says() {
    let finish = |script| async { local_answer(script).await.answer().finish };
    assert_eq!(finish(Script::text(&["x"], "length")).await, Finish::MaxTokens);
    assert_eq!(finish(Script::text(&[], "content_filter")).await, Finish::Blocked);
    let done = [Piece::Text("x".into()), Piece::Raw("[DONE]".into())];
    assert_eq!(finish(Script::of(done)).await, Finish::Complete);
    assert_eq!(local_answer(Script::text(&[], "stop")).await.code(), ("empty", true));
    assert_eq!(local_answer(Script::text(&[], "tool_calls")).await.code(), ("stopped", true));
    assert_eq!(local_answer(Script::unfinished(&["x"])).await.code(), ("interrupted", false));
    assert_eq!(local_answer(Script::unfinished(&[])).await.code(), ("interrupted", true));
}

#[tokio::test]
async fn errors_are_failures_wherever_they_come() {
    for (trouble, code, retryable) in [
        (Trouble::Status(401), "forbidden", false),
        (Trouble::Status(404), "model_gone", false),
        (Trouble::Status(400), "bad_request", false),
        (Trouble::Status(429), "rate_limited", true),
        (Trouble::Status(503), "overloaded", true),
    ] {
        let fake = FakeGemini::start().await.unwrap();
        fake.next(trouble.clone());
        let executor = AiExecutor::new(local_only(&fake));
        assert_eq!(ask(&executor, question()).await.code(), (code, retryable), "{trouble:?}");
        for end in [End::BareError(trouble.clone()), End::ErrorFrame(trouble.clone())] {
            let outcome = local_answer(Script::unfinished(&[]).end(end.clone())).await;
            assert_eq!(outcome.code(), (code, retryable), "{end:?}");
            let outcome = local_answer(Script::unfinished(&["x"]).end(end)).await;
            assert_eq!((outcome.code(), outcome.seen.text().as_str()), (("interrupted", false), "x"));
        }
    }
}

#[tokio::test]
async fn without_a_configured_model_the_first_that_is_listed_answers() {
    let options = Options { models: vec!["first".into(), "second".into()], ..Options::default() };
    let fake = FakeGemini::start_with(options).await.unwrap();
    let host = format!("http://{}", fake.address());
    for url in [host.clone(), format!("{host}/"), format!("{host}/v1"), format!("{host}/v1/")] {
        let config = AiConfig { local_model: None, local_url: Some(url.parse().unwrap()), ..local_only(&fake) };
        assert_eq!(ask(&AiExecutor::new(config), question()).await.answer().model, "first", "{url}");
    }
    let second = ChatPayload { model: Some("second".into()), ..question() };
    assert_eq!(ask(&AiExecutor::new(local_only(&fake)), second).await.answer().model, "second");
}

#[tokio::test]
async fn embeddings_come_in_the_order_of_the_texts() {
    let fake = FakeGemini::start().await.unwrap();
    let payload = EmbedPayload { texts: vec!["a".into(), "bcd".into(), String::new()], model: None };
    let executor = AiExecutor::new(local_only(&fake));
    let output = executor.execute(unit(Payload::Embed(payload)), context().0).await.unwrap();
    let result: EmbedResult = serde_json::from_slice(&output.json).unwrap();
    assert_eq!(result.vectors, [[1.0, 97.0, 0.5], [3.0, 98.0, 0.5], [0.0, 0.0, 0.5]]);
    assert_eq!(result.model, "local-model");
}

/// A number beyond 32 bits becomes infinite, which JSON can't say.
#[tokio::test]
async fn vectors_that_nothing_can_be_compared_with_are_no_answer() {
    let data = |vectors: &[&str]| {
        let item = |(index, vector)| format!(r#"{{"index": {index}, "embedding": [{vector}]}}"#);
        format!(r#"{{"data": [{}]}}"#, vectors.iter().enumerate().map(item).collect::<Vec<_>>().join(","))
    };
    let outcome = async |first: &[&str], second: Option<&[&str]>| {
        let fake = FakeGemini::start().await.unwrap();
        for body in [Some(first), second].into_iter().flatten().map(data) {
            fake.next(Reply::Raw { status: 200, body });
        }
        let texts = vec![String::new(); first.len() + second.map_or(0, <[_]>::len)];
        let payload = Payload::Embed(EmbedPayload { texts, model: None });
        AiExecutor::new(local_only(&fake)).execute(unit(payload), context().0).await
    };
    let batch = ["1, 2"; 100];
    assert!(outcome(&["1, 2", "3, 4"], None).await.is_ok());
    assert!(outcome(&batch, Some(&["3, 4"])).await.is_ok());
    for (first, second) in
        [(&["1, 2", "3"][..], None), (&["", ""], None), (&["1e300"], None), (&batch, Some(&["3"][..]))]
    {
        let failure = outcome(first, second).await.unwrap_err();
        assert_eq!((failure.code.as_str(), failure.retryable), ("bad_answer", true), "{}", failure.message);
    }
}

#[tokio::test]
async fn a_server_that_lists_no_models_is_asked_for_the_configured_one() {
    let fake = FakeGemini::start().await.unwrap();
    let host = fake.local_url().trim_end_matches("/v1").to_owned();
    let at = |url: String| AiConfig { local_url: Some(url.parse().unwrap()), ..local_only(&fake) };
    let without_list = AiExecutor::new(at(format!("{host}/elsewhere")));
    assert!(without_list.refresh().await, "404 is no failure that is worth asking again in a minute");
    assert!(without_list.models().contains(&"local-model".to_owned()));
    assert!(!AiExecutor::new(at("http://127.0.0.1:1".to_owned())).refresh().await);
}
