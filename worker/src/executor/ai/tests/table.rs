//! Every row of the guide's table of failures, however the provider's writes are cut: 1, 7 and 4096 bytes, and whole.

use flota_tests::fake_gemini::{End, Piece, Trouble};

use super::*;

const SIZES: [Option<usize>; 4] = [Some(1), Some(7), Some(4096), None];

/// How the provider refuses, what that is called, whether another attempt can help, and whether the next is asked.
fn rows() -> Vec<(Trouble, &'static str, bool, bool)> {
    let status = |code| Trouble::Status(code);
    vec![
        (Trouble::BadKey, "bad_key", false, true),
        (status(401), "bad_key", false, true),
        (status(403), "forbidden", false, false),
        (Trouble::Precondition, "not_available", false, false),
        (status(400), "bad_request", false, false),
        (status(402), "payment_required", false, false),
        (status(404), "model_gone", false, true),
        (status(499), "bad_request", false, false),
        (Trouble::PerMinute(Some("26s".into())), "rate_limited", true, false),
        (Trouble::PerMinute(Some("38.2s".into())), "rate_limited", true, false),
        (Trouble::PerMinute(None), "rate_limited", true, false),
        (status(429), "rate_limited", true, false),
        (Trouble::PerDay, "quota_day", false, true),
        (status(408), "provider_timeout", true, true),
        (status(500), "provider_error", true, true),
        (status(502), "provider_error", true, true),
        (status(503), "overloaded", true, true),
        (status(504), "provider_timeout", true, true),
    ]
}

fn delay(trouble: &Trouble) -> Option<Duration> {
    match trouble {
        Trouble::PerMinute(Some(text)) if text == "26s" => Some(Duration::from_secs(26)),
        Trouble::PerMinute(Some(_)) => Some(Duration::from_millis(38_200)),
        _ => None,
    }
}

/// The ways in which a refusal can come before any text: as the answer, as bare JSON in a stream, as a frame.
fn replies(trouble: &Trouble, size: Option<usize>) -> Vec<flota_tests::fake_gemini::Reply> {
    let script = |end| Script { cut: size, ..Script::of([Piece::Thought("hm".into())]).end(end) };
    let (status, body) = trouble.answer();
    vec![
        flota_tests::fake_gemini::Reply::Cut { status, body: format!("{body:#}"), size },
        script(End::BareError(trouble.clone())).into(),
        script(End::ErrorFrame(trouble.clone())).into(),
    ]
}

#[tokio::test]
async fn each_refusal_has_its_outcome_alone() {
    for (trouble, code, retryable, _) in rows() {
        for size in SIZES {
            for reply in replies(&trouble, size) {
                let fake = FakeGemini::start().await.unwrap();
                fake.for_model(DEFAULT_MODEL, reply);
                let outcome = ask_gemini(&fake).await;
                assert_eq!(outcome.code(), (code, retryable), "{trouble:?} in writes of {size:?}");
                assert_eq!(outcome.result.unwrap_err().retry_after, delay(&trouble), "{trouble:?}");
                assert_eq!(outcome.seen.text(), "");
                assert_eq!(fake.calls().len(), 1, "waiting and trying again is the core's");
            }
        }
    }
}

#[tokio::test]
async fn each_refusal_goes_on_to_the_next_provider_or_does_not() {
    for (trouble, code, _, goes_on) in rows() {
        for size in SIZES {
            for reply in replies(&trouble, size) {
                let fake = FakeGemini::start().await.unwrap();
                fake.for_model(DEFAULT_MODEL, reply);
                let chain = links(&["gemini", "local"]);
                let executor =
                    AiExecutor::new(AiConfig { gemini_api_key: Some(key(SECRET)), chain, ..local_only(&fake) });
                let outcome = ask(&executor, question()).await;
                match &outcome.result {
                    Ok(answer) => assert!(goes_on && answer.provider == "local", "{trouble:?} {size:?}"),
                    Err(failure) => assert!(!goes_on && failure.code == code, "{trouble:?} {size:?}: {failure:?}"),
                }
            }
        }
    }
}

