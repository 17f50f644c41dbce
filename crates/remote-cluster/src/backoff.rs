//! Growing, jittered delays between attempts.
use std::time::Duration;

/// Delays that double from `min` to `max`, each multiplied by 0.5 to 1.0 so that many clients do not come back together.
#[derive(Debug, Clone)]
pub(crate) struct Backoff {
    min: Duration,
    max: Duration,
    attempts: u32,
    random: u64,
}

impl Backoff {
    /// The randomness of all delays comes from `seed`.
    pub(crate) fn new(min: Duration, max: Duration, seed: u64) -> Self {
        Self {
            min,
            max,
            attempts: 0,
            random: seed,
        }
    }

    /// The delay before the next attempt.
    pub(crate) fn next(&mut self) -> Duration {
        let doubled = self.min.saturating_mul(1 << self.attempts.min(20));
        self.attempts = self.attempts.saturating_add(1);
        doubled.min(self.max).mul_f64(0.5 + self.fraction() / 2.0)
    }

    /// How many delays there have been since the last success.
    pub(crate) fn attempts(&self) -> u32 {
        self.attempts
    }

    /// An attempt succeeded: the next delay is the shortest again.
    pub(crate) fn reset(&mut self) {
        self.attempts = 0;
    }

    /// A number from 0 to 1 (splitmix64).
    fn fraction(&mut self) -> f64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.random;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        f64::from(u32::try_from((z ^ (z >> 31)) >> 32).unwrap_or_default()) / f64::from(u32::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_double_up_to_the_limit_and_are_spread() {
        let (min, max) = (Duration::from_millis(100), Duration::from_secs(1));
        for seed in 0..50 {
            let mut backoff = Backoff::new(min, max, seed);
            for full in [100, 200, 400, 800, 1000, 1000] {
                let delay = backoff.next().as_millis();
                assert!((full / 2..=full).contains(&delay), "{delay} of {full}");
            }
            backoff.reset();
            assert!(backoff.next() <= min);
        }
        let first = |seed| Backoff::new(min, max, seed).next();
        assert_ne!(first(1), first(2));
    }
}
