//! The store on SQLite: write-ahead log, `synchronous=FULL`, one writer, one commit a batch. The log is copied into
//! the database by a thread of its own, so that no commit waits for it.

use std::path::{Path, PathBuf};
use std::sync::mpsc::{SyncSender, sync_channel};

use bytes::Bytes;
use flota_proto::rest::JobState;
use flota_proto::{JobId, Timestamp};
use rusqlite::types::Value;
use rusqlite::{Connection, ErrorCode, OpenFlags, OptionalExtension, params, params_from_iter};
use uuid::Uuid;

use super::UsageFilter;
use super::asides;
use super::rows::{JOB_COLUMNS, UNIT_COLUMNS, int, state_number, stored_job, unit};
use super::sessions;
use super::writes::{write_job, write_unit, write_worker};
use super::{IdempotencyRow, Loaded, Reader, Retention, Store, StoreError, StoredState};
use crate::aside::{ConversationRow, History, MessageRow};
use crate::core::Changes;
use crate::core::record::{StoredJob, UnitRow, WorkerRow};
use crate::handle::JobFilter;
use crate::ledger::{Spent, UsageRow, day_of};
use crate::session::{AGE_MAX_MS, Followed};

/// What takes the schema from version n to n + 1, beginning with an empty file. What has landed is never edited: a file in
/// the field would not learn of it.
const MIGRATIONS: &[&str] = &[
    include_str!("migrations/001_first.sql"),
    include_str!("migrations/002_ended_counts.sql"),
    include_str!("migrations/003_ai.sql"),
    include_str!("migrations/004_sources.sql"),
    include_str!("migrations/005_usage.sql"),
    include_str!("migrations/006_standing.sql"),
    include_str!("migrations/007_suspects.sql"),
    include_str!("migrations/008_ai_marks.sql"),
    include_str!("migrations/009_sessions.sql"),
];
/// The newest version of the schema.
const VERSION: i64 = MIGRATIONS.len() as i64;
/// Marks the file as ours: "Flot".
const APPLICATION_ID: i64 = 0x466c_6f74;
/// Jobs deleted at once.
const PRUNE_SLICE: i64 = 500;
/// Units deleted at once.
const PRUNE_UNITS: usize = 2_000;
/// How long the ledger is kept.
const USAGE_MS: u64 = 400 * 86_400_000;
/// The latest jobs, among which those are looked for that were asked within the last minute.
const ASKED_MAX: i64 = 20_000;
/// Conversations deleted at once.
const PRUNE_CONVERSATIONS: i64 = 20;
/// How long idempotency keys are kept.
const IDEMPOTENCY_MS: u64 = 86_400_000;
/// How long workers are remembered that have fallen silent, and of which nobody wants anything.
const WORKER_MS: u64 = 7 * 86_400_000;
/// Rows written between two copies of the log into the database.
const CHECKPOINT_ROWS: usize = 20_000;
/// A store with less space than this does not begin again: the first batches would fail.
const PROBE_BYTES: u64 = 1024 * 1024;
/// A log this long is emptied by the writer itself.
const WAL_BYTES_MAX: u64 = 512 * 1024 * 1024;

impl From<rusqlite::Error> for StoreError {
    fn from(error: rusqlite::Error) -> Self {
        match error.sqlite_error_code() {
            Some(ErrorCode::DiskFull) => Self::Full,
            Some(ErrorCode::DatabaseCorrupt) => Self::Unreadable(error.to_string()),
            Some(_) => Self::Other(error.to_string()),
            None => match error {
                rusqlite::Error::InvalidColumnType(..)
                | rusqlite::Error::FromSqlConversionFailure(..)
                | rusqlite::Error::IntegralValueOutOfRange(..) => Self::Unreadable(error.to_string()),
                other => Self::Other(other.to_string()),
            },
        }
    }
}

/// SQLite in one file.
pub struct SqliteStore {
    path: PathBuf,
    writer: SqliteReader,
    epoch: u64,
    rows_since_checkpoint: usize,
    checkpoint: SyncSender<()>,
}

struct SqliteReader {
    db: Connection,
}

