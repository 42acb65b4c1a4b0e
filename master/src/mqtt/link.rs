//! The master at its broker: says that it is there, hears workers, and hands what they say to the loop.

use std::time::Duration;

use bytes::Bytes;
use flota_common::clock;
use flota_common::mqtt::{Client, Config, ConfigError, Event, Events, Message, Subscription};
use flota_proto::mqtt::{LogLine, MasterStatus, Presence};
use flota_proto::topics::Topics;
use secrecy::SecretString;
use serde::Serialize;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use super::payload::{Ears, Heard};
use crate::handle::{Command, Handle};
use crate::logs::LogHub;
use crate::ration::Ration;

/// How long the broker may take to bring back what it has acknowledged.
const ECHO_WITHIN: Duration = Duration::from_secs(5);

/// What the link needs to know.
#[derive(Clone, Debug)]
pub struct LinkConfig {
    /// `mqtt://` or `mqtts://`.
    pub url: String,
    /// The account at the broker.
    pub user: Option<String>,
    /// Its password.
    pub password: Option<SecretString>,
    /// The topics below one root.
    pub topics: Topics,
    /// Plain `host:port` of the gRPC listener as workers reach it.
    pub grpc_endpoint: String,
    /// The page.
    pub web_url: String,
    /// Of the store that this master has taken charge of.
    pub epoch: u64,
    /// New with every process.
    pub boot_id: String,
}

/// The reading half of the link; [`Link::run`] it.
pub struct Link {
    client: Client,
    events: Events,
    config: LinkConfig,
    ears: Ears,
    bad_payloads: Ration,
    /// Until then our own birth must have come back.
    echo_due: Option<Instant>,
}

/// Begins to connect. The client publishes for the loop at once (it queues until the broker is there); what arrives waits
/// for [`Link::run`].
///
/// # Errors
/// When the configuration can never work.
///
/// # Panics
/// Outside a tokio runtime.
pub fn connect(config: LinkConfig) -> Result<(Client, Link), ConfigError> {
    let topics = &config.topics;
    let subscriptions = vec![
        Subscription::reliable(topics.register()),
        Subscription::reliable(topics.workers_status()),
        Subscription::reliable(topics.worker_state_filter()),
        Subscription::reliable(topics.master_status()),
        Subscription::best_effort(topics.logs()),
    ];
    let client_config = Config {
        url: config.url.clone(),
        user: config.user.clone(),
        password: config.password.clone(),
        client_id: format!("flota-master-{}", config.boot_id),
        clean_session: true,
        will: Some(presence(&config, Presence::Offline)),
        subscriptions,
    };
    let (client, events) = Client::start(client_config, CancellationToken::new())?;
    let ears = Ears::new(topics);
    let link = Link { client: client.clone(), events, config, ears, bad_payloads: Ration::default(), echo_due: None };
    Ok((client, link))
}

impl Link {
    /// Reads until `stop`, then says that the master goes and closes the connection in order. What the loop published
    /// before goes out first.
    pub async fn run(mut self, handle: Handle, hub: LogHub, stop: CancellationToken) {
        let mut lines = hub.outgoing();
        loop {
            tokio::select! {
                () = stop.cancelled() => break,
                event = self.events.recv() => match event {
                    Some(event) => self.on_event(event, &handle, &hub).await,
                    None => return,
                },
                Some(line) = next_line(&mut lines) => self.publish_line(&line),
                () = at(self.echo_due) => self.no_echo(),
            }
        }
        let offline = presence(&self.config, Presence::Offline);
        self.client.shutdown(vec![offline]).await;
    }

    async fn on_event(&mut self, event: Event, handle: &Handle, hub: &LogHub) {
        match event {
            Event::Connected { .. } => {
                info!(url = %self.config.url, "connected to the MQTT broker");
                self.say_online();
                let _ = handle.tell(Command::BrokerUp).await;
            }
            Event::Disconnected { reason } => {
                self.echo_due = None;
                warn!("{reason}; trying again");
            }
            Event::Message { topic, payload, retained } => match self.ears.parse(&topic, &payload) {
                Ok(Heard::Master(status)) => self.on_master(&status, retained),
                Ok(heard) => self.on_heard(heard, handle, hub).await,
                Err(wrong) => self.on_bad_payload(&topic, &wrong),
            },
        }
    }

    async fn on_heard(&mut self, heard: Heard, handle: &Handle, hub: &LogHub) {
        match heard {
            Heard::Register(register) => {
                let _ = handle.tell(Command::Registered(register)).await;
            }
            Heard::Status(status) => {
                let _ = handle.tell(Command::Status(status)).await;
            }
            Heard::Log(line) => hub.receive(line),
            Heard::Master(_) | Heard::Repeated => {}
        }
    }

    fn on_bad_payload(&self, topic: &str, wrong: &str) {
        if let Some(unsaid) = self.bad_payloads.allow() {
            let topic: String = topic.chars().filter(|c| !c.is_control()).take(200).collect();
            warn!(topic, unsaid, "left out a malformed MQTT message: {wrong}");
        }
    }

    fn say_online(&mut self) {
        let Message { topic, payload, retain } = presence(&self.config, Presence::Online);
        if let Err(error) = self.client.publish(topic, payload, true, retain) {
            warn!(%error, "the master could not say that it is online");
        }
        self.echo_due = Some(Instant::now() + ECHO_WITHIN);
    }

    /// The status is retained, so what stands there last must be that of the master in charge: an old one's farewell or
    /// our own will, published late, is corrected.
    fn on_master(&mut self, status: &MasterStatus, retained: bool) {
        let LinkConfig { boot_id, epoch, .. } = &self.config;
        let ours = status.boot_id == *boot_id;
        match status.status {
            Presence::Online if ours => self.echo_due = None,
            Presence::Online if status.epoch > *epoch => {
                error!(ours = epoch, theirs = status.epoch, "another master has taken charge of this topic root");
            }
            Presence::Online | Presence::Offline if status.epoch > *epoch || retained => {}
            Presence::Online | Presence::Offline => self.say_online(),
        }
    }

    /// In MQTT 3.1.1 a broker acknowledges also what its access rules forbid.
    fn no_echo(&mut self) {
        self.echo_due = None;
        let topic = self.config.topics.master_status();
        error!(
            topic,
            url = %self.config.url,
            "the MQTT broker does not bring back what the master publishes: its account needs read and write access to {}/#",
            self.config.topics.root()
        );
    }

    fn publish_line(&self, line: &LogLine) {
        let _ = self.client.publish(self.config.topics.logs(), json(line), false, false);
    }
}

async fn next_line(lines: &mut Option<mpsc::Receiver<LogLine>>) -> Option<LogLine> {
    match lines {
        Some(lines) => lines.recv().await,
        None => std::future::pending().await,
    }
}

async fn at(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due).await,
        None => std::future::pending().await,
    }
}

fn presence(config: &LinkConfig, status: Presence) -> Message {
    let LinkConfig { topics, grpc_endpoint, web_url, epoch, boot_id, .. } = config;
    let said = MasterStatus {
        status,
        grpc_endpoint: grpc_endpoint.clone(),
        web_url: web_url.clone(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        epoch: *epoch,
        boot_id: boot_id.clone(),
        timestamp: clock::now(),
    };
    Message { topic: topics.master_status(), payload: json(&said), retain: true }
}

/// Our own messages always serialise: their maps have strings as keys.
fn json(value: &impl Serialize) -> Bytes {
    serde_json::to_vec(value).unwrap_or_default().into()
}
