//! `flota logs`: what master and workers log, as MQTT carries it; through the master where only that is named.

use flota_common::clock;
use flota_common::config::{Broker, Settings};
use flota_common::mqtt::{self, Client, Event, Subscription};
use flota_proto::mqtt::LogLine;
use flota_proto::topics::Topics;
use futures::StreamExt;
use tokio_util::sync::CancellationToken;

use crate::api::Api;
use crate::args::Logs;
use crate::failure::Failure;
use crate::output::{Hue, Out};
use crate::sse::Decoder;

/// From the most important on.
const LEVELS: [&str; 5] = ["error", "warn", "info", "debug", "trace"];

pub async fn run(settings: &Settings, out: &Out, args: &Logs) -> Result<(), Failure> {
    // Somebody who names a fleet and no broker may not reach one.
    let by_master = settings.url.is_some() && settings.mqtt_url.is_none();
    let listened =
        async { if by_master { read(settings, out, args).await } else { follow(settings, out, args).await } };
    tokio::select! {
        result = listened => result,
        _ = tokio::signal::ctrl_c() => Ok(()),
    }
}

async fn follow(settings: &Settings, out: &Out, args: &Logs) -> Result<(), Failure> {
    let config = config(settings)?;
    let url = config.url.clone();
    let (client, mut events) = Client::start(config, CancellationToken::new())
        .map_err(|error| Failure::Usage(format!("can't listen to the broker: {error}")))?;
    let ends = (!args.follow).then(|| clock::instant() + args.span);
    let mut connected = false;
    loop {
        let event = match ends {
            Some(end) => {
                match tokio::time::timeout(end.saturating_duration_since(clock::instant()), events.recv()).await {
                    Ok(event) => event,
                    Err(_) if connected => break,
                    Err(_) => return Err(Failure::Unreachable(format!("the broker at {url} does not answer"))),
                }
            }
            None => events.recv().await,
        };
        match event {
            Some(Event::Connected { .. }) => {
                connected = true;
                out.hint(format!("listening at {url}"));
            }
            Some(Event::Disconnected { reason }) if !connected => return Err(Failure::Unreachable(reason)),
            Some(Event::Disconnected { reason }) => out.note(reason),
            Some(Event::Message { payload, .. }) => print(out, args, &payload)?,
            None => return Err(Failure::Unreachable("the link to the broker has ended".into())),
        }
    }
    client.shutdown(Vec::new()).await;
    Ok(())
}

/// Reads the log from the master: its last lines, then what follows.
async fn read(settings: &Settings, out: &Out, args: &Logs) -> Result<(), Failure> {
    let api = Api::new(settings)?;
    let response = api.send(api.events_request("/logs", None)).await?;
    let mut bytes = response.bytes_stream();
    let mut decoder = Decoder::default();
    let ends = (!args.follow).then(|| clock::instant() + args.span);
    loop {
        while let Some(line) = decoder.next() {
            print(out, args, line.as_bytes())?;
        }
        let next = match ends {
            Some(end) => {
                let left = end.saturating_duration_since(clock::instant());
                match tokio::time::timeout(left, bytes.next()).await {
                    Ok(next) => next,
                    Err(_) => return Ok(()),
                }
            }
            None => bytes.next().await,
        };
        match next {
            Some(Ok(piece)) => decoder.feed(&piece)?,
            Some(Err(error)) => return Err(api.unreachable(&error)),
            None => return Err(Failure::Unreachable("the master has ended the log".into())),
        }
    }
}

fn config(settings: &Settings) -> Result<mqtt::Config, Failure> {
    let url = match settings.broker() {
        Broker::At(url) => url.to_string(),
        Broker::Embedded => format!("mqtt://{}", settings.mqtt_listen.reachable()),
    };
    let topics = Topics::new(&settings.topic_root).map_err(Failure::Usage)?;
    Ok(mqtt::Config {
        url,
        user: settings.mqtt_user.clone(),
        password: settings.mqtt_password.clone(),
        client_id: mqtt::random_client_id("flota-logs"),
        clean_session: true,
        will: None,
        subscriptions: vec![Subscription::best_effort(topics.logs())],
    })
}

fn print(out: &Out, args: &Logs, payload: &[u8]) -> Result<(), Failure> {
    // Anything may be published by anyone: what is no log line is not shown.
    let Ok(line) = serde_json::from_slice::<LogLine>(payload) else { return Ok(()) };
    if !wanted(args, &line) {
        return Ok(());
    }
    if out.json { out.json(&line) } else { out.line(text(out, &line)) }
}

fn wanted(args: &Logs, line: &LogLine) -> bool {
    let rank = |level: &str| LEVELS.iter().position(|known| *known == level);
    let important = match (&args.level, &line.level) {
        (Some(least), Some(level)) => rank(level) <= rank(least),
        (Some(_), None) | (None, _) => true,
    };
    important
        && args.source.as_ref().is_none_or(|source| line.source == *source)
        && args.job.is_none_or(|job| line.job_id == Some(job))
}

fn text(out: &Out, line: &LogLine) -> String {
    let level = line.level.as_deref().unwrap_or("");
    let hue = match level {
        "error" => Hue::Red,
        "warn" => Hue::Yellow,
        _ => Hue::Plain,
    };
    let time = out.paint(Hue::Dim, line.timestamp.to_rfc3339());
    let job = line.job_id.map_or_else(String::new, |job| out.paint(Hue::Dim, format!("  job {job}")));
    let message: String = line.message.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    let source: String = line.source.chars().filter(|c| !c.is_control()).collect();
    format!("{time}  {}  {}  {message}{job}", out.paint(hue, format!("{level:5}")), out.paint(Hue::Cyan, source))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(level: Option<&str>) -> LogLine {
        let json = serde_json::json!({"source": "w-1", "level": level, "message": "a\u{1b}[2Jb"});
        serde_json::from_value(json).unwrap()
    }

    fn args(level: Option<&str>) -> Logs {
        use clap::Parser;
        let mut typed = vec!["flota", "logs"];
        typed.extend(level.map(|level| ["--level", level]).into_iter().flatten());
        match crate::args::Cli::try_parse_from(typed).unwrap().command {
            crate::args::Command::Logs(logs) => logs,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_level_hides_what_is_less_important_and_keeps_what_has_none() {
        assert!(wanted(&args(Some("warn")), &line(Some("error"))));
        assert!(!wanted(&args(Some("warn")), &line(Some("info"))));
        assert!(wanted(&args(Some("warn")), &line(None)) && wanted(&args(None), &line(Some("trace"))));
    }

    #[test]
    fn nobody_steers_the_terminal_by_a_message() {
        assert!(!text(&Out::new(true), &line(Some("info"))).contains('\u{1b}'));
    }
}
