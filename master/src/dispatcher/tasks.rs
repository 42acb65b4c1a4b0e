//! From an assignment to what the worker is sent: the payload narrowed to the unit, several units a message, large
//! payloads by reference.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use flota_common::clock;
use flota_proto::kinds::{ChatPayload, HashPayload, Role, SearchPayload};
use flota_proto::mqtt::{SimpleTask, Task, Tasks};
use flota_proto::{Kind, LEASE_MS, MQTT_PAYLOAD_BYTES_MAX, Timestamp, UnitId, WorkerId};
use secrecy::ExposeSecret;
use serde_json::value::RawValue;
use tracing::warn;

use super::{Dispatcher, SimpleWorkers};
use crate::core::{Assignment, Seq};
use crate::handle::Refused;

/// Payloads above this go by reference.
const TASK_PAYLOAD_BYTES_MAX: usize = 128 * 1024;
/// What one message holds at most, with room for its envelope.
const TASKS_BYTES_MAX: usize = MQTT_PAYLOAD_BYTES_MAX - 16 * 1024;
/// What a task takes beside its payload.
const TASK_BYTES: usize = 320;
/// Parsed payloads kept, so that a large one is not parsed again for each of its units.
const PARSED_MAX: usize = 16;

enum Parsed {
    Hash(HashPayload),
    Search(SearchPayload),
}

/// Cuts the payload of a job down to one unit.
#[derive(Default)]
pub struct Narrower {
    parsed: HashMap<Seq, Arc<Parsed>>,
    order: VecDeque<Seq>,
}

impl Narrower {
    fn narrow(
        &mut self,
        seq: Seq,
        kind: Kind,
        (from, to): (u64, u64),
        payload: impl FnOnce() -> Result<Bytes, Refused>,
    ) -> Result<Bytes, Refused> {
        let parsed = match self.parsed.get(&seq) {
            Some(parsed) => parsed.clone(),
            None => {
                let parsed = Arc::new(parse(kind, &payload()?)?);
                if self.order.len() >= PARSED_MAX
                    && let Some(oldest) = self.order.pop_front()
                {
                    self.parsed.remove(&oldest);
                }
                self.order.push_back(seq);
                self.parsed.insert(seq, parsed.clone());
                parsed
            }
        };
        let json = match &*parsed {
            Parsed::Hash(payload) => {
                let range = usize::try_from(from).unwrap_or(0)..usize::try_from(to).unwrap_or(0);
                let inputs = payload.inputs.get(range).unwrap_or_default().to_vec();
                serde_json::to_vec(&HashPayload { key: payload.key.clone(), inputs })
            }
            Parsed::Search(payload) => {
                serde_json::to_vec(&SearchPayload { nonce_start: from, nonce_end: to, ..payload.clone() })
            }
        };
        json.map(Bytes::from).map_err(|error| unreadable(&error))
    }
}

fn parse(kind: Kind, payload: &[u8]) -> Result<Parsed, Refused> {
    let parsed = match kind {
        Kind::Hash(_) => serde_json::from_slice(payload).map(Parsed::Hash),
        Kind::Search(_) => serde_json::from_slice(payload).map(Parsed::Search),
        Kind::AiChat | Kind::AiEmbed | Kind::Echo => {
            return Err(Refused::Unavailable(format!("{kind} has one unit")));
        }
    };
    parsed.map_err(|error| unreadable(&error))
}

fn unreadable(error: &serde_json::Error) -> Refused {
    Refused::Unavailable(format!("a stored payload can't be read: {error}"))
}

impl Dispatcher {
    /// The payload of a unit, narrowed.
    pub(super) fn unit_payload(
        &mut self,
        seq: Seq,
        kind: Kind,
        part: Option<(u64, u64)>,
        in_memory: Option<Bytes>,
    ) -> Result<Bytes, Refused> {
        let store = &mut self.store;
        let whole = || match in_memory {
            Some(payload) => Ok(payload),
            None => match store.own_reader().payload(seq) {
                Ok(Some(payload)) => Ok(payload),
                Ok(None) => Err(Refused::NotFound("payload of this job".into())),
                Err(error) => Err(Refused::Unavailable(format!("failed to {error}"))),
            },
        };
        match part {
            None => whole(),
            Some(part) => self.narrower.narrow(seq, kind, part, whole),
        }
    }

