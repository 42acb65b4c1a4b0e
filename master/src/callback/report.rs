//! One Report stream: Hello, Welcome, then reports in and acknowledgements out until either side ends it.

use std::sync::Arc;
use std::time::Duration;

use flota_common::clock;
use flota_proto::{GRPC_MESSAGE_BYTES_MAX, PROTOCOL, WorkerId, v1};
use futures::{FutureExt, Stream, StreamExt, future, stream};
use prost::Message;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::{Code, Status, Streaming};
use tracing::{debug, warn};

use super::auth::{self, Token};
use super::parse::Collector;
use super::parts::{Memory, Parts};
use super::{Answers, status};
use crate::handle::{Command, Handle, Hello, StreamId};
use crate::ration::Ration;

/// A peer that has not said who it is by then is none.
const HELLO_WITHIN: Duration = Duration::from_secs(10);
/// Messages that may wait for a worker before the loop must leave it behind.
const OUTGOING_MAX: usize = 1024;
/// Acknowledgements of one message: far below its limit.
const ACKS_MAX: usize = 1000;
const BOOT_ID_BYTES_MAX: usize = 64;

/// What it takes to open a stream.
pub(super) struct Opening<'a> {
    pub(super) handle: Handle,
    pub(super) token: &'a Token,
    pub(super) authenticated: bool,
    pub(super) stop: CancellationToken,
    pub(super) malformed: Arc<Ration>,
    pub(super) memory: Memory,
}

impl Opening<'_> {
    pub(super) async fn open(
        self,
        mut messages: Streaming<v1::WorkerMessage>,
    ) -> Result<Answers<v1::MasterMessage>, Status> {
        let mut first = tokio::time::timeout(HELLO_WITHIN, messages.message())
            .await
            .map_err(|_| Status::deadline_exceeded("no hello within 10 s"))??
            .ok_or_else(|| Status::invalid_argument("the stream ended before hello"))?;
        let hello = first.hello.take().ok_or_else(|| Status::invalid_argument("hello must be the first message"))?;
        if !self.authenticated && !self.token.admits(&hello.token) {
            return Err(auth::refused());
        }
        let protocol = negotiate(hello.protocol_min, hello.protocol_max)?;
        let mut collector = Collector::default();
        let hello = parse(hello, &mut collector)?;
        let worker = hello.worker.clone();

        let (sender, outgoing) = mpsc::channel(OUTGOING_MAX);
        // The loop's is the one that keeps the stream open.
        let to_worker = sender.downgrade();
        let (id, mut welcome) = self.handle.stream_opened(hello, sender).await.map_err(status::from_refused)?;
        welcome.protocol = protocol;
        let mut parts = Parts::new(usize::try_from(welcome.result_bytes_max).unwrap_or(usize::MAX), self.memory);
        collector.add(first, &mut parts);
        let over = self.stop.child_token();
        let (cause, why) = oneshot::channel();
        let reader = Reader { id, worker, handle: self.handle, malformed: self.malformed, to_worker };
        tokio::spawn(reader.run(messages, collector, parts, over.clone(), cause));
        let welcome = v1::MasterMessage { welcome: Some(welcome), ..Default::default() };
        let answers = stream::once(future::ready(Ok(welcome))).chain(answers(outgoing, over.clone().drop_guard()));
        // Who sent what can't be read is told so.
        let why = stream::once(why).filter_map(|why| future::ready(why.ok().map(Err)));
        Ok(answers.take_until(over.cancelled_owned()).chain(why).boxed())
    }
}

/// The highest version that both speak.
fn negotiate(min: u32, max: u32) -> Result<u32, Status> {
    if (min..=max).contains(&PROTOCOL) {
        return Ok(PROTOCOL);
    }
    Err(Status::failed_precondition(format!(
        "this master speaks version {PROTOCOL} of the protocol, the worker {min} to {max}: update the older of the two"
    )))
}

