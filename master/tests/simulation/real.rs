//! The real store beside the disk in memory, for some of the seeds: both must give back the same after every restart.

use flota_master::core::record::StoredJob;
use flota_master::core::{Changes, Core, Limits};
use flota_master::store::{SqliteStore, Store};
use flota_proto::Timestamp;
use tempfile::TempDir;

/// SQLite, in memory where there is a file system for that.
pub struct Real {
    store: SqliteStore,
    directory: TempDir,
}

impl Real {
    pub fn new() -> Self {
        let memory = std::path::Path::new("/dev/shm");
        let directory = if memory.is_dir() { TempDir::new_in(memory) } else { TempDir::new() };
        let directory = directory.expect("a directory");
        Self { store: open(&directory), directory }
    }

    pub fn commit(&mut self, changes: &Changes) {
        self.store.commit(changes, &[]).expect("a commit");
    }

    /// As after a start of the master, with what the disk in memory says must be there.
    pub fn restore(&mut self, limits: Limits, now: Timestamp, expected: &[StoredJob]) -> Core {
        self.store = open(&self.directory);
        let loaded = self.store.load().expect("a store that can be read");
        let jobs = self.store.live_jobs(0, usize::MAX).expect("a store that can be read");
        assert_eq!(jobs, expected, "the store gives back other jobs than were committed");
        self.store.rebuild(limits, now, loaded).expect("a store that can be read")
    }
}

fn open(directory: &TempDir) -> SqliteStore {
    let mut store = SqliteStore::open(&directory.path().join("flota.db")).expect("a store");
    store.take_charge().expect("a store to take charge of");
    store
}
