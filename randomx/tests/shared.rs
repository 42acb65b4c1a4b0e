//! One dataset for several processes: who comes second is ready at once, nothing half-made is used, and nothing is left behind.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used)]

mod support;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::thread;

use flota_randomx::{Build, Cache, DATASET_BYTES, Dataset, Error, Origin, Vm};
use support::{KEYS, check};

fn build() -> Build {
    Build::new(thread::available_parallelism().map_or(1, usize::from))
}

fn files(directory: &Path) -> Vec<u64> {
    fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().metadata().unwrap().len()).collect()
}

/// One test, so that never two datasets are in memory.
#[test]
fn a_dataset_is_built_once_for_all_who_share_it() {
    let base = tempfile::Builder::new().tempdir_in("/dev/shm").unwrap();
    let directory = base.path().join("flota");
    let cache = Arc::new(Cache::new(KEYS[0]).unwrap());
    let no_cache = || panic!("it is built already");

    // A process that died half-way leaves a file without a trailer.
    fs::create_dir(&directory).unwrap();
    fs::set_permissions(&directory, fs::Permissions::from_mode(0o700)).unwrap();
    let first = Dataset::shared(&directory, KEYS[0], || Ok(cache.clone()), &build()).unwrap();
    let name = fs::read_dir(&directory).unwrap().next().unwrap().unwrap().path();
    drop(first);
    assert!(files(&directory).is_empty(), "the last one removes the file");
    fs::write(&name, vec![7; 1 << 20]).unwrap();

    let first = Arc::new(Dataset::shared(&directory, KEYS[0], || Ok(cache.clone()), &build()).unwrap());
    assert!(first.is_shared() && first.origin() == Origin::Computed);
    check(&mut Vm::fast(&first).unwrap(), KEYS[0]);

    let progress = build();
    let second = Arc::new(Dataset::shared(&directory, KEYS[0], no_cache, &progress).unwrap());
    assert_eq!((progress.fraction(), second.digest(2)), (1.0, first.digest(1)));
    assert_eq!(second.origin(), Origin::Mapped);
    drop(first);
    check(&mut Vm::fast(&second).unwrap(), KEYS[0]);
    assert_eq!(files(&directory), [DATASET_BYTES.next_multiple_of(2 << 20) as u64]);

    // Who asks for what is complete does not wait for what is not.
    assert!(Dataset::adopt(&directory, KEYS[0], 2).unwrap().is_some_and(|third| third.is_shared()));
    assert!(Dataset::adopt(&directory, KEYS[1], 2).unwrap().is_none());

    // Damage is found, whoever did it, and what is damaged is built again.
    let written = fs::OpenOptions::new().write(true).open(&name).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&written, &[1, 2, 3], 1_000_000_000).unwrap();
    assert!(Dataset::adopt(&directory, KEYS[0], 2).unwrap().is_none());
    assert!(files(&directory).is_empty());
    let builds = || Err(Error::CacheMemory);
    assert_eq!(Dataset::shared(&directory, KEYS[0], builds, &build()).unwrap_err(), Error::CacheMemory);
    drop(second);
    assert!(files(&directory).is_empty());
}

#[test]
fn a_directory_that_is_not_in_memory_is_refused() {
    // Belongs to this process's user, and lies on neither hugetlbfs nor tmpfs.
    let refused = Dataset::adopt(Path::new("/proc/self/task"), KEYS[0], 1).unwrap_err();
    assert!(matches!(refused, Error::Shared(_, std::io::ErrorKind::Unsupported)), "{refused}");
}

#[test]
fn a_directory_that_others_may_write_to_is_refused() {
    let base = tempfile::tempdir().unwrap();
    fs::set_permissions(base.path(), fs::Permissions::from_mode(0o777)).unwrap();
    let never = || panic!("it must not get that far");
    let refused = Dataset::shared(base.path(), b"", never, &build()).unwrap_err();
    assert!(matches!(refused, Error::Shared(_, std::io::ErrorKind::PermissionDenied)), "{refused}");
}
