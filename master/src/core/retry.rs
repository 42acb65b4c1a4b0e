//! How long a unit waits before its next try.

/// The first wait.
pub const BACKOFF_MS_MIN: u64 = 1_000;
/// The longest wait.
pub const BACKOFF_MS_MAX: u64 = 60_000;

/// The wait after the `failures`-th failure (from 1): 1 s doubling to 60 s, of which the second half is jitter taken
/// from `entropy` so that what failed together does not come back together; never less than `retry_after_ms`.
#[must_use]
pub fn backoff_ms(failures: u32, retry_after_ms: u64, entropy: u64) -> u64 {
    let doubled = BACKOFF_MS_MIN << failures.saturating_sub(1).min(16);
    let full = doubled.min(BACKOFF_MS_MAX);
    let wait = full / 2 + entropy % (full / 2 + 1);
    wait.max(retry_after_ms.min(86_400_000))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_cap_and_respect_the_server() {
        for entropy in [0, 1, 12_345, u64::MAX] {
            assert!((500..=1_000).contains(&backoff_ms(1, 0, entropy)));
            assert!((2_000..=4_000).contains(&backoff_ms(3, 0, entropy)));
            assert!((30_000..=60_000).contains(&backoff_ms(40, 0, entropy)));
            assert_eq!(backoff_ms(1, 26_000, entropy), 26_000);
        }
    }
}
