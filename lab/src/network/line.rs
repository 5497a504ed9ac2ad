//! One direction of an emulated link: which frames arrive, and when. Sans-IO.
//!
//! The contract of the loop: a shell gives every frame to [`Line::push`], sends on what
//! [`Line::pop`] returns, and sleeps until [`Line::next`]. `now` is any monotonic clock; `random` are
//! evenly spread numbers from 0 to 1.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

use crate::spec::Impairment;

/// Frames that wait for a rate unless the lab says otherwise.
const DEFAULT_QUEUE: u32 = 200;

/// What a frame counts against the queue.
const FULL_FRAME: f64 = 1500.0;

/// Frames that may be under way at all: 100 ms of 1 Gbit/s in full frames.
const MAX_UNDER_WAY: usize = 16_384;

/// What became of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It will arrive.
    Taken,
    /// It was lost, as the impairment says.
    Lost,
    /// No room was left.
    Dropped,
}

/// One direction.
#[derive(Debug, Default)]
pub(crate) struct Line {
    under_way: BinaryHeap<Reverse<Flight>>,
    sequence: u64,
    /// When the rate lets the next frame go.
    free: Duration,
    /// When the last frame that stays in order arrives.
    last: Duration,
}

/// A frame and when it arrives; ordered by that.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Flight {
    arrives: Duration,
    sequence: u64,
    frame: Vec<u8>,
}

impl Line {
    /// Takes a frame.
    pub(crate) fn push(
        &mut self,
        frame: &[u8],
        impairment: &Impairment,
        now: Duration,
        mut random: impl FnMut() -> f64,
    ) -> Fate {
        if impairment.loss.is_some_and(|share| random() < share.0) && !is_discovery(frame) {
            return Fate::Lost;
        }
        if self.under_way.len() >= MAX_UNDER_WAY {
            return Fate::Dropped;
        }
        let mut arrives = now;
        if let Some(rate) = impairment.rate {
            let start = self.free.max(now);
            let queue = f64::from(impairment.queue.unwrap_or(DEFAULT_QUEUE)) * FULL_FRAME;
            if (start - now).as_secs_f64() * rate.0 / 8.0 > queue {
                return Fate::Dropped;
            }
            let bits = 8.0 * f64::from(u32::try_from(frame.len()).unwrap_or(u32::MAX));
            self.free = start + Duration::from_secs_f64(bits / rate.0);
            arrives = self.free;
        }
        let overtakes = impairment.reorder.is_some_and(|share| random() < share.0);
        if !overtakes {
            let delay = impairment.delay.map_or(0.0, |span| span.0.as_secs_f64());
            let jitter = impairment.jitter.map_or(0.0, |span| span.0.as_secs_f64());
            let delay = delay + jitter * (2.0 * random() - 1.0);
            arrives += Duration::from_secs_f64(delay.max(0.0));
            arrives = arrives.max(self.last);
            self.last = arrives;
        }
        self.sequence += 1;
        self.under_way.push(Reverse(Flight {
            arrives,
            sequence: self.sequence,
            frame: frame.to_vec(),
        }));
        Fate::Taken
    }

    /// The next frame that has arrived.
    pub(crate) fn pop(&mut self, now: Duration) -> Option<Vec<u8>> {
        if self.next()? > now {
            return None;
        }
        self.under_way.pop().map(|Reverse(flight)| flight.frame)
    }

    /// When the next frame arrives.
    pub(crate) fn next(&self) -> Option<Duration> {
        self.under_way.peek().map(|Reverse(flight)| flight.arrives)
    }
}

