//! The Report stream to the master: opened again whenever it ends, on a thread of its own, so that heartbeats go out
//! however busy the executors and the process's runtime are.

use std::sync::Arc;
use std::time::Duration;

use flota_common::clock;
use flota_proto::v1::worker_callback_client::WorkerCallbackClient;
use flota_proto::{HEARTBEAT_MS, PROTOCOL, UnitId, WorkerId, v1};
use futures::{StreamExt, stream};
use secrecy::{ExposeSecret, SecretString};
use thiserror::Error;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status, Streaming};

use crate::Stopped;
use crate::calls::authorised;
use crate::epoch::{EpochGate, Master};
use crate::load::LoadMeter;
use crate::runner::Runner;
use crate::table::{Mode, Table};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
const WELCOME_TIMEOUT: Duration = Duration::from_secs(10);
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(5);
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(5);
/// How long the master may take to end the stream after the worker has.
const FAREWELL_TIMEOUT: Duration = Duration::from_secs(2);
const WINDOW_BYTES: u32 = 4 * 1024 * 1024;
const BACKOFF_MIN: Duration = Duration::from_millis(50);
/// Well below a lease, so that what runs is adopted by a master that has come back.
const BACKOFF_MAX: Duration = Duration::from_secs(2);
/// A stream that was open for this long is no part of a series of failures.
const STABLE: Duration = Duration::from_secs(1);

const _: () = assert!(BACKOFF_MAX.as_millis() * 4 < flota_proto::LEASE_MS as u128);

/// How the worker introduces itself.
pub(crate) struct Identity {
    pub(crate) worker: WorkerId,
    pub(crate) boot_id: String,
    pub(crate) token: Option<SecretString>,
}

/// The client's end of the Report stream.
pub(crate) struct Callback {
    pub(crate) identity: Identity,
    pub(crate) runner: Arc<Runner>,
    pub(crate) gate: Arc<EpochGate>,
    pub(crate) load: LoadMeter,
    /// `host:port` that goes before what the master says.
    pub(crate) endpoint_override: Option<String>,
    pub(crate) master: watch::Receiver<Option<Master>>,
    /// For unary calls.
    pub(crate) channel: watch::Sender<Option<Channel>>,
    /// Whether a stream is open.
    pub(crate) connected: watch::Sender<bool>,
    /// Why the process has to end.
    pub(crate) stopped: watch::Sender<Option<Stopped>>,
    /// End the stream once everything is sent, and do not open another.
    pub(crate) closing: CancellationToken,
}

/// Why a stream ended. Completes "the report stream ended: …".
#[derive(Debug, Error)]
enum StreamEnd {
    #[error("cannot reach the master at {0}: {1}")]
    Unreachable(String, String),
    #[error("the master at {0} refused it: {1}")]
    Refused(String, String),
    #[error("the connection to the master at {0} broke: {1}")]
    Broken(String, String),
    #[error("the master closed it")]
    Closed,
    #[error("the master said goodbye: {0}")]
    Goodbye(String),
    #[error("the master at {0} did not welcome this worker")]
    NoWelcome(String),
    #[error("the master with epoch {0} has been replaced")]
    OldMaster(u64),
    #[error("the master has moved")]
    Moved,
    #[error("another process took this worker id")]
    Superseded,
}

impl Callback {
    /// Keeps a stream open until `closing` or until the process has to end.
    pub(crate) async fn serve(mut self) {
        let (mut failures, mut said, mut stream) = (0_u32, String::new(), 0_u64);
        while let Some(endpoint) = self.endpoint().await {
            stream += 1;
            let begun = clock::instant();
            let end = self.session(stream, &endpoint).await;
            self.runner.change(|table| table.close(stream));
            self.channel.send_replace(None);
            let was_connected = self.connected.send_replace(false);
            if self.closing.is_cancelled() {
                return;
            }
            if matches!(end, StreamEnd::Superseded) {
                self.stopped.send_replace(Some(Stopped::Superseded));
                return;
            }
            if was_connected && begun.elapsed() >= STABLE {
                failures = 0;
            }
            let reason = end.to_string();
            if said != reason || failures == 0 {
                self.runner.log.warn(None, &format!("the report stream ended: {reason}; opening it again"));
                said = reason;
            }
            self.pause(failures).await;
            failures = failures.saturating_add(1);
        }
    }

