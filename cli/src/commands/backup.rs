//! `flota backup` and `flota restore`: the store as one file.

use std::path::Path;

use flota_common::clock;
use flota_common::config::Settings;
use flota_master::store::{self, BackupError};
use serde_json::json;

use crate::args::{Backup, Restore};
use crate::failure::Failure;
use crate::output::Out;

pub fn back_up(settings: &Settings, out: &Out, args: &Backup) -> Result<(), Failure> {
    let store = settings.sqlite_path();
    store::back_up(&store, &args.to).map_err(failure)?;
    said(out, &args.to, &format!("backed up {} to {}", store.display(), args.to.display()))
}

pub fn restore(settings: &Settings, out: &Out, args: &Restore) -> Result<(), Failure> {
    settings.prepare_data_dir().map_err(|error| Failure::Usage(error.to_string()))?;
    // No master may use what is replaced.
    let _lock = settings.lock_store().map_err(|error| Failure::Usage(error.to_string()))?;
    let store = settings.sqlite_path();
    store::restore(&args.from, &store, args.replace, clock::now()).map_err(failure)?;
    said(out, &store, &format!("restored {} from {}", store.display(), args.from.display()))
}

fn said(out: &Out, file: &Path, text: &str) -> Result<(), Failure> {
    if out.json { out.json(&json!({"file": file})) } else { out.line(text) }
}

fn failure(error: BackupError) -> Failure {
    let text = match &error {
        BackupError::Exists(path) => format!("{} exists already: give another name", path.display()),
        BackupError::StoreExists(path) => {
            format!("there is a store already, {}: --replace throws it away", path.display())
        }
        BackupError::Directory(path) => {
            format!("there is no directory {}: make it, or give another place", path.display())
        }
        BackupError::Store(_) | BackupError::File { .. } => format!("failed to {error}"),
    };
    Failure::Failed(text)
}
