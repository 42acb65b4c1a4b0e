//! The scenarios in `tests/browser/`: what a person does on the page, in a real headless Chromium.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::time::Duration;

use crate::process::Process;
use crate::until::until_within;

fn scenarios() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("browser")
}

/// Starts the scenario `name` of `tests/browser/`.
///
/// # Panics
/// Where its packages are not installed.
#[must_use]
pub fn scenario(name: &str, arguments: &[&str], directory: &Path) -> Process {
    let folder = scenarios();
    assert!(folder.join("node_modules/playwright-core").is_dir(), "no playwright-core: make e2e installs it");
    let mut command = Command::new("node");
    Process::start(name, directory, command.arg(folder.join(format!("{name}.mjs"))).args(arguments))
}

/// Each wait of a scenario has a deadline of its own; this one is only for a browser that hangs.
const HANGS: Duration = Duration::from_secs(900);

async fn ended(browser: &Process) -> ExitStatus {
    until_within(HANGS, "the scenario ends", || async { browser.status().ok_or_else(|| browser.describe()) }).await
}

/// Waits for its end.
///
/// # Panics
/// When it failed, with what it printed.
pub async fn succeeds(browser: &Process) {
    assert!(ended(browser).await.success(), "{}", browser.describe());
}

/// Runs the scenario `name` to its end.
///
/// # Panics
/// When it failed, with what it printed.
pub async fn passes(name: &str, arguments: &[&str], directory: &Path) {
    succeeds(&scenario(name, arguments, directory)).await;
}

/// Waits until the scenario prints the line `word`, which says how far it has come.
///
/// # Panics
/// When it ends before.
pub async fn reaches(browser: &Process, word: &str) {
    until_within(HANGS, word, || async {
        let over = browser.status().is_some();
        if browser.log().lines().any(|line| line == word) {
            return Ok(());
        }
        assert!(!over, "it ended before '{word}': {}", browser.describe());
        Err(browser.describe())
    })
    .await;
}