    /// Where to report to, as soon as it is known; `None` when closing.
    async fn endpoint(&mut self) -> Option<String> {
        let closing = self.closing.clone();
        let known = async {
            match &self.endpoint_override {
                Some(endpoint) => {
                    self.master.borrow_and_update();
                    Some(endpoint.clone())
                }
                None => {
                    let master = self.master.wait_for(Option::is_some).await.ok()?.clone();
                    self.master.mark_unchanged();
                    master.map(|master| master.endpoint)
                }
            }
        };
        tokio::select! {
            biased;
            () = closing.cancelled() => None,
            known = known => known,
        }
    }

    /// Waits before the next try: the first comes at once, and so does one after news of the master.
    async fn pause(&mut self, failures: u32) {
        tokio::select! {
            () = tokio::time::sleep(backoff(failures)) => {}
            Ok(()) = self.master.changed() => {}
            () = self.closing.cancelled() => {}
        }
    }

    async fn session(&mut self, stream: u64, endpoint: &str) -> StreamEnd {
        let opening = async {
            let channel =
                connect(endpoint).await.map_err(|error| StreamEnd::Unreachable(endpoint.to_owned(), error))?;
            let opened = tokio::time::timeout(WELCOME_TIMEOUT, self.open(stream, channel.clone(), endpoint)).await;
            let (inbound, epoch) = opened.map_err(|_| StreamEnd::NoWelcome(endpoint.to_owned()))??;
            Ok((channel, inbound, epoch))
        };
        let (channel, inbound, epoch) = match self.closing.run_until_cancelled(opening).await {
            Some(Ok(opened)) => opened,
            Some(Err(end)) => return end,
            None => return StreamEnd::Closed,
        };
        self.channel.send_replace(Some(channel));
        self.connected.send_replace(true);
        self.runner.log.info(None, &format!("reports to the master at {endpoint} (epoch {epoch})"));
        self.exchange(inbound, endpoint, epoch).await
    }

    /// Says hello and waits for the welcome.
    async fn open(
        &self,
        stream: u64,
        channel: Channel,
        endpoint: &str,
    ) -> Result<(Streaming<v1::MasterMessage>, u64), StreamEnd> {
        let hello = v1::WorkerMessage { hello: Some(self.hello()), ..v1::WorkerMessage::default() };
        let runner = self.runner.clone();
        let rest = stream::unfold(runner, move |runner| async move {
            let message = runner.next_message(stream).await?;
            Some((message, runner))
        });
        let outbound = authorised(stream::iter([hello]).chain(rest), self.identity.token.as_ref());
        let refused = |status| refused(endpoint, status);
        let mut inbound = WorkerCallbackClient::new(channel).report(outbound).await.map_err(refused)?.into_inner();
        let first = inbound.message().await.map_err(refused)?.ok_or(StreamEnd::Closed)?;
        let Some(welcome) = first.welcome else {
            return Err(first.goodbye.map_or_else(|| StreamEnd::NoWelcome(endpoint.to_owned()), goodbye));
        };
        if !self.gate.welcomed(welcome.epoch) {
            return Err(StreamEnd::OldMaster(welcome.epoch));
        }
        self.on_welcome(stream, &welcome);
        self.on_message(first)?;
        Ok((inbound, welcome.epoch))
    }

    fn hello(&self) -> v1::Hello {
        let (running, finished) = self.runner.holdings();
        v1::Hello {
            worker_id: self.identity.worker.to_string(),
            boot_id: self.identity.boot_id.clone(),
            protocol_min: PROTOCOL,
            protocol_max: PROTOCOL,
            token: self.identity.token.as_ref().map_or_else(String::new, |token| token.expose_secret().to_owned()),
            running,
            finished,
        }
    }

    fn on_welcome(&self, stream: u64, welcome: &v1::Welcome) {
        let desired = welcome.desired.unwrap_or_default();
        self.runner.bound_outputs(welcome.result_bytes_max);
        self.runner.heard_clock(welcome.now_ms);
        self.runner.change(|table| {
            let mode = Mode { drain: desired.drain, paused: desired.paused, ..table.mode() };
            table.set_mode(mode);
            table.open(stream);
        });
        self.runner.beat(self.load.sample());
        if desired.stop {
            self.stopped.send_if_modified(|stopped| stopped.is_none() && stopped.replace(Stopped::Told).is_none());
        }
    }

    /// Sends what is due and takes in what comes until the stream ends.
    async fn exchange(&mut self, mut inbound: Streaming<v1::MasterMessage>, endpoint: &str, epoch: u64) -> StreamEnd {
        let mut beats = tokio::time::interval(Duration::from_millis(HEARTBEAT_MS));
        beats.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        beats.reset();
        let closing = self.closing.clone();
        loop {
            tokio::select! {
                message = inbound.message() => match message {
                    Ok(Some(message)) => {
                        if let Err(end) = self.on_message(message) {
                            return end;
                        }
                    }
                    Ok(None) => return StreamEnd::Closed,
                    Err(status) => return refused(endpoint, status),
                },
                _ = beats.tick() => self.runner.beat(self.load.sample()),
                Ok(()) = self.master.changed() => {
                    if self.has_moved(endpoint, epoch) {
                        return StreamEnd::Moved;
                    }
                }
                () = closing.cancelled() => return self.farewell(inbound).await,
            }
        }
    }