/// Whether a frame looks for a neighbour (ARP, RFC 4861): losing one costs a second, which is not what
/// a lossy path is like.
fn is_discovery(frame: &[u8]) -> bool {
    const ARP: [u8; 2] = [0x08, 0x06];
    const IPV6: [u8; 2] = [0x86, 0xdd];
    const ICMPV6: u8 = 58;
    const SOLICITATION: u8 = 135;
    const ADVERTISEMENT: u8 = 136;
    match frame.get(12..14) {
        Some(kind) if kind == ARP => true,
        Some(kind) if kind == IPV6 => {
            frame.get(20) == Some(&ICMPV6)
                && matches!(frame.get(54), Some(&SOLICITATION | &ADVERTISEMENT))
        }
        Some(_) | None => false,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::spec::{Rate, Share, Span};

    const START: Duration = Duration::from_secs(1000);

    fn millis(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    fn drain(line: &mut Line) -> Vec<(Duration, u8)> {
        let mut arrived = Vec::new();
        while let Some(at) = line.next() {
            let frame = line.pop(at).unwrap();
            arrived.push((at - START, frame[0]));
        }
        arrived
    }

    #[test]
    fn a_delay_is_added_to_every_frame() {
        let impairment = Impairment {
            delay: Some(Span(millis(20))),
            ..Impairment::default()
        };
        let mut line = Line::default();
        assert_eq!(
            line.push(&[1; 100], &impairment, START, || 0.5),
            Fate::Taken
        );
        assert_eq!(line.pop(START + millis(19)), None);
        line.push(&[2; 100], &impairment, START + millis(5), || 0.5);
        assert_eq!(drain(&mut line), [(millis(20), 1), (millis(25), 2)]);
    }

    #[test]
    fn a_rate_spaces_frames_and_its_queue_is_bounded() {
        let impairment = Impairment {
            rate: Some(Rate(8000.0)),
            queue: Some(1),
            ..Impairment::default()
        };
        let mut line = Line::default();
        let fates: Vec<Fate> = (0..4)
            .map(|n| line.push(&[n; 1000], &impairment, START, || 0.5))
            .collect();
        assert_eq!(
            fates,
            [Fate::Taken, Fate::Taken, Fate::Dropped, Fate::Dropped]
        );
        assert_eq!(drain(&mut line), [(millis(1000), 0), (millis(2000), 1)]);
    }

    #[test]
    fn loss_takes_its_share_and_spares_neighbour_discovery() {
        let impairment = Impairment {
            loss: Some(Share(0.1)),
            ..Impairment::default()
        };
        let mut line = Line::default();
        assert_eq!(line.push(&[0; 60], &impairment, START, || 0.05), Fate::Lost);
        assert_eq!(
            line.push(&[0; 60], &impairment, START, || 0.15),
            Fate::Taken
        );
        let mut arp = [0; 60];
        arp[12..14].copy_from_slice(&[0x08, 0x06]);
        assert_eq!(line.push(&arp, &impairment, START, || 0.05), Fate::Taken);
    }

    #[test]
    fn a_reordered_frame_overtakes_the_delay() {
        let impairment = Impairment {
            delay: Some(Span(millis(20))),
            reorder: Some(Share(0.5)),
            ..Impairment::default()
        };
        let mut line = Line::default();
        line.push(&[1], &impairment, START, || 0.9);
        line.push(&[2], &impairment, START, || 0.1);
        assert_eq!(drain(&mut line), [(millis(0), 2), (millis(20), 1)]);
    }

    proptest! {
        #[test]
        fn jitter_keeps_the_order(randoms in proptest::collection::vec(0.0..1.0f64, 1..50)) {
            let impairment = Impairment {
                delay: Some(Span(millis(20))),
                jitter: Some(Span(millis(30))),
                ..Impairment::default()
            };
            let mut line = Line::default();
            for (n, random) in (0u8..).zip(&randoms) {
                line.push(&[n], &impairment, START, || *random);
            }
            let order: Vec<u8> = drain(&mut line).into_iter().map(|(_, n)| n).collect();
            prop_assert!(order.is_sorted());
            prop_assert_eq!(order.len(), randoms.len());
        }
    }
}
