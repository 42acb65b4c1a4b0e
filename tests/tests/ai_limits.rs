//! Limits, budgets, the ledger, the cache and the models of a fleet.
#![allow(clippy::unwrap_used)]

use flota_tests::fake_gemini::{FakeGemini, Options, Script, Trouble};
use flota_tests::node::{flota, workers_ready};
use flota_tests::{Mosquitto, Node, Rest, until};
use reqwest::Method;
use serde_json::{Value, json};

fn question(text: &str) -> Value {
    json!({"kind": "ai.chat", "payload": {"messages": [{"role": "user", "content": text}], "max_output_tokens": 20}})
}

async fn ask_as(rest: &Rest, owner: &str, body: &Value) -> flota_tests::Answer {
    rest.send(rest.request(Method::POST, "/jobs").header("X-Flota-Owner", owner).json(body)).await
}

async fn asked(rest: &Rest, owner: &str, body: &Value) -> String {
    ask_as(rest, owner, body).await.expect(201).body["id"].as_str().unwrap().to_owned()
}

fn with_gemini(node: Node, fake: &FakeGemini) -> Node {
    node.with("GEMINI_API_KEY", "k").with("FLOTA_GEMINI_BASE_URL", fake.base_url())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_limit_is_one_for_all_workers_and_each_owner_has_its_own() {
    let fake = FakeGemini::start().await.unwrap();
    let broker = Mosquitto::start().await;
    let master = Node::master(&broker.url()).with("FLOTA_AI_LIMITS", "owner_requests=5").start().await;
    let _one = with_gemini(Node::worker("w1", &broker.url()), &fake).start().await;
    let _two = with_gemini(Node::worker("w2", &broker.url()), &fake).start().await;
    let rest = master.rest();
    workers_ready(&rest, 2).await;
    let mut jobs = Vec::new();
    for number in 0..8 {
        jobs.push(asked(&rest, "ann", &question(&format!("q{number}"))).await);
    }
    for job in &jobs[..5] {
        rest.completed(job).await;
    }
    for job in &jobs[5..] {
        let waits = rest.reaches(job, &["scheduled"]).await;
        assert_eq!(waits["waiting"]["reason"], "rate_limit", "{waits}");
        let detail = waits["waiting"]["detail"].as_str().unwrap();
        assert!(detail.contains("owner 'ann'") && detail.contains("5 requests a minute"), "{detail}");
        assert_eq!(waits["failures"], 0);
    }
    rest.completed(&asked(&rest, "bob", &question("q")).await).await;
    assert_eq!(fake.calls().len(), 6);
    // Who has had its turn gets it: one comes every twelve seconds.
    rest.completed(&jobs[5]).await;
    rest.post(&format!("/jobs/{}/cancel", jobs[7]), &Value::Null).await.expect(200);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_asked_before_a_restart_of_the_master_still_counts() {
    let fake = FakeGemini::start().await.unwrap();
    let mut node = with_gemini(Node::up(), &fake).with("FLOTA_AI_LIMITS", "owner_requests=2").start().await;
    let rest = node.rest();
    workers_ready(&rest, 1).await;
    for text in ["one", "two"] {
        rest.completed(&asked(&rest, "ann", &question(text)).await).await;
    }
    node.kill();
    node.start_again().await;
    let rest = node.rest();
    workers_ready(&rest, 1).await;
    let third = asked(&rest, "ann", &question("three")).await;
    assert_eq!(rest.reaches(&third, &["scheduled"]).await["waiting"]["reason"], "rate_limit");
    rest.completed(&asked(&rest, "bob", &question("one")).await).await;
    assert_eq!(fake.calls().len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_budget_is_checked_before_sending_and_the_ledger_counts_thoughts_and_money() {
    let fake = FakeGemini::start().await.unwrap();
    let node = with_gemini(Node::up(), &fake).with("FLOTA_AI_BUDGET", "tokens=50,bob:tokens=1000,bob:money=0.00006");
    let mut node = node.with("FLOTA_AI_PRICES", "gemini-*=1/2").with("FLOTA_AI_CURRENCY", "EUR").start().await;
    let rest = node.rest();
    workers_ready(&rest, 1).await;
    // An answer of the stand-in takes 7 + 11 + 13 tokens: 7 of input and 24 of output.
    let first = rest.completed(&asked(&rest, "ann", &question("q")).await).await;
    assert_eq!(first["result"]["usage"], json!({"input_tokens": 7, "output_tokens": 11, "thought_tokens": 13}));
    let answer = ask_as(&rest, "ann", &question("q")).await.expect(429);
    assert_eq!(answer.body["code"], "budget_spent", "31 of 50 are used, and 25 more may be");
    assert!(answer.text.contains("31 of 50 tokens"), "{}", answer.text);
    assert!(answer.header("retry-after").parse::<u64>().unwrap() <= 86_400);
    let own = rest.request(Method::POST, "/jobs").header("X-Flota-Owner", "ann").header("X-Flota-Api-Key", "own");
    let own = rest.send(own.json(&question("q"))).await.expect(201).body;
    rest.completed(own["id"].as_str().unwrap()).await;

    rest.completed(&asked(&rest, "bob", &question("q")).await).await;
    let answer = ask_as(&rest, "bob", &question("q")).await.expect(429);
    assert_eq!(answer.body["code"], "budget_spent", "0.000055 of 0.00006 is used, and 0.000045 more may be");
    assert!(answer.text.contains("0.000055 EUR of 0.00006 EUR"), "{}", answer.text);
    fake.next(Trouble::Status(400));
    rest.ended(&asked(&rest, "carl", &question("q")).await).await;
    assert_eq!(fake.calls().len(), 4, "what is refused is not sent");

    node.kill();
    node.start_again().await;
    let answer = ask_as(&rest, "ann", &question("q")).await.expect(429);
    assert_eq!(answer.body["code"], "budget_spent", "also after a restart");
    let report = rest.get("/usage?owner=ann").await.expect(200).body;
    assert_eq!(report["currency"], "EUR");
    let items = report["items"].as_array().unwrap();
    let of = |own: bool| items.iter().find(|item| item["own_key"] == own && item["requests"] == 1).unwrap();
    for own in [false, true] {
        let item = of(own);
        assert_eq!((&item["provider"], &item["model"]), (&json!("gemini"), &json!("gemini-3.5-flash-lite")));
        assert_eq!(
            (&item["input_tokens"], &item["output_tokens"], &item["thought_tokens"]),
            (&json!(7), &json!(11), &json!(13))
        );
        assert_eq!(item["cost"], 0.000_055);
    }
    assert_eq!((&report["budget"]["tokens"], &report["budget"]["tokens_used"]), (&json!(50), &json!(31)));
    assert_eq!(rest.get("/usage?from=2020-01-01&to=2020-12-31").await.expect(200).body["items"], json!([]));
    for wrong in ["from=x", "to=2026-1-1", "from=2026-02-01&to=2026-01-01", "day=x"] {
        rest.get(&format!("/usage?{wrong}")).await.expect(400);
    }
    let carl = rest.get("/usage?owner=carl").await.expect(200).body;
    assert_eq!((&carl["totals"]["failed"], &carl["totals"]["requests"]), (&json!(1), &json!(0)));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_is_asked_once_and_every_job_of_it_ends_once() {
    let fake = FakeGemini::start().await.unwrap();
    let node = with_gemini(Node::up(), &fake).start().await;
    let rest = node.rest();
    workers_ready(&rest, 1).await;
    let cached = |text: &str| json!({"kind": "ai.chat", "cache": true, "payload": {"messages": [{"role": "user", "content": text}]}});
    fake.next(Script::text(&["one ", "answer"], "STOP").after(std::time::Duration::from_millis(400)));
    let mut jobs = Vec::new();
    for _ in 0..5 {
        jobs.push(rest.submit(cached("same")).await);
    }
    for job in &jobs {
        let ended = rest.completed(job).await;
        assert_eq!(ended["result"]["text"], "one answer");
        let (_, events) = flota_tests::sse::read(&rest, job, None, usize::MAX).await;
        assert_eq!(events.iter().filter(|event| event.name == "completed").count(), 1);
    }
    let spelt = r#"{"payload": {"messages": [{"content": "same", "role": "user"}] , "model": null}, "cache": true, "kind": "ai.chat"}"#;
    let again = rest.post_text("/jobs", spelt).await.expect(201).body;
    assert_eq!((&again["state"], &again["workers"]), (&json!("completed"), &json!([])), "{again}");
    for (job, cached) in [(jobs[0].as_str(), None), (&jobs[1], Some(true)), (again["id"].as_str().unwrap(), Some(true))]
    {
        assert_eq!(rest.job(job).await["cached"].as_bool(), cached, "{job}");
    }
    assert_eq!(fake.calls().len(), 1);
    for other in [question("same"), cached("other"), {
        let mut fresh = cached("same");
        fresh["cache"] = json!(false);
        fresh
    }] {
        rest.completed(&rest.submit(other).await).await;
    }
    assert_eq!(fake.calls().len(), 4);

    // One that waits for another's answer is asked itself where that comes to nothing.
    fake.next(Script::text(&["late"], "STOP").after(std::time::Duration::from_secs(30)));
    let first = rest.submit(cached("third")).await;
    rest.reaches(&first, &["computing"]).await;
    let second = rest.submit(cached("third")).await;
    assert_eq!(rest.job(&second).await["state"], "blocked");
    rest.post(&format!("/jobs/{first}/cancel"), &Value::Null).await.expect(200);
    rest.completed(&second).await;

    let hash = json!({"kind": "randomx.hash", "payload": {"key": "AB", "inputs": ["00"]}});
    let first = rest.completed(&rest.submit(hash.clone()).await).await;
    let mut lower = hash.clone();
    lower["payload"]["key"] = json!("ab");
    let second = rest.completed(&rest.submit(lower).await).await;
    assert_eq!(
        (&second["result"], &second["workers"]),
        (&first["result"], &json!([])),
        "by default, whatever the case"
    );
    let mut fresh = hash;
    fresh["cache"] = json!(false);
    assert_ne!(rest.completed(&rest.submit(fresh).await).await["workers"], json!([]));
    let metrics = rest.get("//metrics").await.expect(200).text;
    for line in ["flota_cache_total{outcome=\"hit\"} 2", "flota_cache_total{outcome=\"shared\"} 5"] {
        assert!(metrics.contains(line), "{line} in {metrics}");
    }
    assert!(metrics.contains("flota_ai_requests_total{provider=\"gemini\""), "{metrics}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_question_goes_to_who_has_the_model_and_one_that_nobody_has_is_refused_with_those_that_there_are() {
    let fake = FakeGemini::start().await.unwrap();
    let broker = Mosquitto::start().await;
    let master = Node::master(&broker.url()).start().await;
    let rest = master.rest();
    let mut none = question("q");
    none["payload"]["model"] = json!("no-such-model");
    let waiting = rest.submit(none.clone()).await;
    assert_eq!(rest.job(&waiting).await["state"], "pending", "while nobody is there, it waits");
    rest.post(&format!("/jobs/{waiting}/cancel"), &Value::Null).await.expect(200);

    let models = vec!["local-model".to_owned()];
    let small = FakeGemini::start_with(Options { models, ..Options::default() }).await.unwrap();
    let local = Node::worker("w-local", &broker.url()).with("FLOTA_AI_LOCAL_URL", small.local_url());
    let _local = local.with("FLOTA_AI_LOCAL_MODEL", "local-model").start().await;
    let _remote = with_gemini(Node::worker("w-remote", &broker.url()), &fake).start().await;
    workers_ready(&rest, 2).await;
    let models = until("the models are known", || async {
        let models = rest.get("/models").await.expect(200).body["items"].clone();
        let names: Vec<&str> = models.as_array().unwrap().iter().filter_map(|m| m["model"].as_str()).collect();
        if ["small", "large", "local-model", "gemini-3.5-pro"].iter().all(|n| names.contains(n)) {
            Ok(models.clone())
        } else {
            Err(models)
        }
    })
    .await;
    let of = |name: &str| models.as_array().unwrap().iter().find(|m| m["model"] == name).unwrap().clone();
    assert_eq!(of("small"), json!({"model": "small", "kind": "class", "workers": 2}));
    assert_eq!(of("large")["workers"], 1);
    for (model, worker) in [("large", "w-remote"), ("gemini-3.5-pro", "w-remote")] {
        let mut named = question("q");
        named["payload"]["model"] = json!(model);
        assert_eq!(rest.completed(&rest.submit(named).await).await["workers"], json!([worker]), "{model}");
    }
    let refused = rest.post("/jobs", &none).await.expect(422);
    assert_eq!(refused.body["field"], "payload.model");
    let detail = refused.body["detail"].as_str().unwrap();
    assert!(detail.contains("no worker serves 'no-such-model'") && detail.contains("gemini-3.5-pro"), "{detail}");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_cut_off_from_the_fleet_asks_the_ai_of_the_own_machine() {
    let fake = FakeGemini::start().await.unwrap();
    let ask = |arguments: &[&str]| {
        let mut command = tokio::process::Command::from(flota());
        command.args(["ask", "--local"]).args(arguments).env("FLOTA_AI_LOCAL_URL", fake.local_url());
        command.env("HOME", "/nowhere").env("FLOTA_URL", "http://127.0.0.1:1");
        command
    };
    fake.next(Script::text(&["ñ ", "🙂"], "stop"));
    let output = ask(&["why?", "--stream"]).output().await.unwrap();
    assert!(output.status.success(), "{output:?}");
    assert_eq!(String::from_utf8(output.stdout).unwrap(), "ñ 🙂\n");
    let output = ask(&["why?", "--json"]).output().await.unwrap();
    let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(answer["provider"], "local");
    fake.next(Trouble::Status(400));
    let output = ask(&["why?"]).output().await.unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8(output.stderr).unwrap().contains("bad_request"));
    assert_eq!(ask(&[" "]).output().await.unwrap().status.code(), Some(2));
}

#[tokio::test(flavor = "multi_thread")]
async fn settings_that_make_no_sense_stop_the_start() {
    for (name, value) in [
        ("FLOTA_AI_LIMITS", "team_requests=1"),
        ("FLOTA_AI_BUDGET", "money=much"),
        ("FLOTA_AI_PRICES", "m=1"),
        ("FLOTA_AI_CHAIN", "gemini,openai"),
        ("FLOTA_AI_CLASSES", "huge=m"),
        ("FLOTA_CACHE_SIZE", "0"),
    ] {
        let output = flota().arg("master").env(name, value).env("HOME", "/nowhere").output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{name}");
        let error = String::from_utf8(output.stderr).unwrap();
        assert!(error.contains(name) && error.contains(value), "{error}");
    }
}
