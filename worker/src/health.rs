//! What the worker tells a probe on its own machine: a small file in its data directory, written by its main loop. A loop that
//! hangs writes no more, so the file's age says that the worker lives.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use flota_common::clock;
use flota_proto::{Timestamp, WorkerId};
use serde::{Deserialize, Serialize};
use thiserror::Error;
use tracing::warn;

/// How often the main loop writes.
pub(crate) const WRITE_EVERY: Duration = Duration::from_secs(2);
/// A file older than this is of a process that ended or hangs.
const SILENT_MS: u64 = 20_000;
/// How long broker and master may be away: what runs goes on meanwhile, and a restart of the worker would lose it.
const AWAY_MS: u64 = 120_000;

const _: () = assert!(SILENT_MS as u128 >= 5 * WRITE_EVERY.as_millis());

/// What the file says.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Health {
    /// When it was written.
    pub at_ms: u64,
    /// When the broker was last connected.
    pub broker_at_ms: Option<u64>,
    /// When the report stream to the master was last open.
    pub master_at_ms: Option<u64>,
}

/// Why a worker is not well. Completes "the worker is not well: …".
#[derive(Debug, Error)]
pub enum Unwell {
    /// There is nothing to judge by.
    #[error("can't read {path}: {error} (does it run with this data directory?)")]
    Unreadable {
        /// Which file.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// It says nothing any more.
    #[error("it has said nothing for {0} s: it ended or hangs")]
    Silent(u64),
    /// It never reached what it needs.
    #[error("it has not reached the {0} yet")]
    NotYet(&'static str),
    /// What it needs is away.
    #[error("the {0} has been away for {1} s")]
    Away(&'static str, u64),
}

impl Health {
    /// Reads what the worker `id` last said in `data_dir`.
    ///
    /// # Errors
    /// [`Unwell::Unreadable`]
    pub fn read(data_dir: &Path, id: &WorkerId) -> Result<Self, Unwell> {
        let path = file(data_dir, id);
        let read = std::fs::read(&path).and_then(|text| serde_json::from_slice(&text).map_err(io::Error::other));
        read.map_err(|error| Unwell::Unreadable { path, error })
    }

    /// Whether it lives and reaches what it needs, or has lost that only a short time ago.
    ///
    /// # Errors
    /// [`Unwell`] when not.
    pub fn judge(&self, now: Timestamp) -> Result<(), Unwell> {
        let age_ms = now.0.saturating_sub(self.at_ms);
        if age_ms > SILENT_MS {
            return Err(Unwell::Silent(age_ms / 1000));
        }
        for (what, seen) in [("broker", self.broker_at_ms), ("master", self.master_at_ms)] {
            let away_ms = now.0.saturating_sub(seen.ok_or(Unwell::NotYet(what))?);
            if away_ms > AWAY_MS {
                return Err(Unwell::Away(what, away_ms / 1000));
            }
        }
        Ok(())
    }
}

fn file(data_dir: &Path, id: &WorkerId) -> PathBuf {
    data_dir.join(format!("health-{id}.json"))
}

/// The writing end.
#[derive(Debug)]
pub(crate) struct HealthFile {
    path: PathBuf,
    said: Health,
    warned: bool,
}

impl HealthFile {
    pub(crate) fn new(data_dir: &Path, id: &WorkerId) -> Self {
        Self { path: file(data_dir, id), said: Health::default(), warned: false }
    }

    /// Says that the loop runs, and what it is connected to.
    pub(crate) fn say(&mut self, broker: bool, master: bool) {
        let now = clock::now().0;
        self.said.at_ms = now;
        if broker {
            self.said.broker_at_ms = Some(now);
        }
        if master {
            self.said.master_at_ms = Some(now);
        }
        let result = self.write();
        if let (Err(error), false) = (&result, self.warned) {
            warn!(path = %self.path.display(), %error, "failed to write the file that health checks read");
        }
        self.warned = result.is_err();
    }

    /// A reader never sees half a file.
    fn write(&self) -> io::Result<()> {
        let draft = self.path.with_extension("json.new");
        std::fs::write(&draft, serde_json::to_vec(&self.said)?)?;
        std::fs::rename(&draft, &self.path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn health(at: u64, broker: Option<u64>, master: Option<u64>) -> Health {
        Health { at_ms: at, broker_at_ms: broker, master_at_ms: master }
    }

    fn judged(health: &Health, now: u64) -> String {
        health.judge(Timestamp(now)).map_or_else(|unwell| unwell.to_string(), |()| "well".to_owned())
    }

    #[test]
    fn a_worker_is_well_once_it_has_reached_broker_and_master() {
        assert_eq!(judged(&health(1_000, None, None), 1_000), "it has not reached the broker yet");
        assert_eq!(judged(&health(1_000, Some(1_000), None), 1_000), "it has not reached the master yet");
        assert_eq!(judged(&health(1_000, Some(1_000), Some(1_000)), 1_000), "well");
    }

    #[test]
    fn a_short_absence_of_the_master_is_no_reason_to_restart_a_worker_and_a_long_one_is() {
        let away = |ms| judged(&health(1_000_000, Some(1_000_000), Some(1_000_000 - ms)), 1_000_000);
        assert_eq!(away(AWAY_MS), "well");
        assert_eq!(away(AWAY_MS + 1_000), "the master has been away for 121 s");
    }

    #[test]
    fn a_loop_that_hangs_is_found_by_the_age_of_its_word() {
        let said = health(1_000, Some(1_000), Some(1_000));
        assert_eq!(judged(&said, 1_000 + SILENT_MS), "well");
        assert_eq!(judged(&said, 2_000 + SILENT_MS), "it has said nothing for 21 s: it ended or hangs");
    }

    #[test]
    fn what_is_written_is_read_and_remembers_the_last_connection() {
        let dir = tempfile::tempdir().unwrap();
        let id: WorkerId = "w-1".parse().unwrap();
        assert!(matches!(Health::read(dir.path(), &id), Err(Unwell::Unreadable { .. })));
        let mut file = HealthFile::new(dir.path(), &id);
        file.say(true, true);
        let first = Health::read(dir.path(), &id).unwrap();
        file.say(false, true);
        let second = Health::read(dir.path(), &id).unwrap();
        assert_eq!(second.broker_at_ms, first.broker_at_ms);
        assert!(first.broker_at_ms.is_some() && second.at_ms >= first.at_ms);
    }
}
