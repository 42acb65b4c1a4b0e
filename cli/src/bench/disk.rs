//! What one commit costs the disk: 4 KiB written and `fdatasync`ed. A lone job needs two of them.

use std::fs::OpenOptions;
use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use flota_common::clock;
use serde::Serialize;

use super::latency::Percentiles;
use crate::failure::Failure;

const BLOCK_BYTES: usize = 4096;
const COMMITS: usize = 300;

/// Where, and how long.
#[derive(Clone, Debug, Serialize)]
pub struct Disk {
    pub directory: PathBuf,
    pub commit: Percentiles,
}

/// In `named`, which must be there, or in `default`, if it is.
pub fn measure(named: Option<&Path>, default: &Path) -> Result<Option<Disk>, Failure> {
    let directory = named.unwrap_or(default);
    match (commits(directory), named) {
        (Ok(times), _) => Ok(Percentiles::of(times).map(|commit| Disk { directory: directory.to_owned(), commit })),
        (Err(error), Some(path)) => {
            Err(Failure::Usage(format!("can't measure the disk at {}: {error}", path.display())))
        }
        (Err(_), None) => Ok(None),
    }
}

/// Into a file that has its length already, as a write-ahead log that is used again.
fn commits(directory: &Path) -> std::io::Result<Vec<Duration>> {
    let path = directory.join(format!(".flota-bench-{}", std::process::id()));
    let timed = timed_commits(&path);
    let removed = std::fs::remove_file(&path);
    let times = timed?;
    removed.map(|()| times)
}

fn timed_commits(path: &Path) -> std::io::Result<Vec<Duration>> {
    let mut file = OpenOptions::new().write(true).create_new(true).open(path)?;
    let block = [7; BLOCK_BYTES];
    for _ in 0..COMMITS {
        file.write_all(&block)?;
    }
    file.sync_all()?;
    file.seek(SeekFrom::Start(0))?;
    let mut times = Vec::with_capacity(COMMITS);
    for _ in 0..COMMITS {
        let started = clock::instant();
        file.write_all(&block)?;
        file.sync_data()?;
        times.push(started.elapsed());
    }
    Ok(times)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_is_measured_and_left_as_it_was() {
        let dir = tempfile::tempdir().unwrap();
        let disk = measure(Some(dir.path()), Path::new("/nonexistent")).unwrap().unwrap();
        assert_eq!(disk.commit.samples, COMMITS);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
        assert!(measure(None, Path::new("/nonexistent")).unwrap().is_none());
        assert!(measure(Some(Path::new("/nonexistent")), dir.path()).is_err());
    }
}
