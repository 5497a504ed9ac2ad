//! How much of a lane may be in flight: a window that follows the bandwidth-delay product. Sans-IO.
//!
//! Too much in flight queues behind the transport's congestion window, makes every other request
//! wait, and overflows the small socket buffers of browsers (measured on loopback: 64 KiB in flight
//! 31–40 MB/s and an echo beside it of 7 ms; 100–300 KiB 12–30 MB/s and 16 ms); too little starves a
//! long path.
//!
//! - The window grows while it is what limits the sender and acknowledgements come back about as fast
//!   as they ever did, and shrinks when they come back later: then a queue has built up somewhere.
//! - It never exceeds one and a half times what the path holds: the highest rate of late times the
//!   smallest round trip. To natives, whose sockets have large buffers, comes what passes in a few
//!   milliseconds: where the round trip is shorter than a scheduler's turn, the ends would wake each other
//!   for every message (measured on loopback: 18 CPU s/GB without, 8 with it and longer messages).
//! - A sender that is busy all the time never sees the smallest round trip. Every 10 s it holds back
//!   until a single message is in flight, and measures that.

use std::collections::VecDeque;
use std::time::Duration;

use super::MaxMessage;
use crate::limits::{MAX_MESSAGE, MAX_REPLAY};

/// Smallest window, bytes: four messages, enough for loopback.
pub const MIN_WINDOW: usize = 64 * 1024;

/// Largest window, bytes.
pub const MAX_WINDOW: usize = MAX_REPLAY;

/// What may be in flight while the smallest round trip is measured: one message.
const PROBE_WINDOW: usize = MAX_MESSAGE;

/// Bandwidth-delay products in flight, halves: one on its way, half a one to see whether more gets
/// through.
const GAIN_HALVES: u32 = 3;

/// What may wait at a native besides what the path holds, as the time in which it passes: below
/// [`TARGET_DELAY`], so that an answer beside a transfer does not wait longer.
const NATIVE_QUEUE: Duration = Duration::from_millis(2);

/// Queueing delay that is welcome: it keeps the path busy.
const TARGET_DELAY: Duration = Duration::from_millis(5);

/// Queueing delay above which the window shrinks.
const MAX_DELAY: Duration = Duration::from_millis(15);

/// How long the smallest round trip is believed before it is measured anew.
const MIN_RTT_LIFETIME: Duration = Duration::from_secs(10);

/// How long the highest rate is believed, at least; twice that at most.
const MAX_RATE_LIFETIME: Duration = Duration::from_secs(5);

/// A rate is measured over so much time at least, and over a round trip: acknowledgements come in
/// bursts, and what comes within a burst is no rate of the path.
const RATE_INTERVAL: Duration = Duration::from_millis(20);

/// Samples under way; more sends than this share the sample of an earlier one.
const MAX_SAMPLES: usize = 256;

/// The window.
#[derive(Debug)]
pub struct Window {
    size: usize,
    /// What may wait besides what the path holds.
    queue: Duration,
    samples: VecDeque<Sample>,
    min_rtt: Option<MinRtt>,
    max_rate: MaxRate,
    phase: Phase,
    /// Offset up to which acknowledgements belong to data sent before the last change.
    changed_at: u64,
    sent: u64,
    acked: u64,
}

/// A frame under way.
#[derive(Debug, Clone, Copy)]
struct Sample {
    /// Offset after it.
    end: u64,
    sent_at: Duration,
}

#[derive(Debug, Clone, Copy)]
struct MinRtt {
    value: Duration,
    since: Duration,
}

#[derive(Debug, Clone, Copy)]
enum Phase {
    /// As large as the path allows.
    Open,
    /// Holding back, to measure the smallest round trip with what is sent from this offset on.
    Probing(u64),
}

impl Window {
    /// The smallest window to an end that takes such messages, nothing measured.
    #[must_use]
    pub const fn new(to: MaxMessage) -> Self {
        Self {
            size: MIN_WINDOW,
            queue: match to {
                MaxMessage::Browser => Duration::ZERO,
                MaxMessage::Native => NATIVE_QUEUE,
            },
            samples: VecDeque::new(),
            min_rtt: None,
            max_rate: MaxRate::new(),
            phase: Phase::Open,
            changed_at: 0,
            sent: 0,
            acked: 0,
        }
    }

    /// As [`Window::new`], in the midst of a stream: all below `offset` is acknowledged, nothing else sent.
    #[must_use]
    pub const fn starting_at(to: MaxMessage, offset: u64) -> Self {
        let mut window = Self::new(to);
        window.changed_at = offset;
        window.sent = offset;
        window.acked = offset;
        window
    }

