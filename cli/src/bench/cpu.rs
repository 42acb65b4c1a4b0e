//! CPU seconds of processes, from `/proc/PID/stat` (proc(5): utime and stime are the fields 14 and 15, in clock ticks).

use serde::Serialize;

use crate::failure::Failure;

/// `USER_HZ` is 100 on every Linux that runs today.
const TICKS_A_SECOND: f64 = 100.0;

/// CPU time that a process used while it was watched.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Usage {
    pub name: String,
    pub pid: u32,
    pub user_seconds: f64,
    pub system_seconds: f64,
}

#[derive(Clone, Copy)]
struct Ticks {
    user: u64,
    system: u64,
}

/// Watches processes.
pub struct Meter(Vec<(String, u32, Ticks)>);

impl Meter {
    /// Watches this process, as `bench`, and `pids` from now on.
    pub fn start(pids: &[(String, u32)]) -> Result<Self, Failure> {
        let own = [("bench".to_owned(), std::process::id())];
        let watched = pids.iter().cloned().chain(own).map(|(name, pid)| match ticks(pid) {
            Some(ticks) => Ok((name, pid, ticks)),
            None => Err(Failure::Usage(format!("--pid {name}={pid}: there is no such process"))),
        });
        watched.collect::<Result<_, _>>().map(Self)
    }

    /// What they used since; without those that have ended.
    pub fn stop(self) -> Vec<Usage> {
        let used = self.0.into_iter().filter_map(|(name, pid, before)| {
            let after = ticks(pid)?;
            let seconds = |after: u64, before: u64| after.saturating_sub(before) as f64 / TICKS_A_SECOND;
            let user_seconds = seconds(after.user, before.user);
            Some(Usage { name, pid, user_seconds, system_seconds: seconds(after.system, before.system) })
        });
        used.collect()
    }
}

fn ticks(pid: u32) -> Option<Ticks> {
    parse(&std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

fn parse(stat: &str) -> Option<Ticks> {
    // The second field is the command in parentheses and may hold spaces and parentheses itself.
    let mut fields = stat[stat.rfind(')')? + 1..].split_ascii_whitespace().skip(11);
    Some(Ticks { user: fields.next()?.parse().ok()?, system: fields.next()?.parse().ok()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fields_are_found_behind_a_strange_name() {
        let ticks = parse("42 (a) b (c) S 1 2 3 4 5 6 7 8 9 10 1234 56 0 0 20 0").unwrap();
        assert_eq!((ticks.user, ticks.system), (1234, 56));
        assert!(parse("42 (a S 1").is_none());
    }

    #[test]
    fn this_process_is_watched_and_an_unknown_one_is_an_error() {
        let usage = Meter::start(&[]).unwrap().stop();
        assert_eq!((usage[0].name.as_str(), usage[0].pid), ("bench", std::process::id()));
        assert!(Meter::start(&[("x".into(), u32::MAX)]).is_err());
    }
}
