//! The event log of a job as server-sent events.

use futures::StreamExt;
use reqwest::Method;
use serde_json::Value;

use crate::Rest;

/// One event.
#[derive(Clone, Debug)]
pub struct Event {
    /// Its `id:`.
    pub id: u64,
    /// Its `event:`.
    pub name: String,
    /// Its `data:`.
    pub data: Value,
}

/// Reads the events of `job` after `last` until `enough` of them came or the stream ends.
///
/// # Panics
/// When there is no stream.
pub async fn read(rest: &Rest, job: &str, last: Option<u64>, enough: usize) -> (u16, Vec<Event>) {
    let mut request = rest.request(Method::GET, &format!("/jobs/{job}/events"));
    if let Some(last) = last {
        request = request.header("last-event-id", last.to_string());
    }
    let response = request.send().await.unwrap_or_else(|e| panic!("no answer: {e:?}"));
    let status = response.status().as_u16();
    let (mut stream, mut buffer, mut events) = (response.bytes_stream(), Vec::new(), Vec::new());
    while events.len() < enough {
        let Some(piece) = stream.next().await else { break };
        buffer.extend_from_slice(&piece.unwrap_or_else(|e| panic!("the stream broke: {e:?}")));
        while let Some(end) = buffer.windows(2).position(|pair| pair == b"\n\n") {
            let frame: Vec<u8> = buffer.drain(..end + 2).collect();
            events.extend(parse(&String::from_utf8_lossy(&frame)));
        }
    }
    (status, events)
}

fn parse(frame: &str) -> Option<Event> {
    let field = |name: &str| {
        let prefix = format!("{name}:");
        frame.lines().find_map(|line| line.strip_prefix(&prefix)).map(str::trim_start)
    };
    Some(Event {
        id: field("id")?.parse().ok()?,
        name: field("event")?.to_owned(),
        data: serde_json::from_str(field("data")?).ok()?,
    })
}
