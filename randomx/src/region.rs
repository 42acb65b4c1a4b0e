//! Memory on the largest pages to be had, of this process or shared by a file.
#![allow(unsafe_code)]

#[cfg(target_os = "linux")]
use std::fs::File;
#[cfg(target_os = "linux")]
use std::io;
#[cfg(target_os = "linux")]
use std::os::fd::AsRawFd;
use std::ptr::{self, NonNull};

use crate::Pages;
use crate::pages;

const HUGE_PAGE: usize = 2 * 1024 * 1024;

/// Mapped memory, zero at first. Given back when dropped.
#[derive(Debug)]
pub struct Region {
    memory: NonNull<u8>,
    bytes: usize,
    pages: Pages,
}

// SAFETY: it is plain memory, bound to no thread; whoever writes through the pointer sees to it that nobody else does.
unsafe impl Send for Region {}
// SAFETY: as above.
unsafe impl Sync for Region {}

impl Region {
    /// At least `bytes`, on pages no larger than `largest`. `None` where there is no memory.
    pub fn new(bytes: usize, largest: Pages) -> Option<Self> {
        Pages::LADDER.into_iter().filter(|pages| *pages <= largest).find_map(|pages| Self::on(bytes, pages))
    }

    fn on(bytes: usize, pages: Pages) -> Option<Self> {
        let bytes = bytes.next_multiple_of(HUGE_PAGE);
        match pages {
            Pages::Huge => Self::reserved(bytes),
            Pages::Transparent => {
                let region = Self::map(bytes, 0, pages)?;
                pages::ask_for_transparent(region.memory.as_ptr(), bytes);
                Some(region)
            }
            Pages::Small => Self::map(bytes, 0, pages),
        }
    }

    #[cfg(target_os = "linux")]
    fn reserved(bytes: usize) -> Option<Self> {
        let region = Self::map(bytes, libc::MAP_HUGETLB, Pages::Huge)?;
        // Without this, a limit of the cgroup on huge pages would end the process at the first touch (SIGBUS).
        // SAFETY: the range is the mapping.
        let touched = unsafe { libc::madvise(region.memory.as_ptr().cast(), HUGE_PAGE, libc::MADV_POPULATE_WRITE) };
        let too_old = || std::io::Error::last_os_error().raw_os_error() == Some(libc::EINVAL);
        if touched != 0 && too_old() {
            return Some(region);
        }
        // SAFETY: as above.
        let all = unsafe { libc::madvise(region.memory.as_ptr().cast(), bytes, libc::MADV_POPULATE_WRITE) };
        (all == 0).then_some(region)
    }

    #[cfg(not(target_os = "linux"))]
    fn reserved(_bytes: usize) -> Option<Self> {
        None
    }

    fn map(bytes: usize, flags: libc::c_int, pages: Pages) -> Option<Self> {
        let flags = flags | libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        let access = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: a new mapping of no file at an address of the kernel's choice.
        let memory = unsafe { libc::mmap(ptr::null_mut(), bytes, access, flags, -1, 0) };
        let memory = (memory != libc::MAP_FAILED).then(|| NonNull::new(memory.cast()))??;
        Some(Self { memory, bytes, pages })
    }

    /// The first `bytes` of a file on hugetlbfs or tmpfs, shared with all who map it.
    #[cfg(target_os = "linux")]
    pub fn of_file(file: &File, bytes: usize, writable: bool) -> io::Result<Self> {
        let access = libc::PROT_READ | if writable { libc::PROT_WRITE } else { 0 };
        // SAFETY: a new mapping at an address of the kernel's choice; the file is open.
        let memory = unsafe { libc::mmap(ptr::null_mut(), bytes, access, libc::MAP_SHARED, file.as_raw_fd(), 0) };
        if memory == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let memory = NonNull::new(memory.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        let pages = if is_hugetlbfs(file) { Pages::Huge } else { Pages::Transparent };
        if pages == Pages::Transparent {
            pages::ask_for_transparent(memory.as_ptr(), bytes);
        }
        Ok(Self { memory, bytes, pages })
    }

    /// `part` again and again.
    #[cfg(all(test, target_os = "linux"))]
    pub fn repeating(part: &[u8], bytes: usize) -> Option<Self> {
        use std::io::Write;
        use std::os::fd::FromRawFd;
        let region = Self::map(bytes, libc::MAP_NORESERVE, Pages::Small)?;
        // SAFETY: a new file without a name, which is ours alone.
        let mut file = unsafe { File::from_raw_fd(libc::memfd_create(c"repeating".as_ptr(), 0)) };
        file.write_all(part).ok()?;
        for at in (0..bytes).step_by(part.len()) {
            let place = region.memory.as_ptr().wrapping_add(at).cast();
            let (length, flags) = (part.len().min(bytes - at), libc::MAP_SHARED | libc::MAP_FIXED);
            // SAFETY: it replaces a part of the mapping, which nobody uses yet.
            let mapped = unsafe { libc::mmap(place, length, libc::PROT_READ, flags, file.as_raw_fd(), 0) };
            if mapped == libc::MAP_FAILED {
                return None;
            }
        }
        Some(region)
    }

    /// Where it begins.
    pub fn memory(&self) -> NonNull<u8> {
        self.memory
    }

    /// On what it lies, as far as it is touched.
    pub fn pages(&self) -> Pages {
        let middle = self.memory.as_ptr().wrapping_add(self.bytes / 2);
        match self.pages {
            Pages::Transparent if !pages::are_merged(middle) => Pages::Small,
            pages => pages,
        }
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        // SAFETY: it was mapped with this length; whoever uses the memory holds the region.
        unsafe { libc::munmap(self.memory.as_ptr().cast(), self.bytes) };
    }
}

#[cfg(target_os = "linux")]
fn is_hugetlbfs(file: &File) -> bool {
    file_system(file).is_some_and(|found| found.f_type == libc::HUGETLBFS_MAGIC)
}

/// Whether a file lies on hugetlbfs or tmpfs, which forget it with the power.
#[cfg(target_os = "linux")]
pub fn is_in_memory(file: &File) -> bool {
    file_system(file).is_some_and(|found| [libc::HUGETLBFS_MAGIC, libc::TMPFS_MAGIC].contains(&found.f_type))
}

#[cfg(target_os = "linux")]
fn file_system(file: &File) -> Option<libc::statfs> {
    // SAFETY: all zero is a valid value of this plain struct, which the call fills.
    unsafe {
        let mut found: libc::statfs = std::mem::zeroed();
        (libc::fstatfs(file.as_raw_fd(), &raw mut found) == 0).then_some(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_that_nobody_has_is_refused() {
        assert!(Region::new(1 << 60, Pages::Huge).is_none());
    }

    #[test]
    fn small_pages_are_given_where_they_are_asked_for() {
        let region = Region::new(3 << 20, Pages::Small).unwrap();
        assert_eq!((region.pages(), region.bytes), (Pages::Small, 4 << 20));
    }
}
