//! The worker's status on MQTT: on change at most twice a second, and every ten seconds.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use flota_common::clock;
use flota_common::mqtt::{Client, Message};
use flota_proto::mqtt::{WorkerState, WorkerStatus};
use flota_proto::topics::Topics;
use flota_proto::{Algorithm, Class, WorkerId};
use tokio::sync::Notify;
use tracing::debug;

use crate::load::LoadMeter;
use crate::runner::Runner;

const CHANGE_INTERVAL: Duration = Duration::from_millis(500);
const REPEAT_INTERVAL: Duration = Duration::from_secs(10);

/// Says what the worker does.
pub(crate) struct StatusPublisher {
    pub(crate) client: Client,
    pub(crate) topics: Arc<Topics>,
    pub(crate) worker: WorkerId,
    pub(crate) boot_id: String,
    pub(crate) slots: BTreeMap<Class, u32>,
    pub(crate) runner: Arc<Runner>,
    /// A meter of its own: each measures since it was read last.
    pub(crate) load: LoadMeter,
    /// Say it again, whether or not it has changed.
    pub(crate) again: Arc<Notify>,
}

impl StatusPublisher {
    /// Publishes until it is dropped.
    pub(crate) async fn run(self) {
        let mut changes = self.runner.changes();
        let mut last = None;
        let mut repeat_at = tokio::time::Instant::now();
        loop {
            changes.borrow_and_update();
            let now = self.runner.status();
            if last.as_ref() != Some(&now) || repeat_at <= tokio::time::Instant::now() {
                self.publish(&now);
                repeat_at = tokio::time::Instant::now() + REPEAT_INTERVAL;
                last = Some(now.clone());
            }
            tokio::time::sleep(CHANGE_INTERVAL).await;
            // What takes no time leaves no trace that it is over: look again.
            let look_again = if now.0 == WorkerState::Busy { tokio::time::Instant::now() } else { repeat_at };
            tokio::select! {
                _ = changes.changed() => {}
                () = self.again.notified() => last = None,
                () = tokio::time::sleep_until(look_again) => {}
            }
        }
    }

    fn publish(&self, (status, running): &(WorkerState, BTreeMap<Class, u32>)) {
        let algorithms = self.runner.rates();
        let status = WorkerStatus {
            slots: self.slots.clone(),
            running: running.clone(),
            hashrate: Some(algorithms.get(&Algorithm::Randomx).copied().unwrap_or_default()),
            algorithms,
            load: Some(self.load.sample()),
            randomx: self.runner.randomx().map(Box::new),
            ..bare(&self.worker, &self.boot_id, *status)
        };
        for message in messages(&self.topics, &status) {
            if let Err(error) = self.client.publish(message.topic, message.payload, true, message.retain) {
                debug!(%error, "failed to publish the worker's status");
            }
        }
    }
}

/// A status that says only who and what.
pub(crate) fn bare(worker: &WorkerId, boot_id: &str, status: WorkerState) -> WorkerStatus {
    WorkerStatus {
        worker_id: worker.clone(),
        status,
        timestamp: clock::now(),
        boot_id: boot_id.to_owned(),
        slots: BTreeMap::new(),
        running: BTreeMap::new(),
        hashrate: None,
        algorithms: BTreeMap::new(),
        load: None,
        randomx: None,
    }
}

/// The status for the live stream, and the retained state.
pub(crate) fn messages(topics: &Topics, status: &WorkerStatus) -> [Message; 2] {
    let payload = Bytes::from(serde_json::to_vec(status).unwrap_or_default());
    [
        Message { topic: topics.worker_state(&status.worker_id), payload: payload.clone(), retain: true },
        Message { topic: topics.workers_status(), payload, retain: false },
    ]
}
