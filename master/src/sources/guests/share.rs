//! Whether a guest's share counts, and how fast it hashes by its shares.

use std::collections::{BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use crate::sources::offers::Offer;

/// Jobs of which late shares are told apart from nonsense.
const JOBS_MAX: usize = 4;
/// Over which time a guest's rate is taken.
const RATE_WINDOW: Duration = Duration::from_secs(10 * 60);
/// A share in so many seconds is enough to know the rate by.
const SECONDS_PER_SHARE: f64 = 10.0;
/// Before its rate is known.
const FIRST_DIFFICULTY: u64 = 1_000;

/// A job that a guest was given.
pub struct Given {
    /// Its number at this guest.
    pub number: u64,
    /// What it is part of.
    pub offer: Offer,
    /// How many hashes a share takes on average.
    pub difficulty: u64,
    /// Nonces that came.
    pub nonces: BTreeSet<u32>,
}

/// A share as it came.
pub struct Claim {
    /// The nonce.
    pub nonce: u32,
    /// Its hash, by the guest's word.
    pub hash: [u8; 32],
}

/// The jobs that a guest was given, newest first.
#[derive(Default)]
pub struct Jobs(VecDeque<Given>);

impl Jobs {
    /// The newest.
    pub fn newest(&self) -> Option<&Given> {
        self.0.front()
    }

    /// It was given another.
    pub fn push(&mut self, given: Given) {
        self.0.push_front(given);
        self.0.truncate(JOBS_MAX);
    }

    /// Whether a share may be worth computing its hash. Answers with the job.
    ///
    /// # Errors
    /// The words that miners know.
    pub fn admit(&mut self, job: &str, claim: &Claim, slice: u8) -> Result<&Given, &'static str> {
        let newest = self.0.front().map(|given| given.offer.job);
        let given = self.0.iter_mut().find(|given| given.number.to_string() == job).ok_or("Invalid job id")?;
        if Some(given.offer.job) != newest {
            return Err("Stale share");
        }
        if claim.nonce >> 24 != u32::from(slice) {
            return Err("Invalid nonce");
        }
        if !given.nonces.insert(claim.nonce) {
            return Err("Duplicate share");
        }
        if !meets(&claim.hash, given.difficulty) {
            return Err("Low diff share");
        }
        Ok(given)
    }
}

/// Whether a hash is one in `difficulty`.
fn meets(hash: &[u8; 32], difficulty: u64) -> bool {
    let mut top = [0; 8];
    top.copy_from_slice(&hash[24..]);
    u64::from_le_bytes(top) < u64::MAX / difficulty.max(1)
}

/// How fast a guest hashes, by its shares.
pub struct Pace {
    since: Instant,
    shares: VecDeque<(Instant, u64)>,
}

impl Pace {
    /// It begins now.
    pub fn new(since: Instant) -> Self {
        Self { since, shares: VecDeque::new() }
    }

    /// A share that takes `hashes` on average.
    pub fn add(&mut self, now: Instant, hashes: u64) {
        self.shares.push_back((now, hashes));
    }

    /// Hashes a second.
    pub fn rate(&mut self, now: Instant) -> f64 {
        while self.shares.front().is_some_and(|(at, _)| now.saturating_duration_since(*at) > RATE_WINDOW) {
            self.shares.pop_front();
        }
        let hashes: u64 = self.shares.iter().map(|(_, hashes)| hashes).sum();
        let worked = now.saturating_duration_since(self.since).clamp(Duration::from_secs(1), RATE_WINDOW);
        hashes as f64 / worked.as_secs_f64()
    }

    /// The difficulty that suits it, where a find takes `most`.
    pub fn difficulty(&mut self, now: Instant, most: u64) -> u64 {
        let rate = self.rate(now);
        let wanted = if rate > 0.0 { (rate * SECONDS_PER_SHARE) as u64 } else { FIRST_DIFFICULTY };
        wanted.clamp(1, most.max(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use flota_common::clock;

    #[test]
    fn a_hash_meets_what_it_is_rare_enough_for() {
        let mut hash = [0xff; 32];
        assert!(!meets(&hash, 2));
        hash[31] = 0x7f;
        assert!(meets(&hash, 1) && !meets(&hash, 3));
        assert!(meets(&[0; 32], u64::MAX / 2));
    }

    #[test]
    fn the_difficulty_follows_the_rate_up_to_what_a_find_takes() {
        let now = clock::instant();
        let mut pace = Pace::new(now);
        assert_eq!(pace.difficulty(now, 1_000_000), FIRST_DIFFICULTY);
        assert_eq!(pace.difficulty(now, 10), 10);
        let later = now + Duration::from_secs(100);
        pace.add(later, 40_000);
        assert_eq!(pace.rate(later), 400.0);
        assert_eq!(pace.difficulty(later, 1_000_000), 4_000);
        assert_eq!(pace.rate(later + 2 * RATE_WINDOW), 0.0);
    }
}
