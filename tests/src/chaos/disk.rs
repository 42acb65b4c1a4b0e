//! A small disk for the master's store, so that it can be filled. Needs root.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

const MIB: usize = 512;

/// A file system in memory.
#[derive(Debug)]
pub struct Disk {
    path: PathBuf,
}

impl Disk {
    /// Mounts one at `path`.
    ///
    /// # Errors
    /// Why there can't be one.
    pub fn mount(path: &Path) -> Result<Self> {
        fs::create_dir_all(path)?;
        let options = format!("size={MIB}m");
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &options, "tmpfs"]).arg(path).output();
        let mounted = mounted.context("there is no mount")?;
        ensure!(mounted.status.success(), "mount: {}", String::from_utf8_lossy(&mounted.stderr).trim());
        Ok(Self { path: path.to_owned() })
    }

    /// Writes until nothing more fits.
    pub fn fill(&self) {
        let Ok(mut file) = File::create(self.ballast()) else { return };
        let block = vec![7; 1 << 16];
        for size in [block.len(), 4096, 512, 1] {
            while file.write_all(&block[..size]).is_ok() {}
        }
    }

    /// Takes away what fills it.
    pub fn free(&self) {
        let _ = fs::remove_file(self.ballast());
    }

    fn ballast(&self) -> PathBuf {
        self.path.join("ballast")
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.path).status();
    }
}
