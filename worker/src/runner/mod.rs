//! Runs units: takes them in, gives them slots, executes and ends them. The rules are in `table/`; here are the tasks, the
//! time and the executors.

use std::collections::{BTreeMap, HashMap};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use flota_common::clock;
use flota_proto::mqtt::{Load, RandomxState, Task, WorkerState};
use flota_proto::{Algorithm, Class, Kind, Timestamp, UnitId, v1};
use flota_randomx::DIGEST_BYTES;
use futures::FutureExt;
use tokio::runtime::Handle;
use tokio::sync::{Notify, watch};
use tokio_util::task::TaskTracker;
use tracing::{Instrument, debug, info_span};

use crate::attempt::{self, Ended, Observed};
use crate::calls::Calls;
use crate::executor::{Executor, Failure, Unit};
use crate::keeper::Keeper;
use crate::log::Log;
use crate::spool::{Durability, Spool};
use crate::table::{Arrival, Key, Mode, OUTPUT_IN_MESSAGE_BYTES_MAX, Report, Start, Table, Take, Work};

/// Takes in, executes and reports.
pub(crate) struct Runner {
    table: Mutex<Table>,
    executors: HashMap<Kind, Arc<dyn Executor>>,
    all: Vec<Arc<dyn Executor>>,
    pub(crate) calls: Calls,
    pub(crate) spool: Arc<Spool>,
    keeper: Arc<Keeper>,
    pub(crate) log: Arc<Log>,
    /// Something may be due on the stream.
    due: Notify,
    /// Grows whenever something has changed: for the status, and for who waits for the end.
    changes: watch::Sender<u64>,
    /// Where executors run; units also end on the report thread's runtime.
    runtime: Handle,
    executions: TaskTracker,
    /// Why RandomX waits of this worker's own accord.
    held_back: Mutex<Option<String>>,
    /// The largest output that the master takes.
    output_bytes_max: AtomicUsize,
    /// What the master's clock said, and when.
    master_clock: Mutex<Option<(Timestamp, Instant)>>,
}

/// Where no master has said how much it takes: as much as it takes without being told otherwise.
const OUTPUT_BYTES_MAX: usize = 64 * 1024 * 1024;

