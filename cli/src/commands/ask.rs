//! `flota ask`: a question, and its answer as it comes.

use std::io::IsTerminal;
use std::time::Duration;

use flota_common::clock;
use flota_common::config::Settings;
use flota_proto::kinds::{ChatPayload, ChatResult, Finish, Message, Role};
use flota_proto::rest::{Job, JobEvent, Priority};
use flota_proto::{JobId, Kind};
use serde_json::json;

use super::{own_key, stdin_text};
use crate::api::Api;
use crate::args::Ask;
use crate::failure::Failure;
use crate::follow;
use crate::output::{Hue, Out, duration};
use crate::sse::Events;

pub async fn run(api: &Api, settings: &Settings, out: &Out, args: Ask) -> Result<(), Failure> {
    let key = own_key(settings, args.own_key)?;
    let stream = !out.json && (out.terminal || args.stream);
    let priority = args.priority.map(Priority);
    let started = clock::instant();
    let mut body = json!({"kind": Kind::AiChat.as_str(), "payload": payload(args)?});
    if let Some(priority) = priority {
        body["priority"] = json!(priority);
    }
    let job = api.submit(&body, key).await?;
    let answer = async {
        let streamed = if stream { Some(print_stream(api, out, job.id).await?) } else { None };
        let ended = follow::until_ended(api, out, job.id).await?;
        Ok::<_, Failure>((streamed, ended))
    };
    let (streamed, ended) = follow::or_cancel(api, out, job.id, answer).await?;
    if out.json {
        out.line(String::from_utf8_lossy(&ended.raw).trim_end())?;
    } else {
        finish(out, &ended.job, streamed.as_deref(), started.elapsed())?;
    }
    follow::verdict(&ended.job)
}

pub(super) fn payload(args: Ask) -> Result<ChatPayload, Failure> {
    let question = args.question.join(" ");
    let question = if question == "-" { stdin_text()? } else { question };
    if question.trim().is_empty() {
        return Err(Failure::Usage("the question is empty".into()));
    }
    let system = args.system.map(|content| Message { role: Role::System, content });
    let user = Message { role: Role::User, content: question };
    Ok(ChatPayload {
        messages: system.into_iter().chain([user]).collect(),
        model: args.model,
        temperature: args.temperature,
        max_output_tokens: args.max_output_tokens,
        chain: (!args.chain.is_empty()).then_some(args.chain),
        dropped_turns: 0,
    })
}

/// Prints the pieces of the text as they come; gives back what was printed of the last attempt.
async fn print_stream(api: &Api, out: &Out, id: JobId) -> Result<String, Failure> {
    let mut events = Events::of(api, id);
    let mut shown = Shown::default();
    let mut waiting = false;
    while let Some(event) = events.next().await? {
        match shown.take(&event) {
            Piece::Text(text) => out.piece(text)?,
            Piece::Again(text) => {
                out.note(format!("\n{}", out.paint_note(Hue::Yellow, "(interrupted; the answer begins again)")));
                out.piece(text)?;
            }
            Piece::None if event.r#type == "pending" && !waiting => {
                waiting = true;
                tell_why_it_waits(api, out, id).await?;
            }
            Piece::None => {}
        }
    }
    Ok(shown.text)
}

async fn tell_why_it_waits(api: &Api, out: &Out, id: JobId) -> Result<(), Failure> {
    let job: Job = api.get(&format!("/jobs/{id}")).await?;
    follow::tell_why_it_waits(out, &job);
    Ok(())
}

/// What is on the screen.
#[derive(Default)]
struct Shown {
    attempt: u64,
    text: String,
}

enum Piece<'a> {
    None,
    Text(&'a str),
    /// The first piece of a higher attempt, where a lower one had text already.
    Again(&'a str),
}

impl Shown {
    fn take<'a>(&mut self, event: &'a JobEvent) -> Piece<'a> {
        let text = event.data.get("text").and_then(|text| text.as_str());
        let Some(text) = text.filter(|_| event.r#type == "delta" && event.attempt >= self.attempt) else {
            return Piece::None;
        };
        let again = event.attempt > self.attempt && !self.text.is_empty();
        if event.attempt > self.attempt {
            self.text.clear();
        }
        self.attempt = event.attempt;
        self.text.push_str(text);
        if again { Piece::Again(text) } else { Piece::Text(text) }
    }
}

/// What the stream did not show, and who answered in what time.
fn finish(out: &Out, job: &Job, streamed: Option<&str>, took: Duration) -> Result<(), Failure> {
    let answer: Option<ChatResult> = job.result.as_ref().and_then(|result| serde_json::from_str(result.get()).ok());
    let text = answer.as_ref().map_or("", |answer| answer.text.as_str());
    match streamed.map(|shown| (shown, text.strip_prefix(shown))) {
        // The stream is bounded: what it lost is in the result.
        Some((shown, None)) if answer.is_some() => {
            out.line(if shown.is_empty() { "" } else { "\n" })?;
            out.line(text)?;
        }
        Some((shown, rest)) if !(shown.is_empty() && text.is_empty()) => out.line(rest.unwrap_or_default())?,
        Some(_) => {}
        None if !text.is_empty() => out.line(text)?,
        None => {}
    }
    if let Some(answer) = answer {
        note_the_end(out, job, &answer, took);
    }
    Ok(())
}

/// What its owner should know beside an answer, and where it did not end by itself.
pub(super) fn note_finish(out: &Out, answer: &ChatResult) {
    answer.notes.iter().for_each(|note| out.note(format!("({note})")));
    match answer.finish {
        Finish::Complete => {}
        Finish::MaxTokens => out.note("(cut off at the limit of tokens)"),
        Finish::Blocked => out.note("(the provider blocked the rest)"),
    }
}

fn note_the_end(out: &Out, job: &Job, answer: &ChatResult, took: Duration) {
    note_finish(out, answer);
    if !std::io::stdout().is_terminal() {
        return;
    }
    let worker = job.workers.last().map_or_else(String::new, |worker| format!(" · {worker}"));
    let tokens = answer.usage.input_tokens + answer.usage.output_tokens + answer.usage.thought_tokens;
    let tokens = if tokens > 0 { format!(" · {tokens} tokens") } else { String::new() };
    let demo = if answer.provider == "demo" { " · a demo, no AI: set GEMINI_API_KEY for real answers" } else { "" };
    out.hint(format!("{} ({}){worker} · {}{tokens}{demo}", answer.model, answer.provider, duration(took)));
}

#[cfg(test)]
mod tests {
    use flota_proto::Timestamp;

    use super::*;

    fn delta(attempt: u64, text: &str) -> JobEvent {
        JobEvent { seq: 1, attempt, timestamp: Timestamp(0), r#type: "delta".into(), data: json!({"text": text}) }
    }

    #[test]
    fn a_higher_attempt_replaces_the_text_of_a_lower() {
        let mut shown = Shown::default();
        assert!(matches!(shown.take(&delta(1, "Hello ")), Piece::Text("Hello ")));
        assert!(matches!(shown.take(&delta(1, "wor")), Piece::Text("wor")));
        assert!(matches!(shown.take(&delta(2, "Hello ")), Piece::Again("Hello ")));
        assert!(matches!(shown.take(&delta(1, "ld")), Piece::None));
        assert!(matches!(shown.take(&delta(2, "world")), Piece::Text("world")));
        assert_eq!(shown.text, "Hello world");
    }
}
