//! Reports that the master has not acknowledged, on disk, so that a restart of the worker repeats them instead of
//! computing again.
//!
//! What is written when: an AI answer before it is reported, with fsync (asking again costs money); a RandomX result
//! before it is reported, without fsync (a crash of the machine costs seconds of work); everything else, `echo` above all,
//! only when the worker ends in order. An `echo` lost with a killed worker is computed again when its lease has expired.
//!
//! A file holds a magic, a SHA-256 and a `WorkerMessage` with results and failures; it is removed when all of them are
//! acknowledged. Each worker has a directory of its own, `spool-ID`, and a lock file there sees to it that one process uses it.

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use bytes::Bytes;
use flota_proto::{UnitId, WorkerId, v1};
use prost::Message;
use sha2::{Digest, Sha256};
use thiserror::Error;
use tracing::warn;

use crate::table::{Key, Report};

const MAGIC: &[u8; 8] = b"FLOTASP1";
const DIGEST_BYTES: usize = 32;
const EXTENSION: &str = "spool";
const FILES_MAX: usize = 20_000;
const BYTES_MAX: u64 = 512 * 1024 * 1024;

/// Why the spool cannot be used. Completes "failed to start the worker: …".
#[derive(Debug, Error)]
pub enum SpoolError {
    /// Another process uses the directory.
    #[error(
        "another process runs as the worker '{0}' from the data directory {1}: stop it, or give this one another \
             FLOTA_WORKER_ID"
    )]
    InUse(WorkerId, PathBuf),
    /// It cannot be read or written.
    #[error(
        "the data directory {path} cannot be used: {error}; check that it exists and that this user may write to it"
    )]
    Unusable {
        /// Which.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
}

/// The directory of unacknowledged reports.
#[derive(Debug)]
pub(crate) struct Spool {
    dir: PathBuf,
    /// Held as long as the process lives.
    _lock: File,
    files: Mutex<Files>,
}

#[derive(Debug, Default)]
struct Files {
    next: u64,
    bytes: u64,
    /// In which file a report is.
    file_of: HashMap<Key, u64>,
    open: HashMap<u64, OpenFile>,
    full: bool,
}

#[derive(Debug)]
struct OpenFile {
    bytes: u64,
    reports: usize,
}

/// Whether a report must survive a crash of the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Durability {
    Synced,
    Written,
}

impl Spool {
    /// Opens the directory of `worker` in `data_dir`, and reads what an earlier process left there.
    pub(crate) fn open(data_dir: &Path, worker: &WorkerId) -> Result<(Self, Vec<(Key, Report)>), SpoolError> {
        // An attempt belongs to a worker: what another one has computed is of no use to this one.
        let dir = data_dir.join(format!("spool-{worker}"));
        let unusable = |error| SpoolError::Unusable { path: dir.clone(), error };
        fs::create_dir_all(&dir).map_err(unusable)?;
        let lock = lock(&dir.join("lock")).map_err(|error| match error {
            TryLockError::WouldBlock => SpoolError::InUse(worker.clone(), data_dir.to_owned()),
            TryLockError::Error(error) => unusable(error),
        })?;
        let mut files = Files::default();
        let restored = files.load(&dir).map_err(unusable)?;
        Ok((Self { dir, _lock: lock, files: Mutex::new(files) }, restored))
    }

    /// Writes reports into one new file. Says whether they are there: a spool that is full or cannot be written is warned
    /// about, the reports are then in memory only.
    pub(crate) fn write(&self, reports: &[(Key, Report)], durability: Durability) -> bool {
        let content = encode(reports);
        let Some(number) = self.files().reserve(content.len() as u64) else { return false };
        if let Err(error) = self.write_file(number, &content, durability) {
            warn!(%error, dir = %self.dir.display(), "failed to keep results on disk; they are in memory only");
            self.files().release(content.len() as u64);
            return false;
        }
        self.files().add(number, content.len() as u64, reports.iter().map(|(key, _)| *key));
        true
    }

    fn write_file(&self, number: u64, content: &[u8], durability: Durability) -> io::Result<()> {
        let path = path(&self.dir, number);
        let temporary = path.with_extension("new");
        let mut file = File::create(&temporary)?;
        file.write_all(content)?;
        if durability == Durability::Synced {
            file.sync_all()?;
        }
        fs::rename(&temporary, &path)?;
        if durability == Durability::Synced {
            File::open(&self.dir)?.sync_all()?;
        }
        Ok(())
    }

