//! The rows of sources: what the operator wants of each, and what became of it. Written by few, seldom, and beside the
//! loop: no job depends on them.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use flota_proto::Timestamp;
use flota_proto::rest::Requires;
use flota_proto::sources::SourceKind;
use rusqlite::{Connection, TransactionBehavior, params};
use secrecy::SecretString;
use serde::de::DeserializeOwned;

use super::status::Record;
use crate::handle::Refused;
use crate::seal::Sealer;
use crate::store::StoreError;

/// A source as it is kept.
#[derive(Clone, Debug)]
pub struct Row {
    /// Its name.
    pub id: String,
    /// Where its work comes from.
    pub kind: SourceKind,
    /// JSON of its kind, without secrets.
    pub config: String,
    /// What is never shown of it; sealed in the store.
    pub secrets: SecretString,
    /// Of its jobs.
    pub priority: u8,
    /// What a worker must have.
    pub requires: Requires,
    /// The operator wants it to run.
    pub wanted: bool,
    /// When it was made.
    pub created_at: Timestamp,
    /// What became of it.
    pub record: Record,
}

/// Where rows are kept; cheap to clone.
#[derive(Clone)]
pub struct Book {
    db: Arc<Mutex<Connection>>,
    epoch: u64,
    sealer: Sealer,
}

impl Book {
    /// The rows in the store at `path`, of which this master has taken charge with `epoch`.
    ///
    /// # Errors
    /// [`StoreError`]
    pub fn open(path: &Path, epoch: u64, sealer: Sealer) -> Result<Self, StoreError> {
        let db = Connection::open(path)?;
        db.busy_timeout(Duration::from_secs(10))?;
        db.execute_batch("PRAGMA synchronous = FULL; PRAGMA wal_autocheckpoint = 0; PRAGMA cache_size = -256;")?;
        Ok(Self { db: Arc::new(Mutex::new(db)), epoch, sealer })
    }

    /// All rows, by name.
    ///
    /// # Errors
    /// [`Refused::Unavailable`]
    pub async fn all(&self) -> Result<Vec<Row>, Refused> {
        let sealer = self.sealer.clone();
        self.run(move |db, _| {
            let sql = "SELECT id, kind, config, secrets, priority, requires, wanted, created_at, record
                       FROM sources ORDER BY id";
            let mut statement = db.prepare_cached(sql)?;
            let mut found = statement.query([])?;
            let mut rows = Vec::new();
            while let Some(row) = found.next()? {
                let (id, kind): (String, String) = (row.get(0)?, row.get(1)?);
                let secrets = sealer.open(id.as_bytes(), &row.get::<_, Vec<u8>>(3)?);
                rows.push(Row {
                    id,
                    kind: kind.parse().map_err(|_| damaged("kind"))?,
                    config: row.get(2)?,
                    // Sealed with another key: it says so when it logs in.
                    secrets: secrets.unwrap_or_default(),
                    priority: row.get(4)?,
                    requires: json("requires", &row.get::<_, String>(5)?)?,
                    wanted: row.get(6)?,
                    created_at: Timestamp(u64::try_from(row.get::<_, i64>(7)?).unwrap_or(0)),
                    record: json("record", &row.get::<_, String>(8)?)?,
                });
            }
            Ok(rows)
        })
        .await
    }

    /// Keeps a new source.
    ///
    /// # Errors
    /// [`Refused::Unavailable`]
    pub async fn add(&self, row: Row) -> Result<(), Refused> {
        let secrets = self.sealer.seal(row.id.as_bytes(), &row.secrets);
        self.write(move |db| {
            let created_at = i64::try_from(row.created_at.0).unwrap_or(i64::MAX);
            db.prepare_cached("INSERT INTO sources VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)")?.execute(params![
                row.id,
                row.kind.as_str(),
                row.config,
                secrets,
                row.priority,
                text(&row.requires)?,
                row.wanted,
                created_at,
                text(&row.record)?,
            ])?;
            Ok(())
        })
        .await
    }

    /// Keeps whether a source is to run.
    ///
    /// # Errors
    /// [`Refused::Unavailable`]
    pub async fn want(&self, id: String, wanted: bool) -> Result<(), Refused> {
        self.write(move |db| {
            db.prepare_cached("UPDATE sources SET wanted = ? WHERE id = ?")?.execute(params![wanted, id])?;
            Ok(())
        })
        .await
    }

    /// Keeps what became of a source.
    ///
    /// # Errors
    /// [`Refused::Unavailable`]
    pub async fn record(&self, id: String, record: Record) -> Result<(), Refused> {
        self.write(move |db| {
            db.prepare_cached("UPDATE sources SET record = ? WHERE id = ?")?.execute(params![text(&record)?, id])?;
            Ok(())
        })
        .await
    }

    /// Forgets a source.
    ///
    /// # Errors
    /// [`Refused::Unavailable`]
    pub async fn remove(&self, id: String) -> Result<(), Refused> {
        self.write(move |db| {
            db.prepare_cached("DELETE FROM sources WHERE id = ?")?.execute([id])?;
            Ok(())
        })
        .await
    }

    async fn write<F>(&self, change: F) -> Result<(), Refused>
    where
        F: FnOnce(&Connection) -> Result<(), StoreError> + Send + 'static,
    {
        self.run(|db, epoch| {
            let transaction = db.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let newest: i64 =
                transaction.query_row("SELECT value FROM meta WHERE key = 'epoch'", [], |row| row.get(0))?;
            if u64::try_from(newest) != Ok(epoch) {
                return Err(StoreError::Superseded { newest: u64::try_from(newest).unwrap_or(0) });
            }
            change(&transaction)?;
            transaction.commit()?;
            Ok(())
        })
        .await
    }

    async fn run<T, F>(&self, work: F) -> Result<T, Refused>
    where
        T: Send + 'static,
        F: FnOnce(&mut Connection, u64) -> Result<T, StoreError> + Send + 'static,
    {
        let (db, epoch) = (self.db.clone(), self.epoch);
        let done =
            tokio::task::spawn_blocking(move || work(&mut db.lock().unwrap_or_else(PoisonError::into_inner), epoch));
        let failed = |error: String| Refused::Unavailable(format!("failed to {error}"));
        done.await.map_err(|error| failed(error.to_string()))?.map_err(|error| failed(error.to_string()))
    }
}

fn damaged(column: &str) -> StoreError {
    StoreError::Other(format!("a source's row has a bad {column}"))
}

fn json<T: DeserializeOwned>(column: &str, text: &str) -> Result<T, StoreError> {
    serde_json::from_str(text).map_err(|_| damaged(column))
}

fn text<T: serde::Serialize>(value: &T) -> Result<String, StoreError> {
    serde_json::to_string(value).map_err(|error| StoreError::Other(error.to_string()))
}
