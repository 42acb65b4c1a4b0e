//! Local and remote, the classes of models, and chains of a request's own.

use super::*;

fn both(fake: &FakeGemini) -> AiConfig {
    AiConfig { gemini_api_key: Some(key(SECRET)), ..local_only(fake) }
}

async fn provider(executor: &AiExecutor, model: Option<&str>, chain: Option<&[&str]>) -> String {
    let model = model.map(str::to_owned);
    let answer = ask(executor, ChatPayload { model, chain: chain.map(links), ..question() }).await.answer();
    format!("{} {}", answer.provider, answer.model)
}

#[tokio::test]
async fn the_local_ai_goes_before_gemini_and_a_key_of_the_user_before_both() {
    let fake = FakeGemini::start().await.unwrap();
    let executor = AiExecutor::new(both(&fake));
    assert_eq!(provider(&executor, None, None).await, "local local-model");
    let own = Unit { credential: Some(key(OTHER_SECRET)), ..unit(Payload::Chat(question())) };
    assert_eq!(run(&executor, own).await.answer().provider, "gemini");
}

#[tokio::test]
async fn a_class_is_the_model_that_serves_it_here() {
    let fake = FakeGemini::start().await.unwrap();
    let executor = AiExecutor::new(both(&fake));
    assert_eq!(provider(&executor, Some("small"), None).await, "local local-model");
    assert_eq!(provider(&executor, Some("large"), None).await, format!("gemini {DEFAULT_MODEL}"));
    let only = AiExecutor::new(config(&fake));
    assert_eq!(provider(&only, Some("small"), None).await, format!("gemini {DEFAULT_MODEL}"));
    let classes = BTreeMap::from([
        ("small".to_owned(), "gemini-3.5-flash-lite".to_owned()),
        ("large".to_owned(), "gemini-3.5-pro".to_owned()),
    ]);
    let set = AiExecutor::new(AiConfig { classes, ..config(&fake) });
    assert_eq!(provider(&set, Some("large"), None).await, "gemini gemini-3.5-pro");
    assert_eq!(provider(&set, Some("small"), None).await, "gemini gemini-3.5-flash-lite");

    let local = AiExecutor::new(local_only(&fake));
    assert!(local.models().contains(&"small".to_owned()));
    assert!(!local.models().contains(&"large".to_owned()), "nothing large is served: another worker may have it");
    let large = ChatPayload { model: Some("large".into()), ..question() };
    assert_eq!(ask(&local, large.clone()).await.code(), ("no_api_key", false));
    let own = Unit { credential: Some(key(OTHER_SECRET)), ..unit(Payload::Chat(large)) };
    assert_eq!(run(&local, own).await.answer().provider, "gemini", "with the user's key it is served everywhere");
    let none = AiExecutor::new(AiConfig { gemini_api_key: None, ..config(&fake) });
    assert_eq!(none.models(), ["demo"]);
}

#[tokio::test]
async fn a_request_may_say_whom_to_ask_in_which_order() {
    let fake = FakeGemini::start().await.unwrap();
    let executor = AiExecutor::new(both(&fake));
    assert_eq!(provider(&executor, None, Some(&["gemini", "local"])).await, format!("gemini {DEFAULT_MODEL}"));
    assert_eq!(provider(&executor, None, Some(&["own", "gemini:gemini-3.5-pro"])).await, "gemini gemini-3.5-pro");
    assert_eq!(provider(&executor, Some("gemini-3.5-pro"), Some(&["gemini"])).await, "gemini gemini-3.5-pro");
    fake.for_model("gemini-3.5-pro", flota_tests::fake_gemini::Trouble::Status(503));
    let chain = ["gemini:gemini-3.5-pro", "local"];
    assert_eq!(provider(&executor, None, Some(&chain)).await, "local local-model");
    let own_only = ChatPayload { chain: Some(links(&["own"])), ..question() };
    assert_eq!(ask(&executor, own_only).await.code(), ("no_api_key", false));
}

#[tokio::test]
async fn a_provider_that_keeps_failing_is_left_alone_and_the_next_is_asked_at_once() {
    let fake = FakeGemini::start().await.unwrap();
    let chain = links(&["gemini", "local"]);
    let executor = AiExecutor::new(AiConfig { chain, ..both(&fake) });
    fake.for_model(DEFAULT_MODEL, flota_tests::fake_gemini::Trouble::Status(503));
    for _ in 0..2 * breaker::FAILURES {
        assert_eq!(provider(&executor, None, None).await, "local local-model");
    }
    let asked = fake.calls().iter().filter(|seen| seen.path.contains("gemini")).count();
    assert_eq!(asked, breaker::FAILURES as usize);
    let alone = ChatPayload { chain: Some(links(&["gemini"])), ..question() };
    let outcome = ask(&executor, alone).await;
    assert_eq!(outcome.code(), ("resting", true));
    let after = outcome.result.unwrap_err().retry_after.unwrap();
    assert!(after <= breaker::OPEN_FOR && after > Duration::ZERO, "{after:?}");
}

#[tokio::test]
async fn a_key_that_was_asked_too_much_rests_as_long_as_the_provider_says() {
    let fake = FakeGemini::start().await.unwrap();
    let executor = AiExecutor::new(config(&fake));
    fake.next(flota_tests::fake_gemini::Trouble::PerMinute(Some("26s".into())));
    for unasked in [false, true, true] {
        let failure = ask(&executor, question()).await.result.unwrap_err();
        assert_eq!((failure.code.as_str(), failure.retryable, failure.unasked), ("rate_limited", true, unasked));
        assert!(failure.retry_after.is_some_and(|after| after > Duration::from_secs(20)), "{failure:?}");
    }
    assert_eq!(fake.calls().len(), 1, "the others asked nobody");
}

#[tokio::test]
async fn embeddings_go_in_batches_and_say_what_they_used() {
    let fake = FakeGemini::start().await.unwrap();
    for config in [config(&fake), local_only(&fake)] {
        let before = fake.calls().len();
        let texts: Vec<String> = (0..250).map(|n| "x".repeat(n)).collect();
        let payload = flota_proto::kinds::EmbedPayload { texts, model: None };
        let executor = AiExecutor::new(config);
        let output = executor.execute(unit(Payload::Embed(payload)), context().0).await.unwrap();
        let result: flota_proto::kinds::EmbedResult = serde_json::from_slice(&output.json).unwrap();
        let lengths: Vec<f32> = result.vectors.iter().map(|vector| vector[0]).collect();
        assert!(lengths.iter().enumerate().all(|(n, length)| *length == n as f32), "{lengths:?}");
        assert_eq!(fake.calls().len() - before, 3);
        assert!(["gemini", "local"].contains(&result.provider.as_str()));
    }
}
