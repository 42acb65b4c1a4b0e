//! The Python programs of `tests/simple_worker`: a worker in another language, and a page that knows four events.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use tempfile::TempDir;

use crate::Process;

/// A simple worker that has subscribed and registered.
#[derive(Debug)]
pub struct SimpleWorker {
    /// Its process: `printed("task")`, `printed("acknowledged")`.
    pub process: Process,
    _directory: TempDir,
}

impl SimpleWorker {
    /// Joins at the broker on `port` as `id`, with further `arguments` of `simple_worker.py`.
    ///
    /// # Panics
    /// When it does not come up.
    pub async fn join(port: u16, id: &str, arguments: &[&str]) -> Self {
        let directory = TempDir::new().expect("failed to make a directory");
        let mut command = python("simple_worker.py");
        command.args(["--port", &port.to_string(), "--id", id]).args(arguments);
        let process = Process::start("simple_worker", directory.path(), &mut command);
        process.printed("subscribed").await;
        Self { process, _directory: directory }
    }
}

/// Asks `question` over plain Socket.IO at `url`; gives the events in the order in which they came.
///
/// # Panics
/// When no answer comes.
pub async fn ask(url: &str, question: &str, key: &str) -> Vec<(String, Value)> {
    let mut command = tokio::process::Command::from(python("ask.py"));
    let output = command.args(["--url", url, "--key", key, "--timeout", "60", question]).output().await;
    let output = output.expect("failed to start ask.py");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "ask.py: {}\n{text}", String::from_utf8_lossy(&output.stderr));
    text.lines()
        .map(|line| {
            let event: Value = serde_json::from_str(line).unwrap_or_else(|e| panic!("{e} in {line}"));
            (event["event"].as_str().unwrap_or_default().to_owned(), event["data"].clone())
        })
        .collect()
}

fn python(program: &str) -> Command {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let interpreter =
        std::env::var_os("FLOTA_TEST_PYTHON").map_or_else(|| here.join("../.tools/python/bin/python"), PathBuf::from);
    assert!(interpreter.is_file(), "there is no {}: `make setup` makes it", interpreter.display());
    let mut command = Command::new(interpreter);
    command.arg(here.join("simple_worker").join(program)).env("PYTHONUNBUFFERED", "1");
    command
}
