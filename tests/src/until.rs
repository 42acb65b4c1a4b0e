//! Waiting for a condition instead of for time.

use std::fmt::Debug;
use std::time::Duration;

/// How long anything may take on a busy machine of two cores before a test calls it broken.
pub const DEADLINE: Duration = Duration::from_secs(90);

/// Polls `probe` until it answers `Ok`, and gives what it answered.
///
/// # Panics
/// After [`DEADLINE`], with what was waited for and what `probe` said last.
pub async fn until<T, E: Debug, F: Future<Output = Result<T, E>>>(what: &str, probe: impl FnMut() -> F) -> T {
    until_within(DEADLINE, what, probe).await
}

/// As [`until`], with a deadline of its own.
///
/// # Panics
/// After `deadline`, with what was waited for and what `probe` said last.
pub async fn until_within<T, E: Debug, F: Future<Output = Result<T, E>>>(
    deadline: Duration,
    what: &str,
    mut probe: impl FnMut() -> F,
) -> T {
    let mut last = None;
    let polled = tokio::time::timeout(deadline, async {
        loop {
            match probe().await {
                Ok(value) => return value,
                Err(error) => last = Some(error),
            }
            tokio::time::sleep(Duration::from_millis(25)).await;
        }
    })
    .await;
    match polled {
        Ok(value) => value,
        Err(_) => panic!("{what}: not within {deadline:?}; last seen: {last:?}"),
    }
}
