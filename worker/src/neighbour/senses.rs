//! What the machine says of its load, temperature, power and people (Linux: /proc, /sys, /dev).

use std::fs;
use std::path::Path;
use std::time::{Duration, SystemTime};

use flota_common::clock;

use super::Senses;
use crate::load::cpu_times;

/// Asks the machine; remembers what counts up.
#[derive(Debug, Default)]
pub(super) struct Sensor {
    last: Option<Ticks>,
}

/// Processor time in ticks.
#[derive(Clone, Copy, Debug, Default)]
struct Ticks {
    busy: u64,
    total: u64,
    own: u64,
}

impl Sensor {
    pub(super) fn sense(&mut self) -> Senses {
        Senses {
            minute_of_day: minute_of_day(),
            load_of_others: ticks().map_or(0.0, |now| self.load_of_others(now)),
            celsius: hottest(Path::new("/sys/class")),
            on_battery: on_battery(Path::new("/sys/class/power_supply")),
            user_idle: user_idle(Path::new("/dev")),
        }
    }

    /// Since the last time.
    fn load_of_others(&mut self, now: Ticks) -> f64 {
        let Some(last) = self.last.replace(now) else { return 0.0 };
        let busy = now.busy.saturating_sub(last.busy).saturating_sub(now.own.saturating_sub(last.own));
        let total = now.total.saturating_sub(last.total);
        if total == 0 { 0.0 } else { busy as f64 / total as f64 }
    }
}

fn ticks() -> Option<Ticks> {
    let machine = cpu_times(&fs::read_to_string("/proc/stat").ok()?)?;
    let own = own_ticks(&fs::read_to_string("/proc/self/stat").ok()?)?;
    Some(Ticks { busy: machine.busy, total: machine.total, own })
}

/// User and system time of a process (proc_pid_stat(5), fields 14 and 15).
fn own_ticks(stat: &str) -> Option<u64> {
    // The name in parentheses may hold anything.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    let mut next = || fields.next()?.parse::<u64>().ok();
    Some(next()? + next()?)
}

fn minute_of_day() -> u16 {
    let now = jiff::Timestamp::from_millisecond(i64::try_from(clock::now().0).unwrap_or(0)).unwrap_or_default();
    let local = now.to_zoned(jiff::tz::TimeZone::system());
    u16::from(local.hour().unsigned_abs()) * 60 + u16::from(local.minute().unsigned_abs())
}

/// The highest temperature that a sensor of the machine shows.
fn hottest(class: &Path) -> Option<f64> {
    let zones = entries(&class.join("thermal")).into_iter().map(|zone| zone.join("temp"));
    let sensors = entries(&class.join("hwmon")).into_iter().flat_map(|chip| entries(&chip)).filter(|file| {
        let name = file.file_name().unwrap_or_default().to_string_lossy();
        name.starts_with("temp") && name.ends_with("_input")
    });
    let celsius = |file: std::path::PathBuf| Some(read(&file)?.parse::<f64>().ok()? / 1000.0);
    zones.chain(sensors).filter_map(celsius).filter(|celsius| celsius.is_finite()).reduce(f64::max)
}

/// A battery is being emptied and no mains feeds the machine.
fn on_battery(supplies: &Path) -> bool {
    let is = |supply: &Path, file: &str, value: &str| read(&supply.join(file)).is_some_and(|text| text == value);
    let supplies = entries(supplies);
    let mains = supplies.iter().any(|supply| !is(supply, "type", "Battery") && is(supply, "online", "1"));
    !mains && supplies.iter().any(|supply| is(supply, "type", "Battery") && is(supply, "status", "Discharging"))
}

/// How long ago somebody typed at a terminal: reading from one changes its access time.
fn user_idle(dev: &Path) -> Option<Duration> {
    let consoles = entries(dev).into_iter().filter(|file| {
        let name = file.file_name().unwrap_or_default().to_string_lossy();
        name.strip_prefix("tty").is_some_and(|number| !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit()))
    });
    let windows = entries(&dev.join("pts")).into_iter().filter(|file| !file.ends_with("ptmx"));
    let last = consoles.chain(windows).filter_map(|file| fs::metadata(file).ok()?.accessed().ok()).max()?;
    let now = SystemTime::UNIX_EPOCH + Duration::from_millis(clock::now().0);
    Some(now.duration_since(last).unwrap_or_default())
}

fn entries(directory: &Path) -> Vec<std::path::PathBuf> {
    fs::read_dir(directory).into_iter().flatten().flatten().map(|entry| entry.path()).collect()
}

fn read(file: &Path) -> Option<String> {
    fs::read_to_string(file).ok().map(|text| text.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(root: &Path, file: &str, text: &str) {
        let path = root.join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, format!("{text}\n")).unwrap();
    }

    #[test]
    fn only_what_others_use_is_load() {
        let mut sensor = Sensor::default();
        assert_eq!(sensor.load_of_others(Ticks { busy: 50, total: 100, own: 10 }), 0.0);
        assert_eq!(sensor.load_of_others(Ticks { busy: 130, total: 200, own: 60 }), 0.3);
        assert_eq!(own_ticks("1 (a) b) S 1 1 1 0 -1 1 1 1 1 1 30 12 0 0"), Some(42));
    }

    #[test]
    fn the_hottest_sensor_counts() {
        let class = tempfile::tempdir().unwrap();
        assert_eq!(hottest(class.path()), None);
        put(class.path(), "thermal/thermal_zone0/temp", "41000");
        put(class.path(), "hwmon/hwmon1/temp2_input", "67500");
        put(class.path(), "hwmon/hwmon1/temp2_max", "99000");
        assert_eq!(hottest(class.path()), Some(67.5));
    }

    #[test]
    fn a_battery_counts_only_while_it_feeds_the_machine() {
        let supplies = tempfile::tempdir().unwrap();
        assert!(!on_battery(supplies.path()));
        put(supplies.path(), "BAT0/type", "Battery");
        put(supplies.path(), "BAT0/status", "Discharging");
        assert!(on_battery(supplies.path()));
        put(supplies.path(), "AC/type", "Mains");
        put(supplies.path(), "AC/online", "1");
        assert!(!on_battery(supplies.path()));
    }

    #[test]
    fn the_terminal_that_was_used_last_counts() {
        let dev = tempfile::tempdir().unwrap();
        assert_eq!(user_idle(dev.path()), None);
        put(dev.path(), "ttyS0", "a serial line is no place where people sit");
        assert_eq!(user_idle(dev.path()), None);
        put(dev.path(), "pts/3", "");
        assert!(user_idle(dev.path()).unwrap() < Duration::from_secs(3600));
    }

    #[test]
    fn this_machine_answers() {
        let senses = Sensor::default().sense();
        assert!(senses.minute_of_day < 24 * 60, "{senses:?}");
    }
}
