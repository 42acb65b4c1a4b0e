//! What processes cost, as the kernel counts it.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

/// The kernel's unit of CPU time.
const TICKS_PER_SECOND: f64 = 100.0;

/// CPU seconds of a process by the names of its threads.
#[derive(Clone, Debug, Default)]
pub struct Cpu(BTreeMap<String, f64>);

impl Cpu {
    /// Of the process `pid` so far; threads that have ended are not in it.
    pub fn of(pid: u32) -> Self {
        let mut threads = BTreeMap::new();
        for entry in fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten() {
            let name = fs::read_to_string(entry.path().join("comm")).unwrap_or_default();
            *threads.entry(name.trim().to_owned()).or_default() += seconds(&entry.path().join("stat"));
        }
        threads.insert(String::new(), seconds(Path::new(&format!("/proc/{pid}/stat"))));
        Self(threads)
    }

    /// Of this process.
    pub fn own() -> Self {
        Self::of(std::process::id())
    }

    /// All threads, also those that have ended.
    pub fn total(&self) -> f64 {
        self.0.get("").copied().unwrap_or(0.0)
    }

    /// What was used since `before`.
    pub fn since(&self, before: &Self) -> Self {
        let of = |(name, after): (&String, &f64)| (name.clone(), after - before.0.get(name).copied().unwrap_or(0.0));
        Self(self.0.iter().map(of).collect())
    }

    /// The threads that used most, for people.
    pub fn threads(&self) -> String {
        let mut threads: Vec<(&String, &f64)> =
            self.0.iter().filter(|(name, seconds)| !name.is_empty() && **seconds >= 0.05).collect();
        threads.sort_by(|a, b| b.1.total_cmp(a.1));
        threads.iter().map(|(name, seconds)| format!("{name} {seconds:.2}")).collect::<Vec<_>>().join(", ")
    }
}

fn seconds(stat: &Path) -> f64 {
    let stat = fs::read_to_string(stat).unwrap_or_default();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks = |index: usize| fields.get(index).and_then(|ticks| ticks.parse::<f64>().ok()).unwrap_or(0.0);
    (ticks(11) + ticks(12)) / TICKS_PER_SECOND
}