impl SqliteStore {
    /// Opens or creates the database at `path`.
    ///
    /// # Errors
    /// [`StoreError::Directory`], [`StoreError::Damaged`], [`StoreError::Newer`].
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        if let Some(directory) = path.parent() {
            let unusable = |source| StoreError::Directory { path: directory.to_owned(), source };
            std::fs::create_dir_all(directory).map_err(unusable)?;
            std::fs::OpenOptions::new().append(true).create(true).open(path).map_err(unusable)?;
        }
        let damaged = |error: rusqlite::Error| StoreError::Damaged { path: path.to_owned(), reason: error.to_string() };
        let mut db = Connection::open(path).map_err(damaged)?;
        tune(&db).map_err(damaged)?;
        migrate(&mut db, path)?;
        let checkpoint = spawn_checkpointer(path).map_err(damaged)?;
        Ok(Self { path: path.to_owned(), writer: SqliteReader { db }, epoch: 0, rows_since_checkpoint: 0, checkpoint })
    }

    fn write(&mut self, changes: &Changes, keys: &[IdempotencyRow]) -> Result<(), StoreError> {
        let epoch = self.epoch;
        let transaction = self.writer.db.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
        check_charge(&transaction, epoch)?;
        for job in &changes.jobs {
            write_job(&transaction, job)?;
        }
        for unit in &changes.units {
            write_unit(&transaction, unit)?;
        }
        for worker in &changes.forgotten {
            transaction.prepare_cached("DELETE FROM workers WHERE id = ?")?.execute([worker.as_str()])?;
        }
        for worker in &changes.workers {
            write_worker(&transaction, worker)?;
        }
        for aside in &changes.asides {
            asides::write(&transaction, aside)?;
        }
        for key in keys {
            transaction
                .prepare_cached("INSERT OR REPLACE INTO idempotency VALUES (?, ?, ?, ?, ?)")?
                .execute(params![key.owner, key.key, key.digest, key.answer, int(key.created_at.0)])?;
        }
        transaction.commit()?;
        Ok(())
    }

    fn checkpoint_when_due(&mut self, rows: usize) {
        self.rows_since_checkpoint += rows;
        if self.rows_since_checkpoint < CHECKPOINT_ROWS {
            return;
        }
        self.rows_since_checkpoint = 0;
        // Full means that one is under way: it will do.
        let _ = self.checkpoint.try_send(());
        let log = self.path.with_extension("db-wal");
        if std::fs::metadata(log).is_ok_and(|log| log.len() > WAL_BYTES_MAX) {
            let _ = self.writer.db.query_row("PRAGMA wal_checkpoint(RESTART)", [], |_| Ok(()));
        }
    }

    /// A full disk has many faces: what the file system says counts.
    fn classify(&self, error: StoreError) -> StoreError {
        match error {
            StoreError::Other(_) if self.free_bytes().is_some_and(|left| left < 64 * 1024) => StoreError::Full,
            other => other,
        }
    }

    fn write_probe(&mut self) -> Result<(), StoreError> {
        // Gives back the space of the log, where it can be copied into the database.
        let _ = self.writer.db.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()));
        if self.free_bytes().is_some_and(|left| left < PROBE_BYTES) {
            return Err(StoreError::Full);
        }
        let transaction = self.writer.db.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
        // Another value each time, or nothing would be written.
        let sql = "INSERT INTO meta VALUES ('probe', 1) ON CONFLICT DO UPDATE SET value = value + 1";
        transaction.execute(sql, [])?;
        transaction.commit()?;
        Ok(())
    }

    fn bytes_used(&self) -> Result<u64, StoreError> {
        let pragma = |name: &str| self.writer.db.pragma_query_value(None, name, |row| row.get::<_, i64>(0));
        let pages = pragma("page_count")? - pragma("freelist_count")?;
        Ok(u64::try_from(pages * pragma("page_size")?).unwrap_or(0))
    }
}

fn tune(db: &Connection) -> Result<(), rusqlite::Error> {
    db.busy_timeout(std::time::Duration::from_secs(10))?;
    db.set_prepared_statement_cache_capacity(64);
    db.query_row("PRAGMA journal_mode = WAL", [], |_| Ok(()))?;
    db.execute_batch(
        "PRAGMA synchronous = FULL; PRAGMA wal_autocheckpoint = 0; PRAGMA temp_store = MEMORY;
         PRAGMA cache_size = -16384; PRAGMA journal_size_limit = 67108864;",
    )
}

