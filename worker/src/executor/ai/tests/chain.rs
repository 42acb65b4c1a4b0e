//! Who is asked after whom.

use flota_tests::fake_gemini::{End, Trouble};

use super::*;

const ALL: &str = "gemini-3.5-flash-lite";

/// Gemini with a worker's key before a local AI at the same stand-in.
fn both(fake: &FakeGemini) -> AiConfig {
    let chain = links(&["own", "gemini", "local"]);
    AiConfig { gemini_api_key: Some(key(SECRET)), chain, ..local_only(fake) }
}

fn with_own_key(chat: ChatPayload) -> Unit {
    Unit { credential: Some(key(OTHER_SECRET)), ..unit(Payload::Chat(chat)) }
}

fn keys(fake: &FakeGemini) -> Vec<Option<String>> {
    fake.calls().iter().map(|seen| seen.header("x-goog-api-key").map(str::to_owned)).collect()
}

#[tokio::test]
async fn the_questions_own_key_goes_before_the_workers() {
    let fake = FakeGemini::start().await.unwrap();
    let executor = AiExecutor::new(both(&fake));
    assert_eq!(run(&executor, with_own_key(question())).await.answer().provider, "gemini");
    assert_eq!(ask(&executor, question()).await.answer().provider, "gemini");
    assert_eq!(keys(&fake), [Some(OTHER_SECRET.to_owned()), Some(SECRET.to_owned())]);
}

#[tokio::test]
async fn a_bad_key_of_the_user_is_told_and_the_next_provider_goes_on() {
    let options = Options { keys: vec![SECRET.to_owned()], ..Options::default() };
    let fake = FakeGemini::start_with(options).await.unwrap();
    let outcome = run(&AiExecutor::new(both(&fake)), with_own_key(question())).await;
    assert!(outcome.seen.notes().contains("your API key"), "{}", outcome.seen.notes());
    assert!(!outcome.seen.notes().contains(OTHER_SECRET));
    let answer = outcome.answer();
    assert_eq!(answer.provider, "local");
    assert!(matches!(&answer.notes[..], [note] if note.contains("Gemini refuses your API key")), "{:?}", answer.notes);
    assert_eq!(keys(&fake), [Some(OTHER_SECRET.to_owned()), None], "the worker's key is nobody else's");

    let plain = ask(&AiExecutor::new(both(&fake)), question()).await.answer();
    assert_eq!((plain.provider.as_str(), plain.notes), ("gemini", Vec::new()));
}

#[tokio::test]
async fn a_question_with_a_key_of_its_own_is_never_asked_with_the_workers() {
    let options = Options { keys: vec![SECRET.to_owned()], ..Options::default() };
    let fake = FakeGemini::start_with(options).await.unwrap();
    let with = |model: Option<&str>, chain: Option<&[&str]>| ChatPayload {
        model: model.map(str::to_owned),
        chain: chain.map(links),
        ..question()
    };
    let executors = [config(&fake), AiConfig { chain: links(&["gemini", "own"]), ..config(&fake) }];
    for executor in executors.map(AiExecutor::new) {
        for chat in [
            question(),
            with(Some(ALL), None),
            with(Some("large"), None),
            with(None, Some(&["gemini"])),
            with(Some("gemini-3.5-pro"), Some(&["own", "gemini:gemini-3.5-pro"])),
        ] {
            assert_eq!(run(&executor, with_own_key(chat)).await.code(), ("bad_key", false));
        }
        let embed = EmbedPayload { texts: vec!["a".into()], model: None };
        let unit = Unit { credential: Some(key(OTHER_SECRET)), ..unit(Payload::Embed(embed)) };
        assert_eq!(executor.execute(unit, context().0).await.unwrap_err().code, "bad_key");
    }
    assert_eq!(keys(&fake).len(), 12, "each is asked once");
    assert!(keys(&fake).iter().all(|key| key.as_deref() == Some(OTHER_SECRET)), "{:?}", keys(&fake));
    let fake = FakeGemini::start().await.unwrap();
    fake.for_model(ALL, Trouble::Status(503));
    let busy = run(&AiExecutor::new(config(&fake)), with_own_key(question())).await;
    assert_eq!(busy.code(), ("overloaded", true));
    assert_eq!(keys(&fake), [Some(OTHER_SECRET.to_owned())], "nor after another failure");
}

