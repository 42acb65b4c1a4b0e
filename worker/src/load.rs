//! How busy the machine is, from /proc.

use std::fs;
use std::sync::Mutex;

use flota_proto::mqtt::Load;

use crate::capabilities::meminfo_bytes;

/// Measures the load between two calls.
#[derive(Debug, Default)]
pub(crate) struct LoadMeter {
    last: Mutex<CpuTimes>,
}

#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct CpuTimes {
    pub(crate) busy: u64,
    pub(crate) total: u64,
}

impl LoadMeter {
    /// Processors since the last call (the first: since the machine started), and memory now.
    pub(crate) fn sample(&self) -> Load {
        let now = fs::read_to_string("/proc/stat").ok().and_then(|stat| cpu_times(&stat));
        let memory = fs::read_to_string("/proc/meminfo").ok().and_then(|info| memory_used(&info));
        Load { cpu: now.map_or(0.0, |now| self.since_last(now)), memory: memory.unwrap_or(0.0) }
    }

    fn since_last(&self, now: CpuTimes) -> f64 {
        let mut last = self.last.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let total = now.total.saturating_sub(last.total);
        let busy = now.busy.saturating_sub(last.busy);
        *last = now;
        ratio(busy, total)
    }
}

/// The sums of the line `cpu  user nice system idle iowait irq softirq steal …` (proc_stat(5)).
pub(crate) fn cpu_times(stat: &str) -> Option<CpuTimes> {
    let line = stat.lines().find_map(|line| line.strip_prefix("cpu "))?;
    // `guest` and `guest_nice` are already part of `user` and `nice`.
    let times: Vec<u64> = line.split_whitespace().take(8).map_while(|n| n.parse().ok()).collect();
    let idle = times.get(3)? + times.get(4).unwrap_or(&0);
    let total: u64 = times.iter().sum();
    Some(CpuTimes { busy: total - idle, total })
}

fn memory_used(meminfo: &str) -> Option<f64> {
    let total = meminfo_bytes(meminfo, "MemTotal")?;
    let available = meminfo_bytes(meminfo, "MemAvailable")?;
    Some(ratio(total.saturating_sub(available), total))
}

#[allow(clippy::cast_precision_loss)]
fn ratio(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { (part as f64 / whole as f64).clamp(0.0, 1.0) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_load_is_the_share_since_the_last_reading() {
        let meter = LoadMeter::default();
        let first = cpu_times("cpu  100 0 100 800 0 0 0 0 50 0\ncpu0 1 1 1 1\n").unwrap();
        assert!((meter.since_last(first) - 0.2).abs() < 1e-9);
        let second = cpu_times("cpu  190 0 100 805 5 0 0 0 0 0\n").unwrap();
        assert!((meter.since_last(second) - 0.9).abs() < 1e-9);
        assert!(meter.since_last(second).abs() < 1e-9);
    }

    #[test]
    fn memory_counts_what_is_not_available() {
        assert_eq!(memory_used("MemTotal: 100 kB\nMemFree: 1 kB\nMemAvailable: 25 kB\n"), Some(0.75));
    }

    #[test]
    fn this_machine_gives_shares() {
        let load = LoadMeter::default().sample();
        assert!((0.0..=1.0).contains(&load.cpu) && load.memory > 0.0 && load.memory <= 1.0, "{load:?}");
    }
}