/// The version of the schema of what is at `path`.
///
/// # Errors
/// [`StoreError::Newer`], [`StoreError::Damaged`].
pub(super) fn version(db: &Connection, path: &Path) -> Result<i64, StoreError> {
    let damaged = |reason: String| StoreError::Damaged { path: path.to_owned(), reason };
    let pragma = |db: &Connection, name: &str| {
        db.pragma_query_value(None, name, |row| row.get::<_, i64>(0)).map_err(|error| damaged(error.to_string()))
    };
    let found = pragma(db, "user_version")?;
    let application = pragma(db, "application_id")?;
    if found > VERSION {
        return Err(StoreError::Newer { path: path.to_owned(), found, known: VERSION });
    }
    let tables: i64 = db
        .query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))
        .map_err(|error| damaged(error.to_string()))?;
    if application != APPLICATION_ID && tables > 0 {
        return Err(damaged("it is a database of another program".into()));
    }
    Ok(found)
}

fn migrate(db: &mut Connection, path: &Path) -> Result<(), StoreError> {
    let found = version(db, path)?;
    if found == VERSION {
        return Ok(());
    }
    let transaction = db.transaction()?;
    for migration in &MIGRATIONS[usize::try_from(found).unwrap_or(0)..] {
        transaction.execute_batch(migration)?;
    }
    transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
    transaction.pragma_update(None, "user_version", VERSION)?;
    transaction.commit()?;
    Ok(())
}

/// Copies the log into the database whenever it is told to, until the store is dropped.
fn spawn_checkpointer(path: &Path) -> Result<SyncSender<()>, rusqlite::Error> {
    let db = Connection::open(path)?;
    db.busy_timeout(std::time::Duration::from_secs(1))?;
    db.execute_batch("PRAGMA cache_size = -1024;")?;
    let (sender, receiver) = sync_channel(1);
    let work = move || {
        while receiver.recv().is_ok() {
            if let Err(error) = db.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(())) {
                tracing::warn!(%error, "the log could not be copied into the database");
            }
        }
    };
    // Without the thread the log only grows to where the writer empties it.
    let _ = std::thread::Builder::new().name("flota-checkpoint".into()).spawn(work);
    Ok(sender)
}

/// Answers that are no longer kept, and workers of which there is nothing to remember.
fn prune_others(db: &Connection, ago: &dyn Fn(u64) -> Timestamp) -> Result<usize, StoreError> {
    let old = int(ago(IDEMPOTENCY_MS).0);
    let answers = db
        .prepare_cached(
            "DELETE FROM idempotency WHERE (owner, key) IN
             (SELECT owner, key FROM idempotency WHERE created_at < ?1 ORDER BY created_at LIMIT ?2)",
        )?
        .execute(params![old, PRUNE_SLICE])?;
    let workers = db
        .prepare_cached(
            "DELETE FROM workers WHERE (silent OR NOT simple) AND NOT drain AND NOT paused AND last_seen_at < ?1
             AND standing IS NULL",
        )?
        .execute([int(ago(WORKER_MS).0)])?;
    Ok(answers + workers)
}

/// Whether the master with `epoch` is the newest.
fn check_charge(db: &Connection, epoch: u64) -> Result<(), StoreError> {
    let mut statement = db.prepare_cached("SELECT value FROM meta WHERE key = 'epoch'")?;
    let newest: i64 = statement.query_row([], |row| row.get(0))?;
    if newest == int(epoch) {
        return Ok(());
    }
    Err(StoreError::Superseded { newest: u64::try_from(newest).unwrap_or(0) })
}

impl Store for SqliteStore {
    fn take_charge(&mut self) -> Result<u64, StoreError> {
        let sql = "UPDATE meta SET value = value + 1 WHERE key = 'epoch' RETURNING value";
        let epoch: i64 = self.writer.db.query_row(sql, [], |row| row.get(0))?;
        self.epoch = u64::try_from(epoch).unwrap_or(0);
        Ok(self.epoch)
    }

