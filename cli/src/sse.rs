//! A job's events over SSE: decoded from bytes that may be cut anywhere, resumed after the last one seen.

use std::time::Duration;

use flota_proto::JobId;
use flota_proto::rest::{JobEvent, JobState};
use futures::StreamExt;
use futures::stream::BoxStream;
use reqwest::StatusCode;

use crate::api::Api;
use crate::failure::Failure;

/// How often a broken stream is opened again before giving up, counted anew with each event.
const TRIES: u32 = 20;
const PAUSE_MAX: Duration = Duration::from_secs(3);
/// Longer lines are no events of ours.
const LINE_BYTES_MAX: usize = 64 * 1024 * 1024;

/// The events of one job, from the first on.
pub struct Events<'a> {
    api: &'a Api,
    path: String,
    last: Option<u64>,
    stream: Option<BoxStream<'static, reqwest::Result<bytes::Bytes>>>,
    decoder: Decoder,
    /// The latest event is an end; a retried job goes on after one.
    ended: bool,
    closed: bool,
    tries: u32,
}

impl<'a> Events<'a> {
    /// Of `id`.
    pub fn of(api: &'a Api, id: JobId) -> Self {
        let path = format!("/jobs/{id}/events");
        Self { api, path, last: None, stream: None, decoder: Decoder::default(), ended: false, closed: false, tries: 0 }
    }

    /// The next event; `None` once the job has ended.
    pub async fn next(&mut self) -> Result<Option<JobEvent>, Failure> {
        loop {
            while let Some(frame) = self.decoder.next() {
                if let Some(event) = self.accept(&frame)? {
                    return Ok(Some(event));
                }
            }
            if self.closed {
                return Ok(None);
            }
            self.read().await?;
        }
    }

    /// `None` for what was seen before.
    fn accept(&mut self, data: &str) -> Result<Option<JobEvent>, Failure> {
        let event: JobEvent = self.api.parse(data.as_bytes())?;
        if self.last.is_some_and(|last| event.seq <= last) {
            return Ok(None);
        }
        self.last = Some(event.seq);
        self.tries = 0;
        self.ended = event.r#type.parse().is_ok_and(JobState::ended);
        Ok(Some(event))
    }

    /// Reads what comes next into the decoder, opening the stream where it must.
    async fn read(&mut self) -> Result<(), Failure> {
        let Some(stream) = &mut self.stream else { return self.open().await };
        match stream.next().await {
            Some(Ok(bytes)) => self.decoder.feed(&bytes)?,
            _ if self.ended => self.closed = true,
            Some(Err(error)) => self.broken(self.api.unreachable(&error)).await?,
            None => self.broken(Failure::Unreachable("the stream of events ended before the job did".into())).await?,
        }
        Ok(())
    }

    async fn open(&mut self) -> Result<(), Failure> {
        match self.api.send(self.api.events_request(&self.path, self.last)).await {
            // Nothing more to send: the end was seen, or there is none to see.
            Ok(response) if response.status() == StatusCode::NO_CONTENT => self.closed = true,
            Ok(response) => self.stream = Some(response.bytes_stream().boxed()),
            Err(failure @ Failure::Unreachable(_)) if self.last.is_some() => self.broken(failure).await?,
            Err(failure) => return Err(failure),
        }
        Ok(())
    }

    async fn broken(&mut self, failure: Failure) -> Result<(), Failure> {
        self.stream = None;
        self.decoder = Decoder::default();
        self.tries += 1;
        if self.tries > TRIES {
            return Err(failure);
        }
        let pause = Duration::from_millis(50 << self.tries.min(8)).min(PAUSE_MAX);
        tokio::time::sleep(pause).await;
        Ok(())
    }
}

/// From bytes to the data of events, as the WHATWG's HTML standard has it (9.2.6), without what we don't use.
#[derive(Default)]
pub struct Decoder {
    buffer: Vec<u8>,
    read: usize,
    data: String,
}

impl Decoder {
    /// Takes bytes in.
    pub fn feed(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        self.buffer.drain(..self.read);
        self.read = 0;
        self.buffer.extend_from_slice(bytes);
        if self.buffer.len() + self.data.len() > LINE_BYTES_MAX {
            return Err(Failure::Failed("the stream of events holds something that is no event".into()));
        }
        Ok(())
    }

    /// The data of the next whole event.
    pub fn next(&mut self) -> Option<String> {
        while let Some(length) = self.buffer[self.read..].iter().position(|byte| *byte == b'\n') {
            let line = &self.buffer[self.read..self.read + length];
            let line = String::from_utf8_lossy(line.strip_suffix(b"\r").unwrap_or(line));
            if let Some(data) = line.strip_prefix("data:") {
                if !self.data.is_empty() {
                    self.data.push('\n');
                }
                self.data.push_str(data.strip_prefix(' ').unwrap_or(data));
            }
            let whole = line.is_empty() && !self.data.is_empty();
            self.read += length + 1;
            if whole {
                return Some(std::mem::take(&mut self.data));
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decode(text: &str, cut: usize) -> Vec<String> {
        let mut decoder = Decoder::default();
        let mut events = Vec::new();
        for piece in text.as_bytes().chunks(cut) {
            decoder.feed(piece).unwrap();
            events.extend(std::iter::from_fn(|| decoder.next()));
        }
        events
    }

    #[test]
    fn events_are_whole_however_the_bytes_are_cut() {
        let text =
            ": hello\n\nid: 1\nevent: delta\ndata: {\"t\":\"ñandú\"}\n\nid: 2\r\ndata:a\r\ndata: b\r\n\r\ndata: cut";
        for cut in 1..text.len() {
            assert_eq!(decode(text, cut), ["{\"t\":\"ñandú\"}", "a\nb"], "cut at {cut}");
        }
    }
}
