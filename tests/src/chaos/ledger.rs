//! What was submitted and what was answered, written to disk before it is sent and as it comes. At the end it is read back from
//! there: the driver's memory proves nothing.

use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

/// What must become of a job.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Expect {
    /// It gives back its number.
    Echo,
    /// It fails, and is not tried again.
    Failure,
    /// The reference hash with this index.
    Hash(usize),
    /// All nonces from start to end, each found once.
    Search(u64, u64),
    /// Some text.
    Chat,
}

/// One line.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Entry {
    /// Job `n` is going to be sent.
    Sending {
        n: u64,
        expect: Expect,
    },
    /// Job `n` was accepted under this id.
    Accepted {
        n: u64,
        id: String,
    },
    /// Job `n` was refused for good.
    Refused {
        n: u64,
        why: String,
    },
    CancelSent {
        id: String,
    },
    Cancelled {
        id: String,
    },
}

/// The ledger.
pub struct Ledger {
    file: Mutex<File>,
}

impl Ledger {
    pub fn create(path: &Path) -> Result<Self> {
        let file = OpenOptions::new().append(true).create_new(true).open(path).context("can't make the ledger")?;
        Ok(Self { file: Mutex::new(file) })
    }

    /// Written when this returns.
    ///
    /// # Panics
    /// When it can't be: without a ledger the run means nothing.
    pub fn write(&self, entries: &[Entry]) {
        let mut text = Vec::new();
        for entry in entries {
            serde_json::to_writer(&mut text, entry).expect("an entry is JSON");
            text.push(b'\n');
        }
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        file.write_all(&text).expect("failed to write the ledger");
    }

    pub fn read(path: &Path) -> Result<Vec<Entry>> {
        let lines = BufReader::new(File::open(path).context("can't read the ledger")?).lines();
        lines.map(|line| Ok(serde_json::from_str(&line?)?)).collect()
    }
}