    fn load(&mut self) -> Result<Loaded, StoreError> {
        let db = &self.writer.db;
        let next: Option<i64> = db.query_row("SELECT max(seq) FROM jobs", [], |row| row.get(0))?;
        let mut statement =
            db.prepare("SELECT id, simple, language, silent, drain, paused, last_seen_at, standing FROM workers")?;
        let workers = statement.query_map([], |row| {
            Ok((
                row.get::<_, String>(0)?,
                row.get(1)?,
                row.get(2)?,
                row.get(3)?,
                row.get(4)?,
                row.get(5)?,
                row.get::<_, i64>(6)?,
                row.get::<_, Option<String>>(7)?,
            ))
        })?;
        let mut known = Vec::new();
        for row in workers {
            let (id, simple, language, silent, drain, paused, seen, standing) = row?;
            if let Ok(id) = id.parse() {
                let last_seen_at = Timestamp(u64::try_from(seen).unwrap_or(0));
                let standing = standing.and_then(|standing| serde_json::from_str(&standing).ok());
                known.push(WorkerRow { id, simple, language, silent, drain, paused, last_seen_at, standing });
            }
        }
        let mut ended = Vec::new();
        let mut statement = db.prepare("SELECT state, jobs FROM ended ORDER BY state")?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            if let Some(state) = JobState::ALL.get(usize::try_from(row.get::<_, i64>(0)?).unwrap_or(usize::MAX)) {
                ended.push((*state, u64::try_from(row.get::<_, i64>(1)?).unwrap_or(0)));
            }
        }
        let sql = "SELECT value FROM meta WHERE key = 'attempts_above'";
        let above: Option<i64> = db.query_row(sql, [], |row| row.get(0)).optional()?;
        let attempts_above = u64::try_from(above.unwrap_or(0)).unwrap_or(0);
        let secret: Vec<u8> = db.query_row("SELECT value FROM meta WHERE key = 'secret'", [], |row| row.get(0))?;
        let next_seq = u64::try_from(next.unwrap_or(0)).unwrap_or(0) + 1;
        Ok(Loaded { next_seq, workers: known, attempts_above, secret, ended })
    }

    fn live_jobs(&mut self, after: u64, limit: usize) -> Result<Vec<StoredJob>, StoreError> {
        let mut jobs = Vec::new();
        let live = "FROM jobs INDEXED BY jobs_live WHERE state < 5 AND seq > ? ORDER BY seq LIMIT ?";
        let mut statement = self.writer.db.prepare_cached(&format!("SELECT {JOB_COLUMNS} {live}"))?;
        let mut rows = statement.query(params![int(after), int(limit as u64)])?;
        while let Some(row) = rows.next()? {
            jobs.push(stored_job(row)?);
        }
        drop(rows);
        drop(statement);
        for job in jobs.iter_mut().filter(|job| job.head.rest.work.is_some()) {
            match self.writer.units(job.row.seq, 0, usize::MAX, true) {
                Ok(units) => job.units = units,
                Err(StoreError::Unreadable(why)) => job.damaged = Some(format!("its units: {why}")),
                Err(error) => return Err(error),
            }
        }
        Ok(jobs)
    }

    fn commit(&mut self, changes: &Changes, keys: &[IdempotencyRow]) -> Result<(), StoreError> {
        self.write(changes, keys).map_err(|error| self.classify(error))?;
        self.checkpoint_when_due(changes.jobs.len() + changes.units.len());
        Ok(())
    }

    fn in_charge(&self) -> Result<(), StoreError> {
        check_charge(&self.writer.db, self.epoch)
    }

    fn prune(&mut self, ago: &dyn Fn(u64) -> Timestamp, retention: Retention) -> Result<bool, StoreError> {
        let too_large = self.bytes_used()? > retention.bytes_max;
        let cutoff = if too_large { Timestamp(u64::MAX) } else { ago(retention.age_ms) };
        let transaction = self.writer.db.transaction()?;
        check_charge(&transaction, self.epoch)?;
        let old = "SELECT seq FROM jobs WHERE state >= 5 AND finished_at < ?1 ORDER BY finished_at LIMIT ?2";
        let slice = params![int(cutoff.0), PRUNE_SLICE];
        // A job may have had very many units.
        let units = format!(
            "DELETE FROM units WHERE (seq, idx) IN (SELECT seq, idx FROM units WHERE seq IN ({old}) LIMIT {PRUNE_UNITS})"
        );
        let mut deleted = transaction.prepare_cached(&units)?.execute(slice)?;
        if deleted < PRUNE_UNITS {
            for table in ["payloads", "jobs"] {
                let sql = format!("DELETE FROM {table} WHERE seq IN ({old})");
                deleted += transaction.prepare_cached(&sql)?.execute(slice)?;
            }
        }
        deleted += prune_others(&transaction, ago)?;
        deleted += asides::prune(&transaction, ago(retention.conversations_age_ms), PRUNE_CONVERSATIONS)?;
        deleted += sessions::prune(&transaction, ago(AGE_MAX_MS), retention.sessions_max)?;
        deleted += asides::prune_usage(&transaction, day_of(ago(USAGE_MS)))?;
        transaction.commit()?;
        Ok(deleted > 0)
    }

    fn probe(&mut self) -> Result<(), StoreError> {
        self.write_probe().map_err(|error| self.classify(error))
    }

    fn free_bytes(&self) -> Option<u64> {
        let disk = rustix::fs::statvfs(&self.path).ok()?;
        Some(disk.f_bavail.saturating_mul(disk.f_frsize))
    }

    fn reader(&self) -> Result<Box<dyn Reader>, StoreError> {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let db = Connection::open_with_flags(&self.path, flags)?;
        db.busy_timeout(std::time::Duration::from_secs(10))?;
        db.execute_batch("PRAGMA cache_size = -8192;")?;
        Ok(Box::new(SqliteReader { db }))
    }

    fn own_reader(&mut self) -> &mut dyn Reader {
        &mut self.writer
    }
}

