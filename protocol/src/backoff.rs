//! Full-jitter exponential backoff. Sans-IO: randomness comes in, a delay goes out.

use std::time::Duration;

/// Delays between attempts: uniform in `0..=min(cap, base · 2^attempt)`.
#[derive(Debug, Clone)]
pub struct Backoff {
    base: Duration,
    cap: Duration,
    attempt: u32,
}

impl Backoff {
    /// Starts at `base` and never exceeds `cap`.
    #[must_use]
    pub const fn new(base: Duration, cap: Duration) -> Self {
        Self {
            base,
            cap,
            attempt: 0,
        }
    }

    /// Delay before the next attempt; `random` is 32 uniform bits.
    pub fn next_delay(&mut self, random: u32) -> Duration {
        let factor = 2_u32.saturating_pow(self.attempt);
        let ceiling = self.base.saturating_mul(factor).min(self.cap);
        self.attempt = self.attempt.saturating_add(1);
        ceiling.mul_f64(f64::from(random) / f64::from(u32::MAX))
    }

    /// After success: the next failure starts again at `base`.
    pub const fn reset(&mut self) {
        self.attempt = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ceiling_doubles_up_to_the_cap() {
        let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(5));
        let ceilings: Vec<u64> = (0..5)
            .map(|_| backoff.next_delay(u32::MAX).as_secs())
            .collect();
        assert_eq!(ceilings, [1, 2, 4, 5, 5]);
        backoff.reset();
        assert_eq!(backoff.next_delay(u32::MAX), Duration::from_secs(1));
        assert_eq!(backoff.next_delay(0), Duration::ZERO);
    }

    #[test]
    fn many_failures_do_not_overflow() {
        let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(60));
        for _ in 0..1000 {
            assert!(backoff.next_delay(u32::MAX) <= Duration::from_secs(60));
        }
    }
}
