//! The executor against the stand-in, over real connections.

mod bad_input;
mod chain;
mod classes;
mod failures;
mod gemini;
mod local;
mod table;

use std::sync::Mutex;

use flota_proto::kinds::{ChatPayload, ChatResult, EmbedPayload, Message, Role};
use flota_proto::{JobId, UnitId};
use flota_tests::fake_gemini::{Ended, FakeGemini, Options, Script};
use tokio_util::sync::CancellationToken;

use super::super::Observer;
use super::*;

/// Looks like a key; no message, URL or log may hold it.
const SECRET: &str = "AIza-very-secret-key";
const OTHER_SECRET: &str = "AQ.another-secret-key";
const PROMPT: &str = "the private question";

#[derive(Default)]
struct Seen {
    text: Mutex<String>,
    notes: Mutex<Vec<String>>,
    alive: Mutex<u32>,
}

impl Seen {
    fn text(&self) -> String {
        self.text.lock().unwrap().clone()
    }
    fn notes(&self) -> String {
        self.notes.lock().unwrap().join("\n")
    }
    fn alive(&self) -> u32 {
        *self.alive.lock().unwrap()
    }
}

impl Observer for Seen {
    fn progress(&self, _fraction: f64, note: &str) {
        self.notes.lock().unwrap().push(note.to_owned());
    }
    fn delta(&self, text: &str) {
        self.text.lock().unwrap().push_str(text);
    }
    fn alive(&self) {
        *self.alive.lock().unwrap() += 1;
    }
}

fn key(text: &str) -> SecretString {
    SecretString::from(text.to_owned())
}

fn links(texts: &[&str]) -> Vec<Link> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

/// Gemini with a worker's key, no local AI.
fn config(fake: &FakeGemini) -> AiConfig {
    AiConfig {
        gemini_api_key: Some(key(SECRET)),
        gemini_base_url: fake.base_url().parse().unwrap(),
        gemini_model: DEFAULT_MODEL.to_owned(),
        local_url: None,
        local_model: None,
        chain: links(&["own", "local", "gemini"]),
        classes: BTreeMap::new(),
    }
}

fn local_only(fake: &FakeGemini) -> AiConfig {
    AiConfig {
        gemini_api_key: None,
        local_url: Some(fake.local_url().parse().unwrap()),
        local_model: Some("local-model".to_owned()),
        ..config(fake)
    }
}

fn question() -> ChatPayload {
    let messages = vec![Message { role: Role::User, content: PROMPT.to_owned() }];
    ChatPayload { messages, model: None, temperature: None, max_output_tokens: None, chain: None, dropped_turns: 0 }
}

fn unit(payload: Payload) -> Unit {
    Unit {
        id: UnitId { job: JobId::generate(), index: 0 },
        attempt: 1,
        kind: if matches!(payload, Payload::Embed(_)) { Kind::AiEmbed } else { Kind::AiChat },
        payload,
        failures: 0,
        timeout: Duration::from_secs(60),
        credential: None,
        own_key_only: false,
    }
}

struct Outcome {
    result: Result<ChatResult, Failure>,
    seen: Arc<Seen>,
}

impl Outcome {
    fn answer(self) -> ChatResult {
        self.result.unwrap()
    }
    fn code(&self) -> (&str, bool) {
        let failure = self.result.as_ref().unwrap_err();
        (&failure.code, failure.retryable)
    }
}

fn context() -> (Context, Arc<Seen>) {
    let seen = Arc::new(Seen::default());
    (Context { cancel: CancellationToken::new(), observer: seen.clone() }, seen)
}

async fn run(executor: &AiExecutor, unit: Unit) -> Outcome {
    let (context, seen) = context();
    let result = executor.execute(unit, context).await;
    if let Err(failure) = &result {
        let told = format!("{failure:?} {}", seen.notes());
        for secret in [SECRET, OTHER_SECRET, PROMPT] {
            assert!(!told.contains(secret), "{told}");
        }
        assert!(!failure.message.is_empty());
    }
    Outcome { result: result.map(|output| serde_json::from_slice(&output.json).unwrap()), seen }
}

async fn ask(executor: &AiExecutor, chat: ChatPayload) -> Outcome {
    run(executor, unit(Payload::Chat(chat))).await
}

/// Asks an executor that has a worker's key for Gemini.
async fn ask_gemini(fake: &FakeGemini) -> Outcome {
    ask(&AiExecutor::new(config(fake)), question()).await
}

/// What comes of `script`.
async fn answer_to(script: Script) -> Outcome {
    let fake = FakeGemini::start().await.unwrap();
    fake.next(script);
    ask_gemini(&fake).await
}

/// Polls until `met` holds.
async fn until(what: &str, mut met: impl FnMut() -> bool) {
    let poll = async {
        while !met() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), poll).await.unwrap_or_else(|_| panic!("not within 30 s: {what}"));
}
