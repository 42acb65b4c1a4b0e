//! The store as one file: a copy of one moment while the master runs, and back again while none does.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use flota_proto::Timestamp;
use rusqlite::{Connection, OpenFlags};
use thiserror::Error;

use super::StoreError;
use super::sqlite::version;

/// Why there is no backup, or nothing was restored. Completes "failed to …".
#[derive(Debug, Error)]
pub enum BackupError {
    /// What is no store of ours, or too new, or damaged.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The backup would overwrite something.
    #[error("write {0}: it exists")]
    Exists(PathBuf),
    /// There is nowhere to write the backup to.
    #[error("write to {0}: there is no such directory")]
    Directory(PathBuf),
    /// The restored store would overwrite one.
    #[error("restore to {0}: it exists")]
    StoreExists(PathBuf),
    /// The file system.
    #[error("use {path}: {error}")]
    File {
        /// Which file.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
}

/// Copies the store at `store`, as it is at one moment, into the new file `to`. A master may run on it.
///
/// # Errors
/// [`BackupError`]; then there is no `to`.
pub fn back_up(store: &Path, to: &Path) -> Result<(), BackupError> {
    if to.exists() {
        return Err(BackupError::Exists(to.to_owned()));
    }
    if let Some(directory) = to.parent().filter(|directory| !directory.as_os_str().is_empty() && !directory.is_dir()) {
        return Err(BackupError::Directory(directory.to_owned()));
    }
    let draft = beside(to, ".part");
    let copied = copy(store, &draft).and_then(|()| in_place(&draft, to));
    if copied.is_err() {
        let _ = fs::remove_file(&draft);
    }
    copied
}

/// Makes the backup `from` the store at `store`, which no master may use meanwhile. The store's epoch is raised to the time
/// in seconds: a worker that has seen the masters of the store that goes away must not take the next one for an old one. So are
/// the numbers of attempts: results of attempts that the backup knows nothing of must not count for others with their numbers.
///
/// # Errors
/// [`BackupError`]; then `store` is as it was.
pub fn restore(from: &Path, store: &Path, replace: bool, now: Timestamp) -> Result<(), BackupError> {
    File::open(from).map_err(|error| BackupError::File { path: from.to_owned(), error })?;
    if store.exists() && !replace {
        return Err(BackupError::StoreExists(store.to_owned()));
    }
    let draft = beside(store, ".restored");
    let restored = copy(from, &draft).and_then(|()| raise_epoch(&draft, store, now));
    if let Err(error) = restored {
        let _ = fs::remove_file(&draft);
        return Err(error);
    }
    // A log of the old store would be taken for one of the new.
    for suffix in ["-wal", "-shm"] {
        let log = beside(store, suffix);
        match fs::remove_file(&log) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(BackupError::File { path: log, error });
            }
            Ok(()) | Err(_) => {}
        }
    }
    in_place(&draft, store)
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// Writes the committed content of the store `from` into the file `to`, for its owner alone.
fn copy(from: &Path, to: &Path) -> Result<(), BackupError> {
    File::open(from).map_err(|error| BackupError::File { path: from.to_owned(), error })?;
    let damaged = |error: rusqlite::Error| StoreError::Damaged { path: from.to_owned(), reason: error.to_string() };
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let db = Connection::open_with_flags(from, flags).map_err(damaged)?;
    db.busy_timeout(std::time::Duration::from_secs(10)).map_err(damaged)?;
    if version(&db, from)? == 0 {
        return Err(StoreError::Damaged { path: from.to_owned(), reason: "there is no store in it".into() }.into());
    }
    let check: String = db.pragma_query_value(None, "quick_check", |row| row.get(0)).map_err(damaged)?;
    if check != "ok" {
        return Err(StoreError::Damaged { path: from.to_owned(), reason: check }.into());
    }
    let _ = fs::remove_file(to);
    make_private(to)?;
    db.execute("VACUUM INTO ?", [to.to_string_lossy()]).map_err(StoreError::from)?;
    Ok(())
}

/// `VACUUM INTO` takes an empty file as it is, with its permissions.
fn make_private(path: &Path) -> Result<(), BackupError> {
    use std::os::unix::fs::OpenOptionsExt;
    let made = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    made.map(drop).map_err(|error| BackupError::File { path: path.to_owned(), error })
}

fn raise_epoch(draft: &Path, old: &Path, now: Timestamp) -> Result<(), BackupError> {
    let floor = i64::try_from(now.0 / 1000).unwrap_or(i64::MAX / 2).max(epoch_of(old) + 1);
    let db = Connection::open(draft).map_err(StoreError::from)?;
    let sql = "UPDATE meta SET value = max(value + 1, ?) WHERE key = 'epoch'";
    db.execute(sql, [floor]).map_err(StoreError::from)?;
    // No unit has an attempt a second.
    let sql = "INSERT INTO meta VALUES ('attempts_above', ?) ON CONFLICT DO UPDATE SET value = excluded.value";
    db.execute(sql, [floor]).map_err(StoreError::from)?;
    Ok(())
}

