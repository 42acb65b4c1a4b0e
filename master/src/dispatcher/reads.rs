//! Reads of what has ended, on threads of their own so that they never hold up the loop.

use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};

use flota_proto::JobId;
use flota_proto::rest;
use tracing::error;

use super::Dispatcher;
use crate::core::record::{StoredJob, decode_events};
use crate::core::{event_view, payload_view, stored_unit_view, stored_view};
use crate::handle::{Command, JobFilter, JobUpdate, Refused, Reply, Subscription};
use crate::store::{Reader, Store, StoreError};

type Work = Box<dyn FnOnce(&mut dyn Reader) + Send>;

/// Reads that may wait.
const READS_MAX: usize = 1024;
const THREADS: usize = 2;

/// The reading threads.
pub struct Readers {
    work: SyncSender<Work>,
}

impl Readers {
    /// Starts them; they end with this.
    pub fn start(store: &dyn Store) -> Result<Self, StoreError> {
        let (work, queue) = sync_channel::<Work>(READS_MAX);
        let queue = Arc::new(Mutex::new(queue));
        for _ in 0..THREADS {
            let (queue, mut reader) = (queue.clone(), store.reader()?);
            let run = move || {
                while let Some(work) = next(&queue) {
                    work(&mut *reader);
                }
            };
            std::thread::Builder::new()
                .name("flota-reader".into())
                .spawn(run)
                .map_err(|error| StoreError::Other(error.to_string()))?;
        }
        Ok(Self { work })
    }

    /// Reads for `reply`; too many at once are refused.
    pub fn read<T: Send + 'static>(
        &self,
        reply: Reply<T>,
        read: impl FnOnce(&mut dyn Reader) -> Result<T, Refused> + Send + 'static,
    ) {
        self.hand_over(reply, |reader, reply| drop(reply.send(read(reader))));
    }

    /// Hands a reader and the reply to `work`.
    fn hand_over<T: Send + 'static>(
        &self,
        reply: Reply<T>,
        work: impl FnOnce(&mut dyn Reader, Reply<T>) + Send + 'static,
    ) {
        // Shared, so that it can still be answered where the queue is full and drops the work.
        let slot = Arc::new(Mutex::new(Some(reply)));
        let shared = slot.clone();
        let take = move |slot: &Mutex<Option<Reply<T>>>| slot.lock().unwrap_or_else(PoisonError::into_inner).take();
        let run: Work = Box::new(move |reader| {
            if let Some(reply) = take(&shared) {
                work(reader, reply);
            }
        });
        if self.work.try_send(run).is_err()
            && let Some(reply) = take(&slot)
        {
            let _ = reply.send(Err(Refused::Busy { detail: "too many reads at once".into(), retry_after_seconds: 1 }));
        }
    }
}

fn next(queue: &Mutex<Receiver<Work>>) -> Option<Work> {
    queue.lock().unwrap_or_else(PoisonError::into_inner).recv().ok()
}

pub(super) fn unavailable(error: StoreError) -> Refused {
    error!(%error, "a read failed");
    Refused::Unavailable(format!("failed to {error}"))
}

pub(super) fn find(reader: &mut dyn Reader, id: JobId) -> Result<StoredJob, Refused> {
    reader.job(id).map_err(unavailable)?.ok_or_else(|| Refused::NotFound(format!("job {id}")))
}

impl Dispatcher {
    pub(super) fn read_job(&mut self, id: JobId, payload: bool, reply: Reply<rest::Job>) {
        let Some(mut view) = self.core.job_view(id) else {
            return self.readers.read(reply, move |reader| {
                let stored = find(reader, id)?;
                let mut view = stored_view(&stored.head, &stored.row);
                if payload && let Some(body) = reader.payload(stored.row.seq).map_err(unavailable)? {
                    view.payload = payload_view(&body);
                }
                Ok(view)
            });
        };
        if payload && let Some((seq, in_memory)) = self.core.payload(id) {
            let body = match in_memory {
                Some(body) => Some(body),
                None => self.store.own_reader().payload(seq).ok().flatten(),
            };
            view.payload = body.as_deref().and_then(payload_view);
        }
        // What the batch changed is shown once it is stored.
        self.answer(reply, view);
    }

    pub(super) fn wait_for_job(&mut self, id: JobId, reply: Reply<rest::Job>) {
        if self.core.job_view(id).is_some_and(|job| !job.state.ended()) {
            let waiters = self.waiters.entry(id).or_default();
            waiters.retain(|waiter| !waiter.is_closed());
            waiters.push(reply);
        } else {
            self.read_job(id, false, reply);
        }
    }

