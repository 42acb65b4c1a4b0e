//! The only place that reads the machine's clocks.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use flota_proto::Timestamp;

/// The time now, in Unix milliseconds.
#[must_use]
#[allow(clippy::disallowed_methods)]
pub fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

/// A reading of the clock that never goes back, for measuring durations.
#[must_use]
#[allow(clippy::disallowed_methods)]
pub fn instant() -> Instant {
    Instant::now()
}
