//! What holds while the store takes nothing: nothing is accepted and nothing is decided, what is stored can still be read,
//! and the store is tried again and again. Once it works, the core begins again from what it has, as after a restart.

use std::time::{Duration, Instant};

use flota_common::clock;
use flota_proto::JobId;
use tracing::{error, info};

use super::{Dispatcher, Ended, Moment};
use crate::core::{Core, Input};
use crate::handle::{Command, Refused};
use crate::store::StoreError;

/// The wait after the second failure; the first is tried again at once, as most pass.
const WAIT_MIN: Duration = Duration::from_secs(1);
/// The longest wait between two tries.
const WAIT_MAX: Duration = Duration::from_secs(30);
/// A store that worked for this long has recovered: its next failure is a first one.
const STEADY: Duration = Duration::from_secs(60);
/// How often the space that is left is looked at.
const LOOK_INTERVAL: Duration = Duration::from_millis(250);

/// A store that does not take what it is given.
pub(super) struct Stall {
    /// What callers are told.
    refused: Refused,
    retry_at: Instant,
}

/// How the store has done so far.
pub(super) struct Health {
    stall: Option<Stall>,
    /// How long the next stall lasts at least.
    wait: Duration,
    recovered: Instant,
    looked: Option<Instant>,
    /// There is less space left than is to be kept.
    low: Option<Refused>,
}

impl Default for Health {
    fn default() -> Self {
        Self { stall: None, wait: Duration::ZERO, recovered: clock::instant(), looked: None, low: None }
    }
}

impl Health {
    /// When the store is to be tried again; `None` while it works.
    pub(super) fn retry_at(&self) -> Option<Instant> {
        self.stall.as_ref().map(|stall| stall.retry_at)
    }

    fn fail(&mut self, failure: &StoreError) {
        let now = clock::instant();
        if now.saturating_duration_since(self.recovered) > STEADY {
            self.wait = Duration::ZERO;
        }
        self.stall = Some(Stall { refused: refusal(failure), retry_at: now + self.wait });
        self.wait = (self.wait * 2).clamp(WAIT_MIN, WAIT_MAX);
    }
}

fn refusal(failure: &StoreError) -> Refused {
    let detail = format!("failed to {failure}; nothing is accepted until the store works again");
    if matches!(failure, StoreError::Full) { Refused::StoreFull(detail) } else { Refused::Unavailable(detail) }
}

impl Dispatcher {
    /// Nothing of the batch was published: its callers are told, and the store is tried again.
    pub(super) fn commit_failed(&mut self, failure: StoreError) -> Result<(), Ended> {
        error!(%failure, "a batch could not be stored");
        self.effects.clear();
        let refused = refusal(&failure);
        for answer in self.answers.drain(..) {
            answer(Err(refused.clone()));
        }
        for submission in self.submissions.drain(..) {
            submission.refuse(&refused);
        }
        if let StoreError::Superseded { newest } = failure {
            return Err(Ended::Superseded(newest));
        }
        self.health.fail(&failure);
        // What the core decided is not stored, so nobody may see it. Workers keep what they hold and come back with it.
        self.core = Core::new(self.config.limits);
        self.conversations_again();
        self.narrower = super::Narrower::default();
        self.streams.clear();
        self.subscribers.clear();
        self.recover_when_due()
    }

    /// Tries the store again when it is time to.
    pub(super) fn recover_when_due(&mut self) -> Result<(), Ended> {
        if self.health.retry_at().is_none_or(|at| at > clock::instant()) {
            return Ok(());
        }
        match self.store.probe() {
            Ok(()) => self.recover(),
            Err(StoreError::Superseded { newest }) => Err(Ended::Superseded(newest)),
            Err(failure) => {
                self.health.fail(&failure);
                Ok(())
            }
        }
    }

    fn recover(&mut self) -> Result<(), Ended> {
        let loaded = self.store.load().map_err(Ended::Store)?;
        self.ended_counts = loaded.ended.iter().copied().collect();
        let now = self.time.now();
        // What is read has no leases from before; those it gets last from now on.
        self.time.take_set();
        self.core = self.store.rebuild(self.config.limits, now, loaded).map_err(Ended::Store)?;
        info!(live_jobs = self.core.live_jobs(), "the store works: going on with what it has");
        self.conversations_again();
        self.meter_again().map_err(Ended::Store)?;
        self.note_keys_again();
        self.recall_asked().map_err(Ended::Store)?;
        self.health.stall = None;
        self.health.recovered = clock::instant();
        let at = self.moment();
        for register in self.registrations.values().cloned().collect::<Vec<_>>() {
            // Simple workers are in the store, and so is whether they have fallen silent.
            if register.protocol.is_some() || self.core.worker_view(&register.worker_id).is_none() {
                self.apply(at, Input::Register(Box::new(register)));
            }
        }
        self.effects.clear();
        self.ask_again();
        Ok(())
    }

    /// What was told since the last commit that succeeded is not known for sure: a commit may have been stored although
    /// it failed. So subscribers subscribe again, and who waits for a job that no longer lives is answered by the store.
    fn ask_again(&mut self) {
        let core = &self.core;
        self.credentials.retain(|job| core.known(job).is_some());
        let gone: Vec<JobId> = self.waiters.keys().filter(|id| self.core.known(**id).is_none()).copied().collect();
        for id in gone {
            for waiter in self.waiters.remove(&id).unwrap_or_default() {
                self.read_job(id, false, waiter);
            }
        }
    }

    /// Why nothing can be accepted now, if so.
    pub(super) fn not_accepting(&mut self) -> Option<Refused> {
        let now = clock::instant();
        if self.health.looked.is_none_or(|at| now.saturating_duration_since(at) >= LOOK_INTERVAL) {
            self.health.looked = Some(now);
            let (reserve, left) = (self.config.store_reserve_bytes, self.store.free_bytes());
            let low = left.filter(|left| *left < reserve).map(|left| too_little(left, reserve));
            if low.is_some() != self.health.low.is_some() {
                match &low {
                    Some(refused) => error!("{refused}"),
                    None => info!("there is space for the store again: jobs are accepted"),
                }
            }
            self.health.low = low;
        }
        self.health.low.clone()
    }

    /// While the store takes nothing: what is stored is read, everything else is refused or, where it comes again, dropped.
    pub(super) fn command_stalled(&mut self, at: Moment, command: Command) {
        let Some(refused) = self.health.stall.as_ref().map(|stall| stall.refused.clone()) else {
            return self.command(at, command);
        };
        match command {
            Command::Job { .. } | Command::Jobs { .. } | Command::Overlay { .. } | Command::Units { .. } => {
                self.command(at, command);
            }
            Command::Await { id, reply } => self.waiters.entry(id).or_default().push(reply),
            Command::Registered(register) => self.remember(register),
            // Workers say these again.
            Command::Status(_)
            | Command::StreamClosed(_)
            | Command::Report { .. }
            | Command::BrokerUp
            | Command::Prepare { .. } => {}
            other => other.refuse(refused),
        }
    }
}

fn too_little(left: u64, reserve: u64) -> Refused {
    let mib = |bytes: u64| bytes as f64 / 1_048_576.0;
    Refused::StoreFull(format!(
        "the disk of the store is nearly full: {:.1} MiB are left and {:.1} MiB are kept for what was accepted before \
         (FLOTA_STORE_RESERVE); nothing new is accepted until there is space",
        mib(left),
        mib(reserve)
    ))
}
