//! `make chaos`: breaks a real fleet for some minutes and says what became of every job.

use clap::Parser;
use flota_tests::chaos::{Plan, run};

/// Breaks a real fleet on purpose. Ends with 1 when a job was lost, counted twice, or ended as it must not.
#[derive(Debug, Parser)]
#[command(name = "chaos", version)]
struct Args {
    /// How long things go wrong.
    #[arg(long, default_value_t = 10.0)]
    minutes: f64,
    /// What decides which fault comes next; without it another one each time.
    #[arg(long)]
    seed: Option<u64>,
    /// Jobs a second.
    #[arg(long)]
    rate: Option<f64>,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    anyhow::ensure!(args.minutes > 0.0 && args.minutes <= 1440.0, "--minutes must be above 0 and at most 1440");
    let mut plan = Plan::of_minutes(args.minutes, args.seed.unwrap_or_else(rand::random));
    plan.rate = args.rate.unwrap_or(plan.rate).clamp(0.1, 10_000.0);
    println!("chaos: {} minutes, seed {}", args.minutes, plan.seed);
    let report = run(plan).await?;
    println!("{report}");
    anyhow::ensure!(report.good(), "something was lost, counted twice or ended as it must not");
    Ok(())
}