    /// Publishes assignments to one worker, several a message.
    pub(super) fn publish_tasks(&mut self, worker: &WorkerId, assignments: Vec<Assignment>) {
        let mut units = Vec::with_capacity(assignments.len());
        let mut bytes = 0;
        for assignment in assignments {
            if assignment.simple {
                self.publish_simple(&assignment);
                continue;
            }
            let Some((task, size)) = self.task(assignment) else { continue };
            if bytes + size > TASKS_BYTES_MAX {
                self.publish_message(worker, std::mem::take(&mut units));
                bytes = 0;
            }
            bytes += size;
            units.push(task);
        }
        if !units.is_empty() {
            self.publish_message(worker, units);
        }
    }

    fn task(&mut self, assignment: Assignment) -> Option<(Task, usize)> {
        let Assignment { seq, unit, attempt, kind, part, timeout_ms, failures, credential, payload, .. } = assignment;
        let payload = self.unit_payload(seq, kind, part, payload);
        let payload = match payload.and_then(|payload| self.with_history(unit.job, payload)) {
            Ok(payload) => payload,
            Err(error) => {
                // Its dispatch timeout brings the unit back.
                warn!(job_id = %unit.job, %error, "a unit could not be published");
                return None;
            }
        };
        let by_reference = payload.len() > TASK_PAYLOAD_BYTES_MAX;
        let size = TASK_BYTES + if by_reference { 0 } else { payload.len() };
        let payload = if by_reference { None } else { raw(&payload) };
        let task = Task {
            unit_id: unit,
            job_id: unit.job,
            attempt,
            kind,
            lease_ms: LEASE_MS,
            timeout_ms,
            failures,
            credential,
            payload,
            payload_by_reference: by_reference,
        };
        Some((task, size))
    }

    fn publish_message(&self, worker: &WorkerId, units: Vec<Task>) {
        let tasks = Tasks {
            worker_id: worker.clone(),
            grpc_endpoint: self.config.grpc_endpoint.clone(),
            epoch: self.epoch,
            timestamp: clock::now(),
            units,
        };
        match serde_json::to_vec(&tasks) {
            Ok(payload) => self.send(self.config.topics.tasks(worker), payload),
            Err(error) => warn!(%error, "a task message could not be written"),
        }
    }

    fn publish_simple(&mut self, assignment: &Assignment) {
        let Assignment { worker, seq, unit, attempt, assigned_at, payload, .. } = assignment;
        let question = self
            .unit_payload(*seq, Kind::AiChat, None, payload.clone())
            .ok()
            .and_then(|payload| serde_json::from_slice::<ChatPayload>(&payload).ok())
            .and_then(|payload| payload.messages.into_iter().rfind(|message| message.role == Role::User));
        let Some(question) = question else {
            warn!(job_id = %unit.job, "a question for a simple worker could not be read");
            return;
        };
        let task = SimpleTask {
            worker_id: worker.clone(),
            session_id: self.simple_session(*unit, *attempt),
            query: question.content,
            api_key: self.simple_key(*unit),
            grpc_endpoint: self.config.grpc_endpoint.clone(),
            timestamp: Timestamp(assigned_at.0),
        };
        if let Ok(payload) = serde_json::to_vec(&task) {
            self.send(self.config.topics.tasks(worker), payload);
        }
    }

    /// The key that a simple worker is sent: none unless the operator trusts the broker.
    fn simple_key(&self, unit: UnitId) -> String {
        if self.config.simple != SimpleWorkers::Trusted {
            return String::new();
        }
        let key = self.open_key(unit.job).or_else(|| self.config.gemini_api_key.clone());
        key.map(|key| key.expose_secret().to_owned()).unwrap_or_default()
    }

    /// Publishes reliably; what can't be queued comes back by its timeout.
    pub(super) fn send(&self, topic: String, payload: Vec<u8>) {
        if let Err(error) = self.publisher.publish(topic, Bytes::from(payload), true, false) {
            warn!(%error, "a message was not published");
        }
    }
}

fn raw(payload: &[u8]) -> Option<Box<RawValue>> {
    RawValue::from_string(std::str::from_utf8(payload).ok()?.to_owned()).ok()
}