fn parse(hello: v1::Hello, collector: &mut Collector) -> Result<Hello, Status> {
    let worker = super::worker(&hello.worker_id)?;
    let boot_id = hello.boot_id;
    if boot_id.is_empty() || boot_id.len() > BOOT_ID_BYTES_MAX {
        return Err(Status::invalid_argument("boot_id: a UUIDv7 made at the start of the process"));
    }
    let running = collector.attempts(hello.running);
    let finished = collector.attempts(hello.finished);
    Ok(Hello { worker, boot_id, running, finished })
}

/// The network has not broken: what came is too large or no message.
fn is_its_fault(status: &Status) -> bool {
    match status.code() {
        Code::OutOfRange | Code::ResourceExhausted => true,
        Code::Internal | Code::Unimplemented | Code::InvalidArgument => std::error::Error::source(status).is_none(),
        _ => false,
    }
}

/// What the loop has for this worker: as much as is due in each message.
fn answers(
    outgoing: mpsc::Receiver<v1::MasterMessage>,
    over: DropGuard,
) -> impl Stream<Item = Result<v1::MasterMessage, Status>> {
    stream::unfold((outgoing, None, over), |(mut outgoing, held, over)| async move {
        let mut message = match held {
            Some(message) => message,
            None => outgoing.recv().await?,
        };
        let mut bytes = message.encoded_len();
        let mut held = None;
        while let Ok(next) = outgoing.try_recv() {
            bytes += next.encoded_len();
            if bytes > GRPC_MESSAGE_BYTES_MAX || message.goodbye.is_some() {
                held = Some(next);
                break;
            }
            merge(&mut message, next);
        }
        Some((Ok(message), (outgoing, held, over)))
    })
}

fn merge(message: &mut v1::MasterMessage, next: v1::MasterMessage) {
    let v1::MasterMessage { welcome, acks, cancel, take_back, goodbye, send_again } = next;
    message.welcome = welcome.or(message.welcome.take());
    message.acks.extend(acks);
    message.cancel.extend(cancel);
    message.take_back.extend(take_back);
    message.send_again.extend(send_again);
    message.goodbye = goodbye.or(message.goodbye.take());
}

/// The incoming half of a stream.
struct Reader {
    id: StreamId,
    worker: WorkerId,
    handle: Handle,
    malformed: Arc<Ration>,
    to_worker: mpsc::WeakSender<v1::MasterMessage>,
}

impl Reader {
    /// Until the worker, the network, the loop or `over` ends it; the loop is told in any case.
    async fn run(
        self,
        messages: Streaming<v1::WorkerMessage>,
        first: Collector,
        parts: Parts,
        over: CancellationToken,
        cause: oneshot::Sender<Status>,
    ) {
        let ended = over.run_until_cancelled(self.read(messages, first, parts)).await.flatten();
        match ended {
            Some(status) if is_its_fault(&status) => {
                warn!(worker_id = %self.worker, %status, "a worker's stream has ended: it sent what can't be read");
                let _ = cause.send(status);
            }
            ended => debug!(worker_id = %self.worker, cause = ?ended, "a worker's stream has ended"),
        }
        over.cancel();
        let _ = self.handle.tell(Command::StreamClosed(self.id)).await;
    }

    /// What has arrived while the loop was busy goes into one report.
    async fn read(
        &self,
        mut messages: Streaming<v1::WorkerMessage>,
        first: Collector,
        mut parts: Parts,
    ) -> Option<Status> {
        self.deliver(first).await?;
        loop {
            let mut collector = Collector::default();
            let mut next = Some(messages.message().await);
            let mut ended = None;
            while let Some(message) = next.take() {
                match message {
                    Ok(Some(message)) => collector.add(message, &mut parts),
                    Ok(None) => ended = Some(None),
                    Err(status) => ended = Some(Some(status)),
                }
                if ended.is_none() && !collector.is_full() {
                    next = messages.message().now_or_never();
                }
            }
            self.deliver(collector).await?;
            self.put_off(parts.take_put_off(clock::instant())).await;
            if let Some(cause) = ended {
                return cause;
            }
        }
    }

