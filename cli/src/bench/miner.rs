//! Another miner with XMRig's command line, run offline: its own benchmark, which mines nothing, without a network where the system
//! lets one have none.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use flota_common::clock;
use flota_randomx::Pages;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Command;

use super::randomx::Run;
use crate::failure::Failure;

/// A dataset that takes longer is not worth a comparison.
const INIT_MAX: Duration = Duration::from_secs(600);
/// How often the miner tells its rate.
const PRINT_SECONDS: u64 = 5;

/// Runs the miner at `path` for `seconds` after its dataset is ready.
pub async fn measure(path: &Path, threads: usize, pages: Pages, seconds: u64) -> Result<Run, Failure> {
    let failed = |what: String| Failure::Failed(format!("{}: {what}", path.display()));
    let mut child = command(path, threads, pages).spawn().map_err(|error| failed(error.to_string()))?;
    let stdout = child.stdout.take().ok_or_else(|| failed("it has no output".into()))?;
    let mut lines = BufReader::new(stdout).lines();
    let mut seen = Seen::default();
    let mut ends_at = clock::instant() + INIT_MAX;
    loop {
        let left = ends_at.saturating_duration_since(clock::instant());
        let Ok(line) = tokio::time::timeout(left, lines.next_line()).await else { break };
        let Some(line) = line.map_err(|error| failed(error.to_string()))? else { break };
        if seen.take(&line) {
            ends_at = clock::instant() + Duration::from_secs(seconds + PRINT_SECONDS);
        }
    }
    let _ = child.kill().await;
    seen.run(seconds).ok_or_else(|| failed("it did not tell its initialisation time and hash rate".into()))
}

fn command(path: &Path, threads: usize, pages: Pages) -> Command {
    let lonely = Path::new("/usr/bin/unshare").exists();
    let mut command = Command::new(if lonely { Path::new("/usr/bin/unshare") } else { path });
    if lonely {
        command.args(["--map-root-user", "--net"]).arg(path);
    }
    command.args(["--bench=10M", "--randomx-wrmsr=-1", "--randomx-no-rdmsr", "--no-color"]);
    command.arg(format!("--threads={threads}")).arg(format!("--print-time={PRINT_SECONDS}"));
    if pages < Pages::Huge {
        command.arg("--no-huge-pages");
    }
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).kill_on_drop(true);
    command
}

/// What the miner has said.
#[derive(Debug, Default)]
struct Seen {
    init_seconds: Option<f64>,
    pages: String,
    rate_10: Option<f64>,
    rate_60: Option<f64>,
}

impl Seen {
    /// Reads a line; whether it says that the dataset is ready.
    fn take(&mut self, line: &str) -> bool {
        if let Some((_, rest)) = line.split_once("huge pages ")
            && line.contains("allocated")
        {
            self.pages = format!("{} huge", rest.split_whitespace().next().unwrap_or_default());
        }
        if let Some((_, rest)) = line.split_once("speed 10s/60s/15m ") {
            let mut rates = rest.split_whitespace().map(|word| word.parse().ok());
            self.rate_10 = rates.next().flatten();
            self.rate_60 = rates.next().flatten();
        }
        let Some((_, rest)) = line.split_once("dataset ready (") else { return false };
        self.init_seconds = rest.split_once(" ms").and_then(|(ms, _)| ms.parse::<f64>().ok()).map(|ms| ms / 1000.0);
        self.init_seconds.is_some()
    }

    fn run(self, seconds: u64) -> Option<Run> {
        let rate = if seconds >= 60 { self.rate_60.or(self.rate_10) } else { self.rate_10 };
        Some(Run { init_seconds: self.init_seconds?, hashes_per_second: rate?, pages: self.pages })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_miners_lines_are_read() {
        let mut seen = Seen::default();
        let quiet =
            "[2026-11-21 13:33:17.966]  randomx  allocated 2336 MB (2080+256) huge pages 100% 1168/1168 +JIT (149 ms)";
        assert!(!seen.take(quiet));
        assert!(seen.take("[2026-11-21 13:33:26.272]  randomx  dataset ready (8305 ms)"));
        assert!(!seen.take("[2026-11-21 13:33:41.330]  miner    speed 10s/60s/15m 634.6 n/a n/a H/s max 665.7 H/s"));
        let run = seen.run(60).unwrap();
        assert_eq!((run.init_seconds, run.hashes_per_second, run.pages.as_str()), (8.305, 634.6, "100% huge"));
        assert!(Seen::default().run(60).is_none());
    }
}
