//! MQTT: registers the worker, says what it does, and takes in what the master says.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use flota_common::clock;
use flota_common::mqtt::{Client, Event, Events};
use flota_proto::Class;
use flota_proto::mqtt::{Control, LogLine, MasterStatus, Register, WorkerState, WorkerStatus};
use flota_proto::topics::Topics;
use serde::de::DeserializeOwned;
use tokio::sync::{Notify, mpsc, watch};
use tokio::time::Instant;
use tracing::{debug, warn};

use crate::Stopped;
use crate::control::{Commands, Next};
use crate::epoch::{EpochGate, Master, Masters, Sighting};
use crate::health::{self, HealthFile};
use crate::intake::{self, without_value};
use crate::runner::Runner;

/// How long after connecting the worker looks whether the broker does what it acknowledges.
const CHECK_AFTER: Duration = Duration::from_secs(10);

/// How often the executors are asked which models they serve.
const MODELS_EVERY: Duration = Duration::from_secs(5);

/// The worker's end of the broker.
pub(crate) struct Link {
    pub(crate) client: Client,
    pub(crate) topics: Arc<Topics>,
    /// What is said at each registration, with a new time.
    pub(crate) register: Register,
    pub(crate) runner: Arc<Runner>,
    pub(crate) gate: Arc<EpochGate>,
    pub(crate) masters: Masters,
    pub(crate) master: watch::Sender<Option<Master>>,
    pub(crate) commands: Mutex<Commands>,
    pub(crate) stopped: watch::Sender<Option<Stopped>>,
    /// Makes the status be said again.
    pub(crate) say_status: Arc<Notify>,
    /// What the worker offers has changed.
    pub(crate) offer_changed: Arc<Notify>,
    /// Whether a report stream is open.
    pub(crate) reporting: watch::Receiver<bool>,
    /// For probes on this machine.
    pub(crate) health: HealthFile,
}

impl Link {
    /// Reads what comes until the client ends.
    pub(crate) async fn run(mut self, mut events: Events) {
        let (tasks, control) = (self.topics.tasks(&self.register.worker_id), self.topics.control());
        let own_control = self.topics.worker_control(&self.register.worker_id);
        let own_state = self.topics.worker_state(&self.register.worker_id);
        let master_status = self.topics.master_status();
        let (mut check_at, mut own_state_seen, mut connected) = (None, false, false);
        let mut say_health = tokio::time::interval(health::WRITE_EVERY);
        let mut look_at_models = tokio::time::interval(MODELS_EVERY);
        loop {
            let event = tokio::select! {
                event = events.recv() => event,
                () = until(check_at) => {
                    check_at = None;
                    self.check(&own_state, own_state_seen);
                    continue;
                }
                () = self.offer_changed.notified() => {
                    self.announce();
                    continue;
                }
                _ = look_at_models.tick() => {
                    self.announce_new_models();
                    continue;
                }
                _ = say_health.tick() => {
                    let reporting = *self.reporting.borrow();
                    self.health.say(connected, reporting);
                    continue;
                }
            };
            let Some(event) = event else { return };
            match event {
                Event::Connected { .. } => {
                    connected = true;
                    self.on_connected();
                    (check_at, own_state_seen) = (Some(Instant::now() + CHECK_AFTER), false);
                }
                Event::Disconnected { reason } => {
                    connected = false;
                    warn!("{reason}; trying again");
                }
                Event::Message { topic, payload, .. } => match &topic {
                    topic if *topic == tasks => self.on_tasks(&payload),
                    topic if *topic == control || *topic == own_control => self.on_control(topic, &payload),
                    topic if *topic == own_state => {
                        own_state_seen |= self.on_own_state(topic, &payload);
                    }
                    topic if *topic == master_status => self.on_master_status(topic, &payload),
                    topic => debug!(topic, "ignored a message that was not subscribed to"),
                },
            }
        }
    }

    /// A publish that access rules forbid is acknowledged all the same: only what comes back proves that it was taken.
    fn check(&self, own_state: &str, own_state_seen: bool) {
        if !own_state_seen {
            let line = format!(
                "the MQTT broker does not give back what this worker says on {own_state}: its access rules must let \
                 this account publish and subscribe there"
            );
            self.runner.log.warn(None, &line);
        }
        if self.master.borrow().is_none() {
            let line = format!(
                "connected to the MQTT broker, but no master has announced itself on {}: start it, or check that \
                 FLOTA_TOPIC_ROOT is the same for both",
                self.topics.master_status()
            );
            self.runner.log.warn(None, &line);
        }
    }

