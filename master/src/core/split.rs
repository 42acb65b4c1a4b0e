//! How large a unit is cut for a worker: a few seconds of its work.

/// What a unit should take.
pub const UNIT_MS: u64 = 3_000;

/// The size of the next unit: what a worker of `speed` (items a second, if measured), or else `assumed`, does in [`UNIT_MS`], at
/// most an equal share of what remains among `workers`, and at least one.
#[must_use]
pub fn unit_size(remaining: u64, speed: Option<f64>, assumed: f64, workers: usize) -> u64 {
    let speed = speed.filter(|speed| speed.is_finite() && *speed > 0.0).unwrap_or(assumed);
    let wanted = (speed * UNIT_MS as f64 / 1000.0).clamp(1.0, 4e9) as u64;
    let share = remaining.div_ceil(workers.max(1) as u64);
    wanted.min(share).clamp(1, remaining.max(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fast_worker_gets_more_and_nobody_gets_it_all() {
        assert_eq!(unit_size(100_000, Some(400.0), 24.0, 2), 1_200);
        assert_eq!(unit_size(100_000, Some(2.0), 8.0, 2), 6);
        assert_eq!(unit_size(10, Some(400.0), 24.0, 2), 5);
        assert_eq!(unit_size(100_000, None, 24.0, 2), 72);
        assert_eq!(unit_size(1, None, 12.0, 100), 1);
        assert_eq!(unit_size(5, Some(f64::NAN), 0.0, 1), 1);
    }
}
