//! Where mining work comes from: a Monero node, or pools. A source is a row in the store, which the operator makes,
//! starts and stops; while it runs, a task keeps the fleet at its newest work by submitting ordinary search jobs, and
//! hands over what they find. Nothing is mined for anybody but the operator.

mod book;
mod config;
mod desk;
mod guests;
mod listeners;
mod monerod;
mod offers;
mod status;
mod stratum;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use flota_common::clock;
use flota_proto::kinds::FieldError;
use flota_proto::sources::{NewSource, Source, SourceState};
use serde_json::value::RawValue;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

pub use book::Book;
pub use listeners::{Listeners, News, SOURCE_LABEL};

use crate::handle::{Handle, Refused};
use crate::verifier::Verifier;
use book::Row;
use config::Config;
use desk::{Account, Desk};
pub use guests::GuestConfig;
use offers::Offers;
use status::Status;

/// How often what changed is kept.
const SAVE_EVERY: Duration = Duration::from_secs(5);
/// Sources there may be.
const SOURCES_MAX: usize = 100;

/// All sources; cheap to clone.
#[derive(Clone)]
pub struct Sources(Arc<Shared>);

struct Shared {
    handle: Handle,
    listeners: Arc<Listeners>,
    verifier: Verifier,
    book: Book,
    offers: Offers,
    entries: Mutex<BTreeMap<String, Entry>>,
    /// One change at a time: what is kept and what runs stay the same.
    changing: tokio::sync::Mutex<()>,
}

struct Entry {
    row: Row,
    status: Arc<Status>,
    runs: Option<Runs>,
}

struct Runs {
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl std::fmt::Debug for Sources {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.lock().keys()).finish()
    }
}

impl Sources {
    /// None yet; [`Sources::load`] brings those that are kept.
    #[must_use]
    pub fn new(handle: Handle, listeners: Arc<Listeners>, verifier: Verifier, book: Book) -> Self {
        let (entries, changing) = (Mutex::default(), tokio::sync::Mutex::default());
        Self(Arc::new(Shared { handle, listeners, verifier, book, offers: Offers::default(), entries, changing }))
    }

    /// Brings back what is kept. Nothing runs before [`Sources::resume`].
    ///
    /// # Errors
    /// When the rows can't be read.
    pub async fn load(&self) -> Result<(), Refused> {
        for row in self.0.book.all().await? {
            self.enter(row);
        }
        Ok(())
    }

    /// Starts what is to run, once the loop does.
    pub async fn resume(&self) {
        let _changing = self.0.changing.lock().await;
        let kept: Vec<(String, bool)> = self.lock().values().map(|e| (e.row.id.clone(), e.row.wanted)).collect();
        for (id, wanted) in kept {
            desk::cancel_leftovers(&self.0.handle, &id).await;
            if wanted {
                self.begin(&id);
            }
        }
    }

    /// Keeps what changes, until the future is dropped.
    pub async fn keep_saved(&self) {
        loop {
            tokio::time::sleep(SAVE_EVERY).await;
            let accounts: Vec<Account> = self.lock().values().map(|entry| self.account(entry)).collect();
            for account in accounts {
                account.save().await;
            }
        }
    }

    /// Ends what runs; the next master goes on with it.
    pub async fn shutdown(&self) {
        let ids: Vec<String> = self.lock().keys().cloned().collect();
        for id in ids {
            self.end(&id).await;
        }
    }

    /// Lets stock miners in as guests until `stop`; answers with the address.
    ///
    /// # Errors
    /// When it would be open to everybody, or there is no such address. Completes "failed to …".
    pub async fn let_guests_in(&self, config: GuestConfig, stop: CancellationToken) -> Result<SocketAddr, String> {
        guests::start(config, self.0.handle.clone(), self.0.offers.clone(), stop).await
    }

    /// All, by name.
    #[must_use]
    pub fn list(&self) -> Vec<Source> {
        self.lock().values().map(view).collect()
    }

    /// One.
    ///
    /// # Errors
    /// [`Refused::NotFound`]
    pub fn get(&self, id: &str) -> Result<Source, Refused> {
        self.lock().get(id).map(view).ok_or_else(|| unknown(id))
    }

    /// Makes a source and, unless told otherwise, starts it.
    ///
    /// # Errors
    /// What is wrong with it.
    pub async fn create(&self, new: NewSource) -> Result<Source, Refused> {
        let _changing = self.0.changing.lock().await;
        let kind = new.source.parse()?;
        let config = Config::parse(kind, &new.config)?;
        let id = self.name(new.id, config.kind().as_str())?;
        let (shown, secrets) = config.split();
        let row = Row {
            id: id.clone(),
            kind,
            config: shown,
            secrets,
            priority: new.priority.map_or(config::PRIORITY, |priority| priority.0),
            requires: new.requires.unwrap_or_default(),
            wanted: new.start.unwrap_or(true),
            created_at: clock::now(),
            record: status::Record::default(),
        };
        self.0.book.add(row.clone()).await?;
        let wanted = row.wanted;
        self.enter(row);
        info!("source {id} was made");
        if wanted {
            self.begin(&id);
        }
        self.get(&id)
    }

    /// Starts one that is stopped; one that runs goes on.
    ///
    /// # Errors
    /// [`Refused::NotFound`]
    pub async fn start(&self, id: &str) -> Result<Source, Refused> {
        let _changing = self.0.changing.lock().await;
        self.get(id)?;
        self.0.book.want(id.to_owned(), true).await?;
        self.begin(id);
        self.get(id)
    }