    /// Tells the worker which results it is to send again.
    async fn put_off(&self, send_again: Vec<v1::Attempt>) {
        if send_again.is_empty() {
            return;
        }
        debug!(worker_id = %self.worker, "no room for the parts of a large result: it is sent again");
        if let Some(sender) = self.to_worker.upgrade() {
            let _ = sender.send(v1::MasterMessage { send_again, ..Default::default() }).await;
        }
    }

    async fn acknowledge(&self, unknown: Vec<v1::Ack>) {
        let Some(sender) = self.to_worker.upgrade() else { return };
        for acks in unknown.chunks(ACKS_MAX) {
            let _ = sender.send(v1::MasterMessage { acks: acks.to_vec(), ..Default::default() }).await;
        }
    }

    /// `None` when the loop has ended.
    async fn deliver(&self, mut collector: Collector) -> Option<()> {
        if let Some((count, last)) = collector.malformed.take()
            && let Some(unsaid) = self.malformed.allow()
        {
            warn!(worker_id = %self.worker, count, last, unsaid, "left out malformed items of a worker's report");
        }
        self.acknowledge(std::mem::take(&mut collector.unknown)).await;
        if collector.is_empty() {
            return Some(());
        }
        let report = collector.into_report();
        self.handle.tell(Command::Report { stream: self.id, report }).await.ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_highest_common_version_is_spoken_and_others_are_told() {
        assert_eq!(negotiate(1, 1).expect("ours"), 1);
        assert_eq!(negotiate(0, 9).expect("ours"), PROTOCOL);
        let status = negotiate(PROTOCOL + 1, PROTOCOL + 2).expect_err("too new");
        assert!(status.message().contains("update"), "{status}");
        assert!(negotiate(3, 1).is_err());
    }

    #[tokio::test]
    async fn what_is_due_travels_in_one_message_and_nothing_follows_a_goodbye() {
        let (sender, outgoing) = mpsc::channel(10);
        let ack = |attempt| v1::Ack { attempt, ..Default::default() };
        for attempt in 1..=3 {
            let message = v1::MasterMessage { acks: vec![ack(attempt)], ..Default::default() };
            sender.try_send(message).expect("room");
        }
        let goodbye = v1::MasterMessage { goodbye: Some("superseded".into()), ..Default::default() };
        sender.try_send(goodbye).expect("room");
        drop(sender);
        let over = CancellationToken::new();
        let messages: Vec<_> = answers(outgoing, over.clone().drop_guard()).collect().await;
        let [Ok(message)] = &messages[..] else { panic!("one message: {messages:?}") };
        assert_eq!(message.acks.len(), 3);
        assert_eq!(message.goodbye.as_deref(), Some("superseded"));
        assert!(over.is_cancelled(), "the reader learns that the writer has ended");
    }

    #[tokio::test]
    async fn no_message_grows_beyond_the_limit() {
        let (sender, outgoing) = mpsc::channel(100);
        for _ in 0..100 {
            let acks = vec![v1::Ack { unit_id: "u".repeat(30), ..Default::default() }; 1000];
            sender.try_send(v1::MasterMessage { acks, ..Default::default() }).expect("room");
        }
        drop(sender);
        let messages: Vec<_> = answers(outgoing, CancellationToken::new().drop_guard()).collect().await;
        let sizes: Vec<usize> = messages.iter().flatten().map(Message::encoded_len).collect();
        assert!(sizes.len() > 1 && sizes.iter().all(|size| *size <= GRPC_MESSAGE_BYTES_MAX), "{sizes:?}");
        assert_eq!(messages.iter().flatten().map(|message| message.acks.len()).sum::<usize>(), 100_000);
    }
}