    fn on_connected(&self) {
        self.runner.log.info(None, "connected to the MQTT broker");
        self.announce();
    }

    /// Providers tell what they serve some time after the start, and it changes.
    fn announce_new_models(&mut self) {
        let models = self.runner.models();
        if models != self.register.models {
            self.register.models = models;
            self.announce();
        }
    }

    fn announce(&self) {
        let mut register = Register { timestamp: clock::now(), ..self.register.clone() };
        if self.runner.held_back().is_some() {
            // The master gives no work for which there is no slot.
            register.slots.remove(&Class::Randomx);
            register.prefetch.remove(&Class::Randomx);
        }
        let payload = Bytes::from(serde_json::to_vec(&register).unwrap_or_default());
        if let Err(error) = self.client.publish(self.topics.register(), payload, true, false) {
            warn!(%error, "failed to register at the broker");
        }
        self.say_status.notify_one();
    }

    fn on_master_status(&self, topic: &str, payload: &[u8]) {
        let Some(status) = read::<MasterStatus>(topic, payload) else { return };
        if !self.gate.admits(status.epoch) {
            return;
        }
        let (sighting, master) = self.masters.status(&status);
        if let Some(master) = master {
            self.master.send_replace(Some(master));
        }
        if sighting == Sighting::New {
            self.announce();
        }
    }

    fn on_tasks(&self, payload: &[u8]) {
        let intake = match intake::read(payload) {
            Ok(intake) => intake,
            Err(error) => return warn!(problem = without_value(&error), "ignored a tasks message that cannot be read"),
        };
        if intake.worker != self.register.worker_id || !self.gate.admits(intake.epoch) {
            return;
        }
        if let Some(master) = self.masters.tasks(intake.epoch, &intake.endpoint) {
            self.master.send_replace(Some(master));
        }
        if intake.unreadable > 0 {
            warn!(count = intake.unreadable, "ignored units that cannot be read");
        }
        for (key, failure) in intake.refused {
            self.runner.refuse(key, failure);
        }
        self.runner.offer(intake.units);
    }

    fn on_control(&self, topic: &str, payload: &[u8]) {
        let Some(control) = read::<Control>(topic, payload) else { return };
        if !self.gate.admits(control.epoch) {
            return;
        }
        let name = format!("{:?}", control.command).to_lowercase();
        let now = self.runner.command_time();
        let next = self.runner.change(|table| {
            let mut commands = self.commands.lock().unwrap_or_else(PoisonError::into_inner);
            commands.carry_out(control, now, table)
        });
        debug!(command = name, "took in a command");
        match next {
            Next::GoOn => {}
            Next::Prepare(key) => {
                let said = self.runner.prepare(&key);
                self.runner.log.info(None, &format!("told to prepare RandomX key {}: {said}", hex::encode(key)));
            }
            Next::Stop => {
                self.runner.log.info(None, "told to stop");
                self.stopped.send_if_modified(|stopped| stopped.is_none() && stopped.replace(Stopped::Told).is_none());
            }
        }
    }

    /// The broker's word of this worker's death, late or of an earlier process: the retained state must be made true again.
    /// Answers whether it was about this process.
    fn on_own_state(&self, topic: &str, payload: &[u8]) -> bool {
        let Some(state) = read::<WorkerStatus>(topic, payload) else { return false };
        let ours = state.boot_id == self.register.boot_id;
        if state.status == WorkerState::Offline && !self.runner.mode().closing {
            if ours {
                self.announce();
            } else {
                self.say_status.notify_one();
            }
        }
        ours
    }
}

async fn until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

fn read<T: DeserializeOwned>(topic: &str, payload: &[u8]) -> Option<T> {
    // An empty payload is how a retained message is deleted.
    if payload.is_empty() {
        return None;
    }
    serde_json::from_slice(payload)
        .inspect_err(|error| warn!(topic, problem = without_value(error), "ignored a message that cannot be read"))
        .ok()
}

/// Publishes log lines; without a connection they are dropped.
pub(crate) async fn publish_logs(client: Client, topic: String, mut lines: mpsc::Receiver<LogLine>) {
    while let Some(line) = lines.recv().await {
        let payload = Bytes::from(serde_json::to_vec(&line).unwrap_or_default());
        let _ = client.publish(topic.clone(), payload, false, false);
    }
}
