//! Brings results to disk before they are reported. Results that come while a file is written go into the next one together: many
//! answers that end at the same moment cost a few flushes of the disk, a lone one waits for nothing.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::runtime::Handle;
use tokio::sync::oneshot;

use crate::spool::{Durability, Spool};
use crate::table::{Key, Report};

/// Results of one file.
const FILE_REPORTS_MAX: usize = 1_000;
/// Their bytes, beyond the first.
const FILE_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Writes to the spool, one file at a time.
#[derive(Debug)]
pub(crate) struct Keeper {
    spool: Arc<Spool>,
    queue: Mutex<Queue>,
}

#[derive(Debug, Default)]
struct Queue {
    waiting: Vec<Waiting>,
    /// Somebody writes, and looks for what waits before it ends.
    writing: bool,
}

#[derive(Debug)]
struct Waiting {
    report: (Key, Report),
    durability: Durability,
    kept: oneshot::Sender<bool>,
}

impl Keeper {
    pub(crate) fn new(spool: Arc<Spool>) -> Arc<Self> {
        Arc::new(Self { spool, queue: Mutex::default() })
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the result is on disk; resolves when it is, or can't be.
    pub(crate) async fn keep(
        self: &Arc<Self>,
        key: Key,
        report: Report,
        durability: Durability,
        runtime: &Handle,
    ) -> bool {
        let (kept, answer) = oneshot::channel();
        let begins = {
            let mut queue = self.queue();
            queue.waiting.push(Waiting { report: (key, report), durability, kept });
            !std::mem::replace(&mut queue.writing, true)
        };
        if begins {
            let keeper = self.clone();
            runtime.spawn_blocking(move || keeper.write_all());
        }
        answer.await.unwrap_or(false)
    }

    fn write_all(&self) {
        while let Some(batch) = self.next() {
            let durable = batch.iter().any(|waiting| waiting.durability == Durability::Synced);
            let durability = if durable { Durability::Synced } else { Durability::Written };
            let (reports, kept): (Vec<_>, Vec<_>) =
                batch.into_iter().map(|waiting| (waiting.report, waiting.kept)).unzip();
            let written = self.spool.write(&reports, durability);
            for kept in kept {
                // Who no longer waits has been cancelled.
                let _ = kept.send(written);
            }
        }
    }

    /// What goes into the next file; `None` ends the writing.
    fn next(&self) -> Option<Vec<Waiting>> {
        let mut queue = self.queue();
        let mut bytes = 0;
        let fits = |waiting: &&Waiting| {
            let first = bytes == 0;
            bytes += waiting.report.1.size();
            first || bytes <= FILE_BYTES_MAX
        };
        let count = queue.waiting.iter().take(FILE_REPORTS_MAX).take_while(fits).count();
        if count == 0 {
            queue.writing = false;
            return None;
        }
        Some(queue.waiting.drain(..count).collect())
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use flota_proto::{JobId, UnitId, v1};

    use super::*;

    fn report(bytes: usize) -> (Key, Report) {
        let unit = UnitId { job: JobId::generate(), index: 0 };
        let result = v1::Result {
            unit_id: unit.to_string(),
            attempt: 1,
            output: vec![b'1'; bytes].into(),
            ..Default::default()
        };
        ((unit, 1), Report::Result(result))
    }

    fn keeper(dir: &Path) -> Arc<Keeper> {
        Keeper::new(Arc::new(Spool::open(dir, &"w".parse().unwrap()).unwrap().0))
    }

    fn files(dir: &Path) -> usize {
        let names = std::fs::read_dir(dir.join("spool-w")).unwrap().map(|entry| entry.unwrap().path());
        names.filter(|path| path.extension().is_some_and(|extension| extension == "spool")).count()
    }

    #[tokio::test]
    async fn what_comes_while_a_file_is_written_goes_into_the_next_one_together() {
        let dir = tempfile::tempdir().unwrap();
        let keeper = keeper(dir.path());
        // As if a file were being written.
        keeper.queue().writing = true;
        let runtime = Handle::current();
        let (first, second) = (report(10), report(20));
        let keep = |(key, report): (Key, Report), durability| {
            let (keeper, runtime) = (keeper.clone(), runtime.clone());
            tokio::spawn(async move { keeper.keep(key, report, durability, &runtime).await })
        };
        let waiting = [keep(first.clone(), Durability::Written), keep(second.clone(), Durability::Synced)];
        while keeper.queue().waiting.len() < 2 {
            tokio::task::yield_now().await;
        }
        assert_eq!(files(dir.path()), 0);
        keeper.write_all();
        for kept in waiting {
            assert!(kept.await.unwrap());
        }
        assert_eq!(files(dir.path()), 1);
        assert!(!keeper.queue().writing);
        let third = report(5);
        assert!(keeper.keep(third.0, third.1, Durability::Synced, &runtime).await, "and it begins again");
        assert_eq!(files(dir.path()), 2);
    }

    #[tokio::test]
    async fn a_file_is_bounded_and_a_large_result_has_one_of_its_own() {
        let dir = tempfile::tempdir().unwrap();
        let keeper = keeper(dir.path());
        let wait = |(key, report): (Key, Report)| {
            let waiting =
                Waiting { report: (key, report), durability: Durability::Written, kept: oneshot::channel().0 };
            keeper.queue().waiting.push(waiting);
        };
        wait(report(FILE_BYTES_MAX + 1));
        wait(report(10));
        (0..FILE_REPORTS_MAX).for_each(|_| wait(report(1)));
        let mut sizes = Vec::new();
        while let Some(batch) = keeper.next() {
            sizes.push(batch.len());
        }
        assert_eq!(sizes, [1, FILE_REPORTS_MAX, 1]);
    }
}
