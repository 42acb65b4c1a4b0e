//! What a person does on the page, in a real headless Chromium; the scenarios are in `tests/browser/`.

use flota_tests::browser::{passes, reaches, scenario, succeeds};
use flota_tests::fake_gemini::{End, Ended, FakeGemini, Options, Script, Trouble};
use flota_tests::simple::SimpleWorker;
use flota_tests::{Mosquitto, Node, node::workers_ready, until};
use reqwest::Method;

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_streams_survives_a_reload_and_stop_closes_the_connection() {
    let words: Vec<String> = (1..=60).map(|n| format!("word{n}")).collect();
    let pieces: Vec<String> = words.iter().map(|word| format!("{word} ")).collect();
    let mut slow = Script::text(&pieces.iter().map(String::as_str).collect::<Vec<_>>(), "STOP");
    slow.holds = vec![20, 40];
    let gemini = FakeGemini::start().await.expect("failed to start the stand-in");
    gemini.next(slow);
    gemini.next(Script::unfinished(&["This never ", "ends "]).end(End::Stall));
    let fleet = Node::up()
        .with("FLOTA_GEMINI_BASE_URL", gemini.base_url())
        .with("GEMINI_API_KEY", "key-of-the-worker")
        .with("FLOTA_WORKER_ID", "gemini-1")
        .start()
        .await;
    workers_ready(&fleet.rest(), 1).await;

    let browser = scenario("ask", &[&fleet.url(), &words.join(" "), "gemini-1"], fleet.directory());
    reaches(&browser, "begun").await;
    gemini.go_on();
    reaches(&browser, "reloaded").await;
    gemini.go_on();
    succeeds(&browser).await;

    let calls = until("the stand-in has seen Stop", || async {
        let calls: Vec<_> = gemini.calls();
        if calls.last().is_some_and(|call| call.ended == Ended::Closed) { Ok(calls) } else { Err(calls) }
    })
    .await;
    assert_eq!(calls.len(), 2, "a reload asks nothing again: {calls:?}");
    assert_eq!(calls[0].ended, Ended::Answered);
    for call in &calls {
        assert_eq!(call.header("x-goog-api-key"), Some("key-of-the-worker"));
        assert!(!call.query.contains("key-of-the-worker"), "a key stands in a URL");
    }
    assert!(!fleet.log().contains("key-of-the-worker") && !fleet.log().contains("keep together"), "{}", fleet.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_key_the_page_offers_the_demo_and_a_key_that_is_entered_is_used() {
    let gemini = FakeGemini::start().await.expect("failed to start the stand-in");
    let fleet = Node::up().with("FLOTA_GEMINI_BASE_URL", gemini.base_url()).start().await;
    workers_ready(&fleet.rest(), 1).await;
    passes("key", &[&fleet.url(), "key-of-the-user"], fleet.directory()).await;
    let keys: Vec<_> = gemini.calls().iter().map(|call| call.header("x-goog-api-key").map(str::to_owned)).collect();
    assert_eq!(keys, [Some("key-of-the-user".to_owned())]);
    assert!(!fleet.log().contains("key-of-the-user"), "a key stands in the log");
    for entry in std::fs::read_dir(fleet.data_dir()).expect("no data directory").flatten() {
        let kept = std::fs::read(entry.path()).unwrap_or_default();
        let found = kept.windows(15).any(|window| window == b"key-of-the-user");
        assert!(!found, "a key stands in {}", entry.path().display());
    }
}

/// A fleet whose AI is the stand-in, with a model for each way to fail.
async fn fleet_of(gemini: &FakeGemini) -> Node {
    gemini.for_model("bad", Trouble::BadKey);
    gemini.for_model("quota", Trouble::PerDay);
    gemini.for_model("gone", Trouble::Status(404));
    gemini.for_model("hostile", Script::text(&[HOSTILE], "STOP"));
    let fleet = Node::up()
        .with("FLOTA_GEMINI_BASE_URL", gemini.base_url())
        .with("GEMINI_API_KEY", "key-of-the-worker")
        .with("FLOTA_WORKER_ID", "gemini-1")
        .start()
        .await;
    workers_ready(&fleet.rest(), 1).await;
    until("the worker says which models it serves", || async {
        let workers = fleet.rest().get("/workers").await;
        if workers.text.contains("quota") { Ok(()) } else { Err(workers.text) }
    })
    .await;
    fleet
}

fn models() -> Options {
    let models = ["gemini-3.5-flash-lite", "bad", "quota", "gone", "hostile"].map(str::to_owned).to_vec();
    Options { models, ..Options::default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn conversations_have_versions_names_a_search_and_failures_that_say_what_to_do() {
    let gemini = FakeGemini::start_with(models()).await.expect("failed to start the stand-in");
    let fleet = fleet_of(&gemini).await;
    passes("chat", &[&fleet.url()], fleet.directory()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn failed_jobs_are_replayed_a_wrong_source_is_refused_and_hashing_is_shown() {
    let fleet = Node::up().start().await;
    workers_ready(&fleet.rest(), 1).await;
    passes("ops", &[&fleet.url()], fleet.directory()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_is_reached_by_keys_and_files_go_along_with_a_question() {
    let fleet = Node::up().start().await;
    workers_ready(&fleet.rest(), 1).await;
    passes("keys", &[&fleet.url()], fleet.directory()).await;
}

async fn axe_finds_nothing(size: &str) {
    let gemini = FakeGemini::start_with(models()).await.expect("failed to start the stand-in");
    gemini.for_model("gemini-3.5-flash-lite", Script::text(&[MARKDOWN], "STOP"));
    let fleet = fleet_of(&gemini).await;
    passes("axe", &[&fleet.url(), size], fleet.directory()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn axe_finds_nothing_on_a_desk_in_both_languages_and_themes() {
    axe_finds_nothing("desk").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn axe_finds_nothing_on_a_phone_in_both_languages_and_themes() {
    axe_finds_nothing("phone").await;
}

const HOSTILE: &str = "<script>window.hit = 2</script> <img src=\"http://127.0.0.1:9/a.png\" onerror=\"window.hit = 3\"> \
                       [link](javascript:window.hit=4) [data](data:text/html,x) ![picture](http://127.0.0.1:9/b.png)\n\n\
                       <iframe src=\"http://127.0.0.1:9/\"></iframe>\n\n```html\n</code></pre><script>window.hit = 5</script>\n```\n";

const MARKDOWN: &str = "## Ships\n\nThey *keep* **together** by [signals](https://example.org):\n\n1. `flags`\n2. lights\n\n- [x] done\n- [ ] to do\n\n| by | \
                        range |\n|---|---|\n| day | far |\n\n```rust\nfn main() {}\n```\n\n> Always.";

#[tokio::test(flavor = "multi_thread")]
async fn a_simple_worker_in_python_answers_a_question_asked_in_the_page() {
    let broker = Mosquitto::start().await;
    let master = Node::master(&broker.url()).start().await;
    let _worker = SimpleWorker::join(broker.port, "py-1", &[]).await;
    passes("simple", &[&master.url(), "py-1"], master.directory()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn jobs_fleet_and_logs_are_shown_on_a_desk_and_on_a_phone() {
    let fleet = Node::up().start().await;
    workers_ready(&fleet.rest(), 1).await;
    passes("tour", &[&fleet.url()], fleet.directory()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_page_says_when_the_fleet_is_gone_and_comes_back_with_it() {
    let mut fleet = Node::up().start().await;
    workers_ready(&fleet.rest(), 1).await;
    let url = fleet.url();
    let browser = scenario("reconnect", &[&url], fleet.directory());
    reaches(&browser, "ready").await;
    fleet.kill();
    reaches(&browser, "banner").await;
    fleet.start_again().await;
    succeeds(&browser).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_page_comes_in_the_form_that_the_browser_takes() {
    let fleet = Node::up().start().await;
    let rest = fleet.rest();
    let get = async |accepted: &str| {
        let request = rest.request(Method::GET, "//socket.io.js").header("accept-encoding", accepted);
        rest.send(request).await.expect(200)
    };
    let plain = get("identity").await;
    assert_eq!(plain.header("content-encoding"), "");
    assert!(plain.text.contains("Socket.IO"), "{}", plain.text);
    for (accepted, encoding) in [("gzip, deflate, br", "br"), ("gzip", "gzip"), ("br;q=0, gzip", "gzip")] {
        let packed = get(accepted).await;
        assert_eq!(packed.header("content-encoding"), encoding);
        assert_eq!(packed.header("vary"), "accept-encoding");
        assert_eq!(packed.header("content-type"), plain.header("content-type"));
        assert_ne!(packed.header("etag"), plain.header("etag"), "two forms are two things to a cache");
        let length: usize = packed.header("content-length").parse().expect("no length");
        assert!(length * 2 < plain.text.len(), "{length} of {}", plain.text.len());
    }
}
