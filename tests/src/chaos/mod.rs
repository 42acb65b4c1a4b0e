//! The chaos harness: a real master, a real Mosquitto and real workers, jobs of all kinds, and meanwhile everything that can be
//! killed, stopped, cut off, filled up or set wrong is. The driver keeps what it was promised in a ledger of its own on disk; at
//! the end ledger and API must agree on every job.

mod disk;
mod driver;
mod faults;
mod fleet;
mod ledger;
mod net;
mod part;
mod report;
mod verify;

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use flota_common::clock;
use rand::SeedableRng;
use rand::rngs::StdRng;
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

pub use disk::Disk;
use driver::Driver;
use faults::Faults;
use fleet::Fleet;
use ledger::Ledger;
pub use report::Report;

/// What a run is to be.
#[derive(Clone, Debug)]
pub struct Plan {
    /// How long things go wrong.
    pub length: Duration,
    /// What decides which fault comes next.
    pub seed: u64,
    /// Workers.
    pub workers: usize,
    /// Jobs a second that are submitted while the fleet keeps up.
    pub rate: f64,
    /// The mean time from one fault to the next.
    pub fault_every: Duration,
    /// No fault lasts longer.
    pub fault_max: Duration,
    /// How long the fleet may take to finish what it has, once nothing goes wrong any more.
    pub settle_max: Duration,
}

impl Plan {
    /// A run of so many minutes.
    #[must_use]
    pub fn of_minutes(minutes: f64, seed: u64) -> Self {
        Self {
            length: Duration::from_secs_f64(minutes * 60.0),
            seed,
            workers: 3,
            rate: 60.0,
            fault_every: Duration::from_millis(2_000),
            fault_max: Duration::from_secs(22),
            settle_max: Duration::from_secs(300),
        }
    }

    /// Some seconds, for every day.
    #[must_use]
    pub fn short(seed: u64) -> Self {
        Self {
            length: Duration::from_secs(20),
            workers: 2,
            rate: 40.0,
            fault_every: Duration::from_millis(700),
            fault_max: Duration::from_secs(4),
            settle_max: Duration::from_secs(120),
            ..Self::of_minutes(0.0, seed)
        }
    }
}

/// Runs it.
///
/// # Errors
/// When the fleet can't be started, or the ledger not be kept. What the fleet did wrong stands in the report.
pub async fn run(plan: Plan) -> Result<Report> {
    let directory = TempDir::with_prefix("flota-chaos-").context("can't make a directory")?;
    let begun = clock::instant();
    let fleet = Arc::new(Fleet::start(&plan, directory.path()).await?);
    let ledger = Arc::new(Ledger::create(&directory.path().join("ledger.jsonl"))?);
    let stop = CancellationToken::new();
    let watched = tokio::spawn(fleet.clone().supervise(stop.clone()));
    let driver = Arc::new(Driver::new(fleet.rest(), ledger.clone(), plan.rate));
    let submitting = driver.spawn(&stop);

    let rng = StdRng::seed_from_u64(plan.seed);
    let faults = Faults::new(fleet.clone(), rng, plan.clone()).run().await;
    stop.cancel();
    fleet.heal_all().await;
    for submitter in submitting {
        submitter.await.context("a submitter ended by a panic")?;
    }
    watched.await.context("the supervisor ended by a panic")?;
    let settled = fleet.settled(plan.settle_max).await;
    let entries = Ledger::read(&directory.path().join("ledger.jsonl"))?;
    ensure!(!entries.is_empty(), "nothing was submitted");
    let verdict = verify::compare(&fleet.rest(), &entries).await;
    let report = Report {
        took: begun.elapsed(),
        plan,
        faults,
        skipped: fleet.skipped(),
        ended_by_themselves: fleet.ended_by_themselves(),
        settled,
        verdict,
    };
    if !report.good() || std::env::var_os("FLOTA_KEEP_LOGS").is_some() {
        eprintln!("kept for a look: {}", directory.keep().display());
    }
    Ok(report)
}
