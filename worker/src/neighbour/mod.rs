//! The good neighbour: says when RandomX should wait because the machine is needed for something else, and sees to it. The rules are
//! here, [`senses`] asks the machine.

mod senses;

use std::sync::Arc;
use std::time::{Duration, Instant};

use flota_common::clock;
use flota_proto::Class;
use tokio::sync::Notify;

use crate::runner::Runner;

use self::senses::Sensor;

const EVERY: Duration = Duration::from_secs(1);
/// A reason that went away must stay away for so long: else work would start and stop by the second.
const CALM: Duration = Duration::from_secs(10);
/// So much cooler it must have become.
const COOLER: f64 = 5.0;

/// When RandomX waits. Without any of it it never does.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Neighbour {
    /// Works only between these two minutes of the local day; the second may lie on the next.
    pub hours: Option<(u16, u16)>,
    /// Waits while other programs use more of all processors, 0 to 1.
    pub load_max: Option<f64>,
    /// Waits while a sensor shows more degrees Celsius.
    pub celsius_max: Option<f64>,
    /// Waits on battery.
    pub battery_pause: bool,
    /// Waits until nobody has typed at a terminal for so long.
    pub user_idle: Option<Duration>,
}

/// What the machine says.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Senses {
    minute_of_day: u16,
    load_of_others: f64,
    celsius: Option<f64>,
    on_battery: bool,
    user_idle: Option<Duration>,
}

impl Neighbour {
    /// Why RandomX waits now; `waiting`: it does already.
    fn reason(&self, senses: &Senses, waiting: bool) -> Option<String> {
        if let Some((from, to)) = self.hours
            && !is_within(senses.minute_of_day, from, to)
        {
            return Some(format!("it is not between {} and {}", time_of_day(from), time_of_day(to)));
        }
        if self.battery_pause && senses.on_battery {
            return Some("the machine runs on battery".into());
        }
        if let (Some(wanted), Some(idle)) = (self.user_idle, senses.user_idle)
            && idle < wanted
        {
            return Some("somebody works at this machine".into());
        }
        if let (Some(most), Some(celsius)) = (self.celsius_max, senses.celsius)
            && celsius > if waiting { most - COOLER } else { most }
        {
            return Some(format!("the machine is hot: {celsius:.0} °C"));
        }
        if let Some(most) = self.load_max
            && senses.load_of_others > most
        {
            return Some(format!("other programs use {:.0} % of the processors", senses.load_of_others * 100.0));
        }
        None
    }
}

fn is_within(minute: u16, from: u16, to: u16) -> bool {
    if from < to { (from..to).contains(&minute) } else { minute >= from || minute < to }
}

fn time_of_day(minute: u16) -> String {
    format!("{:02}:{:02}", minute / 60, minute % 60)
}

/// Makes short changes of mind harmless.
#[derive(Debug, Default)]
struct Patience {
    reason: Option<String>,
    calm_since: Option<Instant>,
}

impl Patience {
    /// The reason that counts at `now`.
    fn settle(&mut self, reason: Option<String>, now: Instant) -> Option<&str> {
        match reason {
            Some(reason) => {
                self.reason = Some(reason);
                self.calm_since = None;
            }
            None if self.reason.is_some() => {
                let since = *self.calm_since.get_or_insert(now);
                if now.saturating_duration_since(since) >= CALM {
                    *self = Self::default();
                }
            }
            None => {}
        }
        self.reason.as_deref()
    }
}

/// Holds RandomX back when it should wait, and lets the executors know of pauses; until it is dropped. `announce` is told when what
/// the worker offers has changed.
pub(crate) async fn watch(neighbour: Neighbour, runner: Arc<Runner>, announce: Arc<Notify>) {
    let mut sensor = Sensor::default();
    let mut patience = Patience::default();
    let mut ticks = tokio::time::interval(EVERY);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let reason = if neighbour == Neighbour::default() {
            None
        } else {
            neighbour.reason(&sensor.sense(), patience.reason.is_some())
        };
        let reason = patience.settle(reason, clock::instant()).map(str::to_owned);
        runner.hold_executors(reason.is_some() || runner.mode().paused);
        let before = runner.held_back();
        if reason.is_some() != before.is_some() {
            match &reason {
                Some(reason) => runner.log.info(None, &format!("RandomX waits: {reason}")),
                None => runner.log.info(None, "RandomX goes on"),
            }
            runner.hold_back(Class::Randomx, reason);
            announce.notify_one();
        } else if reason != before {
            runner.hold_back(Class::Randomx, reason);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn senses() -> Senses {
        Senses { minute_of_day: 12 * 60, user_idle: Some(Duration::from_secs(60)), ..Senses::default() }
    }

    #[test]
    fn without_rules_it_never_waits() {
        let all = Senses { load_of_others: 1.0, celsius: Some(120.0), on_battery: true, ..senses() };
        assert_eq!(Neighbour::default().reason(&all, false), None);
    }

    #[test]
    fn hours_may_go_over_midnight() {
        let by_night = Neighbour { hours: Some((22 * 60, 6 * 60)), ..Neighbour::default() };
        let at = |minute_of_day| by_night.reason(&Senses { minute_of_day, ..senses() }, false).is_none();
        assert!(at(23 * 60) && at(0) && at(5 * 60 + 59) && !at(6 * 60) && !at(21 * 60 + 59));
        assert!(by_night.reason(&senses(), false).unwrap().contains("22:00 and 06:00"));
        let by_day = Neighbour { hours: Some((8 * 60, 18 * 60)), ..Neighbour::default() };
        assert_eq!(by_day.reason(&senses(), false), None);
    }

    #[test]
    fn battery_load_and_people_make_it_wait() {
        let battery = Neighbour { battery_pause: true, ..Neighbour::default() };
        assert_eq!(battery.reason(&senses(), false), None);
        assert!(battery.reason(&Senses { on_battery: true, ..senses() }, false).is_some());
        let load = Neighbour { load_max: Some(0.5), ..Neighbour::default() };
        assert!(load.reason(&Senses { load_of_others: 0.6, ..senses() }, false).unwrap().contains("60 %"));
        let user = Neighbour { user_idle: Some(Duration::from_secs(300)), ..Neighbour::default() };
        assert!(user.reason(&senses(), false).is_some());
        assert_eq!(user.reason(&Senses { user_idle: None, ..senses() }, false), None, "nobody has a terminal");
    }

    #[test]
    fn it_goes_on_when_it_is_clearly_cooler() {
        let neighbour = Neighbour { celsius_max: Some(80.0), ..Neighbour::default() };
        let waits =
            |celsius, waiting| neighbour.reason(&Senses { celsius: Some(celsius), ..senses() }, waiting).is_some();
        assert!(waits(81.0, false) && waits(79.0, true) && !waits(79.0, false) && !waits(74.0, true));
    }

    #[test]
    fn a_reason_must_stay_away_before_work_goes_on() {
        let start = clock::instant();
        let mut patience = Patience::default();
        assert_eq!(patience.settle(None, start), None);
        assert_eq!(patience.settle(Some("a".into()), start), Some("a"));
        assert_eq!(patience.settle(None, start + CALM / 2), Some("a"));
        assert_eq!(patience.settle(Some("b".into()), start + CALM), Some("b"));
        assert_eq!(patience.settle(None, start + CALM), Some("b"));
        assert_eq!(patience.settle(None, start + CALM * 2), None);
    }
}
