//! How many hashes are worth computing side by side.

use std::fs;
use std::sync::OnceLock;

use crate::SCRATCHPAD_BYTES;

/// With four, two threads made each other slower than with three.
const MOST: usize = 3;

/// As many as there is room for scratchpads in the last processor cache, for each processor that shares it.
pub fn best() -> usize {
    static LANES: OnceLock<usize> = OnceLock::new();
    *LANES.get_or_init(|| {
        let read = |name| fs::read_to_string(format!("/sys/devices/system/cpu/cpu0/cache/index3/{name}"));
        let (size, list) = (read("size").unwrap_or_default(), read("shared_cpu_list").unwrap_or_default());
        lanes(&size, &list)
    })
}

fn lanes(size: &str, sharing: &str) -> usize {
    let bytes = size.trim().strip_suffix('K').and_then(|kib| kib.parse::<usize>().ok()).unwrap_or(0) * 1024;
    let processors: usize = sharing.trim().split(',').filter_map(count).sum();
    (bytes / processors.max(1) / SCRATCHPAD_BYTES).clamp(1, MOST)
}

/// Of `3` or `4-7`.
fn count(range: &str) -> Option<usize> {
    let (first, last) = range.split_once('-').unwrap_or((range, range));
    let [first, last]: [usize; 2] = [first.parse().ok()?, last.parse().ok()?];
    Some((last + 1).saturating_sub(first))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_lane_needs_room_for_its_scratchpad() {
        assert_eq!(lanes("32768K\n", "0-1\n"), 3);
        assert_eq!(lanes("32768K\n", "0-7\n"), 2);
        assert_eq!(lanes("32768K\n", "0-7,16-23\n"), 1);
        assert_eq!(lanes("32768K\n", "0-8\n"), 1);
        assert_eq!(lanes("", ""), 1);
        assert_eq!(lanes("?", "x-y,"), 1);
    }
}
