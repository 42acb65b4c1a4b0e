//! The data directory: made for its owner alone, and home of the worker's id.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::PathBuf;

use flota_proto::WorkerId;
use rand::Rng;
use secrecy::ExposeSecret;
use thiserror::Error;
use uuid::Uuid;

use super::Settings;

const WORKER_ID_FILE: &str = "worker-id";
const SEAL_KEY_FILE: &str = "seal.key";
const SEAL_KEY_BYTES: usize = 32;

/// Why the data directory can't be used. Says what to do.
#[derive(Debug, Error)]
pub enum DataDirError {
    /// It can't be made.
    #[error("can't make the data directory {path}: {error}. Set FLOTA_DATA_DIR to a directory that you may write to")]
    Create {
        /// Which.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// A file in it can't be used.
    #[error("can't use {path}: {error}. Set FLOTA_DATA_DIR to a directory that you may read and write")]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// The worker's id is damaged.
    #[error("{path} holds no worker id: {message}. Delete the file to get a new id, or set FLOTA_WORKER_ID")]
    WorkerId {
        /// Which file.
        path: PathBuf,
        /// What is wrong.
        message: String,
    },
    /// The sealing key is damaged.
    #[error(
        "{path} holds no sealing key (64 hex digits). Restore it from a backup, or delete it: users' API keys that wait \
         in the store are lost with it"
    )]
    SealKey {
        /// Which file.
        path: PathBuf,
    },
    /// Another master has the store.
    #[error(
        "Flota runs already with the store {store}. Stop that one, or start this one with a data directory of its own: \
         FLOTA_DATA_DIR=PATH"
    )]
    StoreInUse {
        /// Which.
        store: PathBuf,
    },
    /// Another process works under this id.
    #[error(
        "another worker with the id '{id}' runs from this data directory. For a second one on this machine give it an id \
         of its own: FLOTA_WORKER_ID={id}-2"
    )]
    InUse {
        /// Which id.
        id: WorkerId,
    },
}

/// The id made for this data directory; no second process gets it while this is held.
#[derive(Debug)]
pub struct MadeWorkerId {
    /// The id.
    pub id: WorkerId,
    /// Holds the lock; `None` where the id was set by somebody.
    _lock: Option<File>,
}

impl Settings {
    /// Makes the data directory, for its owner alone, and tries to write to it.
    ///
    /// # Errors
    /// When it can't be made or written to.
    pub fn prepare_data_dir(&self) -> Result<(), DataDirError> {
        let path = &self.data_dir;
        let made = DirBuilder::new().recursive(true).mode(0o700).create(path);
        made.map_err(|error| DataDirError::Create { path: path.clone(), error })?;
        let probe = path.join(format!(".probe-{}", std::process::id()));
        let tried = File::create(&probe).and_then(|_| fs::remove_file(&probe));
        tried.map_err(|error| DataDirError::File { path: path.clone(), error })
    }

