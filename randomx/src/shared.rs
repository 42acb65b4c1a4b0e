//! One dataset for all processes of a host: a file on hugetlbfs or tmpfs, mapped by each.
//!
//! Whoever finds no complete file builds one under an exclusive lock; whoever uses one holds a shared lock; the last one removes
//! the file. The kernel drops the locks of a process that died, and a file is complete only when its trailer says so: it is
//! written last. That is what a process that died half-way is told by. The digest in it, which everybody checks, finds what was
//! damaged since; such a file is taken away and built again.
#![allow(unsafe_code)]

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use sha2::{Digest, Sha256};

use crate::digest::{self, DIGEST_BYTES};
use crate::region::{Region, is_in_memory};
use crate::{Build, Cache, DATASET_BYTES, Dataset, Error, Origin};

const MAGIC: [u8; 8] = *b"FLOTARX2";
/// A dataset is one item short of whole huge pages: there the trailer has its place.
const FILE_BYTES: usize = DATASET_BYTES.next_multiple_of(2 * 1024 * 1024);
const MAGIC_AT: usize = DATASET_BYTES;
const DIGEST_AT: usize = MAGIC_AT + MAGIC.len();
const _: () = assert!(DIGEST_AT + DIGEST_BYTES <= FILE_BYTES && MAGIC_AT.is_multiple_of(size_of::<u64>()));
/// How often it is looked whether another process has finished.
const LOOK: Duration = Duration::from_millis(50);

/// A file in use: the lock goes with it, and with the last user the file.
#[derive(Debug)]
pub struct InUse {
    file: File,
    path: PathBuf,
}

impl Drop for InUse {
    fn drop(&mut self) {
        // Only who is alone gets it.
        if self.file.try_lock().is_ok() && is_at(&self.file, &self.path) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

impl Dataset {
    /// The dataset of `key` in memory that all processes share which give the same `directory` (on hugetlbfs or tmpfs, of this user
    /// alone). Where no other process has made it, it is built from what `cache` gives.
    ///
    /// # Errors
    /// [`Error::Shared`], [`Error::Stopped`], and those of [`Dataset::build`].
    pub fn shared(
        directory: &Path,
        key: &[u8],
        cache: impl FnOnce() -> Result<Arc<Cache>, Error>,
        build: &Build,
    ) -> Result<Self, Error> {
        prepare(directory)?;
        let path = place(directory, key);
        loop {
            let file = open(&path, true).map_err(failed("can't be opened"))?;
            match claim(&file, &path, build)? {
                Claim::Gone => {}
                Claim::Complete => {
                    if let Some(dataset) = Self::complete(InUse { file, path: path.clone() }, build)? {
                        return Ok(dataset);
                    }
                }
                Claim::Ours => return Self::fill(InUse { file, path }, &cache()?, build),
            }
        }
    }

    /// The same where another process has it complete; else nothing is waited for or built. Takes `threads` threads for a moment.
    ///
    /// # Errors
    /// [`Error::Shared`]
    pub fn adopt(directory: &Path, key: &[u8], threads: usize) -> Result<Option<Self>, Error> {
        prepare(directory)?;
        let path = place(directory, key);
        let file = match open(&path, false) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            opened => opened.map_err(failed("can't be opened"))?,
        };
        if got(file.try_lock_shared())? && is_at(&file, &path) && is_complete(&file) {
            Self::complete(InUse { file, path }, &Build::new(threads))
        } else {
            Ok(None)
        }
    }

    /// `None` where the file is damaged: it is taken away.
    fn complete(in_use: InUse, build: &Build) -> Result<Option<Self>, Error> {
        let region = map(&in_use.file, false)?;
        let said = trailer(&region)[MAGIC.len()..][..DIGEST_BYTES].to_vec();
        // SAFETY: the mapping is that long; under a lock nobody writes there.
        let items = unsafe { std::slice::from_raw_parts(region.memory().as_ptr(), DATASET_BYTES) };
        // Reads all of it, so that afterwards it is known on what pages it lies.
        let digest = digest::of(items, build.threads);
        if said == digest {
            build.finish();
            return Ok(Some(Self::of(region, build.largest, Origin::Mapped).digested(digest).in_use(in_use)));
        }
        if is_at(&in_use.file, &in_use.path) {
            fs::remove_file(&in_use.path).map_err(failed("is damaged and can't be removed"))?;
        }
        Ok(None)
    }

    fn fill(in_use: InUse, cache: &Arc<Cache>, build: &Build) -> Result<Self, Error> {
        // Of an earlier process that died: all of it is written again, and the trailer last.
        let fresh = in_use.file.set_len(0).and_then(|()| in_use.file.set_len(FILE_BYTES as u64));
        fresh.and_then(|()| reserve(&in_use.file)).map_err(failed("can't have that much memory"))?;
        let region = map(&in_use.file, true)?;
        crate::dataset::compute(cache, build, &region)?;
        let memory = region.memory().as_ptr();
        let dataset = Self::of(region, build.largest, Origin::Computed);
        let digest = dataset.digest(build.threads);
        // SAFETY: the trailer lies within the file, behind the items and aligned, and nobody reads it while this process has the lock.
        unsafe {
            memory.add(DIGEST_AT).copy_from_nonoverlapping(digest.as_ptr(), digest.len());
            // Last, whatever the compiler thinks of it.
            AtomicU64::from_ptr(memory.add(MAGIC_AT).cast()).store(u64::from_ne_bytes(MAGIC), Ordering::Release);
        }
        // Another may come between the two locks; it finds the file complete.
        in_use.file.lock_shared().map_err(failed("can't be locked"))?;
        Ok(dataset.in_use(in_use))
    }
}

/// Makes the directory, and sees to it that nobody else can put files there.
fn prepare(directory: &Path) -> Result<(), Error> {
    let made = DirBuilder::new().recursive(true).mode(0o700).create(directory);
    let found = made.and_then(|()| fs::metadata(directory)).map_err(failed("can't be made"))?;
    // SAFETY: takes nothing and only asks who this is.
    let own = found.uid() == unsafe { libc::geteuid() };
    if !own || found.mode() & 0o022 != 0 {
        return Err(Error::Shared(
            "must belong to this user, and no other may write there",
            io::ErrorKind::PermissionDenied,
        ));
    }
    // After a loss of power a disk may hold the trailer and not what it speaks of.
    if File::open(directory).is_ok_and(|opened| is_in_memory(&opened)) {
        Ok(())
    } else {
        Err(Error::Shared("must lie in a directory on hugetlbfs or tmpfs", io::ErrorKind::Unsupported))
    }
}

fn place(directory: &Path, key: &[u8]) -> PathBuf {
    directory.join(format!("{}.dataset", hex::encode(&Sha256::digest(key)[..16])))
}

fn open(path: &Path, create: bool) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(create).truncate(false).mode(0o600).custom_flags(libc::O_NOFOLLOW);
    options.open(path)
}

