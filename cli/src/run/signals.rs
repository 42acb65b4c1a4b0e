//! Ctrl-C and SIGTERM: the first ends in order, the second at once.

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::failure::Failure;

/// What a shell gives for a process that SIGINT ended.
const INTERRUPTED: i32 = 130;

/// Cancelled by the first signal; the second ends the process.
pub fn stop_on_signal() -> Result<CancellationToken, Failure> {
    let failed = |error| Failure::Failed(format!("can't listen for signals: {error}"));
    let mut interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
    let stop = CancellationToken::new();
    let first = stop.clone();
    tokio::spawn(async move {
        either(&mut interrupt, &mut terminate).await;
        eprintln!("stopping in order; once more to end at once");
        first.cancel();
        either(&mut interrupt, &mut terminate).await;
        std::process::exit(INTERRUPTED);
    });
    Ok(stop)
}

async fn either(interrupt: &mut Signal, terminate: &mut Signal) {
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
}
