//! Every failure of the guide's table, and what a cancel does.

use flota_tests::fake_gemini::{End, Trouble};

use super::*;

async fn refused(trouble: Trouble) -> Failure {
    let fake = FakeGemini::start().await.unwrap();
    fake.for_model(DEFAULT_MODEL, trouble);
    ask_gemini(&fake).await.result.unwrap_err()
}

#[tokio::test]
async fn every_refusal_has_its_code_and_says_whether_a_retry_helps() {
    let table = [
        (Trouble::BadKey, "bad_key", false),
        (Trouble::Status(401), "bad_key", false),
        (Trouble::Status(403), "forbidden", false),
        (Trouble::Precondition, "not_available", false),
        (Trouble::Status(400), "bad_request", false),
        (Trouble::Status(402), "payment_required", false),
        (Trouble::Status(404), "model_gone", false),
        (Trouble::Status(499), "bad_request", false),
        (Trouble::PerMinute(None), "rate_limited", true),
        (Trouble::Status(429), "rate_limited", true),
        (Trouble::PerDay, "quota_day", false),
        (Trouble::Status(408), "provider_timeout", true),
        (Trouble::Status(500), "provider_error", true),
        (Trouble::Status(502), "provider_error", true),
        (Trouble::Status(503), "overloaded", true),
        (Trouble::Status(504), "provider_timeout", true),
        (Trouble::Status(307), "bad_request", false),
    ];
    for (trouble, code, retryable) in table {
        let failure = refused(trouble.clone()).await;
        assert_eq!((failure.code.as_str(), failure.retryable), (code, retryable), "{trouble:?}");
        assert_eq!(failure.retry_after, None, "{trouble:?}");
    }
}

#[tokio::test]
async fn a_limit_a_minute_says_when_to_come_again() {
    let failure = refused(Trouble::PerMinute(Some("26s".into()))).await;
    assert_eq!((failure.code.as_str(), failure.retry_after), ("rate_limited", Some(Duration::from_secs(26))));
    let failure = refused(Trouble::PerMinute(Some("38.2s".into()))).await;
    assert_eq!(failure.retry_after, Some(Duration::from_millis(38_200)));
    assert!(failure.message.contains("39 s"), "{}", failure.message);
}

#[tokio::test]
async fn the_stand_ins_own_limit_is_one_of_a_minute() {
    let fake = FakeGemini::start_with(Options { per_minute: Some(1), ..Options::default() }).await.unwrap();
    ask_gemini(&fake).await.answer();
    let failure = ask_gemini(&fake).await.result.unwrap_err();
    assert_eq!(failure.code, "rate_limited");
    assert!(failure.retry_after.is_some_and(|after| after > Duration::from_secs(20)), "{failure:?}");
}

#[tokio::test]
async fn a_server_that_is_not_there_is_worth_a_retry() {
    let fake = FakeGemini::start().await.unwrap();
    let config = config(&fake);
    drop(fake);
    let executor = AiExecutor::new(config);
    let gone = async { while ask(&executor, question()).await.result.is_ok() {} };
    tokio::time::timeout(Duration::from_secs(30), gone).await.unwrap();
    assert_eq!(ask(&executor, question()).await.code(), ("unreachable", true));
}

#[tokio::test]
async fn a_key_that_no_header_can_hold_is_bad() {
    let fake = FakeGemini::start().await.unwrap();
    let executor = AiExecutor::new(AiConfig { gemini_api_key: Some(key("a\nb")), ..config(&fake) });
    assert_eq!(ask(&executor, question()).await.code(), ("bad_key", false));
    assert!(fake.requests().is_empty());
}

