//! What each command of a shell becomes: an input to the core, a read, or a note to whom an answer goes later.

use flota_proto::rest::JobState;
use flota_proto::{JobId, PROTOCOL, WorkerId, mqtt, rest, v1};
use tokio::sync::mpsc;
use tracing::{info, warn};

use super::{Dispatcher, Moment, SimpleWorkers};
use crate::core::record::StoredJob;
use crate::core::{DATASET_DIGEST_BYTES, Digest, Input};
use crate::handle::{Command, Hello, Refused, Reply, StreamId, WorkerControl};

impl Dispatcher {
    pub(super) fn command(&mut self, at: Moment, command: Command) {
        match command {
            Command::Submit { principal: _, jobs, idempotency, session, reply } => {
                self.submit(jobs, idempotency, session, reply);
            }
            Command::Job { id, payload, reply } => self.read_job(id, payload, reply),
            Command::Await { id, reply } => self.wait_for_job(id, reply),
            Command::Jobs { filter, reply } => self.read_jobs(filter, reply),
            Command::Overlay { filter, rows, reply } => self.overlay(&filter, rows, reply),
            Command::Units { id, limit, cursor, reply } => self.read_units(id, limit, cursor.as_deref(), reply),
            Command::Audit { id, limit, from, reply } => self.audit(id, limit, from, reply),
            Command::Cancel { id, reply, .. } => self.change_job(at, id, Input::Cancel(id), reply),
            Command::SetPriority { id, priority, reply, .. } => {
                self.change_job(at, id, Input::SetPriority(id, priority), reply);
            }
            Command::Retry { id, reply, .. } => self.retry(at, id, reply),
            Command::Subscribe { id, after, reply } => self.subscribe(id, after, reply),
            Command::Workers { reply } => {
                let workers = self.core.workers_view();
                self.answer(reply, workers);
            }
            Command::Control { worker, control, reply, .. } => self.control(at, &worker, control, reply),
            Command::Fleet { reply } => {
                let mut fleet = self.core.fleet_view(at.now);
                self.add_ended(&mut fleet);
                self.answer(reply, fleet);
            }
            Command::QueuePosition { id, reply } => {
                // Whatever of this batch can be assigned is, before anyone is told that it waits.
                self.core.settle(at, &mut self.effects);
                let position = self.core.position(id);
                self.answer(reply, position);
            }
            Command::QueueDepths { reply } => {
                let depths = self.core.depths_view();
                self.answer(reply, depths);
            }
            Command::Registered(register) => self.registered(at, register),
            Command::Status(status) => self.apply(at, Input::Status(status)),
            Command::BrokerUp => {}
            Command::Prepare { key } => self.prepare(&key),
            Command::StreamOpened { hello, sender, reply } => self.stream_opened(at, hello, sender, reply),
            Command::StreamClosed(stream) => {
                self.streams.remove(&stream);
                self.apply(at, Input::Close(stream));
            }
            Command::Report { stream, report } => self.apply(at, Input::Report(stream, Box::new(report))),
            Command::Checked { unit, attempt, verdict } => self.apply(at, Input::Checked { unit, attempt, verdict }),
            Command::SimpleResult { result, reply } => self.simple_result(at, result, reply),
            Command::FetchUnit { unit, attempt, worker, reply } => {
                let _ = reply.send(self.fetch_unit(unit, attempt, &worker));
            }
            Command::LeaseCredential { unit, attempt, worker, reply } => {
                let _ = reply.send(self.lease_credential(unit, attempt, &worker));
            }
            Command::AcceptedDigest { key, reply } => drop(reply.send(Ok(self.accepted_digest(&key)))),
            Command::Usage { query, reply } => self.usage(at, query, reply),
            Command::Models { reply } => {
                let models = self.core.models_view();
                self.answer(reply, models);
            }
            Command::Conversation(ask) => self.conversation(at, *ask),
            Command::Session { key, reply } => drop(reply.send(self.session(key))),
            Command::Sessions(changes) => self.session_changes(at, changes),
            Command::Stop { reply } => drop(reply),
        }
    }

    fn change_job(&mut self, at: Moment, id: JobId, input: Input, reply: Reply<rest::Job>) {
        let outcome = self.core.require_live(id).and_then(|()| self.core.apply(at, input, &mut self.effects));
        match outcome {
            Ok(()) => match self.core.job_view(id) {
                Some(view) => self.answer(reply, view),
                None => drop(reply.send(Err(Refused::NotFound(format!("job {id}"))))),
            },
            Err(Refused::NotFound(_)) => self.refuse_ended(id, reply),
            Err(refused) => drop(reply.send(Err(refused))),
        }
    }

    /// A job that is not in memory has ended, or there is none.
    fn refuse_ended(&mut self, id: JobId, reply: Reply<rest::Job>) {
        let refused = match self.store.own_reader().state(id) {
            Ok(Some((state, _))) => {
                Refused::Conflict("job_ended", format!("job {id} has ended: it is {}", state.as_str()))
            }
            Ok(None) => Refused::NotFound(format!("job {id}")),
            Err(error) => Refused::Unavailable(format!("failed to {error}")),
        };
        let _ = reply.send(Err(refused));
    }

