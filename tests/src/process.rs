//! One child process: what it prints goes to a file, it dies with its owner.

use std::fs::{File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::until::until;

/// A running program.
#[derive(Debug)]
pub struct Process {
    name: String,
    id: u32,
    child: Mutex<Child>,
    log: PathBuf,
}

impl Process {
    /// Starts `command`; what it prints is appended to `{directory}/{name}.log`.
    ///
    /// # Panics
    /// When it can't be started.
    #[must_use]
    pub fn start(name: &str, directory: &Path, command: &mut Command) -> Self {
        let log = directory.join(format!("{name}.log"));
        let out = open(&log).unwrap_or_else(|e| panic!("failed to open {}: {e}", log.display()));
        let err = out.try_clone().unwrap_or_else(|e| panic!("failed to share {}: {e}", log.display()));
        let child = command
            .stdin(Stdio::null())
            .stdout(out)
            .stderr(err)
            .spawn()
            .unwrap_or_else(|e| panic!("failed to start {name} ({:?}): {e}", command.get_program()));
        Self { name: name.to_owned(), id: child.id(), child: Mutex::new(child), log }
    }

    /// Its process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.id
    }

    /// `kill -9`, and waits until it is gone.
    pub fn kill(&self) {
        let mut child = self.child();
        let _ = child.kill();
        let _ = child.wait();
    }

    fn child(&self) -> MutexGuard<'_, Child> {
        self.child.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How it ended, `None` while it runs.
    #[must_use]
    pub fn status(&self) -> Option<ExitStatus> {
        self.child().try_wait().ok().flatten()
    }

    /// Sends `signal` (`TERM`, `INT`, `STOP`, `CONT`).
    ///
    /// # Panics
    /// When the process is not there.
    pub fn signal(&self, signal: &str) {
        let line = format!("kill -{signal} {}", self.id());
        let sent = Command::new("sh").args(["-c", &line]).status();
        assert!(sent.is_ok_and(|status| status.success()), "{line} failed; {}", self.describe());
    }

    /// Waits until it ended by itself.
    ///
    /// # Panics
    /// When it goes on beyond the deadline.
    pub async fn ended(&self) -> ExitStatus {
        until(&format!("{} ends", self.name), || async { self.status().ok_or_else(|| self.describe()) }).await
    }

    /// All that it has printed.
    #[must_use]
    pub fn log(&self) -> String {
        std::fs::read(&self.log).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
    }

    /// Waits until a line that it printed contains `text`, and gives that line.
    ///
    /// # Panics
    /// After the deadline, with the end of its log.
    pub async fn printed(&self, text: &str) -> String {
        until(&format!("{} prints '{text}'", self.name), || async {
            let log = self.log();
            log.lines().find(|line| line.contains(text)).map(str::to_owned).ok_or_else(|| self.describe())
        })
        .await
    }

    /// Its name and the end of its log, for messages.
    #[must_use]
    pub fn describe(&self) -> String {
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        let tail = lines[lines.len().saturating_sub(30)..].join("\n");
        format!("{} (pid {}) printed last:\n{tail}", self.name, self.id())
    }

    /// Its resident memory in KiB, as the kernel counts it.
    #[must_use]
    pub fn resident_kib(&self) -> Option<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.id())).ok()?;
        status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.trim().strip_suffix("kB")?.trim().parse().ok())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            eprintln!("{}", self.describe());
        }
    }
}

fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).open(path)
}
