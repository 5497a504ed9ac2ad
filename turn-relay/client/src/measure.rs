//! Round trips, loss and throughput of packets through a server.

use std::io;
use std::time::{Duration, Instant};

use portway_relay_proto::channel::ChannelNumber;

use crate::session::{Received, Session};

/// Packets of data that a whole check sends at most.
pub const MAX_PACKETS: usize = 2000;

/// Of these, those that measure round trips.
const PINGS: usize = 100;

/// Bytes of one that does.
const PING_BYTES: usize = 64;

/// Those that measure throughput, and their bytes: what fits every path.
const BULK: usize = 1500;
const BULK_BYTES: usize = 1000;

const _: () = assert!(PINGS + BULK <= MAX_PACKETS, "a check is gentle");

/// Most bits a second that are offered, so that a short check is gentle too.
const MAX_RATE: u64 = 10_000_000;

/// How long the last packet may take.
const LAST_WAIT: Duration = Duration::from_secs(1);

/// Begins a payload of ours.
const MARK: &[u8; 8] = b"portway\0";

/// What is sent, and how fast.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Plan {
    /// Tells packets of one plan from those of another that come late.
    number: u32,
    count: usize,
    bytes: usize,
    every: Duration,
}

impl Plan {
    /// Small packets, one at a time, in this time.
    pub(crate) fn pings(within: Duration) -> Self {
        Self {
            number: 1,
            count: PINGS,
            bytes: PING_BYTES,
            every: within / u32::try_from(PINGS).unwrap_or(1),
        }
    }

    /// Larger ones, as many as the time and the rate allow.
    pub(crate) fn bulk(within: Duration) -> Self {
        let fastest =
            Duration::from_secs(BULK_BYTES as u64 * 8) / u32::try_from(MAX_RATE).unwrap_or(1);
        let every = (within / u32::try_from(BULK).unwrap_or(1)).max(fastest);
        let count = within.as_nanos() / every.as_nanos().max(1);
        Self {
            number: 2,
            count: usize::try_from(count).unwrap_or(BULK).clamp(1, BULK),
            bytes: BULK_BYTES,
            every,
        }
    }

    /// Whether it measures throughput.
    pub(crate) const fn is_bulk(&self) -> bool {
        self.bytes == BULK_BYTES
    }

    /// Bits of payload a second that it offers.
    #[allow(clippy::cast_precision_loss, reason = "three digits are shown")]
    pub(crate) fn rate(&self) -> f64 {
        self.bytes as f64 * 8.0 / self.every.as_secs_f64()
    }

    fn payload(&self, packet: usize) -> Vec<u8> {
        let mut payload = MARK.to_vec();
        payload.extend(self.number.to_be_bytes());
        payload.extend(u32::try_from(packet).unwrap_or(u32::MAX).to_be_bytes());
        payload.resize(self.bytes, 0);
        payload
    }

    /// Which of its packets this is.
    fn number_of(&self, payload: &[u8]) -> Option<usize> {
        let rest = payload.strip_prefix(MARK)?;
        let (plan, rest) = rest.split_first_chunk()?;
        let packet = u32::from_be_bytes(*rest.first_chunk()?) as usize;
        let is_its = u32::from_be_bytes(*plan) == self.number
            && packet < self.count
            && payload.len() == self.bytes;
        is_its.then_some(packet)
    }
}

/// What came of a plan.
#[derive(Debug, Clone, Default)]
pub(crate) struct Measured {
    pub(crate) sent: usize,
    /// Of those that came, how long each took, in order of length.
    pub(crate) trips: Vec<Duration>,
    bytes: usize,
    first: Option<Instant>,
    last: Option<Instant>,
}

impl Measured {
    /// The trip that this share of all is not longer than.
    pub(crate) fn percentile(&self, percent: usize) -> Option<Duration> {
        let last = self.trips.len().checked_sub(1)?;
        self.trips.get(last * percent / 100).copied()
    }

