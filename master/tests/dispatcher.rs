//! The loop over a real store: what is answered when, and what becomes of callers when a commit fails.
#![allow(clippy::unwrap_used)]

use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use flota_master::core::record::StoredJob;
use flota_master::core::{Changes, Limits};
use flota_master::dispatcher::{Config, Dispatcher, Ended, Running, SimpleWorkers};
use flota_master::handle::{
    Command, Handle, Hello, IdempotencyKey, JobFilter, PublishError, Publisher, Refused, Subscription, UnitResult,
    UnitText,
};
use flota_master::session::{Followed, SessionChange, SessionKey};
use flota_master::store::{IdempotencyRow, Loaded, Reader, Retention, SqliteStore, Store, StoreError};
use flota_master::submit::{NewJob, Principal};
use flota_proto::rest::{JobState, SubmitJob};
use flota_proto::topics::Topics;
use flota_proto::{JobId, Timestamp, UnitId};
use tempfile::TempDir;
use tokio::sync::oneshot;

const DEADLINE: Duration = Duration::from_secs(20);
const RESERVE: u64 = 1000;

/// What a test does to commits.
#[derive(Default)]
struct Control {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// Commits wait for permits.
    gated: bool,
    permits: u32,
    waiting: bool,
    /// How many of the next commits fail, after how many that don't.
    good: u32,
    fail: u32,
    /// How many of the next commits report a failure although all is stored.
    late: u32,
    /// Nothing can be stored.
    full: bool,
    /// How often the core began again.
    loads: u32,
    /// How much space there is.
    free: Option<u64>,
}

impl Control {
    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner));
        self.changed.notify_all();
    }

    fn see<T>(&self, what: impl FnOnce(&State) -> T) -> T {
        what(&self.state.lock().unwrap())
    }

    fn wait(&self, until: impl Fn(&State) -> bool) {
        let state = self.state.lock().unwrap();
        let (_state, timeout) = self.changed.wait_timeout_while(state, DEADLINE, |state| !until(state)).unwrap();
        assert!(!timeout.timed_out());
    }

    /// Called by the store: whether the commit is to go on.
    fn pass(&self) -> bool {
        let mut state = self.state.lock().unwrap();
        state.waiting = true;
        self.changed.notify_all();
        let mut state = self.changed.wait_while(state, |state| state.gated && state.permits == 0).unwrap();
        state.waiting = false;
        state.permits = state.permits.saturating_sub(1);
        self.changed.notify_all();
        if state.good > 0 {
            state.good -= 1;
            return true;
        }
        let fails = state.fail > 0 || state.full;
        state.fail = state.fail.saturating_sub(1);
        !fails
    }

    fn late(&self) -> bool {
        let mut state = self.state.lock().unwrap();
        let late = state.late > 0;
        state.late = state.late.saturating_sub(1);
        late
    }
}

struct Controlled {
    store: SqliteStore,
    control: Arc<Control>,
}

impl Store for Controlled {
    fn take_charge(&mut self) -> Result<u64, StoreError> {
        self.store.take_charge()
    }

    fn load(&mut self) -> Result<Loaded, StoreError> {
        self.control.change(|state| state.loads += 1);
        self.store.load()
    }

    fn in_charge(&self) -> Result<(), StoreError> {
        self.store.in_charge()
    }

    fn live_jobs(&mut self, after: u64, limit: usize) -> Result<Vec<StoredJob>, StoreError> {
        self.store.live_jobs(after, limit)
    }

    fn probe(&mut self) -> Result<(), StoreError> {
        if self.control.see(|state| state.full) { Err(StoreError::Full) } else { self.store.probe() }
    }

    fn free_bytes(&self) -> Option<u64> {
        self.control.see(|state| state.free)
    }

