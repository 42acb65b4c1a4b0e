//! What this machine offers, within the limits of the container that the worker runs in.

use std::fs;
use std::path::{Path, PathBuf};

use flota_proto::mqtt::Capabilities;

/// Measures the machine.
pub(crate) fn measure() -> Capabilities {
    let meminfo = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let total = meminfo_bytes(&meminfo, "MemTotal").unwrap_or(0);
    let usable = cgroup_memory_limit().map_or(total, |limit| limit.min(total));
    Capabilities {
        // Takes affinity and the quota of the cgroup into account.
        cores: std::thread::available_parallelism().map_or(1, |n| u32::try_from(n.get()).unwrap_or(u32::MAX)),
        memory_mib: usable / (1024 * 1024),
        features: cpu_features(),
        hugepages: meminfo_count(&meminfo, "HugePages_Total").unwrap_or(0) > 0,
        gpus: Vec::new(),
    }
}

#[cfg(target_arch = "x86_64")]
fn cpu_features() -> Vec<String> {
    let mut features = Vec::new();
    macro_rules! note {
        ($($name:tt),*) => { $(if std::arch::is_x86_feature_detected!($name) { features.push($name.to_owned()); })* };
    }
    note!("aes", "sse2", "ssse3", "sse4.1", "sse4.2", "avx", "avx2", "avx512f", "bmi2", "vaes");
    features
}

#[cfg(target_arch = "aarch64")]
fn cpu_features() -> Vec<String> {
    let mut features = Vec::new();
    if std::arch::is_aarch64_feature_detected!("aes") {
        features.push("aes".to_owned());
    }
    if std::arch::is_aarch64_feature_detected!("neon") {
        features.push("neon".to_owned());
    }
    features
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
fn cpu_features() -> Vec<String> {
    Vec::new()
}

/// The value of `field` in /proc/meminfo, which counts in kB.
pub(crate) fn meminfo_bytes(meminfo: &str, field: &str) -> Option<u64> {
    meminfo_count(meminfo, field)?.checked_mul(1024)
}

pub(crate) fn meminfo_count(meminfo: &str, field: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'))?;
    line.split_whitespace().next()?.parse().ok()
}

/// The tightest memory limit of the process's cgroup and those above it; `None` without one.
pub(crate) fn cgroup_memory_limit() -> Option<u64> {
    let own = fs::read_to_string("/proc/self/cgroup").ok()?;
    own.lines().filter_map(|line| limit_of(line, Path::new("/sys/fs/cgroup"))).min()
}

/// What the process's cgroup and those above it still allow to take; `None` without a limit.
pub(crate) fn cgroup_memory_left() -> Option<u64> {
    let own = fs::read_to_string("/proc/self/cgroup").ok()?;
    own.lines().filter_map(|line| left_of(line, Path::new("/sys/fs/cgroup"))).min()
}

fn left_of(line: &str, mount: &Path) -> Option<u64> {
    let (dirs, version) = dirs_of(line, mount)?;
    let left = |dir: &PathBuf| {
        let read = |name: &str| fs::read_to_string(dir.join(name)).ok();
        let limit: u64 = read(version.limit)?.trim().parse().ok()?;
        let used: u64 = read(version.usage)?.trim().parse().ok()?;
        // Pages of files that were read are given up when memory is asked for.
        let files = read("memory.stat").and_then(|stat| stat_field(&stat, version.files)).unwrap_or(0);
        Some(limit.saturating_sub(used.saturating_sub(files)))
    };
    dirs.iter().filter_map(left).min()
}

fn stat_field(stat: &str, field: &str) -> Option<u64> {
    stat.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(' '))?.trim().parse().ok()
}

/// What the files of a version of cgroups are called.
struct Version {
    limit: &'static str,
    usage: &'static str,
    files: &'static str,
}

const V1: Version =
    Version { limit: "memory.limit_in_bytes", usage: "memory.usage_in_bytes", files: "total_inactive_file" };