impl Reader for SqliteReader {
    fn job(&mut self, id: JobId) -> Result<Option<StoredJob>, StoreError> {
        let mut statement = self.db.prepare_cached(&format!("SELECT {JOB_COLUMNS} FROM jobs WHERE id = ?"))?;
        let mut rows = statement.query([id.0.as_bytes().as_slice()])?;
        rows.next()?.map(stored_job).transpose()
    }

    fn state(&mut self, id: JobId) -> Result<Option<StoredState>, StoreError> {
        let mut statement = self.db.prepare_cached("SELECT state, fingerprint FROM jobs WHERE id = ?")?;
        let found = statement
            .query_row([id.0.as_bytes().as_slice()], |row| {
                Ok((row.get::<_, i64>(0)?, row.get::<_, Option<Vec<u8>>>(1)?))
            })
            .optional()?;
        Ok(found.and_then(|(state, fingerprint)| {
            let state = JobState::ALL.get(usize::try_from(state).ok()?).copied()?;
            Some((state, fingerprint.and_then(|digest| digest.try_into().ok())))
        }))
    }

    fn payload(&mut self, seq: u64) -> Result<Option<Bytes>, StoreError> {
        let sql = "SELECT coalesce(jobs.payload, payloads.body) FROM jobs LEFT JOIN payloads USING (seq) WHERE seq = ?";
        let mut statement = self.db.prepare_cached(sql)?;
        let body: Option<Option<Vec<u8>>> = statement.query_row([int(seq)], |row| row.get(0)).optional()?;
        Ok(body.flatten().map(Bytes::from))
    }

    fn units(&mut self, seq: u64, index: u32, limit: usize, outputs: bool) -> Result<Vec<UnitRow>, StoreError> {
        let output = if outputs { ", output" } else { "" };
        let sql = format!("SELECT {UNIT_COLUMNS}{output} FROM units WHERE seq = ? AND idx >= ? ORDER BY idx LIMIT ?");
        let mut statement = self.db.prepare_cached(&sql)?;
        let mut rows = statement.query(params![int(seq), index, int(limit as u64)])?;
        let mut units = Vec::new();
        while let Some(row) = rows.next()? {
            units.push(unit(row, outputs)?);
        }
        Ok(units)
    }