    /// Bytes that may be in flight.
    #[must_use]
    pub const fn size(&self) -> usize {
        match self.phase {
            Phase::Open => self.size,
            Phase::Probing(_) => PROBE_WINDOW,
        }
    }

    /// Data up to `offset` was sent.
    pub fn on_sent(&mut self, offset: u64, now: Duration) {
        self.sent = offset;
        if self.samples.len() < MAX_SAMPLES {
            self.samples.push_back(Sample {
                end: offset,
                sent_at: now,
            });
        }
    }

    /// Data below `offset` was acknowledged; `limited` if the window held the sender back.
    pub fn on_acked(&mut self, offset: u64, now: Duration, limited: bool) {
        let newly = offset.saturating_sub(self.acked);
        self.acked += newly;
        let min_rtt = self.min_rtt.map_or(Duration::ZERO, |rtt| rtt.value);
        self.max_rate
            .note(newly, now, min_rtt.max(RATE_INTERVAL), limited);
        let mut newest = None;
        while let Some(sample) = self.samples.front().filter(|sample| sample.end <= offset) {
            newest = Some(*sample);
            self.samples.pop_front();
        }
        let Some(sample) = newest else { return };
        let rtt = now.saturating_sub(sample.sent_at);
        let min_rtt = self.note_rtt(sample, rtt, now);
        let delay = rtt.saturating_sub(min_rtt);
        if delay > MAX_DELAY.max(min_rtt / 4) {
            self.change(self.size - self.size / 4, offset);
        } else if limited && delay < TARGET_DELAY.max(min_rtt / 8) {
            self.change(self.size + self.size / 2, offset);
        }
    }

    /// The smallest round trip, with this one.
    fn note_rtt(&mut self, sample: Sample, rtt: Duration, now: Duration) -> Duration {
        let fresh = MinRtt {
            value: rtt,
            since: now,
        };
        let known = *self.min_rtt.get_or_insert(fresh);
        let min_rtt = match self.phase {
            Phase::Probing(from) if sample.end > from => {
                self.phase = Phase::Open;
                fresh
            }
            Phase::Open | Phase::Probing(_) if rtt < known.value => fresh,
            Phase::Open if now.saturating_sub(known.since) > MIN_RTT_LIFETIME => {
                self.phase = Phase::Probing(self.sent);
                known
            }
            Phase::Open | Phase::Probing(_) => known,
        };
        self.min_rtt = Some(min_rtt);
        min_rtt.value
    }

    /// One change for each round trip.
    fn change(&mut self, size: usize, acked: u64) {
        if acked >= self.changed_at && matches!(self.phase, Phase::Open) {
            let most = self.path_holds().clamp(MIN_WINDOW, MAX_WINDOW);
            self.size = size.clamp(MIN_WINDOW, most);
            self.changed_at = self.sent;
        }
    }

    /// [`GAIN_HALVES`] halves of the bandwidth-delay product and the queue, bytes.
    fn path_holds(&self) -> usize {
        let min_rtt = self.min_rtt.map_or(Duration::ZERO, |rtt| rtt.value);
        let held = min_rtt * GAIN_HALVES / 2 + self.queue;
        let bytes = u128::from(self.max_rate.get()) * held.as_micros() / 1_000_000;
        usize::try_from(bytes).unwrap_or(MAX_WINDOW)
    }
}

/// The highest rate of late, bytes per second: of this period and the one before.
#[derive(Debug)]
struct MaxRate {
    before: u64,
    current: u64,
    since: Duration,
    /// Bytes acknowledged since `counted_from`.
    count: u64,
    counted_from: Duration,
}

impl MaxRate {
    const fn new() -> Self {
        Self {
            before: 0,
            current: 0,
            since: Duration::ZERO,
            count: 0,
            counted_from: Duration::ZERO,
        }
    }

    fn get(&self) -> u64 {
        self.before.max(self.current)
    }

    /// So many bytes were acknowledged. A sender with little to say proves nothing about the path, so
    /// only one that is `limited` makes an old rate forgotten.
    fn note(&mut self, bytes: u64, now: Duration, interval: Duration, limited: bool) {
        self.count += bytes;
        let took = now.saturating_sub(self.counted_from);
        if took < interval {
            return;
        }
        if limited && now.saturating_sub(self.since) > MAX_RATE_LIFETIME {
            self.before = self.current;
            self.current = 0;
            self.since = now;
        }
        let rate = u128::from(self.count) * 1_000_000 / took.as_micros().max(1);
        self.current = self.current.max(u64::try_from(rate).unwrap_or(u64::MAX));
        self.count = 0;
        self.counted_from = now;
    }
}