/// 0 where there is none to be had: the old store may be damaged, which is why it is replaced.
fn epoch_of(store: &Path) -> i64 {
    let db = Connection::open_with_flags(store, OpenFlags::SQLITE_OPEN_READ_ONLY);
    db.and_then(|db| db.query_row("SELECT value FROM meta WHERE key = 'epoch'", [], |row| row.get(0))).unwrap_or(0)
}

/// Gives the file its name once its content is on the disk.
fn in_place(draft: &Path, path: &Path) -> Result<(), BackupError> {
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let moved = File::open(draft)
        .and_then(|file| file.sync_all())
        .and_then(|()| fs::rename(draft, path))
        .and_then(|()| File::open(directory)?.sync_all());
    moved.map_err(|error| BackupError::File { path: path.to_owned(), error })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::super::{SqliteStore, Store};
    use super::*;

    const NOW: Timestamp = Timestamp(1_795_254_600_000);

    /// A store whose third master is in charge; a count of workers is what it holds.
    fn store(path: &Path) -> SqliteStore {
        let mut store = SqliteStore::open(path).unwrap();
        for _ in 0..3 {
            store.take_charge().unwrap();
        }
        store
    }

    fn note(path: &Path, text: &str) {
        let db = Connection::open(path).unwrap();
        db.execute("INSERT INTO idempotency VALUES ('o', ?, zeroblob(32), 'a', 1)", [text]).unwrap();
    }

    fn notes(path: &Path) -> Vec<String> {
        let db = Connection::open(path).unwrap();
        let mut statement = db.prepare("SELECT key FROM idempotency ORDER BY key").unwrap();
        statement.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect()
    }

    #[test]
    fn a_backup_of_a_store_in_use_holds_what_was_committed_and_comes_back() {
        let dir = tempfile::tempdir().unwrap();
        let (live, file, other) = (dir.path().join("flota.db"), dir.path().join("b.db"), dir.path().join("o/flota.db"));
        let running = store(&live);
        note(&live, "before");
        back_up(&live, &file).unwrap();
        note(&live, "after");
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(matches!(back_up(&live, &file), Err(BackupError::Exists(_))));
        drop(running);

        fs::create_dir(other.parent().unwrap()).unwrap();
        restore(&file, &other, false, NOW).unwrap();
        assert_eq!(notes(&other), ["before"]);
        SqliteStore::open(&other).unwrap();
    }

    #[test]
    fn a_restored_store_replaces_only_when_told_and_leaves_no_log_of_the_old() {
        let dir = tempfile::tempdir().unwrap();
        let (live, file) = (dir.path().join("flota.db"), dir.path().join("b.db"));
        let running = store(&live);
        note(&live, "before");
        back_up(&live, &file).unwrap();
        note(&live, "after");
        // As after a crash: the log is still there.
        std::mem::forget(running);
        assert!(matches!(restore(&file, &live, false, NOW), Err(BackupError::StoreExists(_))));
        assert_eq!(notes(&live), ["after", "before"]);
        restore(&file, &live, true, NOW).unwrap();
        assert_eq!(notes(&live), ["before"]);
    }

    #[test]
    fn a_place_that_is_not_there_is_named_before_anything_else_is_said() {
        let dir = tempfile::tempdir().unwrap();
        let (live, nowhere) = (dir.path().join("flota.db"), dir.path().join("no/b.db"));
        store(&live);
        let refused = back_up(&live, &nowhere).unwrap_err();
        assert!(matches!(&refused, BackupError::Directory(path) if path.ends_with("no")), "{refused}");
        let refused = restore(&nowhere, &live, false, NOW).unwrap_err();
        assert!(matches!(&refused, BackupError::File { path, .. } if *path == nowhere), "{refused}");
    }

    #[test]
    fn the_next_master_of_a_restored_store_is_newer_than_all_before() {
        let dir = tempfile::tempdir().unwrap();
        let (live, file) = (dir.path().join("flota.db"), dir.path().join("b.db"));
        store(&live);
        back_up(&live, &file).unwrap();
        for _ in 0..2 {
            restore(&file, &live, true, NOW).unwrap();
        }
        let mut restored = SqliteStore::open(&live).unwrap();
        assert_eq!(restored.load().unwrap().attempts_above, NOW.0 / 1000 + 1);
        let epoch = restored.take_charge().unwrap();
        assert_eq!(epoch, NOW.0 / 1000 + 2, "above the store that it replaced, even within the same second");
    }

    #[test]
    fn what_is_no_store_or_a_newer_one_is_refused_and_changes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let (live, bad) = (dir.path().join("flota.db"), dir.path().join("bad.db"));
        store(&live);
        note(&live, "kept");
        let refused = |what: &str| {
            let error = restore(&bad, &live, true, NOW).unwrap_err().to_string();
            assert!(error.contains(what), "{error}");
            assert_eq!(notes(&live), ["kept"]);
        };
        refused("bad.db");
        fs::write(&bad, "").unwrap();
        refused("there is no store in it");
        fs::write(&bad, "this is no database, and long enough to be looked at as one").unwrap();
        refused("bad.db");
        fs::remove_file(&bad).unwrap();
        back_up(&live, &bad).unwrap();
        let db = Connection::open(&bad).unwrap();
        db.pragma_update(None, "user_version", 9_999).unwrap();
        drop(db);
        refused("use a newer flota");
    }
}