    fn jobs(&mut self, filter: &JobFilter, before: u64) -> Result<Vec<StoredJob>, StoreError> {
        let mut conditions = vec!["seq < ?".to_owned()];
        let mut values: Vec<Value> = vec![int(before).into()];
        if !filter.states.is_empty() && filter.states.iter().all(|state| state.ended()) {
            let numbers: Vec<String> = filter.states.iter().map(|state| state_number(*state).to_string()).collect();
            conditions.push(format!("state IN ({})", numbers.join(", ")));
            if !filter.states.contains(&JobState::Completed) {
                // Lets the index of what went wrong be used.
                conditions.push("state > 5".into());
            }
        }
        let mut equals = |column: &str, value: &Option<String>| {
            if let Some(value) = value {
                conditions.push(format!("{column} = ?"));
                values.push(value.clone().into());
            }
        };
        equals("kind", &filter.kind.map(|kind| kind.as_str().to_owned()));
        equals("queue", &filter.queue);
        equals("project", &filter.project);
        equals("owner", &filter.owner);
        equals("json_extract(error, '$.code')", &filter.code);
        if let Some((name, value)) = &filter.label {
            conditions.push("EXISTS (SELECT 1 FROM json_each(jobs.labels) WHERE key = ? AND value = ?)".into());
            values.push(name.clone().into());
            values.push(value.clone().into());
        }
        values.push(int(filter.limit as u64).into());
        let conditions = conditions.join(" AND ");
        let sql = format!("SELECT {JOB_COLUMNS} FROM jobs WHERE {conditions} ORDER BY seq DESC LIMIT ?");
        let mut statement = self.db.prepare_cached(&sql)?;
        let mut rows = statement.query(params_from_iter(values))?;
        let mut jobs = Vec::new();
        while let Some(row) = rows.next()? {
            jobs.push(stored_job(row)?);
        }
        Ok(jobs)
    }

    fn asked_since(&mut self, since: Timestamp) -> Result<Vec<StoredJob>, StoreError> {
        let sql = format!(
            "SELECT {JOB_COLUMNS} FROM jobs WHERE seq > (SELECT max(seq) FROM jobs) - ?1 AND kind IN ('ai.chat', 'ai.embed')
             AND started_at >= ?2 ORDER BY started_at, seq"
        );
        let mut statement = self.db.prepare_cached(&sql)?;
        let mut rows = statement.query(params![ASKED_MAX, int(since.0)])?;
        let mut jobs = Vec::new();
        while let Some(row) = rows.next()? {
            jobs.push(stored_job(row)?);
        }
        Ok(jobs)
    }

    fn idempotency(&mut self, owner: &str, key: &str) -> Result<Option<IdempotencyRow>, StoreError> {
        let sql = "SELECT digest, answer, created_at FROM idempotency WHERE owner = ? AND key = ?";
        let mut statement = self.db.prepare_cached(sql)?;
        let found = statement
            .query_row([owner, key], |row| Ok((row.get::<_, [u8; 32]>(0)?, row.get(1)?, row.get::<_, i64>(2)?)))
            .optional()?;
        Ok(found.map(|(digest, answer, created)| IdempotencyRow {
            owner: owner.to_owned(),
            key: key.to_owned(),
            digest,
            answer,
            created_at: Timestamp(u64::try_from(created).unwrap_or(0)),
        }))
    }

    fn usage(&mut self, filter: &UsageFilter) -> Result<Vec<UsageRow>, StoreError> {
        asides::usage(&self.db, filter)
    }

    fn spent(&mut self, day: u32) -> Result<Vec<(String, Spent)>, StoreError> {
        asides::spent(&self.db, day)
    }

    fn credentials(&mut self) -> Result<Vec<(JobId, Vec<u8>)>, StoreError> {
        asides::credentials(&self.db)
    }

    fn session_digest(&mut self, id: Uuid) -> Result<Option<[u8; 32]>, StoreError> {
        sessions::digest(&self.db, id)
    }

    fn follows(&mut self, session: Uuid) -> Result<Vec<Followed>, StoreError> {
        sessions::follows(&self.db, session)
    }

    fn conversation(&mut self, id: Uuid) -> Result<Option<ConversationRow>, StoreError> {
        asides::conversation(&self.db, id)
    }

    fn conversation_count(&mut self, owner: &str) -> Result<u64, StoreError> {
        asides::conversation_count(&self.db, owner)
    }

    fn conversations(
        &mut self,
        owner: &str,
        search: Option<&str>,
        before: Option<(Timestamp, Uuid)>,
        limit: usize,
    ) -> Result<Vec<ConversationRow>, StoreError> {
        asides::conversations(&self.db, owner, search, before, limit)
    }

    fn messages(&mut self, id: Uuid, from: u32, limit: usize) -> Result<Vec<MessageRow>, StoreError> {
        asides::messages(&self.db, id, from, limit)
    }

    fn history(&mut self, id: Uuid, before: u32, tokens: u64) -> Result<History, StoreError> {
        asides::history(&self.db, id, before, tokens)
    }
}