#[tokio::test]
async fn where_only_its_own_key_may_be_used_nobody_else_is_asked() {
    let options = Options { keys: vec![OTHER_SECRET.to_owned()], ..Options::default() };
    let fake = FakeGemini::start_with(options).await.unwrap();
    let executor = AiExecutor::new(both(&fake));
    let only = |credential: &str, chat: ChatPayload| Unit {
        credential: Some(key(credential)),
        own_key_only: true,
        ..unit(Payload::Chat(chat))
    };
    assert_eq!(run(&executor, only(OTHER_SECRET, question())).await.answer().provider, "gemini");
    assert_eq!(run(&executor, only("AIza-junk", question())).await.code(), ("bad_key", false));
    assert_eq!(fake.calls().len(), 2);
    let local = || ChatPayload { model: Some("local-model".into()), ..question() };
    assert_eq!(run(&executor, only(OTHER_SECRET, local())).await.code(), ("budget_spent", false));
    let demo = ChatPayload { model: Some("demo".into()), ..question() };
    assert_eq!(run(&executor, only(OTHER_SECRET, demo)).await.answer().provider, "demo");
    assert_eq!(run(&executor, with_own_key(local())).await.answer().provider, "local");
}

#[tokio::test]
async fn the_local_ai_answers_without_a_key_and_where_gemini_fails() {
    let fake = FakeGemini::start().await.unwrap();
    let answer = ask(&AiExecutor::new(local_only(&fake)), question()).await.answer();
    assert_eq!((answer.provider.as_str(), answer.model.as_str()), ("local", "local-model"));
    assert_eq!(keys(&fake), [None]);
    for trouble in [Trouble::BadKey, Trouble::Status(404), Trouble::PerDay, Trouble::Status(503)] {
        fake.for_model(ALL, trouble.clone());
        let answer = ask(&AiExecutor::new(both(&fake)), question()).await.answer();
        assert_eq!(answer.provider, "local", "{trouble:?}");
    }
    fake.for_model(ALL, Script::unfinished(&[]).end(End::Reset));
    assert_eq!(ask(&AiExecutor::new(both(&fake)), question()).await.answer().provider, "local");
}

#[tokio::test]
async fn nobody_else_is_asked_where_it_would_not_help_or_text_was_seen() {
    let fake = FakeGemini::start().await.unwrap();
    let executor = AiExecutor::new(both(&fake));
    for trouble in [
        Trouble::Status(400),
        Trouble::Status(402),
        Trouble::Status(403),
        Trouble::Precondition,
        Trouble::PerMinute(None),
    ] {
        fake.for_model(ALL, trouble.clone());
        assert!(ask(&executor, question()).await.result.is_err(), "{trouble:?}");
    }
    fake.for_model(ALL, Script::unfinished(&["seen"]).end(End::Reset));
    assert_eq!(ask(&executor, question()).await.code(), ("interrupted", false));
    assert!(keys(&fake).iter().all(Option::is_some), "the local AI was not asked");
}

#[tokio::test]
async fn another_model_answers_where_the_default_is_gone_or_busy() {
    let models = [ALL, "gemini-3.5-pro", "gemini-3.6-flash"].map(str::to_owned).to_vec();
    let fake = FakeGemini::start_with(Options { models, ..Options::default() }).await.unwrap();
    let executor = AiExecutor::new(config(&fake));
    assert!(executor.refresh().await);
    for trouble in [Trouble::Status(404), Trouble::Status(503)] {
        fake.for_model(ALL, trouble);
        assert_eq!(ask(&executor, question()).await.answer().model, "gemini-3.6-flash");
    }
    // A model that was named is not replaced.
    let chat = ChatPayload { model: Some(ALL.to_owned()), ..question() };
    assert_eq!(ask(&executor, chat).await.code(), ("overloaded", true));
}