    pub(super) fn read_jobs(&mut self, filter: JobFilter, reply: Reply<rest::Page<rest::Job>>) {
        let before = match filter.cursor.as_deref().map(str::parse) {
            None => u64::MAX,
            Some(Ok(seq)) => seq,
            Some(Err(_)) => {
                let error = flota_proto::kinds::FieldError::new("cursor", "is not one that a list has answered");
                let _ = reply.send(Err(error.into()));
                return;
            }
        };
        let live_only = !filter.states.is_empty() && filter.states.iter().all(|state| !state.ended());
        if live_only && self.health.retry_at().is_none() {
            let (items, next) = self.core.list(&filter, before);
            let page = rest::Page { items, next_cursor: next.map(|seq| seq.to_string()) };
            return self.answer(reply, page);
        }
        let Some(commands) = self.commands.upgrade() else { return };
        // Rows are read elsewhere; what of them still lives is then looked up here.
        self.readers.hand_over(reply, move |reader, reply| match reader.jobs(&filter, before) {
            Ok(rows) => drop(commands.blocking_send(Command::Overlay { filter, rows, reply })),
            Err(error) => drop(reply.send(Err(unavailable(error)))),
        });
    }

    pub(super) fn overlay(&mut self, filter: &JobFilter, rows: Vec<StoredJob>, reply: Reply<rest::Page<rest::Job>>) {
        let next = (rows.len() >= filter.limit).then(|| rows.last().map(|job| job.row.seq.to_string())).flatten();
        let mut items = Vec::with_capacity(rows.len());
        for stored in rows {
            let view = match self.core.job_view(stored.head.id) {
                Some(view) => view,
                // It ended after the row was read.
                None if !stored.row.state.ended() => match self.store.own_reader().job(stored.head.id) {
                    Ok(Some(newer)) => stored_view(&newer.head, &newer.row),
                    Ok(None) | Err(_) => continue,
                },
                None => stored_view(&stored.head, &stored.row),
            };
            let fits = filter.code.as_ref().is_none_or(|code| view.error.as_ref().is_some_and(|e| e.code == *code));
            if fits && (filter.states.is_empty() || filter.states.contains(&view.state)) {
                items.push(view);
            }
        }
        self.answer(reply, rest::Page { items, next_cursor: next });
    }

    pub(super) fn read_units(
        &mut self,
        id: JobId,
        limit: usize,
        cursor: Option<&str>,
        reply: Reply<rest::Page<rest::Unit>>,
    ) {
        let page = self.units_page(id, limit, cursor);
        match page {
            Ok(page) => self.answer(reply, page),
            Err(refused) => drop(reply.send(Err(refused))),
        }
    }

    fn units_page(&mut self, id: JobId, limit: usize, cursor: Option<&str>) -> Result<rest::Page<rest::Unit>, Refused> {
        let bad = |_| flota_proto::kinds::FieldError::new("cursor", "is not one that a list has answered");
        let from: u32 = cursor.map_or(Ok(0), str::parse).map_err(bad)?;
        let live = self.core.live_units(id).unwrap_or_default();
        let reader = self.store.own_reader();
        let Some(stored) = reader.job(id).map_err(unavailable)? else {
            if live.is_empty() && self.core.known(id).is_none() {
                return Err(Refused::NotFound(format!("job {id}")));
            }
            return Ok(rest::Page { items: live, next_cursor: None });
        };
        let mut units: std::collections::BTreeMap<u32, rest::Unit> = std::collections::BTreeMap::new();
        if let Some(row) = &stored.row.unit {
            units.insert(0, stored_unit_view(&stored, row));
        } else {
            for row in reader.units(stored.row.seq, from, limit + 1, false).map_err(unavailable)? {
                units.insert(row.index, stored_unit_view(&stored, &row));
            }
        }
        units.extend(live.into_iter().map(|unit| (unit.unit_id.index, unit)));
        let mut items: Vec<rest::Unit> = units.into_values().filter(|unit| unit.unit_id.index >= from).collect();
        let next_cursor = items.get(limit).map(|unit| unit.unit_id.index.to_string());
        items.truncate(limit);
        Ok(rest::Page { items, next_cursor })
    }

    pub(super) fn subscribe(&mut self, id: JobId, after: Option<u64>, reply: Reply<Subscription>) {
        if let (Some(job), Some(backlog)) = (self.core.job_view(id), self.core.events(id, after)) {
            // One that ended in this very batch is not in the store yet: its end stands in the backlog.
            let live = (!job.state.ended()).then(|| self.live_events(id));
            return self.answer(reply, Subscription { backlog, live, job });
        }
        self.readers.read(reply, move |reader| {
            let stored = find(reader, id)?;
            let result = stored.row.result.as_deref();
            let events = decode_events(&stored.row.events);
            let later = events.iter().filter(|event| after.is_none_or(|seq| event.seq > seq));
            let backlog = later.map(|event| event_view(event, result)).collect();
            Ok(Subscription { backlog, live: None, job: stored_view(&stored.head, &stored.row) })
        });
    }

    /// What happens to a job from now on; what this very batch did already is part of the backlog too.
    fn live_events(&mut self, id: JobId) -> tokio::sync::mpsc::Receiver<Arc<JobUpdate>> {
        let (sender, receiver) = tokio::sync::mpsc::channel(super::SUBSCRIBER_EVENTS_MAX);
        let subscribers = self.subscribers.entry(id).or_default();
        subscribers.retain(|subscriber| !subscriber.is_closed());
        subscribers.push(sender);
        receiver
    }
}