/// How streams break, and what they come to before any text.
fn breaks() -> [(End, &'static str, bool); 6] {
    [
        (End::BareError(Trouble::Status(503)), "overloaded", true),
        (End::BareError(Trouble::PerMinute(Some("5s".into()))), "rate_limited", true),
        (End::ErrorFrame(Trouble::Status(500)), "provider_error", true),
        (End::BareError(Trouble::Status(400)), "bad_request", false),
        (End::Reset, "interrupted", true),
        (End::Whole, "interrupted", true),
    ]
}

#[tokio::test]
async fn a_stream_that_breaks_before_any_text_may_be_tried_again() {
    for (end, code, retryable) in breaks() {
        let script = Script::of([flota_tests::fake_gemini::Piece::Thought("hm".into())]).end(end.clone());
        assert_eq!(answer_to(script).await.code(), (code, retryable), "{end:?}");
    }
}

#[tokio::test]
async fn a_stream_that_breaks_after_text_keeps_it_and_is_not_tried_again() {
    for (end, ..) in breaks() {
        for cut in [None, Some(3)] {
            let script = Script { cut, ..Script::unfinished(&["what ", "came"]).end(end.clone()) };
            let outcome = answer_to(script).await;
            assert_eq!(outcome.code(), ("interrupted", false), "{end:?}");
            assert_eq!(outcome.seen.text(), "what came", "{end:?}");
        }
    }
}

#[tokio::test]
async fn an_answer_that_is_no_stream_is_no_answer() {
    let raw = |body: &str| flota_tests::fake_gemini::Reply::Raw { status: 200, body: body.to_owned() };
    for (body, code) in [
        ("", "interrupted"),
        ("<html>busy</html>", "interrupted"),
        ("data: {broken\n\n", "bad_answer"),
        ("data: {\"candidates\":7}\n\n", "bad_answer"),
        ("[{\"error\":{\"code\":503}}]", "overloaded"),
    ] {
        let fake = FakeGemini::start().await.unwrap();
        fake.next(raw(body));
        assert_eq!(ask_gemini(&fake).await.code(), (code, true), "{body}");
    }
}

#[tokio::test]
async fn a_redirect_is_not_followed_with_the_key() {
    let elsewhere = FakeGemini::start().await.unwrap();
    let target = format!("{}/models/x:streamGenerateContent?alt=sse", elsewhere.base_url());
    let app = axum_redirect(target).await;
    let executor = AiExecutor::new(AiConfig { gemini_base_url: app.parse().unwrap(), ..config(&elsewhere) });
    assert_eq!(ask(&executor, question()).await.code(), ("bad_request", false));
    assert!(elsewhere.requests().is_empty());
}

/// A server that redirects everything to `target`.
async fn axum_redirect(target: String) -> String {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let _ = stream.read(&mut [0; 4096]).await;
            let head = format!("HTTP/1.1 307 Temporary Redirect\r\nlocation: {target}\r\ncontent-length: 0\r\n\r\n");
            let _ = stream.write_all(head.as_bytes()).await;
        }
    });
    format!("http://{address}/v1beta")
}

/// Cancels once `begun` holds; the connection must close.
async fn cancelled(script: Script, begun: impl Fn(&Seen, &FakeGemini) -> bool) -> (Failure, Arc<Seen>) {
    let fake = FakeGemini::start().await.unwrap();
    fake.next(script);
    let executor = AiExecutor::new(config(&fake));
    let (context, seen) = context();
    let cancel = context.cancel.clone();
    let work = executor.execute(unit(Payload::Chat(question())), context);
    let stop = async {
        until("the call has begun", || begun(&seen, &fake)).await;
        cancel.cancel();
    };
    let (result, ()) = tokio::join!(work, stop);
    until("the connection is closed", || fake.requests()[0].ended == Ended::Closed).await;
    (result.unwrap_err(), seen)
}

#[tokio::test]
async fn stop_closes_the_connection_in_the_middle_of_an_answer() {
    let script = Script::unfinished(&["half"]).end(End::Stall);
    let (failure, seen) = cancelled(script, |seen, _| !seen.text().is_empty()).await;
    assert_eq!((failure, seen.text().as_str()), (Failure::cancelled(), "half"));
}

#[tokio::test]
async fn stop_closes_the_connection_before_the_first_word() {
    let slow = Script::text(&["late"], "STOP").after(Duration::from_secs(3600));
    let (failure, seen) = cancelled(slow, |_, fake| !fake.requests().is_empty()).await;
    assert_eq!((failure, seen.text().as_str()), (Failure::cancelled(), ""));
}

#[tokio::test]
async fn an_attempt_that_waits_shows_that_it_is_alive() {
    let script = Script::of([]).end(End::Stall);
    let (_, seen) = cancelled(script, |seen, _| seen.alive() >= 1).await;
    assert!(seen.alive() >= 1);
}

#[tokio::test]
async fn an_attempt_ends_with_its_time() {
    for (texts, expected) in [(&[][..], ("timeout", true)), (&["half"][..], ("interrupted", false))] {
        let fake = FakeGemini::start().await.unwrap();
        fake.next(Script::unfinished(texts).end(End::Stall));
        let unit = Unit { timeout: Duration::from_millis(500), ..unit(Payload::Chat(question())) };
        assert_eq!(run(&AiExecutor::new(config(&fake)), unit).await.code(), expected);
        until("the connection is closed", || fake.requests()[0].ended == Ended::Closed).await;
    }
}