    /// Stops one; its work is taken off the workers.
    ///
    /// # Errors
    /// [`Refused::NotFound`]
    pub async fn stop(&self, id: &str) -> Result<Source, Refused> {
        let _changing = self.0.changing.lock().await;
        self.get(id)?;
        self.0.book.want(id.to_owned(), false).await?;
        self.end(id).await;
        self.get(id)
    }

    /// Stops and forgets one.
    ///
    /// # Errors
    /// [`Refused::NotFound`]
    pub async fn remove(&self, id: &str) -> Result<(), Refused> {
        let _changing = self.0.changing.lock().await;
        self.get(id)?;
        self.end(id).await;
        self.0.book.remove(id.to_owned()).await?;
        self.lock().remove(id);
        info!("source {id} was removed");
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Entry>> {
        self.0.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn enter(&self, row: Row) {
        let status = Arc::new(Status::new(row.record.clone()));
        self.lock().insert(row.id.clone(), Entry { row, status, runs: None });
    }

    fn name(&self, wanted: Option<String>, kind: &str) -> Result<String, Refused> {
        let entries = self.lock();
        if entries.len() >= SOURCES_MAX {
            let detail = format!("there are {SOURCES_MAX} sources already: remove one");
            return Err(Refused::Conflict("too_many_sources", detail));
        }
        match wanted {
            Some(id) if entries.contains_key(&id) => {
                Err(Refused::Conflict("id_taken", format!("there is a source {id} already")))
            }
            Some(id) => config::check_id(&id).map(|()| id).map_err(Refused::from),
            None if !entries.contains_key(kind) => Ok(kind.to_owned()),
            None => {
                let free = (2..).map(|number: u32| format!("{kind}-{number}")).find(|id| !entries.contains_key(id));
                free.ok_or_else(|| Refused::Unavailable("there is no free name".into()))
            }
        }
    }

    fn account(&self, entry: &Entry) -> Account {
        Account {
            id: entry.row.id.clone(),
            status: entry.status.clone(),
            book: self.0.book.clone(),
            verifier: self.0.verifier.clone(),
            offers: self.0.offers.clone(),
            priority: entry.row.priority,
            requires: entry.row.requires.clone(),
        }
    }

    fn begin(&self, id: &str) {
        let mut entries = self.lock();
        let Some(entry) = entries.get(id) else { return };
        if entry.runs.is_some() {
            return;
        }
        let account = self.account(entry);
        account.status.set(SourceState::Connecting, "");
        let stop = CancellationToken::new();
        let config = Config::join(entry.row.kind, &entry.row.config, &entry.row.secrets);
        let task = tokio::spawn(run(config, account, self.0.handle.clone(), self.0.listeners.clone(), stop.clone()));
        if let Some(entry) = entries.get_mut(id) {
            entry.row.wanted = true;
            entry.runs = Some(Runs { stop, task });
        }
    }

    async fn end(&self, id: &str) {
        let (runs, account) = {
            let mut entries = self.lock();
            let Some(entry) = entries.get_mut(id) else { return };
            (entry.runs.take(), self.account(entry))
        };
        if let Some(Runs { stop, task }) = runs {
            stop.cancel();
            if let Err(error) = task.await {
                warn!("source {id} ended badly: {error}");
            }
        }
        account.status.set(SourceState::Stopped, "");
        account.save().await;
    }
}

async fn run(
    config: Result<Config, FieldError>,
    account: Account,
    handle: Handle,
    listeners: Arc<Listeners>,
    stop: CancellationToken,
) {
    let desk_account = account.clone();
    let failed = match config {
        Ok(Config::Monerod(config)) => {
            match monerod::Solo::new(account.clone(), Desk::new(desk_account, handle, listeners), config) {
                Ok(solo) => return solo.run(stop).await,
                Err(error) => error,
            }
        }
        Ok(Config::Stratum(config)) => {
            let (pools, happened) = stratum::Pools::new(account, Desk::new(desk_account, handle, listeners), config);
            return pools.run(happened, stop).await;
        }
        Err(error) => error.to_string(),
    };
    account.failing(&failed);
    stop.cancelled().await;
}

fn unknown(id: &str) -> Refused {
    Refused::NotFound(format!("source {id}"))
}

fn view(entry: &Entry) -> Source {
    let shown = entry.status.shown();
    let record = shown.record;
    let difficulty = shown.work.as_ref().map(|work| work.difficulty as f64).filter(|difficulty| *difficulty > 0.0);
    Source {
        id: entry.row.id.clone(),
        source: entry.row.kind,
        state: shown.state,
        detail: shown.detail,
        config: RawValue::from_string(entry.row.config.clone()).unwrap_or_default(),
        priority: entry.row.priority,
        requires: entry.row.requires.clone(),
        created_at: entry.row.created_at,
        connected_to: shown.connected_to,
        counters: record.counters,
        hashrate: shown.hashrate,
        effort: difficulty.map_or(0.0, |difficulty| record.round_hashes as f64 / difficulty),
        expected_seconds: difficulty.filter(|_| shown.hashrate > 0.0).map(|difficulty| difficulty / shown.hashrate),
        last_accepted_at: record.last_accepted_at,
        blocks: record.blocks.into(),
        guests: shown.guests,
        work: shown.work,
    }
}
