//! `flota ask --local`: the question goes to the AIs of this machine's settings, without a master. For who is cut off from it.

use std::sync::Arc;
use std::time::Duration;

use flota_common::clock;
use flota_common::config::Settings;
use flota_proto::kinds::{ChatPayload, ChatResult, Payload};
use flota_proto::{JobId, Kind, UnitId};
use flota_worker::executor::ai::AiExecutor;
use flota_worker::executor::{Context, Executor, Failure as AiFailure, Observer, Output, Unit};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::ask::{note_finish, payload};
use super::own_key;
use crate::args::Ask;
use crate::failure::Failure;
use crate::follow;
use crate::output::{Out, duration};
use crate::run::parts::ai_config;

const TIMEOUT: Duration = Duration::from_secs(600);

pub async fn run(settings: &Settings, out: &Out, args: Ask) -> Result<(), Failure> {
    let credential = own_key(settings, args.own_key)?.cloned();
    let stream = !out.json && (out.terminal || args.stream);
    let chat = payload(args)?;
    chat.check().map_err(|error| Failure::Usage(error.to_string()))?;
    let started = clock::instant();
    let (text, mut pieces) = mpsc::unbounded_channel();
    let cancel = CancellationToken::new();
    let context = Context { cancel: cancel.clone(), observer: Arc::new(Told { text: stream.then_some(text) }) };
    let executor = AiExecutor::start(ai_config(settings));
    let work = executor.execute(unit(chat, credential), context);
    let answer = async {
        tokio::pin!(work);
        loop {
            tokio::select! {
                biased;
                Some(piece) = pieces.recv() => out.piece(&piece)?,
                done = &mut work => {
                    while let Ok(piece) = pieces.try_recv() {
                        out.piece(&piece)?;
                    }
                    return Ok(done);
                }
            }
        }
    };
    let done = follow::unless_interrupted(answer).await;
    cancel.cancel();
    finish(out, done?, stream, started.elapsed())
}

fn unit(chat: ChatPayload, credential: Option<secrecy::SecretString>) -> Unit {
    Unit {
        id: UnitId { job: JobId::generate(), index: 0 },
        attempt: 1,
        kind: Kind::AiChat,
        payload: Payload::Chat(chat),
        failures: 0,
        timeout: TIMEOUT,
        credential,
        own_key_only: false,
    }
}

fn finish(out: &Out, done: Result<Output, AiFailure>, streamed: bool, took: Duration) -> Result<(), Failure> {
    let output = done.map_err(|failure| {
        let newline = if streamed { "\n" } else { "" };
        Failure::Job(format!("{newline}there is no answer: {} ({})", failure.message, failure.code))
    })?;
    if out.json {
        return out.line(String::from_utf8_lossy(&output.json));
    }
    let answer: ChatResult = serde_json::from_slice(&output.json)
        .map_err(|error| Failure::Failed(format!("the answer can't be read: {error}")))?;
    out.line(if streamed { "" } else { &answer.text })?;
    note_finish(out, &answer);
    if out.terminal {
        out.hint(format!("{} ({}) · without the fleet · {}", answer.model, answer.provider, duration(took)));
    }
    Ok(())
}

/// Hands the pieces of the text on.
struct Told {
    text: Option<mpsc::UnboundedSender<String>>,
}

impl Observer for Told {
    fn progress(&self, _fraction: f64, _note: &str) {}

    fn delta(&self, text: &str) {
        if let Some(pieces) = &self.text {
            // Nobody listens any more once the command ends.
            let _ = pieces.send(text.to_owned());
        }
    }

    fn alive(&self) {}
}