#[tokio::test]
async fn a_quota_of_the_day_rests_that_key_and_model() {
    let fake = FakeGemini::start().await.unwrap();
    let executor = AiExecutor::new(config(&fake));
    fake.next(Trouble::PerDay);
    assert_eq!(ask(&executor, question()).await.code(), ("quota_day", false));
    assert_eq!(ask(&executor, question()).await.code(), ("quota_day", false));
    assert_eq!(fake.calls().len(), 1, "the second question asked nobody");
    run(&executor, with_own_key(question())).await.answer();
    let pro = ChatPayload { model: Some("gemini-3.5-pro".to_owned()), ..question() };
    ask(&executor, pro).await.answer();
    assert_eq!(fake.calls().len(), 3);
}

#[tokio::test]
async fn when_all_fail_the_message_says_so_of_each() {
    let fake = FakeGemini::start().await.unwrap();
    fake.for_model(ALL, Trouble::BadKey);
    fake.for_model("local-model", Trouble::Status(503));
    let outcome = run(&AiExecutor::new(both(&fake)), with_own_key(question())).await;
    assert_eq!(outcome.code(), ("overloaded", true));
    let message = outcome.result.unwrap_err().message;
    for part in ["your API key", "the local AI"] {
        assert!(message.contains(part), "{message}");
    }
}

#[tokio::test]
async fn without_any_ai_the_failure_says_what_to_do() {
    let fake = FakeGemini::start().await.unwrap();
    let executor = AiExecutor::new(AiConfig { gemini_api_key: Some(key(" ")), ..config(&fake) });
    let outcome = ask(&executor, question()).await;
    assert_eq!(outcome.code(), ("no_api_key", false));
    let message = outcome.result.unwrap_err().message;
    assert!(message.contains("GEMINI_API_KEY") && message.contains("demo"), "{message}");
    let named = ChatPayload { model: Some("gemini-3.5-pro".to_owned()), ..question() };
    assert_eq!(ask(&AiExecutor::new(local_only(&fake)), named).await.code(), ("no_api_key", false));
    assert!(fake.requests().is_empty());
}

#[tokio::test(start_paused = true)]
async fn the_demo_streams_says_what_it_is_and_can_be_stopped() {
    let executor = AiExecutor::new(AiConfig {
        gemini_api_key: None,
        gemini_base_url: GEMINI_BASE_URL.parse().unwrap(),
        gemini_model: DEFAULT_MODEL.to_owned(),
        local_url: None,
        local_model: None,
        chain: links(&["own", "local", "gemini"]),
        classes: BTreeMap::new(),
    });
    assert_eq!(executor.models(), ["demo"]);
    let chat = || ChatPayload { model: Some("demo".to_owned()), ..question() };
    let outcome = ask(&executor, chat()).await;
    let streamed = outcome.seen.text();
    let answer = outcome.answer();
    assert!(answer.text.contains("No AI answered") && answer.text == streamed);
    assert_eq!((answer.model.as_str(), answer.provider.as_str()), ("demo", "demo"));

    let (context, seen) = context();
    let cancel = context.cancel.clone();
    let stop = until("some text", || !seen.text().is_empty());
    let (result, ()) = tokio::join!(executor.execute(unit(Payload::Chat(chat())), context), async {
        stop.await;
        cancel.cancel();
    });
    assert_eq!(result.unwrap_err(), Failure::cancelled());
    assert!(seen.text().len() < streamed.len());
}

#[tokio::test]
async fn models_are_the_default_what_the_lists_say_and_the_demo() {
    let fake = FakeGemini::start().await.unwrap();
    let executor = AiExecutor::start(AiConfig { gemini_model: "gemini-3.5-pro".into(), ..both(&fake) });
    assert_eq!(executor.models()[..1], ["gemini-3.5-pro"]);
    let expected =
        ["gemini-3.5-pro", "gemini-3.5-flash-lite", "local-model", "gemini-embedding-001", "small", "large", "demo"];
    let expected = expected.map(str::to_owned);
    until("the lists came", || executor.models() == expected).await;
    let listed: Vec<_> = fake.requests().into_iter().filter(|seen| seen.method == "GET").collect();
    assert!(listed.iter().all(|seen| !seen.query.contains("key")));
    assert!(!format!("{:?}", both(&fake)).contains(SECRET));
}