    /// Forgets acknowledged reports.
    pub(crate) fn remove(&self, keys: &[Key]) {
        let emptied: Vec<u64> = {
            let mut files = self.files();
            keys.iter().filter_map(|key| files.remove(*key)).collect()
        };
        for number in emptied {
            if let Err(error) = fs::remove_file(path(&self.dir, number)) {
                warn!(%error, dir = %self.dir.display(), "failed to remove an acknowledged result");
            }
        }
    }

    fn files(&self) -> std::sync::MutexGuard<'_, Files> {
        self.files.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Files {
    fn load(&mut self, dir: &Path) -> io::Result<Vec<(Key, Report)>> {
        let mut restored = Vec::new();
        for entry in fs::read_dir(dir)? {
            let path = entry?.path();
            if path.extension().is_some_and(|extension| extension == "new") {
                let _ = fs::remove_file(&path);
            }
            let Some(number) = number(&path) else { continue };
            self.next = self.next.max(number + 1);
            let content = fs::read(&path)?;
            match decode(&content) {
                Some(reports) if !reports.is_empty() => {
                    self.bytes += content.len() as u64;
                    self.add(number, content.len() as u64, reports.iter().map(|(key, _)| *key));
                    restored.extend(reports);
                }
                Some(_) | None => {
                    warn!(file = %path.display(), "skipped and removed a damaged file of unacknowledged results");
                    let _ = fs::remove_file(&path);
                }
            }
        }
        Ok(restored)
    }

    /// A number for a new file, if it fits.
    fn reserve(&mut self, bytes: u64) -> Option<u64> {
        let full = self.open.len() >= FILES_MAX || self.bytes + bytes > BYTES_MAX;
        if full && !std::mem::replace(&mut self.full, full) {
            warn!("the spool of unacknowledged results is full; further ones are in memory only");
        }
        self.full = full;
        if full {
            return None;
        }
        self.bytes += bytes;
        self.next += 1;
        Some(self.next - 1)
    }

    fn release(&mut self, bytes: u64) {
        self.bytes = self.bytes.saturating_sub(bytes);
    }

    fn add(&mut self, number: u64, bytes: u64, keys: impl Iterator<Item = Key>) {
        let mut reports = 0;
        for key in keys {
            if self.file_of.insert(key, number).is_none() {
                reports += 1;
            }
        }
        self.open.insert(number, OpenFile { bytes, reports });
    }

    /// The file that is empty now that `key` is gone.
    fn remove(&mut self, key: Key) -> Option<u64> {
        let number = self.file_of.remove(&key)?;
        let file = self.open.get_mut(&number)?;
        file.reports = file.reports.saturating_sub(1);
        if file.reports > 0 {
            return None;
        }
        let bytes = file.bytes;
        self.open.remove(&number);
        self.release(bytes);
        Some(number)
    }
}

fn lock(path: &Path) -> Result<File, TryLockError> {
    let file = OpenOptions::new().create(true).truncate(false).write(true).open(path).map_err(TryLockError::Error)?;
    file.try_lock()?;
    Ok(file)
}

fn path(dir: &Path, number: u64) -> PathBuf {
    dir.join(format!("{number:012}.{EXTENSION}"))
}

fn number(path: &Path) -> Option<u64> {
    let fits = path.extension().is_some_and(|extension| extension == EXTENSION);
    path.file_stem().filter(|_| fits)?.to_str()?.parse().ok().filter(|number| *number < u64::MAX)
}

fn encode(reports: &[(Key, Report)]) -> Vec<u8> {
    let mut message = v1::WorkerMessage::default();
    for (_, report) in reports {
        match report {
            Report::Result(result) => message.results.push(result.clone()),
            Report::Failure(failure) => message.failures.push(failure.clone()),
        }
    }
    let body = message.encode_to_vec();
    let digest = Sha256::digest(&body);
    [&MAGIC[..], &digest[..], &body[..]].concat()
}

fn decode(content: &[u8]) -> Option<Vec<(Key, Report)>> {
    let (digest, body) = content.strip_prefix(MAGIC)?.split_at_checked(DIGEST_BYTES)?;
    if Sha256::digest(body)[..] != *digest {
        return None;
    }
    let message = v1::WorkerMessage::decode(Bytes::copy_from_slice(body)).ok()?;
    let results = message.results.into_iter().map(Report::Result);
    let failures = message.failures.into_iter().map(Report::Failure);
    results.chain(failures).map(|report| Some((report.key()?, report))).collect()
}

impl Report {
    fn key(&self) -> Option<Key> {
        let (unit, attempt) = match self {
            Self::Result(result) => (&result.unit_id, result.attempt),
            Self::Failure(failure) => (&failure.unit_id, failure.attempt),
        };
        Some((unit.parse::<UnitId>().ok()?, attempt))
    }
}

#[cfg(test)]
mod tests {
    use flota_proto::JobId;