enum Claim {
    /// It was removed meanwhile.
    Gone,
    /// It can be used; the shared lock is held.
    Complete,
    /// It is to be built; the exclusive lock is held.
    Ours,
}

/// Waits while another process builds it.
fn claim(file: &File, path: &Path, build: &Build) -> Result<Claim, Error> {
    loop {
        if build.is_stopped() {
            return Err(Error::Stopped);
        }
        if got(file.try_lock_shared())? {
            if !is_at(file, path) {
                return Ok(Claim::Gone);
            }
            if is_complete(file) {
                return Ok(Claim::Complete);
            }
            file.unlock().map_err(failed("can't be unlocked"))?;
            if got(file.try_lock())? {
                return Ok(if is_at(file, path) { Claim::Ours } else { Claim::Gone });
            }
        }
        thread::sleep(LOOK);
    }
}

fn got(lock: Result<(), TryLockError>) -> Result<bool, Error> {
    match lock {
        Ok(()) => Ok(true),
        Err(TryLockError::WouldBlock) => Ok(false),
        Err(TryLockError::Error(error)) => Err(failed("can't be locked")(error)),
    }
}

/// Whether the path still leads to this file.
fn is_at(file: &File, path: &Path) -> bool {
    let same = |a: fs::Metadata, b: fs::Metadata| (a.dev(), a.ino()) == (b.dev(), b.ino());
    file.metadata().is_ok_and(|open| fs::metadata(path).is_ok_and(|there| same(open, there)))
}

fn is_complete(file: &File) -> bool {
    let whole = file.metadata().is_ok_and(|found| found.len() == FILE_BYTES as u64);
    whole && map(file, false).is_ok_and(|region| trailer(&region).starts_with(&MAGIC))
}

fn trailer(region: &Region) -> &[u8] {
    // SAFETY: the mapping is that long; under a lock nobody writes there.
    unsafe { std::slice::from_raw_parts(region.memory().as_ptr().add(MAGIC_AT), FILE_BYTES - MAGIC_AT) }
}

fn map(file: &File, writable: bool) -> Result<Region, Error> {
    Region::of_file(file, FILE_BYTES, writable).map_err(failed("can't be mapped"))
}

/// Takes the memory now: later, a lack of it would end the process.
fn reserve(file: &File) -> io::Result<()> {
    // SAFETY: the descriptor is open; takes numbers only.
    match unsafe { libc::posix_fallocate(file.as_raw_fd(), 0, FILE_BYTES as libc::off_t) } {
        0 => Ok(()),
        code => Err(io::Error::from_raw_os_error(code)),
    }
}

fn failed(what: &'static str) -> impl Fn(io::Error) -> Error {
    move |error| Error::Shared(what, error.kind())
}