    fn retry(&mut self, at: Moment, id: JobId, reply: Reply<rest::Job>) {
        let retried = self.ended_job(id).and_then(|stored| {
            let state = stored.row.state;
            self.core.apply(at, Input::Retry(Box::new(stored)), &mut self.effects)?;
            if let Some(count) = self.ended_counts.get_mut(&state) {
                *count = count.saturating_sub(1);
            }
            Ok(())
        });
        if retried.is_ok() {
            self.question_reopened(id);
        }
        match retried {
            Ok(()) => match self.core.job_view(id) {
                Some(view) => self.answer(reply, view),
                None => drop(reply.send(Err(Refused::NotFound(format!("job {id}"))))),
            },
            Err(refused) => drop(reply.send(Err(refused))),
        }
    }

    fn ended_job(&mut self, id: JobId) -> Result<StoredJob, Refused> {
        let not_ended = |state: JobState| {
            let detail = format!("only a failed or cancelled job can be retried: job {id} is {}", state.as_str());
            Refused::Conflict("not_retryable", detail)
        };
        if let Some(view) = self.core.job_view(id) {
            if view.state.ended() {
                let detail = format!("job {id} is just being ended: try again");
                return Err(Refused::Conflict("job_not_ended", detail));
            }
            return Err(not_ended(view.state));
        }
        let unavailable = |error| Refused::Unavailable(format!("failed to {error}"));
        let reader = self.store.own_reader();
        let found = reader.job(id).map_err(unavailable)?;
        let mut stored = found.ok_or_else(|| Refused::NotFound(format!("job {id}")))?;
        if !matches!(stored.row.state, JobState::Failed | JobState::Cancelled) {
            return Err(not_ended(stored.row.state));
        }
        if stored.head.rest.credential && !self.credentials.has(id) {
            let detail = "its API key was not kept: ask again with the key";
            return Err(Refused::Conflict("credential_lost", detail.into()));
        }
        if stored.head.rest.work.is_some() {
            stored.units = self.store.own_reader().units(stored.row.seq, 0, usize::MAX, true).map_err(unavailable)?;
        }
        Ok(stored)
    }

    fn control(&mut self, at: Moment, worker: &WorkerId, control: WorkerControl, reply: Reply<rest::Worker>) {
        let input = Input::Control(worker.clone(), control);
        match self.core.apply(at, input, &mut self.effects) {
            Ok(()) => {
                if let Some(view) = self.core.worker_view(worker) {
                    self.answer(reply, view);
                }
            }
            Err(refused) => drop(reply.send(Err(refused))),
        }
    }

    /// Where two say otherwise, who asks has only its own check of random items.
    fn accepted_digest(&self, key: &[u8]) -> Option<[u8; DATASET_DIGEST_BYTES]> {
        match self.core.dataset_digest(key) {
            Digest::Accepted(digest) => Some(digest),
            Digest::Unknown => None,
            Digest::Disputed => {
                let key = hex::encode(key);
                warn!(
                    key,
                    "workers whose hashes are right computed different RandomX datasets of one key: none is accepted"
                );
                None
            }
        }
    }

    fn registered(&mut self, at: Moment, register: mqtt::Register) {
        if register.protocol.is_none() && self.config.simple == SimpleWorkers::Off {
            warn!(
                worker_id = register.worker_id.as_str(),
                "a simple worker was turned away: FLOTA_SIMPLE_WORKERS is off"
            );
            return;
        }
        match self.core.apply(at, Input::Register(Box::new(register.clone())), &mut self.effects) {
            Ok(()) => self.remember(register),
            Err(refused) => {
                metrics::counter!("flota_workers_refused_total").increment(1);
                if let Some(unsaid) = self.turned_away.allow() {
                    warn!(worker_id = register.worker_id.as_str(), unsaid, "a worker was turned away: {refused}");
                }
            }
        }
    }

    /// For a core that begins again.
    pub(super) fn remember(&mut self, register: mqtt::Register) {
        let room = self.registrations.len() < self.config.limits.workers_max;
        if room || self.registrations.contains_key(&register.worker_id) {
            self.registrations.insert(register.worker_id.clone(), register);
        }
    }

    fn stream_opened(
        &mut self,
        at: Moment,
        hello: Hello,
        sender: mpsc::Sender<v1::MasterMessage>,
        reply: Reply<(StreamId, v1::Welcome)>,
    ) {
        let stream = StreamId(self.next_stream);
        self.next_stream += 1;
        let worker = hello.worker.clone();
        if let Err(refused) = self.core.apply(at, Input::Open(hello, stream), &mut self.effects) {
            warn!(worker_id = worker.as_str(), "a worker's stream was refused: {refused}");
            let _ = reply.send(Err(refused));
            return;
        }
        self.streams.insert(stream, sender);
        info!(worker_id = worker.as_str(), "worker {worker} is connected");
        let desired = self.core.desired(&worker);
        let welcome = v1::Welcome {
            epoch: self.epoch,
            protocol: PROTOCOL,
            desired: Some(v1::Desired { drain: desired.drain, paused: desired.paused, config_version: 0, stop: false }),
            result_bytes_max: self.config.limits.result_bytes_max as u64,
            now_ms: flota_common::clock::now().0,
        };
        self.answer(reply, (stream, welcome));
    }
}