const V2: Version = Version { limit: "memory.max", usage: "memory.current", files: "inactive_file" };

/// The limit that one line of /proc/self/cgroup leads to.
fn limit_of(line: &str, mount: &Path) -> Option<u64> {
    let (dirs, version) = dirs_of(line, mount)?;
    dirs.iter().filter_map(|dir| fs::read_to_string(dir.join(version.limit)).ok()?.trim().parse().ok()).min()
}

/// The directories of the memory controller that one line of /proc/self/cgroup leads to, innermost first.
fn dirs_of(line: &str, mount: &Path) -> Option<(Vec<PathBuf>, Version)> {
    let mut parts = line.splitn(3, ':').skip(1);
    let (controllers, path) = (parts.next()?, parts.next()?);
    let (base, version) = if controllers.is_empty() {
        (mount.to_owned(), V2)
    } else if controllers.split(',').any(|c| c == "memory") {
        (mount.join("memory"), V1)
    } else {
        return None;
    };
    // In a container the path may be the host's, while the mount shows only what is below: then the mount's root counts.
    let mut dirs: Vec<PathBuf> = Path::new(path.trim_start_matches('/')).ancestors().map(|p| base.join(p)).collect();
    dirs.dedup();
    Some((dirs, version))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn meminfo_is_read_by_name() {
        let text = "MemTotal:       2048 kB\nMemAvailable:   1024 kB\nHugePages_Total:       3\n";
        assert_eq!(meminfo_bytes(text, "MemTotal"), Some(2 * 1024 * 1024));
        assert_eq!(meminfo_bytes(text, "Mem"), None);
        assert_eq!(meminfo_count(text, "HugePages_Total"), Some(3));
    }

    #[test]
    fn the_tightest_limit_of_the_cgroups_above_counts() {
        let mount = tempfile::tempdir().unwrap();
        let leaf = mount.path().join("a/b");
        fs::create_dir_all(&leaf).unwrap();
        fs::write(leaf.join("memory.max"), "max\n").unwrap();
        assert_eq!(limit_of("0::/a/b", mount.path()), None);
        fs::write(mount.path().join("a/memory.max"), "1000\n").unwrap();
        assert_eq!(limit_of("0::/a/b", mount.path()), Some(1000));
        fs::write(leaf.join("memory.max"), "500\n").unwrap();
        assert_eq!(limit_of("0::/a/b", mount.path()), Some(500));
        assert_eq!(limit_of("3:cpu:/a/b", mount.path()), None);

        fs::create_dir_all(mount.path().join("memory")).unwrap();
        fs::write(mount.path().join("memory/memory.limit_in_bytes"), "700\n").unwrap();
        assert_eq!(limit_of("4:memory:/not/visible/here", mount.path()), Some(700));
    }

    #[test]
    fn what_is_left_is_the_least_of_all_groups_and_leaves_out_cached_files() {
        let mount = tempfile::tempdir().unwrap();
        let leaf = mount.path().join("a");
        fs::create_dir_all(&leaf).unwrap();
        fs::write(mount.path().join("memory.max"), "10000\n").unwrap();
        fs::write(mount.path().join("memory.current"), "1000\n").unwrap();
        assert_eq!(left_of("0::/a", mount.path()), Some(9000));
        fs::write(leaf.join("memory.max"), "1000\n").unwrap();
        fs::write(leaf.join("memory.current"), "900\n").unwrap();
        assert_eq!(left_of("0::/a", mount.path()), Some(100));
        fs::write(leaf.join("memory.stat"), "inactive_file_x 5\ninactive_file 200\n").unwrap();
        assert_eq!(left_of("0::/a", mount.path()), Some(300));
    }

    #[test]
    fn this_machine_has_cores_and_memory() {
        let found = measure();
        assert!(found.cores >= 1);
        assert!(found.memory_mib >= 64, "{found:?}");
    }
}
