//! On what pages memory lies, and how to ask for large ones.
#![allow(unsafe_code)]

use std::fmt;

/// On what pages memory lies; operators look for it first, since small ones cost a third to a half of the speed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Pages {
    /// 4 KiB.
    Small,
    /// Small ones that the kernel merged into huge ones.
    Transparent,
    /// Reserved huge pages (`vm.nr_hugepages`).
    Huge,
}

impl Pages {
    /// Best first: where one is not to be had, the next is tried.
    pub const LADDER: [Self; 3] = [Self::Huge, Self::Transparent, Self::Small];

    /// `huge`, `transparent` or `4k`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Huge => "huge",
            Self::Transparent => "transparent",
            Self::Small => "4k",
        }
    }
}

impl fmt::Display for Pages {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Asks the kernel to merge the pages of the `bytes` at `memory`, before they are touched.
#[cfg(target_os = "linux")]
pub fn ask_for_transparent(memory: *mut u8, bytes: usize) {
    const PAGE: usize = 4096;
    let skip = memory.align_offset(PAGE);
    if memory.is_null() || skip >= bytes {
        return;
    }
    // SAFETY: the caller owns the range; the advice changes no contents, and where it is refused nothing happens.
    unsafe { libc::madvise(memory.wrapping_add(skip).cast(), (bytes - skip) / PAGE * PAGE, libc::MADV_HUGEPAGE) };
}

/// Asks the kernel to merge the pages of the `bytes` at `memory`, before they are touched.
#[cfg(not(target_os = "linux"))]
pub fn ask_for_transparent(_memory: *mut u8, _bytes: usize) {}

/// Whether the kernel did merge the pages around `address`: it may take the advice and have no huge page to give.
pub fn are_merged(address: *const u8) -> bool {
    let smaps = std::fs::read_to_string("/proc/self/smaps").unwrap_or_default();
    merged(&smaps, address.addr() as u64)
}

/// At least half of the mapping with `address` is on huge pages.
fn merged(smaps: &str, address: u64) -> bool {
    let range = |line: &str| {
        let (from, to) = line.split_once(' ')?.0.split_once('-')?;
        Some(u64::from_str_radix(from, 16).ok()?..u64::from_str_radix(to, 16).ok()?)
    };
    let inside = |line: &&str| !range(line).is_some_and(|range| range.contains(&address));
    let lines = smaps.lines().skip_while(inside).skip(1).take_while(|line| range(line).is_none());
    let (mut resident, mut huge) = (0, 0);
    for line in lines {
        let Some((field, value)) = line.split_once(':') else { continue };
        let kib: u64 = value.trim().trim_end_matches(" kB").parse().unwrap_or(0);
        match field {
            "Rss" => resident = kib,
            "AnonHugePages" | "ShmemPmdMapped" | "FilePmdMapped" => huge += kib,
            _ => {}
        }
    }
    huge > 0 && huge * 2 >= resident
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_mapping_with_the_address_counts() {
        let smaps = "1000-2000 rw-p 00000000 00:00 0\nSize: 4 kB\nRss:  8192 kB\nAnonHugePages:  6144 kB\n\
                     2000-3000 rw-p 00000000 00:00 0  [heap]\nRss:  8192 kB\nAnonHugePages:  2048 kB\nVmFlags: rd wr\n";
        assert!(merged(smaps, 0x1000));
        assert!(merged(smaps, 0x1fff));
        assert!(!merged(smaps, 0x2000));
        assert!(!merged(smaps, 0x3000));
        assert!(!merged("", 0x1000));
    }
}