    /// Holds the store against a second master, as long as the file lives.
    ///
    /// # Errors
    /// When another process holds it or the file can't be made.
    pub fn lock_store(&self) -> Result<File, DataDirError> {
        let store = self.sqlite_path();
        let mut path = store.clone().into_os_string();
        path.push(".lock");
        let path = PathBuf::from(path);
        let failed = |error| DataDirError::File { path: path.clone(), error };
        let file =
            OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&path).map_err(failed)?;
        match file.try_lock() {
            Ok(()) => Ok(file),
            Err(fs::TryLockError::WouldBlock) => Err(DataDirError::StoreInUse { store }),
            Err(fs::TryLockError::Error(error)) => Err(failed(error)),
        }
    }

    /// The key that seals users' API keys: the one that is set, else the one in the data directory, made now if there is
    /// none. For the process that holds the store.
    ///
    /// # Errors
    /// When the file can't be used or holds something else.
    pub fn own_seal_key(&self) -> Result<[u8; SEAL_KEY_BYTES], DataDirError> {
        let path = self.data_dir.join(SEAL_KEY_FILE);
        let damaged = || DataDirError::SealKey { path: path.clone() };
        if let Some(key) = &self.seal_key {
            return decode(key.expose_secret()).ok_or_else(damaged);
        }
        let failed = |error| DataDirError::File { path: path.clone(), error };
        let mut options = OpenOptions::new();
        let mut file =
            options.read(true).write(true).create(true).truncate(false).mode(0o600).open(&path).map_err(failed)?;
        // One that was copied here may have come with other rights.
        file.set_permissions(fs::Permissions::from_mode(0o600)).map_err(failed)?;
        let mut text = String::new();
        (&mut file).take(1024).read_to_string(&mut text).map_err(failed)?;
        if text.trim_end().is_empty() {
            return make_key(&mut file).map_err(failed);
        }
        decode(text.trim_end()).ok_or_else(damaged)
    }

    /// The worker's id: the one that is set, else the one in the data directory, made now if there is none.
    ///
    /// # Errors
    /// When the file can't be used or another process holds the id.
    pub fn own_worker_id(&self) -> Result<MadeWorkerId, DataDirError> {
        if let Some(id) = &self.worker_id {
            return Ok(MadeWorkerId { id: id.clone(), _lock: None });
        }
        let path = self.data_dir.join(WORKER_ID_FILE);
        let failed = |error| DataDirError::File { path: path.clone(), error };
        let mut options = OpenOptions::new();
        let mut file =
            options.read(true).write(true).create(true).truncate(false).mode(0o600).open(&path).map_err(failed)?;
        let locked = file.try_lock();
        let mut text = String::new();
        (&mut file).take(1024).read_to_string(&mut text).map_err(failed)?;
        let id = match text.trim_end() {
            "" if locked.is_ok() => make_id(&mut file).map_err(failed)?,
            text => parse_id(text, path.clone())?,
        };
        match locked {
            Ok(()) => Ok(MadeWorkerId { id, _lock: Some(file) }),
            Err(fs::TryLockError::WouldBlock) => Err(DataDirError::InUse { id }),
            Err(fs::TryLockError::Error(error)) => Err(failed(error)),
        }
    }
}

impl Settings {
    /// The id that the worker of this data directory runs under, without taking it.
    ///
    /// # Errors
    /// When none is set and none was made yet.
    pub fn known_worker_id(&self) -> Result<WorkerId, DataDirError> {
        if let Some(id) = &self.worker_id {
            return Ok(id.clone());
        }
        let path = self.data_dir.join(WORKER_ID_FILE);
        let text = fs::read_to_string(&path).map_err(|error| DataDirError::File { path: path.clone(), error })?;
        parse_id(&text, path)
    }
}

fn parse_id(text: &str, path: PathBuf) -> Result<WorkerId, DataDirError> {
    let parsed = text.trim_end().parse();
    parsed.map_err(|error: flota_proto::ids::IdError| DataDirError::WorkerId { path, message: error.to_string() })
}

fn make_key(file: &mut File) -> io::Result<[u8; SEAL_KEY_BYTES]> {
    let key: [u8; SEAL_KEY_BYTES] = rand::rng().random();
    writeln!(file, "{}", hex::encode(key))?;
    file.sync_all()?;
    Ok(key)
}

fn decode(text: &str) -> Option<[u8; SEAL_KEY_BYTES]> {
    hex::decode(text).ok()?.try_into().ok()
}

fn make_id(file: &mut File) -> io::Result<WorkerId> {
    let id = new_id(&fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default());
    writeln!(file, "{id}")?;
    file.sync_all()?;
    Ok(id)
}

