//! What this machine can give to RandomX: processor caches, free memory, free huge pages.

use std::collections::BTreeSet;
use std::fs;
use std::num::NonZeroUsize;
use std::path::Path;
use std::thread;

use flota_randomx::{CACHE_BYTES, SCRATCHPAD_BYTES};

use crate::capabilities::{cgroup_memory_left, meminfo_bytes, meminfo_count};

/// What is left to everybody else.
pub const SPARE_BYTES: u64 = 256 << 20;

/// As many threads as have a core (within affinity and quota), a scratchpad's worth of processor cache, and memory.
pub fn threads() -> usize {
    let cores = thread::available_parallelism().map_or(1, NonZeroUsize::get);
    threads_for(cores, last_level_bytes(Path::new("/sys/devices/system/cpu")), free_bytes())
}

fn threads_for(cores: usize, processor_cache: u64, memory: u64) -> usize {
    let scratchpad = SCRATCHPAD_BYTES as u64;
    // Unknown to some virtual machines.
    let by_cache = if processor_cache == 0 { u64::MAX } else { processor_cache / scratchpad };
    let by_memory = memory.saturating_sub(CACHE_BYTES as u64) / scratchpad;
    usize::try_from(by_cache.min(by_memory)).unwrap_or(usize::MAX).clamp(1, cores.max(1))
}

/// The sizes of all caches of level 3 (where there are none, of level 2), each once.
fn last_level_bytes(cpus: &Path) -> u64 {
    let mut caches = BTreeSet::new();
    for cpu in fs::read_dir(cpus).into_iter().flatten().flatten() {
        for index in fs::read_dir(cpu.path().join("cache")).into_iter().flatten().flatten() {
            let read = |name: &str| fs::read_to_string(index.path().join(name)).unwrap_or_default().trim().to_owned();
            let level: u32 = read("level").parse().unwrap_or(0);
            if level >= 2 && read("type") != "Instruction" {
                caches.insert((level, read("shared_cpu_list"), kibibytes(&read("size"))));
            }
        }
    }
    let last = caches.iter().map(|(level, _, _)| *level).max().unwrap_or(0).min(3);
    caches.iter().filter(|(level, _, _)| *level == last).map(|(_, _, bytes)| bytes).sum()
}

/// `32768K`
fn kibibytes(text: &str) -> u64 {
    text.strip_suffix('K').and_then(|number| number.parse::<u64>().ok()).unwrap_or(0) << 10
}

/// Memory that may be taken without anybody else feeling it, within the limits of the cgroup.
pub fn free_bytes() -> u64 {
    let meminfo = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let machine = meminfo_bytes(&meminfo, "MemAvailable").unwrap_or(0);
    cgroup_memory_left().map_or(machine, |left| left.min(machine)).saturating_sub(SPARE_BYTES)
}

/// Reserved huge pages that nobody has taken or claimed.
pub fn free_huge_bytes() -> u64 {
    let meminfo = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let count = |field| meminfo_count(&meminfo, field).unwrap_or(0);
    let size = meminfo_bytes(&meminfo, "Hugepagesize").unwrap_or(0);
    count("HugePages_Free").saturating_sub(count("HugePages_Rsvd")).saturating_mul(size)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_thread_has_a_core_a_share_of_the_processor_cache_and_memory() {
        let gib = 1 << 30;
        assert_eq!(threads_for(16, 16 << 20, 8 * gib), 8);
        assert_eq!(threads_for(4, 64 << 20, 8 * gib), 4);
        assert_eq!(threads_for(16, 0, 8 * gib), 16);
        assert_eq!(threads_for(16, 64 << 20, (256 << 20) + (6 << 20)), 3);
        assert_eq!(threads_for(16, 1 << 20, 0), 1);
    }

    #[test]
    fn every_last_level_cache_counts_once() {
        let cpus = tempfile::tempdir().unwrap();
        let put = |cpu: u32, index: u32, level: &str, size: &str, shared: &str| {
            let dir = cpus.path().join(format!("cpu{cpu}/cache/index{index}"));
            fs::create_dir_all(&dir).unwrap();
            for (name, value) in [("level", level), ("size", size), ("shared_cpu_list", shared), ("type", "Unified")] {
                fs::write(dir.join(name), format!("{value}\n")).unwrap();
            }
        };
        for cpu in 0..4 {
            put(cpu, 2, "2", "1024K", &cpu.to_string());
        }
        assert_eq!(last_level_bytes(cpus.path()), 4 << 20);
        for cpu in 0..4 {
            put(cpu, 3, "3", "16384K", if cpu < 2 { "0-1" } else { "2-3" });
        }
        assert_eq!(last_level_bytes(cpus.path()), 32 << 20);
        assert_eq!(last_level_bytes(Path::new("/nowhere")), 0);
    }

    #[test]
    fn this_machine_gives_something() {
        assert!(threads() >= 1);
        assert!(free_bytes() > 0);
    }
}