#[tokio::test]
async fn after_the_first_text_each_is_an_interruption_that_keeps_the_part_that_came() {
    for (trouble, ..) in rows() {
        for size in SIZES {
            for end in [End::BareError(trouble.clone()), End::ErrorFrame(trouble.clone())] {
                let fake = FakeGemini::start().await.unwrap();
                fake.for_model(DEFAULT_MODEL, Script { cut: size, ..Script::unfinished(&["ñ ", "🙂"]).end(end) });
                let chain = links(&["gemini", "local"]);
                let executor =
                    AiExecutor::new(AiConfig { gemini_api_key: Some(key(SECRET)), chain, ..local_only(&fake) });
                let outcome = ask(&executor, question()).await;
                assert_eq!(outcome.code(), ("interrupted", false), "{trouble:?} {size:?}");
                assert_eq!((outcome.seen.text().as_str(), fake.calls().len()), ("ñ 🙂", 1));
            }
        }
    }
}

#[tokio::test]
async fn a_connection_that_fails_goes_on_to_the_next() {
    for size in SIZES {
        for end in [End::Reset, End::Whole, End::MidCharacter] {
            let fake = FakeGemini::start().await.unwrap();
            fake.for_model(DEFAULT_MODEL, Script { cut: size, ..Script::unfinished(&[]).end(end.clone()) });
            let config =
                AiConfig { gemini_api_key: Some(key(SECRET)), chain: links(&["gemini", "local"]), ..local_only(&fake) };
            let outcome = ask(&AiExecutor::new(config), question()).await;
            if end == End::MidCharacter {
                assert_eq!(outcome.code(), ("bad_answer", true), "{size:?}");
            } else {
                assert_eq!(outcome.answer().provider, "local", "{end:?} {size:?}");
            }
        }
    }
}

#[tokio::test]
async fn the_ends_of_streams_are_told_apart() {
    use flota_proto::kinds::Finish;
    for size in SIZES {
        let with = |script: Script| answer_to(Script { cut: size, ..script });
        for (reason, finish) in [
            ("STOP", Finish::Complete),
            ("MAX_TOKENS", Finish::MaxTokens),
            ("SAFETY", Finish::Blocked),
            ("RECITATION", Finish::Blocked),
            ("PROHIBITED_CONTENT", Finish::Blocked),
        ] {
            let answer = with(Script::text(&["ñ", "🙂"], reason)).await.answer();
            assert_eq!((answer.finish, answer.text.as_str()), (finish, "ñ🙂"), "{reason} {size:?}");
            let why = (finish == Finish::Blocked).then(|| reason.to_owned());
            assert_eq!(answer.finish_reason, why);
            let end = Script::text(&["ñ"], reason).end(End::WithoutBlankLine);
            assert_eq!(with(end).await.answer().finish, finish);
        }
        let blocked = with(Script::of([Piece::Block("SOMETHING_NEW".into())])).await.answer();
        assert_eq!((blocked.finish, blocked.finish_reason.as_deref()), (Finish::Blocked, Some("SOMETHING_NEW")));
        let thoughts = Script::of([Piece::Thought("hm".into()), Piece::Finish("STOP".into())]);
        assert_eq!(with(thoughts).await.code(), ("empty", true));
        assert_eq!(with(Script::text(&[], "MADE_UP_LATER")).await.code(), ("stopped", true));
        assert_eq!(with(Script::text(&["x"], "MADE_UP_LATER")).await.code(), ("interrupted", false));
        assert_eq!(with(Script::unfinished(&["x"])).await.code(), ("interrupted", false));
        assert_eq!(with(Script::unfinished(&["x"]).end(End::MidCharacter)).await.code(), ("interrupted", false));
        let mut late = Script::text(&["a"], "STOP");
        late.pieces.push(Piece::Text("b".into()));
        assert_eq!(with(late).await.answer().text, "ab", "text can follow the finish reason");
    }
}