    /// Share that did not come.
    #[allow(clippy::cast_precision_loss, reason = "a few thousand")]
    pub(crate) fn loss(&self) -> f64 {
        1.0 - self.trips.len() as f64 / self.sent.max(1) as f64
    }

    /// Bits of payload a second that came.
    #[allow(clippy::cast_precision_loss, reason = "three digits are shown")]
    pub(crate) fn rate(&self) -> f64 {
        let time = self.first.zip(self.last).map(|(first, last)| last - first);
        let seconds = time.unwrap_or_default().as_secs_f64();
        let bits = (self.trips.len() * self.bytes * 8) as f64;
        if seconds > 0.0 { bits / seconds } else { 0.0 }
    }
}

/// Sends packets on a channel; they come back at `to`, or where they were sent from.
pub(crate) fn run(
    from: &mut Session,
    mut to: Option<&mut Session>,
    channel: ChannelNumber,
    plan: Plan,
) -> io::Result<Measured> {
    let begun = Instant::now();
    let mut sent_at: Vec<Option<Instant>> = vec![None; plan.count];
    let mut measured = Measured {
        bytes: plan.bytes,
        first: Some(begun),
        ..Measured::default()
    };
    for packet in 0..plan.count {
        let due = begun + plan.every * u32::try_from(packet).unwrap_or(u32::MAX);
        while let Some(received) = receive(from, &mut to, due)? {
            measured.take(&plan, &mut sent_at, &received);
        }
        sent_at[packet] = Some(Instant::now());
        from.send(channel, &plan.payload(packet))?;
        measured.sent += 1;
    }
    let end = Instant::now() + LAST_WAIT;
    while measured.trips.len() < measured.sent
        && let Some(received) = receive(from, &mut to, end)?
    {
        measured.take(&plan, &mut sent_at, &received);
    }
    measured.trips.sort_unstable();
    Ok(measured)
}

fn receive(
    from: &mut Session,
    to: &mut Option<&mut Session>,
    until: Instant,
) -> io::Result<Option<Received>> {
    match to {
        Some(to) => to.receive(until),
        None => from.receive(until),
    }
}

impl Measured {
    /// Counts a packet, once.
    fn take(&mut self, plan: &Plan, sent_at: &mut [Option<Instant>], received: &Received) {
        let packet = plan.number_of(&received.payload);
        let sent = packet.and_then(|packet| sent_at.get_mut(packet)?.take());
        if let Some(sent) = sent {
            self.trips.push(received.at.saturating_duration_since(sent));
            self.last = Some(received.at);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_is_gentle_and_knows_its_packets() {
        for seconds in [1, 5, 60] {
            let plan = Plan::bulk(Duration::from_secs(seconds));
            assert!(plan.rate() <= MAX_RATE as f64 * 1.01, "{plan:?}");
            assert!(plan.count <= BULK);
        }
        let (pings, bulk) = (
            Plan::pings(Duration::from_secs(1)),
            Plan::bulk(Duration::from_secs(1)),
        );
        assert_eq!(pings.number_of(&pings.payload(7)), Some(7));
        assert_eq!(bulk.number_of(&pings.payload(7)), None);
        assert_eq!(pings.number_of(b"noise"), None);
    }

    #[test]
    fn each_packet_counts_once() {
        let plan = Plan::pings(Duration::from_secs(1));
        let now = Instant::now();
        let mut sent_at = vec![Some(now); plan.count];
        let mut measured = Measured {
            sent: 4,
            ..Measured::default()
        };
        for (packet, took) in [(0, 30), (1, 10), (1, 11), (2, 20)] {
            let received = Received {
                payload: plan.payload(packet),
                at: now + Duration::from_millis(took),
            };
            measured.take(&plan, &mut sent_at, &received);
        }
        measured.trips.sort_unstable();
        assert!((measured.loss() - 0.25).abs() < 1e-9);
        assert_eq!(measured.percentile(50), Some(Duration::from_millis(20)));
        assert_eq!(measured.percentile(99), Some(Duration::from_millis(20)));
    }
}
