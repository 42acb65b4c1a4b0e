//! One process of the fleet that is killed, stopped and started again, as often as the run wants.

use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::Process;

/// A process and how it is started.
pub struct Part {
    name: String,
    directory: PathBuf,
    command: Box<dyn Fn() -> Command + Send + Sync>,
    process: Mutex<Option<Process>>,
    /// A fault has it: nobody else touches it, and that it does not run is meant.
    taken: AtomicBool,
}

impl Part {
    pub fn new(name: String, directory: PathBuf, command: impl Fn() -> Command + Send + Sync + 'static) -> Self {
        Self { name, directory, command: Box::new(command), process: Mutex::new(None), taken: AtomicBool::new(false) }
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    fn process(&self) -> MutexGuard<'_, Option<Process>> {
        self.process.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts it where it does not run.
    pub fn start(&self) {
        let mut process = self.process();
        if process.as_ref().is_none_or(|process| process.status().is_some()) {
            *process = Some(Process::start(&self.name, &self.directory, &mut (self.command)()));
        }
    }

    /// `kill -9`; also of one that is stopped.
    pub fn kill(&self) {
        if let Some(process) = &*self.process() {
            process.kill();
        }
    }

    pub fn signal(&self, signal: &str) {
        if let Some(process) = self.process().as_ref().filter(|process| process.status().is_none()) {
            process.signal(signal);
        }
    }

    pub fn runs(&self) -> bool {
        self.process().as_ref().is_some_and(|process| process.status().is_none())
    }

    /// The end of what it printed.
    pub fn describe(&self) -> String {
        self.process().as_ref().map(Process::describe).unwrap_or_default()
    }

    /// Takes it for a fault; false where another has it.
    pub fn take(&self) -> bool {
        !self.taken.swap(true, Ordering::SeqCst)
    }

    pub fn give_back(&self) {
        self.taken.store(false, Ordering::SeqCst);
    }
}
