//! What survives. One writer commits a batch at a time; readers look at what was committed.

mod asides;
mod backup;
mod rows;
mod sessions;
mod sqlite;
#[cfg(test)]
mod suite;
mod writes;

use std::path::PathBuf;

use bytes::Bytes;
use flota_proto::rest::JobState;
use flota_proto::{JobId, Timestamp};
use thiserror::Error;
use uuid::Uuid;

pub use backup::{BackupError, back_up, restore};
pub use sqlite::SqliteStore;

use crate::aside::{ConversationRow, History, MessageRow};
use crate::core::record::{StoredJob, UnitRow, WorkerRow};
use crate::core::{Changes, Core, Limits};
use crate::handle::JobFilter;
use crate::ledger::{Spent, UsageRow};
use crate::session::Followed;

/// Why the store did not do what it was asked. Completes "failed to …".
#[derive(Debug, Error)]
pub enum StoreError {
    /// The data directory can't be used.
    #[error("use the data directory {path}: {source} (set FLOTA_DATA_DIR to one that this user may write)")]
    Directory {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// It is no database of ours, or is damaged.
    #[error("open the database {path}: {reason} (move it away to start with an empty one, or restore a backup)")]
    Damaged {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A newer Flota wrote it.
    #[error("open the database {path}: it has version {found}, this program knows up to {known} (use a newer flota)")]
    Newer {
        /// Which file.
        path: PathBuf,
        /// Its version.
        found: i64,
        /// Ours.
        known: i64,
    },
    /// Another master has taken charge.
    #[error("commit: another master has taken charge with epoch {newest}")]
    Superseded {
        /// Its epoch.
        newest: u64,
    },
    /// The disk is full.
    #[error("write to the store: the disk is full")]
    Full,
    /// Something in it is damaged, or of a version that this program does not know.
    #[error("read the store: {0}")]
    Unreadable(String),
    /// Anything else.
    #[error("use the store: {0}")]
    Other(String),
}

/// Jobs read at once where a core is built.
const LIVE_JOBS_PAGE: usize = 10_000;

/// One idempotency key with its answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdempotencyRow {
    /// Of whom.
    pub owner: String,
    /// As sent.
    pub key: String,
    /// SHA-256 of method, path and body.
    pub digest: [u8; 32],
    /// The answer, JSON.
    pub answer: String,
    /// When it was given.
    pub created_at: Timestamp,
}

/// What a store holds for a master that starts.
#[derive(Debug)]
pub struct Loaded {
    /// The next job's key.
    pub next_seq: u64,
    /// Workers that must be remembered.
    pub workers: Vec<WorkerRow>,
    /// Attempts have numbers above this: where a backup was restored, those that were given since it was made have other meanings.
    pub attempts_above: u64,
    /// Made once for this store: what only this fleet's masters know.
    pub secret: Vec<u8>,
    /// How many jobs have ended, by state.
    pub ended: Vec<(JobState, u64)>,
}

/// What is kept, and for how long.
#[derive(Clone, Copy, Debug)]
pub struct Retention {
    /// Ended jobs are deleted after this.
    pub age_ms: u64,
    /// The oldest ended jobs are deleted when the store is larger.
    pub bytes_max: u64,
    /// Conversations are deleted that nobody has touched for this long.
    pub conversations_age_ms: u64,
    /// The oldest sessions are deleted when there are more.
    pub sessions_max: u64,
}

/// Which rows of the ledger.
#[derive(Clone, Debug)]
pub struct UsageFilter {
    /// The first day.
    pub from: u32,
    /// The last day.
    pub to: u32,
    /// Of this owner only.
    pub owner: Option<String>,
    /// How many at most.
    pub limit: usize,
}

/// The one writer.
pub trait Store: Send {
    /// Makes this master the newest: answers with an epoch above all before.
    ///
    /// # Errors
    /// [`StoreError`]
    fn take_charge(&mut self) -> Result<u64, StoreError>;

    /// Everything that a core needs but the jobs.
    ///
    /// # Errors
    /// [`StoreError`]
    fn load(&mut self) -> Result<Loaded, StoreError>;

    /// Up to `limit` jobs that have not ended and have keys above `after`, with their units, oldest first. What can't be read of one
    /// is said in [`StoredJob::damaged`].
    ///
    /// # Errors
    /// [`StoreError`]
    fn live_jobs(&mut self, after: u64, limit: usize) -> Result<Vec<StoredJob>, StoreError>;

    /// A core with what is here. No more than a page of the jobs is in memory twice.
    ///
    /// # Errors
    /// [`StoreError`]
    fn rebuild(&mut self, limits: Limits, now: Timestamp, loaded: Loaded) -> Result<Core, StoreError> {
        let mut core = Core::restore(limits, now, loaded.next_seq, loaded.workers, []);
        core.number_attempts_above(loaded.attempts_above);
        let mut after = 0;
        loop {
            let page = self.live_jobs(after, LIVE_JOBS_PAGE)?;
            let Some(last) = page.last() else { return Ok(core) };
            after = last.row.seq;
            core.restore_jobs(now, page);
        }
    }

    /// Writes a batch durably, all or nothing.
    ///
    /// # Errors
    /// [`StoreError::Superseded`] when another master has taken charge.
    fn commit(&mut self, changes: &Changes, keys: &[IdempotencyRow]) -> Result<(), StoreError>;

