//! From an assignment to what the worker is sent: the payload narrowed to the unit, several units a message, large
//! payloads by reference.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use flota_common::clock;
use flota_proto::kinds::{ChatPayload, HashPayload, Role, SearchPayload};
use flota_proto::mqtt::{SimpleTask, Task, Tasks};
use flota_proto::{JobId, Kind, LEASE_MS, MQTT_PAYLOAD_BYTES_MAX, Timestamp, UnitId, WorkerId};
use secrecy::ExposeSecret;
use serde_json::value::RawValue;
use tracing::warn;

use super::{Dispatcher, SimpleWorkers};
use crate::core::{Assignment, STORE_UNREADABLE, Seq};
use crate::handle::Refused;
use crate::store::StoreError;

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

/// What is refused for good where something stored can't be read. serde's own message may quote what it has read.
pub(super) fn unreadable(error: &serde_json::Error) -> Refused {
    let (class, at) = (error.classify(), error.column());
    Refused::Conflict(STORE_UNREADABLE, format!("its payload ({class:?} error at column {at})").to_lowercase())
}

/// What a read of the store means for the one who needs it.
pub(super) fn refusal(error: StoreError) -> Refused {
    match error {
        StoreError::Unreadable(why) => Refused::Conflict(STORE_UNREADABLE, why),
        other => Refused::Unavailable(format!("failed to {other}")),
    }
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
                Ok(None) => Err(Refused::Conflict(STORE_UNREADABLE, "its payload is not there".into())),
                Err(error) => Err(refusal(error)),
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
        let Assignment { seq, unit, attempt, kind, part, timeout_ms, failures, payload, .. } = assignment;
        let (credential, own_key_only) = (assignment.credential, assignment.own_key_only);
        let payload = self.unit_payload(seq, kind, part, payload);
        let payload = payload.and_then(|payload| self.with_history(unit.job, payload)).and_then(in_message);
        let (payload, size) = match payload {
            Ok(Some((payload, bytes))) => (Some(payload), TASK_BYTES + bytes),
            Ok(None) => (None, TASK_BYTES),
            Err(error) => {
                self.not_published(unit.job, error);
                return None;
            }
        };
        let by_reference = payload.is_none();
        let task = Task {
            unit_id: unit,
            job_id: unit.job,
            attempt,
            kind,
            lease_ms: LEASE_MS,
            timeout_ms,
            failures,
            credential,
            own_key_only,
            payload,
            payload_by_reference: by_reference,
        };
        Some((task, size))
    }

    /// What can't be read is read no better the next time; other units are brought back by their dispatch timeout.
    pub(super) fn not_published(&mut self, job: JobId, error: Refused) {
        warn!(job_id = %job, %error, "a unit could not be published");
        if let Refused::Conflict(STORE_UNREADABLE, what) = error {
            self.core.damaged(job, what);
        }
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
        let payload = self.unit_payload(*seq, Kind::AiChat, None, payload.clone());
        let question = match payload.and_then(|payload| question(&payload)) {
            Ok(question) => question,
            Err(error) => return self.not_published(unit.job, error),
        };
        let task = SimpleTask {
            worker_id: worker.clone(),
            session_id: self.simple_session(*unit, *attempt),
            query: question,
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

/// Of several messages the last of the user's.
fn question(payload: &[u8]) -> Result<String, Refused> {
    let chat: ChatPayload = serde_json::from_slice(payload).map_err(|error| unreadable(&error))?;
    let question = chat.messages.into_iter().rfind(|message| message.role == Role::User);
    let none = || Refused::Conflict(STORE_UNREADABLE, "its payload has no question".into());
    question.map(|message| message.content).ok_or_else(none)
}

/// A payload with its size where it goes along, `None` where it is fetched.
fn in_message(payload: Bytes) -> Result<Option<(Box<RawValue>, usize)>, Refused> {
    if payload.len() > TASK_PAYLOAD_BYTES_MAX {
        return Ok(None);
    }
    let json = serde_json::from_slice(&payload).map_err(|error| unreadable(&error))?;
    Ok(Some((json, payload.len())))
}
