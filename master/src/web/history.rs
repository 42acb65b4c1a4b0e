//! The last hour of the fleet, for the charts: a point every ten seconds, in memory.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use flota_common::clock;
use flota_proto::mqtt::WorkerState;
use flota_proto::rest::{self, FleetPoint, JobState};

use super::App;

/// The time between two points.
const INTERVAL: Duration = Duration::from_secs(10);
/// An hour.
const POINTS_MAX: usize = 360;

/// The points, oldest first.
#[derive(Debug, Default)]
pub struct History(Mutex<VecDeque<FleetPoint>>);

impl History {
    fn add(&self, point: FleetPoint) {
        let mut points = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if points.len() == POINTS_MAX {
            points.pop_front();
        }
        points.push_back(point);
    }

    fn points(&self) -> Vec<FleetPoint> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).iter().copied().collect()
    }
}

/// Looks at the fleet until the stop.
pub async fn run(app: Arc<App>) {
    loop {
        if let Ok(fleet) = app.handle.fleet().await {
            app.history.add(point(&fleet));
        }
        tokio::select! {
            () = tokio::time::sleep(INTERVAL) => {}
            () = app.stop.cancelled() => return,
        }
    }
}

fn point(fleet: &rest::Fleet) -> FleetPoint {
    let jobs = |states: &[JobState]| states.iter().filter_map(|state| fleet.jobs.get(state)).sum();
    let gone = fleet.workers.get(&WorkerState::Offline).copied().unwrap_or(0);
    FleetPoint {
        timestamp: clock::now(),
        hashrate: fleet.hashrates.seconds_10,
        waiting: jobs(&[JobState::Pending]),
        running: jobs(&[JobState::Assigned, JobState::Computing]),
        workers: fleet.workers.values().sum::<u64>().saturating_sub(gone),
    }
}

/// The last hour of the fleet, oldest first.
#[utoipa::path(
    get, path = "/fleet/history", tag = "fleet", operation_id = "get_fleet_history",
    responses((status = 200, body = rest::FleetHistory))
)]
pub async fn history(State(app): State<Arc<App>>) -> Json<rest::FleetHistory> {
    let interval_ms = u64::try_from(INTERVAL.as_millis()).unwrap_or(u64::MAX);
    Json(rest::FleetHistory { interval_ms, points: app.history.points() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_hour_is_kept_and_the_oldest_point_goes_first() {
        let history = History::default();
        for waiting in 0..POINTS_MAX as u64 + 2 {
            history.add(FleetPoint { waiting, ..FleetPoint::default() });
        }
        let points = history.points();
        assert_eq!((points.len(), points[0].waiting), (POINTS_MAX, 2));
    }

    #[test]
    fn workers_that_are_gone_are_not_counted() {
        let workers = [(WorkerState::Offline, 2), (WorkerState::Idle, 3)].into();
        let jobs = [(JobState::Pending, 4), (JobState::Assigned, 5), (JobState::Computing, 6)].into();
        let found = point(&rest::Fleet { workers, jobs, ..rest::Fleet::default() });
        assert_eq!((found.workers, found.waiting, found.running), (3, 4, 11));
    }
}