    fn commit(&mut self, changes: &Changes, keys: &[IdempotencyRow]) -> Result<(), StoreError> {
        if !self.control.pass() {
            return Err(StoreError::Full);
        }
        self.store.commit(changes, keys)?;
        if self.control.late() { Err(StoreError::Other("the disk answered late".into())) } else { Ok(()) }
    }

    fn prune(&mut self, ago: &dyn Fn(u64) -> Timestamp, retention: Retention) -> Result<bool, StoreError> {
        self.store.prune(ago, retention)
    }

    fn reader(&self) -> Result<Box<dyn Reader>, StoreError> {
        self.store.reader()
    }

    fn own_reader(&mut self) -> &mut dyn Reader {
        self.store.own_reader()
    }
}

/// Keeps what would be published.
#[derive(Default)]
struct Published(Mutex<Vec<(String, Bytes)>>);

impl Publisher for Published {
    fn publish(&self, topic: String, payload: Bytes, _: bool, _: bool) -> Result<(), PublishError> {
        self.0.lock().unwrap().push((topic, payload));
        Ok(())
    }
}

struct Master {
    directory: TempDir,
    control: Arc<Control>,
    handle: Handle,
    running: Running,
    published: Arc<Published>,
}

impl Master {
    fn start() -> Self {
        Self::start_in(tempfile::tempdir().unwrap())
    }

    fn with(retention: Retention) -> Self {
        Self::start_with(tempfile::tempdir().unwrap(), retention)
    }

    fn start_in(directory: TempDir) -> Self {
        Self::start_with(
            directory,
            Retention {
                age_ms: 3_600_000,
                bytes_max: u64::MAX,
                conversations_age_ms: u64::MAX,
                sessions_max: u64::MAX,
            },
        )
    }

    fn start_with(directory: TempDir, retention: Retention) -> Self {
        let mut store = SqliteStore::open(&directory.path().join("flota.db")).unwrap();
        let epoch = store.take_charge().unwrap();
        let control = Arc::new(Control::default());
        let store = Box::new(Controlled { store, control: control.clone() });
        let config = Config {
            topics: Topics::new("flota").unwrap(),
            grpc_endpoint: "127.0.0.1:1".into(),
            simple: SimpleWorkers::Keyless,
            gemini_api_key: None,
            limits: Limits::default(),
            retention,
            store_reserve_bytes: RESERVE,
            sealer: flota_master::seal::Sealer::ephemeral(),
            conversation_tokens: 8_000,
            ai: flota_master::ledger::AiLimits::default(),
            cache: flota_master::dispatcher::CacheLimits { bytes: 1 << 20, age: Duration::from_secs(3600) },
            listeners: Arc::default(),
            verifier: None,
        };
        let (handle, commands) = Handle::channel();
        let published = Arc::new(Published::default());
        let running =
            Dispatcher::new(config, store, epoch, published.clone(), &handle).unwrap().spawn(commands).unwrap();
        Self { directory, control, handle, running, published }
    }

    async fn restart(self) -> Self {
        self.handle.stop().await.unwrap();
        self.running.join().unwrap();
        Self::start_in(self.directory)
    }

    async fn submit(&self, jobs: Vec<NewJob>, key: Option<IdempotencyKey>) -> Vec<Result<JobId, Refused>> {
        within(self.handle.submit(Principal::local(), jobs, key)).await.unwrap()
    }

    async fn one(&self) -> JobId {
        self.submit(vec![echo()], None).await.remove(0).unwrap()
    }

    async fn total(&self) -> u64 {
        self.handle.fleet().await.unwrap().jobs.values().sum()
    }

    /// Hands over commands that fall into one batch, and waits until its commit begins.
    async fn one_batch(&self, commands: Vec<Command>) {
        self.control.change(|state| state.gated = true);
        let (reply, _) = oneshot::channel();
        let first = Command::Submit {
            principal: Principal::local(),
            jobs: vec![echo()],
            idempotency: None,
            session: None,
            reply,
        };
        self.handle.tell(first).await.unwrap();
        self.control.wait(|state| state.waiting);
        for command in commands {
            self.handle.tell(command).await.unwrap();
        }
        self.control.change(|state| state.permits = 1);
        self.control.wait(|state| state.permits == 0);
        self.control.wait(|state| state.waiting);
    }