    /// Whether no other master has taken charge.
    ///
    /// # Errors
    /// [`StoreError::Superseded`] when one has.
    fn in_charge(&self) -> Result<(), StoreError>;

    /// Deletes a slice of what is no longer kept. `ago` says since when something is as old as so many milliseconds. Answers whether there
    /// may be more at once.
    ///
    /// # Errors
    /// [`StoreError`]
    fn prune(&mut self, ago: &dyn Fn(u64) -> Timestamp, retention: Retention) -> Result<bool, StoreError>;

    /// Whether a batch could be stored now.
    ///
    /// # Errors
    /// [`StoreError`] says why it could not.
    fn probe(&mut self) -> Result<(), StoreError> {
        Ok(())
    }

    /// The space that is left for it; `None` where that is not known.
    fn free_bytes(&self) -> Option<u64> {
        None
    }

    /// Something that reads what was committed, for another thread.
    ///
    /// # Errors
    /// [`StoreError`]
    fn reader(&self) -> Result<Box<dyn Reader>, StoreError>;

    /// The same, for the writer's own thread.
    fn own_reader(&mut self) -> &mut dyn Reader;
}

/// A job's state, and the digest of the body it came with where its client chose the id.
pub type StoredState = (JobState, Option<[u8; 16]>);

/// Reads what was committed. Not found is `Ok(None)`.
pub trait Reader: Send {
    /// A job without its units.
    ///
    /// # Errors
    /// [`StoreError`]
    fn job(&mut self, id: JobId) -> Result<Option<StoredJob>, StoreError>;

    /// A job's state and the digest of the body it came with.
    ///
    /// # Errors
    /// [`StoreError`]
    fn state(&mut self, id: JobId) -> Result<Option<StoredState>, StoreError>;

    /// A job's payload.
    ///
    /// # Errors
    /// [`StoreError`]
    fn payload(&mut self, seq: u64) -> Result<Option<Bytes>, StoreError>;

    /// Units of a job from `index` on, with their outputs where asked.
    ///
    /// # Errors
    /// [`StoreError`]
    fn units(&mut self, seq: u64, index: u32, limit: usize, outputs: bool) -> Result<Vec<UnitRow>, StoreError>;

    /// Jobs that match, newest first, with keys below `before`. States are compared as they were last written, and
    /// only where all that are asked for are final.
    ///
    /// # Errors
    /// [`StoreError`]
    fn jobs(&mut self, filter: &JobFilter, before: u64) -> Result<Vec<StoredJob>, StoreError>;

    /// AI jobs among the latest that were first assigned at `since` or later, in that order.
    ///
    /// # Errors
    /// [`StoreError`]
    fn asked_since(&mut self, since: Timestamp) -> Result<Vec<StoredJob>, StoreError>;

    /// An idempotency key's answer.
    ///
    /// # Errors
    /// [`StoreError`]
    fn idempotency(&mut self, owner: &str, key: &str) -> Result<Option<IdempotencyRow>, StoreError>;

    /// Rows of the ledger, latest day first.
    ///
    /// # Errors
    /// [`StoreError`]
    fn usage(&mut self, filter: &UsageFilter) -> Result<Vec<UsageRow>, StoreError>;

    /// What each owner has spent of a day, without what was paid with keys of their own.
    ///
    /// # Errors
    /// [`StoreError`]
    fn spent(&mut self, day: u32) -> Result<Vec<(String, Spent)>, StoreError>;

    /// All sealed keys of users.
    ///
    /// # Errors
    /// [`StoreError`]
    fn credentials(&mut self) -> Result<Vec<(JobId, Vec<u8>)>, StoreError>;

    /// The digest of a session's secret.
    ///
    /// # Errors
    /// [`StoreError`]
    fn session_digest(&mut self, id: Uuid) -> Result<Option<[u8; 32]>, StoreError>;

    /// What a session is still to be told.
    ///
    /// # Errors
    /// [`StoreError`]
    fn follows(&mut self, session: Uuid) -> Result<Vec<Followed>, StoreError>;

    /// One conversation.
    ///
    /// # Errors
    /// [`StoreError`]
    fn conversation(&mut self, id: Uuid) -> Result<Option<ConversationRow>, StoreError>;

    /// How many conversations an owner has.
    ///
    /// # Errors
    /// [`StoreError`]
    fn conversation_count(&mut self, owner: &str) -> Result<u64, StoreError>;

    /// Conversations of `owner`, latest first, behind `before`, with `search` in their title or in a message.
    ///
    /// # Errors
    /// [`StoreError`]
    fn conversations(
        &mut self,
        owner: &str,
        search: Option<&str>,
        before: Option<(Timestamp, Uuid)>,
        limit: usize,
    ) -> Result<Vec<ConversationRow>, StoreError>;

    /// Messages of a conversation from the index `from` on.
    ///
    /// # Errors
    /// [`StoreError`]
    fn messages(&mut self, id: Uuid, from: u32, limit: usize) -> Result<Vec<MessageRow>, StoreError>;

    /// What was said in a conversation before the message `before`: as many of the latest turns as `tokens` hold.
    ///
    /// # Errors
    /// [`StoreError`]
    fn history(&mut self, id: Uuid, before: u32, tokens: u64) -> Result<History, StoreError>;
}