const _: () = assert!(PROBE_WINDOW < MIN_WINDOW && MIN_WINDOW <= MAX_WINDOW);
const _: () = assert!(NATIVE_QUEUE.as_millis() < TARGET_DELAY.as_millis());

#[cfg(test)]
mod tests {
    use super::*;

    const FRAME: u64 = 16 * 1024;

    /// A path with a rate and a delay that always has something to carry.
    struct Path {
        bytes_per_ms: u64,
        delay: Duration,
        window: Window,
        now: Duration,
        sent: u64,
        acked: u64,
        link_free: Duration,
        arrivals: VecDeque<(Duration, u64, Duration)>,
        /// Queueing delay of the last frame.
        queue: Duration,
    }

    impl Path {
        fn new(bytes_per_ms: u64, delay: Duration) -> Self {
            Self::to(MaxMessage::Browser, bytes_per_ms, delay)
        }

        fn to(end: MaxMessage, bytes_per_ms: u64, delay: Duration) -> Self {
            Self {
                bytes_per_ms,
                delay,
                window: Window::new(end),
                now: Duration::ZERO,
                sent: 0,
                acked: 0,
                link_free: Duration::ZERO,
                arrivals: VecDeque::new(),
                queue: Duration::ZERO,
            }
        }

        /// Sends full windows for a while; returns the rate in bytes per millisecond.
        fn run(&mut self, for_how_long: Duration) -> u64 {
            let (until, before) = (self.now + for_how_long, self.acked);
            while self.now < until {
                while self.sent - self.acked + FRAME <= self.window.size() as u64 {
                    self.sent += FRAME;
                    self.window.on_sent(self.sent, self.now);
                    let takes = Duration::from_micros(FRAME * 1000 / self.bytes_per_ms);
                    self.link_free = self.link_free.max(self.now) + takes;
                    self.arrivals
                        .push_back((self.link_free + self.delay, self.sent, self.now));
                }
                let (at, offset, sent_at) = self.arrivals.pop_front().unwrap();
                self.now = at;
                self.queue = (at - sent_at).saturating_sub(self.delay);
                self.acked = offset;
                self.window.on_acked(offset, at, true);
            }
            (self.acked - before) / u64::try_from(for_how_long.as_millis()).unwrap()
        }
    }

    #[test]
    fn a_long_path_is_filled() {
        // 20 MB/s at 50 ms: 1 MB.
        let mut path = Path::new(20_000, Duration::from_millis(50));
        path.run(Duration::from_secs(2));
        let rate = path.run(Duration::from_secs(30));
        assert!(rate > 18_500, "{rate} bytes/ms with {:?}", path.window);
    }

    #[test]
    fn a_short_path_keeps_its_queue_short_for_as_long_as_it_is_busy() {
        // 30 MB/s at 0.2 ms.
        let mut path = Path::new(30_000, Duration::from_micros(200));
        for _minute in 0..3 {
            let rate = path.run(Duration::from_secs(60));
            assert!(rate > 29_000, "{rate} bytes/ms");
            assert!(path.queue < Duration::from_millis(5), "{:?}", path.window);
        }
    }

    #[test]
    fn a_native_on_a_short_path_is_sent_much_at_a_time_and_its_queue_stays_short() {
        // 200 MB/s at 0.2 ms: 40 kB.
        let mut path = Path::to(MaxMessage::Native, 200_000, Duration::from_micros(200));
        path.run(Duration::from_secs(30));
        assert!(path.window.size() > 256 * 1024, "{:?}", path.window);
        assert!(path.queue < TARGET_DELAY, "{:?}", path.window);
        // 1 MB/s at 2 ms.
        let mut path = Path::to(MaxMessage::Native, 1000, Duration::from_millis(2));
        path.run(Duration::from_secs(30));
        assert_eq!(path.window.size(), MIN_WINDOW);
    }

    #[test]
    fn a_path_that_becomes_longer_is_filled_again() {
        let mut path = Path::new(20_000, Duration::from_millis(2));
        path.run(Duration::from_secs(5));
        path.delay = Duration::from_millis(80);
        path.run(Duration::from_secs(20));
        let rate = path.run(Duration::from_secs(20));
        assert!(rate > 18_000, "{rate} bytes/ms with {:?}", path.window);
    }

    #[test]
    fn an_idle_sender_does_not_grow() {
        let mut window = Window::new(MaxMessage::Native);
        for i in 1..100 {
            let now = Duration::from_millis(i);
            window.on_sent(i, now);
            window.on_acked(i, now, false);
        }
        assert_eq!(window.size(), MIN_WINDOW);
    }
}
