//! How fast bytes may pass: a rate, and bursts of what it allows in [`BURST`]. Hot path.
//!
//! One number is kept: when all that has passed would have passed at the rate (the generic cell rate
//! algorithm of ATM). Servers on several threads share a meter without a lock.

use std::num::NonZeroU64;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// How long a meter may run ahead of its rate: a burst that a browser's window makes must pass.
pub(crate) const BURST: Duration = Duration::from_millis(500);

/// Meters one direction of one owner.
#[derive(Debug, Default)]
pub(crate) struct Meter {
    /// Nanoseconds on the clock of the servers.
    passed_at: AtomicU64,
}

impl Meter {
    /// Whether `length` bytes may pass now at `rate`, bytes a second; they count then.
    pub(crate) fn pass(&self, length: usize, rate: NonZeroU64, now: Duration) -> bool {
        let now = nanos(now);
        let cost = (length as u64).saturating_mul(1_000_000_000) / rate;
        let limit = now.saturating_add(nanos(BURST));
        self.passed_at
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |at| {
                let passed = at.max(now).saturating_add(cost);
                (passed <= limit).then_some(passed)
            })
            .is_ok()
    }
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_meter_lets_a_burst_pass_and_then_its_rate() {
        let (meter, rate) = (Meter::default(), NonZeroU64::new(1_000_000).unwrap());
        let at = |millis: u64| Duration::from_millis(millis);
        for _packet in 0..500 {
            assert!(meter.pass(1000, rate, at(10_000)));
        }
        assert!(!meter.pass(1000, rate, at(10_000)), "the burst is used up");
        assert!(meter.pass(1000, rate, at(10_001)), "1 kB in 1 ms");
        assert!(!meter.pass(1000, rate, at(10_001)));
        for _packet in 0..500 {
            assert!(
                meter.pass(1000, rate, at(20_000)),
                "silence saves one burst"
            );
        }
        assert!(!meter.pass(1000, rate, at(20_000)));
    }
}
