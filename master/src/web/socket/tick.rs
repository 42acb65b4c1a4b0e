//! `fleet-tick`: the fleet as it is, once a second, while somebody looks. Volatile: a client that is behind gets the
//! newest one, not all of them.

use std::sync::Arc;
use std::time::Duration;

use flota_common::clock;
use flota_proto::socket::{self as names, FleetTick, workers_json};
use socketioxide::SocketIo;
use tokio::time::MissedTickBehavior;

use crate::web::App;

const TICK: Duration = Duration::from_secs(1);
const TICKS_A_SWEEP: u32 = 60;

/// Ticks until the stop.
pub async fn run(app: Arc<App>, io: SocketIo) {
    let mut ticks = tokio::time::interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut until_sweep = TICKS_A_SWEEP;
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            () = app.stop.cancelled() => return,
        }
        until_sweep -= 1;
        if until_sweep == 0 {
            until_sweep = TICKS_A_SWEEP;
            let in_use = app.sessions.sweep(clock::now());
            app.handle.keep_sessions(in_use).await;
            app.metrics.upkeep();
        }
        if app.sessions.connected() > 0
            && let Some(tick) = tick(&app).await
            && let Err(error) = io.volatile().emit(names::FLEET_TICK, &tick).await
        {
            tracing::debug!(%error, "a fleet tick did not reach everybody");
        }
    }
}

async fn tick(app: &App) -> Option<FleetTick> {
    let fleet = app.handle.fleet().await.ok()?;
    let workers = app.handle.workers().await.ok()?;
    let workers_list = workers_json(&workers).ok()?;
    Some(FleetTick { fleet, timestamp: clock::now(), workers_list_too: workers_list.clone(), workers_list })
}