    /// Whether there is a newer master than the one of this stream.
    fn has_moved(&mut self, endpoint: &str, epoch: u64) -> bool {
        let master = self.master.borrow_and_update();
        let Some(master) = master.as_ref() else { return false };
        let elsewhere = self.endpoint_override.is_none() && master.endpoint != endpoint;
        master.epoch > epoch || elsewhere && master.epoch == epoch
    }

    /// Lets what is due go out, and waits until the master has read it.
    async fn farewell(&self, mut inbound: Streaming<v1::MasterMessage>) -> StreamEnd {
        self.runner.change(Table::end_stream);
        let last = async {
            while let Ok(Some(message)) = inbound.message().await {
                if let Err(end) = self.on_message(message) {
                    return end;
                }
            }
            StreamEnd::Closed
        };
        tokio::time::timeout(FAREWELL_TIMEOUT, last).await.unwrap_or(StreamEnd::Closed)
    }

    fn on_message(&self, message: v1::MasterMessage) -> Result<(), StreamEnd> {
        let attempts = [&message.cancel, &message.take_back, &message.send_again];
        if !message.acks.is_empty() || attempts.iter().any(|attempts| !attempts.is_empty()) {
            self.runner.change(|table| apply(table, &message));
        }
        message.goodbye.map_or(Ok(()), |reason| Err(goodbye(reason)))
    }
}

fn apply(table: &mut Table, message: &v1::MasterMessage) {
    for ack in &message.acks {
        if let Ok(unit) = ack.unit_id.parse::<UnitId>() {
            table.acknowledge((unit, ack.attempt), ack.outcome());
        }
    }
    for v1::Attempt { unit_id, attempt } in &message.cancel {
        if let Ok(unit) = unit_id.parse::<UnitId>() {
            table.cancel((unit, *attempt));
        }
    }
    for v1::Attempt { unit_id, attempt } in &message.take_back {
        if let Ok(unit) = unit_id.parse::<UnitId>() {
            table.take_back((unit, *attempt));
        }
    }
    for v1::Attempt { unit_id, attempt } in &message.send_again {
        if let Ok(unit) = unit_id.parse::<UnitId>() {
            table.send_again((unit, *attempt), clock::instant());
        }
    }
}

fn goodbye(reason: String) -> StreamEnd {
    if reason == "superseded" { StreamEnd::Superseded } else { StreamEnd::Goodbye(reason) }
}

fn refused(endpoint: &str, status: Status) -> StreamEnd {
    let (endpoint, message) = (endpoint.to_owned(), status.message().to_owned());
    match status.code() {
        Code::AlreadyExists => StreamEnd::Superseded,
        Code::Unknown | Code::Unavailable | Code::Internal | Code::Cancelled => StreamEnd::Broken(endpoint, message),
        _ => StreamEnd::Refused(endpoint, message),
    }
}

/// Completes "cannot reach the master at …: ".
async fn connect(endpoint: &str) -> Result<Channel, String> {
    let address = Endpoint::from_shared(format!("http://{endpoint}"))
        .map_err(|_| "it is no host:port; check FLOTA_GRPC_ADVERTISE of the master or FLOTA_GRPC_URL".to_owned())?
        .connect_timeout(CONNECT_TIMEOUT)
        .tcp_nodelay(true)
        .http2_keep_alive_interval(KEEP_ALIVE_INTERVAL)
        .keep_alive_timeout(KEEP_ALIVE_TIMEOUT)
        .keep_alive_while_idle(true)
        .initial_stream_window_size(WINDOW_BYTES)
        .initial_connection_window_size(WINDOW_BYTES);
    address.connect().await.map_err(|error| {
        use std::error::Error;
        error.source().map_or_else(|| error.to_string(), ToString::to_string)
    })
}

/// The first try comes at once; then doubling to [`BACKOFF_MAX`], half of it by chance.
fn backoff(failures: u32) -> Duration {
    if failures == 0 {
        return Duration::ZERO;
    }
    BACKOFF_MIN.saturating_mul(1 << failures.min(16)).min(BACKOFF_MAX).mul_f64(rand::random_range(0.5..1.0))
}

#[cfg(test)]
mod tests;
