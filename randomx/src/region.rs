//! Anonymous memory on the largest pages to be had.
#![allow(unsafe_code)]

use std::ptr::{self, NonNull};

use crate::Pages;
use crate::pages;

const HUGE_PAGE: usize = 2 * 1024 * 1024;

/// Private memory, zero at first. Given back when dropped.
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