/// The machine's name, so that people know it again, and six hex digits, so that two are never the same.
fn new_id(hostname: &str) -> WorkerId {
    let host: String = hostname
        .chars()
        .filter(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_'))
        .take(40)
        .collect::<String>();
    let host = if host.is_empty() { "worker" } else { &host };
    let random = Uuid::new_v4().simple().to_string();
    let id = format!("{host}-{}", &random[..6]);
    id.parse().unwrap_or_else(|_| unreachable!("'{id}' holds nothing that an id may not"))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::super::tests::load;
    use super::*;

    fn settings(dir: &std::path::Path) -> Settings {
        load(&[("FLOTA_DATA_DIR", dir.to_str().unwrap())]).unwrap()
    }

    #[test]
    fn the_directory_is_made_for_its_owner_alone() {
        let dir = tempfile::tempdir().unwrap();
        let settings = settings(&dir.path().join("a/b"));
        settings.prepare_data_dir().unwrap();
        assert_eq!(fs::metadata(&settings.data_dir).unwrap().permissions().mode() & 0o777, 0o700);
        assert_eq!(fs::read_dir(&settings.data_dir).unwrap().count(), 0, "the probe is gone");
    }

    #[test]
    fn a_directory_that_cannot_be_made_says_what_to_set() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("file"), "").unwrap();
        let error = settings(&dir.path().join("file/sub")).prepare_data_dir().unwrap_err().to_string();
        assert!(error.contains("file/sub") && error.contains("FLOTA_DATA_DIR"), "{error}");
    }

    #[test]
    fn the_workers_id_is_made_once_and_held_by_one_process() {
        let dir = tempfile::tempdir().unwrap();
        let settings = settings(dir.path());
        let first = settings.own_worker_id().unwrap();
        let second = settings.own_worker_id().unwrap_err();
        assert!(matches!(&second, DataDirError::InUse { id } if *id == first.id), "{second}");
        let id = first.id.clone();
        assert_eq!(settings.known_worker_id().unwrap(), id, "a probe asks while the worker runs");
        drop(first);
        assert_eq!(settings.own_worker_id().unwrap().id, id);
    }

    #[test]
    fn the_sealing_key_is_made_once_for_its_owner_alone_and_one_that_is_set_needs_no_file() {
        let dir = tempfile::tempdir().unwrap();
        let settings = settings(dir.path());
        let key = settings.own_seal_key().unwrap();
        let file = dir.path().join(SEAL_KEY_FILE);
        assert_eq!(settings.own_seal_key().unwrap(), key);
        fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
        assert_eq!(settings.own_seal_key().unwrap(), key);
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        fs::write(&file, "not a key\n").unwrap();
        assert!(settings.own_seal_key().unwrap_err().to_string().contains("seal.key holds no sealing key"));
        let other = tempfile::tempdir().unwrap();
        let text = hex::encode(key);
        let set = load(&[("FLOTA_DATA_DIR", other.path().to_str().unwrap()), ("FLOTA_SEAL_KEY", &text)]).unwrap();
        assert_eq!(set.own_seal_key().unwrap(), key);
        assert_eq!(fs::read_dir(other.path()).unwrap().count(), 0);
        let error = load(&[("FLOTA_SEAL_KEY", "5ecre7")]).unwrap_err().to_string();
        assert!(error.contains("64 hex digits") && !error.contains("5ecre7"), "{error}");
    }

    #[test]
    fn the_store_is_held_by_one_master() {
        let dir = tempfile::tempdir().unwrap();
        let settings = settings(dir.path());
        let held = settings.lock_store().unwrap();
        let error = settings.lock_store().unwrap_err().to_string();
        assert!(error.contains("flota.db") && error.contains("FLOTA_DATA_DIR"), "{error}");
        drop(held);
        assert!(settings.lock_store().is_ok());
    }

    #[test]
    fn a_set_id_needs_no_file_and_a_damaged_file_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let set = load(&[("FLOTA_DATA_DIR", dir.path().to_str().unwrap()), ("FLOTA_WORKER_ID", "w-1")]).unwrap();
        assert_eq!(set.own_worker_id().unwrap().id.as_str(), "w-1");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
        fs::write(dir.path().join(WORKER_ID_FILE), "two words\n").unwrap();
        let error = settings(dir.path()).own_worker_id().unwrap_err().to_string();
        assert!(error.contains("worker-id holds no worker id"), "{error}");
    }

    #[test]
    fn a_strange_hostname_still_gives_an_id() {
        assert!(new_id("rack/7 ä\n").as_str().starts_with("rack7-"));
        assert!(new_id("").as_str().starts_with("worker-"));
    }
}