impl Runner {
    pub(crate) fn new(
        executors: Vec<Arc<dyn Executor>>,
        slots: &BTreeMap<Class, u32>,
        prefetch: &BTreeMap<Class, u32>,
        calls: Calls,
        spool: Arc<Spool>,
        log: Arc<Log>,
    ) -> Arc<Self> {
        let by_kind = executors.iter().flat_map(|e| e.kinds().iter().map(|kind| (*kind, e.clone()))).collect();
        Arc::new(Self {
            table: Mutex::new(Table::new(slots, prefetch)),
            executors: by_kind,
            all: executors,
            calls,
            keeper: Keeper::new(spool.clone()),
            spool,
            log,
            due: Notify::new(),
            changes: watch::channel(0).0,
            runtime: Handle::current(),
            executions: TaskTracker::new(),
            held_back: Mutex::default(),
            output_bytes_max: AtomicUsize::new(OUTPUT_BYTES_MAX),
            master_clock: Mutex::default(),
        })
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes in what an earlier process left in the spool.
    pub(crate) fn restore(&self, reports: Vec<(Key, Report)>) {
        let mut table = self.table();
        for (key, report) in reports {
            table.restore(key, report);
        }
    }

    /// Takes in units that were published to this worker.
    pub(crate) fn offer(self: &Arc<Self>, tasks: Vec<Task>) {
        let arrivals: Vec<_> = tasks
            .into_iter()
            .map(|task| ((task.unit_id, task.attempt), task.kind.class(), self.arrival(task)))
            .collect();
        self.change(|table| {
            for (key, class, arrival) in arrivals {
                table.offer(key, class, arrival);
            }
        });
    }

    /// A unit that this build cannot read.
    pub(crate) fn refuse(self: &Arc<Self>, key: Key, failure: Failure) {
        let report = attempt::failed(key, failure);
        self.change(|table| table.offer(key, Class::Echo, Arrival::Done(report)));
    }

    /// Parses the payload, and computes at once what takes no time.
    fn arrival(&self, mut task: Task) -> Arrival {
        let key = (task.unit_id, task.attempt);
        let Some(executor) = self.executors.get(&task.kind) else {
            let message = format!("this worker does not compute {}", task.kind);
            return Arrival::Done(attempt::failed(key, Failure::transient("unsupported_kind", message)));
        };
        let payload = match (task.payload.take(), task.payload_by_reference) {
            (Some(json), _) => attempt::parse(task.kind, &json),
            (None, true) => return Arrival::Work(Work { task, payload: None }),
            (None, false) => Err(Failure::permanent("bad_payload", "payload: is missing")),
        };
        match payload {
            Ok(payload) if task.credential => Arrival::Work(Work { task, payload: Some(payload) }),
            Ok(payload) => {
                let unit = attempt::unit(&task, payload, None);
                match immediate(executor.as_ref(), &unit) {
                    Some(outcome) => Arrival::Done(self.report(key, outcome, Duration::ZERO)),
                    None => Arrival::Work(Work { task, payload: Some(unit.payload) }),
                }
            }
            Err(failure) => Arrival::Done(attempt::failed(key, failure)),
        }
    }

    /// How much a master takes of one output, by its own word.
    pub(crate) fn bound_outputs(&self, bytes_max: u64) {
        // A master that does not say knows no parts.
        let bytes_max = if bytes_max == 0 { OUTPUT_IN_MESSAGE_BYTES_MAX as u64 } else { bytes_max };
        self.output_bytes_max.store(usize::try_from(bytes_max).unwrap_or(usize::MAX), Ordering::Relaxed);
    }

    /// What the master's clock says.
    pub(crate) fn heard_clock(&self, now_ms: u64) {
        let heard = (now_ms > 0).then(|| (Timestamp(now_ms), clock::instant()));
        *self.master_clock.lock().unwrap_or_else(PoisonError::into_inner) = heard;
    }

    /// The time by which a command has expired, or not: the master's as far as it is known, or this machine's if that is earlier.
    pub(crate) fn command_time(&self) -> Timestamp {
        let heard = *self.master_clock.lock().unwrap_or_else(PoisonError::into_inner);
        let passed = |at: Instant| u64::try_from(at.elapsed().as_millis()).unwrap_or(u64::MAX);
        heard.map_or(clock::now(), |(said, at)| said.after_ms(passed(at)).min(clock::now()))
    }

    fn report(&self, key: Key, outcome: Result<crate::executor::Output, Failure>, took: Duration) -> Report {
        attempt::report(key, outcome, took, self.output_bytes_max.load(Ordering::Relaxed))
    }

    /// Changes the table, starts what may start, and tells whoever waits for it.
    pub(crate) fn change<T>(self: &Arc<Self>, change: impl FnOnce(&mut Table) -> T) -> T {
        let (outcome, starts, unspool) = {
            let mut table = self.table();
            let outcome = change(&mut table);
            (outcome, table.start_ready(clock::instant()), table.take_unspool())
        };
        for start in starts {
            self.spawn(start);
        }
        if !unspool.is_empty() {
            let spool = self.spool.clone();
            self.executions.spawn_blocking_on(move || spool.remove(&unspool), &self.runtime);
        }
        self.due.notify_waiters();
        self.changes.send_modify(|changes| *changes += 1);
        outcome
    }

    fn spawn(self: &Arc<Self>, start: Start) {
        let (unit, attempt) = (start.work.task.unit_id, start.work.task.attempt);
        // A slot that became free starts the next attempt: that one is no part of the one that ended.
        let span = info_span!(parent: None, "attempt", %unit, attempt);
        let runner = self.clone();
        self.executions.spawn_on(async move { runner.run(start).await }.instrument(span), &self.runtime);
    }

    async fn run(self: Arc<Self>, start: Start) {
        let (key, class, kind) =
            ((start.work.task.unit_id, start.work.task.attempt), start.class, start.work.task.kind);
        self.say_started(key.0, kind);
        let begun = clock::instant();
        // The runner goes on whatever an executor does, also while it is dropped.
        let ended = AssertUnwindSafe(self.execute(start)).catch_unwind().await.unwrap_or_else(|_| panicked());
        let report = match ended {
            Ended::Cancelled => None,
            Ended::Outcome(outcome) => Some(self.report(key, outcome, begun.elapsed())),
        };
        self.say_ended(key.0, kind, report.as_ref(), begun.elapsed());
        let spooled = self.keep(key, class, report.as_ref()).await;
        self.change(|table| table.end(key, class, report, spooled));
    }

    async fn execute(self: &Arc<Self>, start: Start) -> Ended {
        let task = &start.work.task;
        let Some(executor) = self.executors.get(&task.kind).cloned() else {
            return Ended::Outcome(Err(Failure::transient("unsupported_kind", "this worker does not compute it")));
        };
        let observer = Observed::new(self.clone(), (task.unit_id, task.attempt), start.sign.clone());
        attempt::execute(start, executor, observer, &self.calls).await
    }

    /// Writes a result to disk where computing it again costs something; see `spool.rs`.
    async fn keep(&self, key: Key, class: Class, report: Option<&Report>) -> bool {
        let durability = match class {
            Class::Ai => Durability::Synced,
            Class::Randomx => Durability::Written,
            Class::Echo => return false,
        };
        let Some(report @ Report::Result(_)) = report else { return false };
        if !self.table().runs(key) {
            return false;
        }
        self.keeper.keep(key, report.clone(), durability, &self.runtime).await
    }

    /// Lines about echoes would drown the others.
    fn say_started(&self, unit: UnitId, kind: Kind) {
        if kind.class() == Class::Echo {
            debug!("started");
        } else {
            self.log.info(Some(unit.job), &format!("started {kind} {unit}"));
        }
    }

    fn say_ended(&self, unit: UnitId, kind: Kind, report: Option<&Report>, took: Duration) {
        let seconds = took.as_secs_f64();
        match report {
            _ if kind.class() == Class::Echo => debug!(duration_seconds = seconds, "ended"),
            Some(Report::Result(_)) => {
                self.log.info(Some(unit.job), &format!("finished {kind} {unit} in {seconds:.2} s"));
            }
            Some(Report::Failure(failure)) => {
                let line = format!("{kind} {unit} failed after {seconds:.2} s ({}): {}", failure.code, failure.message);
                self.log.warn(Some(unit.job), &line);
            }
            None => self.log.info(Some(unit.job), &format!("stopped {kind} {unit} after {seconds:.2} s")),
        }
    }

    /// What an attempt shows: due on the stream, of no interest to others. `change` says whether the stream must look again.
    pub(crate) fn show(&self, change: impl FnOnce(&mut Table) -> bool) {
        let look = change(&mut self.table());
        if look {
            self.due.notify_waiters();
        }
    }

    /// The next message of `stream`; `None` when it ends.
    pub(crate) async fn next_message(&self, stream: u64) -> Option<v1::WorkerMessage> {
        loop {
            let due = self.due.notified();
            tokio::pin!(due);
            // From here on no notification is missed.
            due.as_mut().enable();
            let next = self.table().take(stream, clock::instant());
            match next {
                Take::Message(message) => {
                    self.changes.send_modify(|changes| *changes += 1);
                    return Some(*message);
                }
                Take::End => return None,
                Take::Wait(None) => due.await,
                Take::Wait(Some(until)) => {
                    let _ = tokio::time::timeout_at(until.into(), due).await;
                }
            }
        }
    }

    /// What goes into a `Hello`: what is held, and what is finished.
    pub(crate) fn holdings(&self) -> (Vec<v1::Attempt>, Vec<v1::Attempt>) {
        let table = self.table();
        (table.unfinished(), table.finished())
    }

    /// Puts a heartbeat on the stream.
    pub(crate) fn beat(&self, load: Load) {
        let running = self.table().alive(clock::instant());
        let heartbeat = v1::Heartbeat {
            running,
            load: Some(v1::Load { cpu: load.cpu, memory: load.memory }),
            hashrate: self.rates().get(&Algorithm::Randomx).copied().unwrap_or_default(),
            warm_keys: self.all.iter().flat_map(|executor| executor.warm_keys()).collect(),
            computed: self.all.iter().flat_map(|executor| executor.computed_datasets()).map(digest).collect(),
        };
        self.show(|table| {
            table.beat(heartbeat);
            true
        });
    }

    /// Models served without a user's key.
    pub(crate) fn models(&self) -> Vec<String> {
        self.all.iter().flat_map(|executor| executor.models()).collect()
    }

    /// Hashes a second of each algorithm that is at work.
    pub(crate) fn rates(&self) -> BTreeMap<Algorithm, f64> {
        self.all.iter().filter_map(|executor| executor.rate()).filter(|(_, rate)| *rate > 0.0).collect()
    }

    /// How it stands with RandomX.
    pub(crate) fn randomx(&self) -> Option<RandomxState> {
        let state = self.all.iter().find_map(|executor| executor.randomx());
        state.map(|state| RandomxState { held_back: self.held_back(), ..state })
    }

    /// Why RandomX waits of this worker's own accord.
    pub(crate) fn held_back(&self) -> Option<String> {
        self.held_back.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Hands back the units of `class` and takes none for `reason`, or takes them again.
    pub(crate) fn hold_back(self: &Arc<Self>, class: Class, reason: Option<String>) {
        let hold = reason.is_some();
        *self.held_back.lock().unwrap_or_else(PoisonError::into_inner) = reason;
        self.change(|table| table.hold_back(class, hold));
    }

    /// Tells the executors whether units will come.
    pub(crate) fn hold_executors(&self, held: bool) {
        self.all.iter().for_each(|executor| executor.hold(held));
    }

    /// Makes ready for a RandomX key; says what came of it.
    pub(crate) fn prepare(&self, key: &[u8]) -> String {
        let said = self.all.iter().find_map(|executor| executor.prepare(key));
        said.unwrap_or_else(|| "this worker does not compute RandomX".into())
    }

    pub(crate) fn status(&self) -> (WorkerState, BTreeMap<Class, u32>) {
        self.table().status()
    }

    pub(crate) fn mode(&self) -> Mode {
        self.table().mode()
    }

    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// Waits until `reached` holds of the table, at most `patience`; says whether it does.
    pub(crate) async fn wait_until(&self, patience: Duration, reached: impl Fn(&Table) -> bool) -> bool {
        let mut changes = self.changes();
        let wait = async {
            loop {
                changes.borrow_and_update();
                if reached(&self.table()) {
                    return;
                }
                if changes.changed().await.is_err() {
                    return;
                }
            }
        };
        tokio::time::timeout(patience, wait).await.is_ok()
    }

    /// Waits until everything that was begun has ended, at most `patience`.
    pub(crate) async fn ended(&self, patience: Duration) {
        self.executions.close();
        let _ = tokio::time::timeout(patience, self.executions.wait()).await;
    }

    /// Writes every unacknowledged report that is in no file yet.
    pub(crate) async fn keep_all(&self) {
        let reports = self.table().unspooled();
        if reports.is_empty() {
            return;
        }
        let spool = self.spool.clone();
        let count = reports.len();
        let kept = self.runtime.spawn_blocking(move || spool.write(&reports, Durability::Synced)).await;
        debug!(count, kept = kept.unwrap_or(false), "kept unacknowledged results on disk");
    }
}

fn digest((key, digest): (Vec<u8>, [u8; DIGEST_BYTES])) -> v1::DatasetDigest {
    v1::DatasetDigest { key: key.into(), digest: digest.to_vec().into() }
}

fn panicked() -> Ended {
    let message = "the executor panicked; the worker's own log has the details";
    Ended::Outcome(Err(Failure::transient("executor_panic", message)))
}

fn immediate(executor: &dyn Executor, unit: &Unit) -> Option<Result<crate::executor::Output, Failure>> {
    catch_unwind(AssertUnwindSafe(|| executor.immediate(unit))).unwrap_or_else(|_| match panicked() {
        Ended::Outcome(outcome) => Some(outcome),
        Ended::Cancelled => None,
    })
}

#[cfg(test)]
mod tests;
