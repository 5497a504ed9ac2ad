//! How much of a lane may be in flight: a window that follows the bandwidth-delay product. Sans-IO.
//!
//! Too much in flight queues behind the transport's congestion window and makes every other request
//! wait (measured: 1 MiB = 50–110 ms on loopback); too little starves a long path. The window grows
//! while it is what limits the sender and acknowledgements come back about as fast as they ever
//! did, and shrinks when they come back later: then a queue has built up somewhere.

use std::collections::VecDeque;
use std::time::Duration;

/// Smallest window, bytes: four messages, enough for loopback.
pub const MIN_WINDOW: usize = 64 * 1024;

/// Largest window, bytes.
pub const MAX_WINDOW: usize = crate::limits::MAX_REPLAY;

/// Queueing delay that is welcome: it keeps the path busy.
const TARGET_DELAY: Duration = Duration::from_millis(5);

/// Queueing delay above which the window shrinks.
const MAX_DELAY: Duration = Duration::from_millis(15);

/// How long the smallest round trip is believed before it is measured anew.
const MIN_RTT_LIFETIME: Duration = Duration::from_secs(10);

/// Samples under way; more sends than this share the sample of an earlier one.
const MAX_SAMPLES: usize = 256;

/// The window.
#[derive(Debug)]
pub struct Window {
    size: usize,
    /// Offset after a sent frame, and when it was sent.
    samples: VecDeque<(u64, Duration)>,
    min_rtt: Option<(Duration, Duration)>,
    /// Offset up to which acknowledgements belong to data sent before the last change.
    changed_at: u64,
    sent: u64,
}

impl Window {
    /// The smallest window, nothing measured.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            size: MIN_WINDOW,
            samples: VecDeque::new(),
            min_rtt: None,
            changed_at: 0,
            sent: 0,
        }
    }

    /// Bytes that may be in flight.
    #[must_use]
    pub const fn size(&self) -> usize {
        self.size
    }

    /// Data up to `offset` was sent.
    pub fn on_sent(&mut self, offset: u64, now: Duration) {
        self.sent = offset;
        if self.samples.len() < MAX_SAMPLES {
            self.samples.push_back((offset, now));
        }
    }

    /// Data below `offset` was acknowledged; `limited` if the window held the sender back.
    pub fn on_acked(&mut self, offset: u64, now: Duration, limited: bool) {
        let mut rtt = None;
        while let Some((end, sent_at)) = self.samples.front().copied() {
            if end > offset {
                break;
            }
            rtt = Some(now.saturating_sub(sent_at));
            self.samples.pop_front();
        }
        let Some(rtt) = rtt else { return };
        let min_rtt = match self.min_rtt {
            Some((min, since)) if rtt >= min && now.saturating_sub(since) < MIN_RTT_LIFETIME => min,
            _ => {
                self.min_rtt = Some((rtt, now));
                rtt
            }
        };
        let delay = rtt.saturating_sub(min_rtt);
        if delay > MAX_DELAY.max(min_rtt / 4) {
            self.change(self.size - self.size / 4, offset);
        } else if limited && delay < TARGET_DELAY.max(min_rtt / 8) {
            self.change(self.size + self.size / 2, offset);
        }
    }

    /// One change for each round trip.
    fn change(&mut self, size: usize, acked: u64) {
        if acked >= self.changed_at {
            self.size = size.clamp(MIN_WINDOW, MAX_WINDOW);
            self.changed_at = self.sent;
        }
    }
}

impl Default for Window {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A path with a rate and a delay: sends full windows for a while, returns window and delay.
    fn run(bytes_per_ms: u64, delay: Duration, for_how_long: Duration) -> (usize, Duration) {
        let frame = 16 * 1024_u64;
        let mut window = Window::new();
        let (mut sent, mut acked) = (0_u64, 0_u64);
        let mut link_free = Duration::ZERO;
        let mut arrivals: VecDeque<(Duration, u64, Duration)> = VecDeque::new();
        let mut now = Duration::ZERO;
        let mut last_rtt = Duration::ZERO;
        while now < for_how_long {
            while sent - acked + frame <= window.size() as u64 {
                sent += frame;
                window.on_sent(sent, now);
                link_free = link_free.max(now) + Duration::from_micros(frame * 1000 / bytes_per_ms);
                arrivals.push_back((link_free + delay, sent, now));
            }
            let (at, offset, sent_at) = arrivals.pop_front().unwrap();
            now = at;
            last_rtt = now - sent_at;
            acked = offset;
            window.on_acked(offset, now, true);
        }
        (window.size(), last_rtt - delay)
    }

    #[test]
    fn a_long_path_gets_its_bandwidth_delay_product() {
        // 20 MB/s at 50 ms: 1 MB.
        let (size, _) = run(20_000, Duration::from_millis(50), Duration::from_secs(8));
        assert!(size >= 900_000, "{size}");
    }

    #[test]
    fn a_short_path_keeps_its_queue_short() {
        // 30 MB/s at 0.2 ms.
        let (size, queue) = run(30_000, Duration::from_micros(200), Duration::from_secs(8));
        assert!(queue < Duration::from_millis(25), "{queue:?} with {size}");
    }

    #[test]
    fn an_idle_sender_does_not_grow() {
        let mut window = Window::new();
        for i in 1..100 {
            let now = Duration::from_millis(i);
            window.on_sent(i, now);
            window.on_acked(i, now, false);
        }
        assert_eq!(window.size(), MIN_WINDOW);
    }
}
