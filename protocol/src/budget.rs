//! Token buckets: a burst, then a rate. Sans-IO: `now` comes in.

use std::time::{Duration, Instant};

/// A token bucket.
#[derive(Debug)]
pub struct Budget {
    tokens: f64,
    /// Tokens a second.
    rate: f64,
    burst: f64,
    at: Instant,
}

impl Budget {
    /// A full one.
    #[must_use]
    pub const fn new(now: Instant, rate: f64, burst: f64) -> Self {
        Self {
            tokens: burst,
            rate,
            burst,
            at: now,
        }
    }

    /// Takes one token; `false` if there is none.
    pub fn take(&mut self, now: Instant) -> bool {
        self.refill(now);
        if self.tokens < 1.0 {
            return false;
        }
        self.tokens -= 1.0;
        true
    }

    /// Whether it is as good as new.
    pub fn is_full(&mut self, now: Instant) -> bool {
        self.refill(now);
        self.tokens >= self.burst
    }

    fn refill(&mut self, now: Instant) {
        let elapsed: Duration = now.saturating_duration_since(self.at);
        self.at = now;
        self.tokens = self
            .burst
            .min(self.tokens + elapsed.as_secs_f64() * self.rate);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_budget_allows_a_burst_and_then_a_rate() {
        let start = Instant::now();
        let mut budget = Budget::new(start, 10.0, 3.0);
        assert!((0..3).all(|_| budget.take(start)));
        assert!(!budget.take(start));
        assert!(budget.take(start + Duration::from_millis(110)));
        assert!(!budget.take(start + Duration::from_millis(120)));
        assert!(!budget.is_full(start + Duration::from_millis(200)));
        assert!(budget.is_full(start + Duration::from_secs(1)));
    }
}