    fn open_gate(&self) {
        self.control.change(|state| state.gated = false);
    }
}

async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(DEADLINE, future).await.expect("it is answered")
}

fn echo() -> NewJob {
    let job: SubmitJob = serde_json::from_str(r#"{"kind":"echo","payload":{"value":1}}"#).unwrap();
    NewJob::from_submit(job, &Principal::local(), None).unwrap()
}

fn key() -> Option<IdempotencyKey> {
    Some(IdempotencyKey { owner: "local".into(), key: "k".into(), body_digest: [7; 32] })
}

fn cancel(id: JobId) -> Command {
    Command::Cancel { principal: Principal::local(), id, reply: oneshot::channel().0 }
}

#[tokio::test]
async fn a_key_that_comes_next_is_told_to_all_workers() {
    let master = Master::start();
    master.handle.tell(Command::Prepare { key: vec![0xab; 32] }).await.unwrap();
    // What was sent before an answer has been carried out.
    master.total().await;
    let published = master.published.0.lock().unwrap();
    let (_, payload) = published.iter().find(|(topic, _)| topic == "flota/control").expect("it is published");
    let told: serde_json::Value = serde_json::from_slice(payload).unwrap();
    assert_eq!((told["command"].as_str(), told["epoch"].as_u64()), (Some("prepare"), Some(1)));
    assert_eq!(told["args"]["key"], "ab".repeat(32));
    assert!(told["expires_at_ms"].as_u64() > told["issued_at_ms"].as_u64());
}

#[tokio::test]
async fn who_subscribes_to_a_job_that_ends_in_the_same_batch_learns_of_its_end() {
    let master = Master::start();
    let id = master.one().await;
    let (reply, answer) = oneshot::channel();
    master.one_batch(vec![cancel(id), Command::Subscribe { id, after: None, reply }]).await;
    // A reader of the store would find the job as it was before.
    tokio::task::yield_now().await;
    master.open_gate();
    let Subscription { backlog, live, job } = within(answer).await.unwrap().unwrap();
    assert_eq!((job.state, live.is_none()), (JobState::Cancelled, true));
    assert_eq!(backlog.last().unwrap().r#type, "cancelled");
}

#[tokio::test]
async fn a_failed_commit_answers_who_waits_for_a_job_that_is_gone_with_it() {
    let master = Master::start();
    master.control.change(|state| state.fail = 1);
    let job = echo();
    let id = job.id;
    let (reply, submitted) = oneshot::channel();
    let submit =
        Command::Submit { principal: Principal::local(), jobs: vec![job], idempotency: None, session: None, reply };
    master.handle.tell(submit).await.unwrap();
    assert!(matches!(within(submitted).await.unwrap(), Err(Refused::StoreFull(_))));
    assert!(matches!(within(master.handle.wait(id)).await, Err(Refused::NotFound(_))));
}

#[tokio::test]
async fn subscribers_are_asked_to_come_again_after_a_failed_commit() {
    let master = Master::start();
    let id = master.one().await;
    let mut live = within(master.handle.subscribe(id, None)).await.unwrap().live.unwrap();
    master.control.change(|state| state.fail = 1);
    assert!(within(master.handle.cancel(Principal::local(), id)).await.is_err());
    assert!(within(live.recv()).await.is_none(), "what was stored after all would be missed");
    let again = within(master.handle.subscribe(id, None)).await.unwrap();
    assert_eq!((again.job.state, again.live.is_some()), (JobState::Pending, true));
    assert_eq!(master.total().await, 1);
}

#[tokio::test]
async fn a_batch_that_a_crash_cut_in_two_goes_on_under_its_idempotency_key() {
    let master = Master::start();
    let batch: Vec<NewJob> = (0..2500).map(|_| echo()).collect();
    master.control.change(|state| (state.good, state.fail) = (1, 1));
    let first = master.submit(batch, key()).await;
    let accepted: Vec<JobId> = first.iter().filter_map(|item| item.as_ref().ok().copied()).collect();
    assert_eq!(accepted.len(), 1000, "one slice was stored");
    let master = master.restart().await;
    let again = master.submit((0..2500).map(|_| echo()).collect(), key()).await;
    let ids: Vec<JobId> = again.into_iter().map(Result::unwrap).collect();
    assert!(ids.len() == 2500 && ids[..1000] == accepted[..], "what was accepted keeps its ids");
    assert_eq!(master.total().await, 2500);
    let third = master.submit((0..2500).map(|_| echo()).collect(), key()).await;
    assert!(third.into_iter().map(Result::unwrap).eq(ids), "the answer is kept");
    assert_eq!(master.total().await, 2500);
}

#[tokio::test]
async fn a_batch_whose_later_slice_failed_names_only_what_is_stored() {
    for good in [1, 2] {
        let master = Master::start();
        master.control.change(|state| (state.good, state.fail) = (good, 1));
        let answer = master.submit((0..2500).map(|_| echo()).collect(), None).await;
        let accepted = answer.iter().filter(|item| item.is_ok()).count() as u64;
        assert_eq!((answer.len(), accepted), (2500, u64::from(good) * 1000));
        assert_eq!(master.total().await, accepted);
    }
}

#[tokio::test]
async fn who_waited_for_a_job_that_a_failed_commit_ended_after_all_is_answered() {
    let master = Master::start();
    let id = master.one().await;
    let (reply, answer) = oneshot::channel();
    master.handle.tell(Command::Await { id, reply }).await.unwrap();
    master.control.change(|state| state.late = 1);
    assert!(within(master.handle.cancel(Principal::local(), id)).await.is_err());
    assert_eq!(within(answer).await.unwrap().unwrap().state, JobState::Cancelled);
    assert_eq!(master.total().await, 1);
}

#[tokio::test]
async fn a_worker_that_went_while_its_stream_was_opened_is_not_taken_for_there() {
    let master = Master::start();
    let register = r#"{"worker_id":"w1","protocol":1,"boot_id":"b","slots":{"echo":1},"kinds":["echo"]}"#;
    master.handle.tell(Command::Registered(serde_json::from_str(register).unwrap())).await.unwrap();
    let hello = Hello { worker: "w1".parse().unwrap(), boot_id: "b".into(), running: Vec::new(), finished: Vec::new() };
    let (sender, receiver) = tokio::sync::mpsc::channel(1);
    let opened = within(master.handle.stream_opened(hello, sender)).await;
    assert!(opened.is_ok());
    drop(receiver);
    let gone = async {
        while master.handle.workers().await.unwrap()[0].connected_at.is_some() {
            tokio::task::yield_now().await;
        }
    };
    within(gone).await;
}

#[tokio::test]
async fn a_master_that_was_replaced_ends_with_nothing_to_store_and_takes_no_worker_its_result() {
    let master = Master::start();
    let hello = Hello { worker: "w1".parse().unwrap(), boot_id: "b".into(), running: Vec::new(), finished: Vec::new() };
    let (sender, mut heard) = tokio::sync::mpsc::channel(100);
    let (stream, _) = within(master.handle.stream_opened(hello, sender)).await.unwrap();
    SqliteStore::open(&master.directory.path().join("flota.db")).unwrap().take_charge().unwrap();
    // Of an attempt that only the next master knows.
    let unit = UnitId { job: JobId::generate(), index: 0 };
    let output = Bytes::from_static(br#"{"value":1}"#);
    let results = vec![UnitResult { unit, attempt: 2, output, elapsed_ms: 1, hashes: 0 }];
    let report = flota_master::handle::Report { results, ..Default::default() };
    let _ = master.handle.tell(Command::Report { stream, report }).await;
    let ended = within(tokio::task::spawn_blocking(move || master.running.join())).await.unwrap();
    assert!(matches!(ended, Err(Ended::Superseded(2))), "{ended:?}");
    while let Some(message) = within(heard.recv()).await {
        assert!(message.acks.is_empty(), "{message:?}");
    }
}

#[tokio::test]
async fn old_jobs_are_deleted_also_under_constant_load() {
    let master = Master::with(Retention {
        age_ms: 0,
        bytes_max: u64::MAX,
        conversations_age_ms: u64::MAX,
        sessions_max: u64::MAX,
    });
    let id = master.one().await;
    master.handle.cancel(Principal::local(), id).await.unwrap();
    let submit = || {
        let (reply, _) = oneshot::channel();
        Command::Submit { principal: Principal::local(), jobs: vec![echo()], idempotency: None, session: None, reply }
    };
    master.control.change(|state| state.gated = true);
    master.handle.tell(submit()).await.unwrap();
    let gone = async {
        loop {
            // While a commit runs, the next batch arrives: the loop is never idle.
            master.control.wait(|state| state.waiting && state.permits == 0);
            let (reply, answer) = oneshot::channel();
            master.handle.tell(submit()).await.unwrap();
            master.handle.tell(Command::Job { id, payload: false, reply }).await.unwrap();
            master.control.change(|state| state.permits = 1);
            if answer.await.unwrap().is_err() {
                break;
            }
        }
    };
    within(gone).await;
    master.open_gate();
}

#[tokio::test]
async fn a_full_disk_refuses_what_is_new_shows_what_is_there_and_costs_one_new_beginning() {
    let master = Master::start();
    let id = master.one().await;
    let before = master.control.see(|state| state.loads);
    master.control.change(|state| state.full = true);
    for _ in 0..20 {
        let refused = within(master.handle.submit(Principal::local(), vec![echo()], None)).await.unwrap_err();
        assert!(matches!(refused, Refused::StoreFull(_)), "{refused}");
    }
    assert!(matches!(within(master.handle.cancel(Principal::local(), id)).await, Err(Refused::StoreFull(_))));
    assert!(within(master.handle.fleet()).await.is_err(), "what the core decided is not known to be true");
    assert_eq!(within(master.handle.job(id, true)).await.unwrap().state, JobState::Pending);
    let filter = JobFilter { limit: 10, states: vec![JobState::Pending], ..JobFilter::default() };
    assert_eq!(within(master.handle.jobs(filter)).await.unwrap().items.len(), 1);
    assert_eq!(master.control.see(|state| state.loads), before, "nothing was loaded while it could not help");

    master.control.change(|state| state.full = false);
    let recovered = async {
        while master.handle.fleet().await.is_err() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    within(recovered).await;
    assert_eq!(master.control.see(|state| state.loads), before + 1);
    master.one().await;
    assert_eq!(master.total().await, 2);
}

#[tokio::test]
async fn who_waits_while_the_disk_is_full_is_answered_when_the_job_ends() {
    let master = Master::start();
    let id = master.one().await;
    master.control.change(|state| state.full = true);
    assert!(within(master.handle.cancel(Principal::local(), id)).await.is_err());
    let (reply, mut answer) = oneshot::channel();
    master.handle.tell(Command::Await { id, reply }).await.unwrap();
    assert!(within(master.handle.job(id, false)).await.is_ok());
    assert!(answer.try_recv().is_err(), "it has not ended");
    master.control.change(|state| state.full = false);
    let cancelled = async {
        while master.handle.cancel(Principal::local(), id).await.is_err() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    within(cancelled).await;
    assert_eq!(within(answer).await.unwrap().unwrap().state, JobState::Cancelled);
}

#[tokio::test]
async fn with_little_space_nothing_new_is_accepted_and_what_was_goes_on() {
    let master = Master::start();
    let id = master.one().await;
    master.control.change(|state| state.free = Some(RESERVE - 1));
    let refused = async {
        loop {
            match master.handle.submit(Principal::local(), vec![echo()], None).await {
                Err(Refused::StoreFull(detail)) => return detail,
                _ => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
    };
    assert!(within(refused).await.contains("FLOTA_STORE_RESERVE"));
    assert_eq!(within(master.handle.cancel(Principal::local(), id)).await.unwrap().state, JobState::Cancelled);
    master.control.change(|state| state.free = Some(RESERVE));
    let accepted = async {
        while master.handle.submit(Principal::local(), vec![echo()], None).await.is_err() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    within(accepted).await;
}

#[tokio::test]
async fn a_job_whose_payload_can_not_be_read_any_more_fails_and_says_so() {
    let master = Master::start();
    let hash: SubmitJob = serde_json::from_str(r#"{"kind":"sha256d.hash","payload":{"inputs":["aa","bb"]}}"#).unwrap();
    let jobs = vec![NewJob::from_submit(hash, &Principal::local(), None).unwrap(), echo(), echo(), echo()];
    let ids: Vec<JobId> = jobs.iter().map(|job| job.id).collect();
    master.submit(jobs, None).await;
    // Small payloads stay in memory until a restart.
    let master = master.restart().await;
    let db = rusqlite::Connection::open(master.directory.path().join("flota.db")).unwrap();
    for (id, damaged) in ids.iter().zip(["x'7b226b6579'", "x'22736563726574ff'", "NULL"]) {
        let sql = format!("UPDATE jobs SET payload = {damaged} WHERE id = ?");
        assert_eq!(db.execute(&sql, [id.0.as_bytes().as_slice()]).unwrap(), 1);
    }
    let register = r#"{"worker_id":"w1","protocol":1,"boot_id":"b","slots":{"echo":9,"randomx":1},"kinds":["echo","sha256d.hash"]}"#;
    master.handle.tell(Command::Registered(serde_json::from_str(register).unwrap())).await.unwrap();
    let hello = Hello { worker: "w1".parse().unwrap(), boot_id: "b".into(), running: Vec::new(), finished: Vec::new() };
    let (sender, _receiver) = tokio::sync::mpsc::channel(100);
    within(master.handle.stream_opened(hello, sender)).await.unwrap();
    for id in &ids[..3] {
        let (reply, answer) = oneshot::channel();
        master.handle.tell(Command::Await { id: *id, reply }).await.unwrap();
        let job = within(answer).await.unwrap().unwrap();
        let error = job.error.unwrap();
        assert_eq!((job.state, error.code.as_str(), job.failures), (JobState::Failed, "store_unreadable", 0));
        assert!(error.message.contains("payload"), "{}", error.message);
        assert!(error.message.contains("restore a backup") && !error.message.contains("secret"), "{}", error.message);
    }
    assert_eq!(master.handle.job(ids[3], false).await.unwrap().state, JobState::Assigned, "others go on");
    let published = master.published.0.lock().unwrap();
    assert_eq!(published.iter().filter(|(topic, _)| topic == "flota/workers/w1/tasks").count(), 1);
}

#[tokio::test]
async fn a_subscriber_that_does_not_read_is_let_go_and_another_hears_everything() {
    let master = Master::start();
    let id = master.one().await;
    let mut slow = within(master.handle.subscribe(id, None)).await.unwrap().live.unwrap();
    let mut quick = within(master.handle.subscribe(id, None)).await.unwrap().live.unwrap();
    let register = r#"{"worker_id":"w1","protocol":1,"boot_id":"b","slots":{"echo":1},"kinds":["echo"]}"#;
    master.handle.tell(Command::Registered(serde_json::from_str(register).unwrap())).await.unwrap();
    let hello = Hello { worker: "w1".parse().unwrap(), boot_id: "b".into(), running: Vec::new(), finished: Vec::new() };
    let (sender, _receiver) = tokio::sync::mpsc::channel(100);
    let (stream, _) = within(master.handle.stream_opened(hello, sender)).await.unwrap();
    let assigned = async {
        while master.handle.job(id, false).await.unwrap().state == JobState::Pending {
            tokio::task::yield_now().await;
        }
    };
    within(assigned).await;
    let unit = UnitId { job: id, index: 0 };
    const PIECES: usize = 3_000;
    let hear = tokio::spawn(async move {
        let mut heard = 0;
        while let Some(update) = quick.recv().await {
            heard += usize::from(update.event.r#type == "delta");
            if heard == PIECES {
                return heard;
            }
        }
        heard
    });
    for seq in 0..PIECES as u64 {
        let deltas = vec![UnitText { unit, attempt: 1, seq, again: false, text: "text".to_owned() }];
        let report = flota_master::handle::Report { deltas, ..Default::default() };
        master.handle.tell(Command::Report { stream, report }).await.unwrap();
        // As fast as the quick one reads: it would be let go too, and would come again after the last it saw.
        tokio::task::yield_now().await;
        within(master.handle.queue_position(id)).await.unwrap();
    }
    assert_eq!(within(hear).await.unwrap(), PIECES);
    let mut heard = 0;
    while within(slow.recv()).await.is_some() {
        heard += 1;
    }
    assert!(heard <= 1_100, "what waits for a slow one is bounded, and its channel is closed: {heard}");
}

#[tokio::test]
async fn what_a_session_is_to_be_told_is_stored_with_its_job_and_outlives_the_master() {
    let master = Master::start();
    let key = SessionKey::new(uuid::Uuid::new_v4(), "secret");
    let session = |master: &Master| {
        let handle = master.handle.clone();
        async move { within(handle.session(key)).await }
    };
    assert!(matches!(session(&master).await, Err(Refused::NotFound(_))));
    let job = within(master.handle.submit_for(key, Principal::local(), echo())).await.unwrap();
    let other = within(master.handle.submit_for(key, Principal::local(), echo())).await.unwrap();
    master.control.change(|state| state.fail = 1);
    assert!(within(master.handle.submit_for(key, Principal::local(), echo())).await.is_err());
    let master = master.restart().await;
    let followed = |job| Followed { job, after: None, question: false };
    let mut both = [followed(job), followed(other)];
    both.sort_by_key(|followed| followed.job);
    assert_eq!(session(&master).await.unwrap(), both);
    let guess = SessionKey::new(key.id, "guess");
    assert!(matches!(within(master.handle.session(guess)).await, Err(Refused::NotFound(_))));

    let changes = vec![SessionChange::Told(key.id, job), SessionChange::Seen(key.id, vec![(other, 7)])];
    master.handle.keep_sessions(changes).await;
    master.one().await;
    let master = master.restart().await;
    assert_eq!(session(&master).await.unwrap(), [Followed { after: Some(7), ..followed(other) }]);
}

#[tokio::test]
async fn a_disk_that_is_nearly_full_gets_no_new_sessions_and_those_there_are_told() {
    let master = Master::start();
    let key = SessionKey::new(uuid::Uuid::new_v4(), "secret");
    let job = within(master.handle.submit_for(key, Principal::local(), echo())).await.unwrap();
    master.control.change(|state| state.free = Some(RESERVE - 1));
    let new = SessionKey::new(uuid::Uuid::new_v4(), "secret");
    let refused = async {
        // The space is looked at now and then only.
        while master.handle.submit(Principal::local(), vec![echo()], None).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    within(refused).await;
    master.handle.keep_sessions(vec![SessionChange::Begin(new), SessionChange::Told(key.id, job)]).await;
    let told = async {
        while !master.handle.session(key).await.unwrap().is_empty() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    within(told).await;
    assert!(matches!(within(master.handle.session(new)).await, Err(Refused::NotFound(_))));
}
