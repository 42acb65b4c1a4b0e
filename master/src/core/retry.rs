//! How long a unit waits before its next try.

use flota_proto::rest::RetryPolicy;

/// The first wait.
pub const BACKOFF_MS_MIN: u64 = 1_000;
/// The longest wait.
pub const BACKOFF_MS_MAX: u64 = 60_000;
/// The longest that an executor can ask for.
const RETRY_AFTER_MS_MAX: u64 = 86_400_000;

/// The wait after the `failures`-th failure (from 1): 1 s doubling to 60 s or as `policy` says, of which the second half
/// is jitter taken from `entropy` so that what failed together does not come back together; never less than
/// `retry_after_ms`.
#[must_use]
pub fn backoff_ms(policy: Option<&RetryPolicy>, failures: u32, retry_after_ms: u64, entropy: u64) -> u64 {
    let first = policy.and_then(|policy| policy.backoff_ms).unwrap_or(BACKOFF_MS_MIN);
    // Where only the first wait is given, and it is longer than the usual cap, it is the cap.
    let cap = policy.and_then(|policy| policy.backoff_max_ms).unwrap_or(BACKOFF_MS_MAX.max(first));
    let full = first.saturating_mul(1 << failures.saturating_sub(1).min(16)).min(cap);
    let wait = full / 2 + entropy % (full / 2 + 1);
    wait.max(retry_after_ms.min(RETRY_AFTER_MS_MAX))
}

/// No wait that [`backoff_ms`] gives is longer.
#[must_use]
pub fn longest_wait_ms(policy: Option<&RetryPolicy>) -> u64 {
    let given = policy.into_iter().flat_map(|policy| [policy.backoff_ms, policy.backoff_max_ms]).flatten().max();
    given.unwrap_or(0).max(RETRY_AFTER_MS_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_cap_and_respect_the_server() {
        for entropy in [0, 1, 12_345, u64::MAX] {
            assert!((500..=1_000).contains(&backoff_ms(None, 1, 0, entropy)));
            assert!((2_000..=4_000).contains(&backoff_ms(None, 3, 0, entropy)));
            assert!((30_000..=60_000).contains(&backoff_ms(None, 40, 0, entropy)));
            assert_eq!(backoff_ms(None, 1, 26_000, entropy), 26_000);
        }
    }

    #[test]
    fn a_policy_sets_the_first_wait_and_the_cap() {
        let policy = |first, cap| RetryPolicy { backoff_ms: first, backoff_max_ms: cap, never: Vec::new() };
        for entropy in [0, 12_345, u64::MAX] {
            let wait = |policy: &RetryPolicy, failures| backoff_ms(Some(policy), failures, 0, entropy);
            assert!((50..=100).contains(&wait(&policy(Some(100), None), 1)));
            assert!((200..=400).contains(&wait(&policy(Some(100), None), 3)));
            assert!((150..=300).contains(&wait(&policy(Some(100), Some(300)), 9)));
            assert!((45_000..=90_000).contains(&wait(&policy(Some(90_000), None), 2)));
            assert_eq!(wait(&policy(Some(0), None), 5), 0);
            assert!((1 << 40..=1 << 41).contains(&wait(&policy(Some(u64::MAX), Some(1 << 41)), 40)));
        }
    }
}