    use super::*;

    fn report(attempt: u64) -> (Key, Report) {
        let unit = UnitId { job: JobId::generate(), index: 3 };
        let output = Bytes::from_static(b"{\"value\":1}");
        let unit_id = unit.to_string();
        let result = v1::Result { unit_id, attempt, output, elapsed_ms: 5, hashes: 7, output_from: 0 };
        ((unit, attempt), Report::Result(result))
    }

    fn open(dir: &Path) -> Result<(Spool, Vec<(Key, Report)>), SpoolError> {
        Spool::open(dir, &"w".parse().unwrap())
    }

    fn spool_files(dir: &Path) -> Vec<PathBuf> {
        let entries = fs::read_dir(dir.join("spool-w")).unwrap().map(|entry| entry.unwrap().path());
        entries.filter(|path| number(path).is_some()).collect()
    }

    #[test]
    fn what_is_not_acknowledged_is_there_after_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let reports = [report(1), report(2), report(3)];
        let (spool, restored) = open(dir.path()).unwrap();
        assert!(restored.is_empty());
        assert!(spool.write(&reports[..1], Durability::Synced));
        assert!(spool.write(&reports[1..], Durability::Written));
        spool.remove(&[reports[1].0]);
        drop(spool);

        let (spool, mut restored) = open(dir.path()).unwrap();
        restored.sort_by_key(|(key, _)| key.1);
        assert_eq!(restored, reports, "a file stays as long as one of its reports is unacknowledged");
        spool.remove(&reports.clone().map(|(key, _)| key));
        assert!(spool_files(dir.path()).is_empty());
    }

    #[test]
    fn new_files_do_not_overwrite_those_of_the_last_run() {
        let dir = tempfile::tempdir().unwrap();
        for attempt in 1..=3 {
            let (spool, restored) = open(dir.path()).unwrap();
            assert_eq!(restored.len() as u64, attempt - 1);
            assert!(spool.write(&[report(attempt)], Durability::Written));
        }
    }

    #[test]
    fn a_damaged_file_is_skipped_and_the_others_are_read() {
        let dir = tempfile::tempdir().unwrap();
        let (spool, _) = open(dir.path()).unwrap();
        let good = report(1);
        assert!(spool.write(&[report(9)], Durability::Written));
        let damaged = spool_files(dir.path()).remove(0);
        assert!(spool.write(std::slice::from_ref(&good), Durability::Written));
        drop(spool);
        let mut content = fs::read(&damaged).unwrap();
        *content.last_mut().unwrap() ^= 1;
        fs::write(&damaged, content).unwrap();
        fs::write(dir.path().join("spool-w/000000000099.spool"), b"FLOTASP1 short").unwrap();

        let (_spool, restored) = open(dir.path()).unwrap();
        assert_eq!(restored, [good]);
        assert_eq!(spool_files(dir.path()).len(), 1);
    }

    #[test]
    fn two_processes_never_share_a_worker_id_and_a_directory() {
        let dir = tempfile::tempdir().unwrap();
        let (first, _) = open(dir.path()).unwrap();
        let error = open(dir.path()).unwrap_err().to_string();
        assert!(error.contains("another process runs as the worker 'w'"), "{error}");
        assert!(Spool::open(dir.path(), &"other".parse().unwrap()).is_ok());
        drop(first);
        assert!(open(dir.path()).is_ok());
    }

    #[test]
    fn a_directory_that_cannot_be_used_is_named() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("spool-w"), b"a file").unwrap();
        let error = open(dir.path()).unwrap_err().to_string();
        assert!(error.contains("spool") && error.contains("cannot be used"), "{error}");
    }
}
