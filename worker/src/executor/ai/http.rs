//! The HTTP that providers share. Errors lose their URL before anybody sees them.

use std::error::Error;
use std::time::Duration;

use reqwest::redirect::Policy;
use reqwest::{Client, ClientBuilder, RequestBuilder, Response, Url};
use serde_json::Value;

use super::call::Call;
use super::fault::Fault;
use super::sse::{Decoder, Event};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// The largest answer that is not a stream.
const BODY_BYTES_MAX: usize = 64 << 20;
/// The longest stream, with all that is not text.
const STREAM_BYTES_MAX: usize = 64 << 20;
/// The largest error body worth reading.
const ERROR_BYTES_MAX: usize = 64 << 10;

/// A client for the server at `base`.
///
/// Over plain HTTP no certificates are loaded. Where the system has none, HTTPS fails when it is used, with what to do.
pub fn client(base: &Url) -> Client {
    let without_certificates = || builder(base).tls_certs_only([]).build();
    let client = if base.scheme() == "https" {
        builder(base).build().or_else(|_| {
            tracing::warn!("no CA certificates found, so no AI can be asked over HTTPS: install ca-certificates");
            without_certificates()
        })
    } else {
        without_certificates()
    };
    // Fails only where the TLS library can't start at all; `new` says so too.
    client.unwrap_or_else(|_| Client::new())
}

fn builder(base: &Url) -> ClientBuilder {
    // A redirect would carry the key to wherever it points.
    let builder = Client::builder().connect_timeout(CONNECT_TIMEOUT).redirect(Policy::none());
    if is_loopback(base) { builder.no_proxy() } else { builder }
}

fn is_loopback(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default();
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<std::net::IpAddr>();
    host == "localhost" || address.is_ok_and(|address| address.is_loopback())
}

/// Sends `request`; an answer with an error's status is an answer.
///
/// # Errors
/// [`Fault::Unreachable`] and what [`Call::wait`] has.
pub async fn send(request: RequestBuilder, call: &mut Call) -> Result<Response, Fault> {
    call.wait(request.send()).await?.map_err(unreachable)
}

fn unreachable(error: reqwest::Error) -> Fault {
    if error.is_timeout() {
        return Fault::Unreachable(format!("no connection within {} s", CONNECT_TIMEOUT.as_secs()));
    }
    let error = error.without_url();
    let mut cause: &dyn Error = &error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    Fault::Unreachable(cause.to_string())
}

/// The whole body of an answer, as JSON.
///
/// # Errors
/// [`Fault::Interrupted`], [`Fault::Unreadable`] and what [`Call::wait`] has.
pub async fn json(mut response: Response, call: &mut Call) -> Result<Value, Fault> {
    let bytes = read(&mut response, BODY_BYTES_MAX, call).await?;
    serde_json::from_slice(&bytes).map_err(|_| Fault::Unreadable("no JSON"))
}

/// The body of an error, as far as it is to be had.
pub async fn error_body(mut response: Response, call: &mut Call) -> Vec<u8> {
    read(&mut response, ERROR_BYTES_MAX, call).await.unwrap_or_default()
}

async fn read(response: &mut Response, limit: usize, call: &mut Call) -> Result<Vec<u8>, Fault> {
    let mut bytes = Vec::new();
    while let Some(chunk) = chunk(response, call).await? {
        if bytes.len() + chunk.len() > limit {
            return Err(Fault::Unreadable("too much of it"));
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok(bytes)
}

async fn chunk(response: &mut Response, call: &mut Call) -> Result<Option<bytes::Bytes>, Fault> {
    call.wait(response.chunk()).await?.map_err(|_| Fault::Interrupted("the connection broke"))
}

/// The events of a streamed answer.
#[derive(Debug)]
pub struct Events {
    response: Response,
    decoder: Option<Decoder>,
    ready: std::collections::VecDeque<Event>,
    bytes: usize,
}

impl Events {
    /// Those of `response`.
    pub fn of(response: Response) -> Self {
        Self { response, decoder: Some(Decoder::default()), ready: std::collections::VecDeque::new(), bytes: 0 }
    }

    /// The next one, or `None` when the stream has ended.
    ///
    /// # Errors
    /// [`Fault::Interrupted`], [`Fault::Unreadable`] and what [`Call::wait`] has.
    pub async fn next(&mut self, call: &mut Call) -> Result<Option<Event>, Fault> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Ok(Some(event));
            }
            let Some(decoder) = &mut self.decoder else { return Ok(None) };
            match chunk(&mut self.response, call).await? {
                Some(bytes) => {
                    self.bytes += bytes.len();
                    if self.bytes > STREAM_BYTES_MAX {
                        return Err(Fault::Unreadable("a stream beyond 64 MiB"));
                    }
                    let events = decoder.push(&bytes).map_err(|_| Fault::Unreadable("a frame beyond 16 MiB"))?;
                    self.ready.extend(events);
                }
                None => self.ready.extend(self.decoder.take().map(Decoder::finish).unwrap_or_default()),
            }
        }
    }
}
