//! Packets that leave together: what comes in a burst from one flow goes out by one system call, in
//! segments that the kernel or the card cuts (UDP_SEGMENT). Hot path.

use std::net::{IpAddr, SocketAddr};

use quinn_udp::Transmit;

use crate::ports::Bound;

/// Most bytes of one system call: an IP packet less its headers.
const MAX_BYTES: usize = 65_000;

/// Where a packet goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Flow<S> {
    /// From this socket.
    pub(crate) socket: S,
    /// To this address.
    pub(crate) to: SocketAddr,
    /// From this address, if the socket has many.
    pub(crate) from: Option<IpAddr>,
}

/// What is known of the packets behind one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ahead {
    /// Some may join it.
    More,
    /// None is of its flow.
    Nothing,
}

/// Batches of a few flows at a time: packets of many clients come in turn. Each flow keeps its order.
#[derive(Debug)]
pub(crate) struct Batches<S> {
    /// Those in use first; made when they are needed.
    batches: Vec<Batch<S>>,
    used: usize,
}

/// Most flows that are gathered at a time. Each packet looks through them; 16 cost nothing that could
/// be measured, and a read of the listener rarely has packets of more flows that have several.
const MAX_FLOWS: usize = 16;

impl<S: Copy + PartialEq> Batches<S> {
    pub(crate) const fn new() -> Self {
        Self {
            batches: Vec::new(),
            used: 0,
        }
    }

    /// Whether packets of a flow wait, so that others must not pass them.
    pub(crate) fn has(&self, flow: &Flow<S>) -> bool {
        let used = &self.batches[..self.used];
        used.iter().any(|batch| batch.flow == *flow)
    }

    /// Adds a packet made of these parts. A batch that it cannot join, of at most so many segments,
    /// leaves before.
    pub(crate) fn push(
        &mut self,
        flow: Flow<S>,
        parts: &[&[u8]],
        segments: usize,
        send: impl Fn(&Batch<S>),
    ) {
        let length = parts.iter().map(|part| part.len()).sum();
        let used = &mut self.batches[..self.used];
        if let Some(batch) = used.iter_mut().find(|batch| batch.flow == flow) {
            if !batch.takes(length, segments) {
                send(batch);
                batch.clear();
            }
            return batch.push(parts);
        }
        if self.used == MAX_FLOWS {
            self.flush(send);
        }
        if self.used == self.batches.len() {
            self.batches.push(Batch::new(flow));
        }
        let batch = &mut self.batches[self.used];
        self.used += 1;
        batch.flow = flow;
        batch.push(parts);
    }

    /// Everything leaves.
    pub(crate) fn flush(&mut self, send: impl Fn(&Batch<S>)) {
        for batch in &mut self.batches[..self.used] {
            send(batch);
            batch.clear();
        }
        self.used = 0;
    }
}

/// Packets of one flow, all of one size but the last, which may be shorter.
#[derive(Debug)]
pub(crate) struct Batch<S> {
    flow: Flow<S>,
    bytes: Vec<u8>,
    segment: usize,
    count: usize,
    is_closed: bool,
}

impl<S: Copy> Batch<S> {
    fn new(flow: Flow<S>) -> Self {
        Self {
            flow,
            bytes: Vec::with_capacity(MAX_BYTES),
            segment: 0,
            count: 0,
            is_closed: false,
        }
    }

    /// Whether a packet of this length may join. One without a payload goes alone: among the bytes of
    /// others, it cannot be seen.
    fn takes(&self, length: usize, segments: usize) -> bool {
        !self.is_closed
            && (1..=self.segment).contains(&length)
            && self.count < segments
            && self.bytes.len() + length <= MAX_BYTES
    }

    fn push(&mut self, parts: &[&[u8]]) {
        let before = self.bytes.len();
        for part in parts {
            self.bytes.extend_from_slice(part);
        }
        let length = self.bytes.len() - before;
        if self.count == 0 {
            self.segment = length;
        }
        self.count += 1;
        self.is_closed = length < self.segment;
    }

    fn clear(&mut self) {
        self.bytes.clear();
        self.count = 0;
        self.is_closed = false;
    }

    /// Where it goes.
    pub(crate) const fn flow(&self) -> &Flow<S> {
        &self.flow
    }

    /// How many packets it has.
    pub(crate) const fn count(&self) -> usize {
        self.count
    }

    /// The packets, one after another, and how long each but the last is.
    pub(crate) fn packets(&self) -> (&[u8], usize) {
        (&self.bytes, self.segment)
    }

    /// Sends all of it by one call.
    pub(crate) fn send(&self, bound: &Bound) -> std::io::Result<()> {
        if self.count == 1 && self.flow.from.is_none() {
            // Nothing to say to the kernel but where to: sendto(2) costs less than sendmsg(2).
            return bound.socket.send_to(&self.bytes, self.flow.to).map(drop);
        }
        bound.state.try_send(
            (&bound.socket).into(),
            &Transmit {
                destination: self.flow.to,
                ecn: None,
                contents: &self.bytes,
                segment_size: (self.count > 1).then_some(self.segment),
                src_ip: self.flow.from,
            },
        )
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;

    /// What leaves: socket, and sizes by length and segment.
    fn gathered(packets: &[(u8, usize)]) -> Vec<(u8, usize, usize)> {
        let sent = RefCell::new(Vec::new());
        let send = |batch: &Batch<u8>| {
            let entry = (batch.flow().socket, batch.bytes.len(), batch.segment);
            sent.borrow_mut().push(entry);
        };
        let mut batches = Batches::new();
        for (socket, length) in packets {
            let flow = Flow {
                socket: *socket,
                to: "192.0.2.1:1".parse().unwrap(),
                from: None,
            };
            batches.push(flow, &[&vec![0; *length]], 4, send);
        }
        batches.flush(send);
        batches.flush(send);
        sent.into_inner()
    }

    #[test]
    fn packets_of_a_flow_leave_together_although_they_come_in_turn() {
        let sent = gathered(&[(1, 100), (2, 50), (1, 100), (2, 50), (1, 70)]);
        assert_eq!(sent, [(1, 270, 100), (2, 100, 50)]);
    }

    #[test]
    fn nothing_joins_a_batch_that_is_full_or_has_a_shorter_packet_or_is_of_shorter_ones() {
        assert_eq!(gathered(&[(1, 9); 5]), [(1, 36, 9), (1, 9, 9)]);
        let after_a_short_one = gathered(&[(1, 9), (1, 5), (1, 5)]);
        assert_eq!(after_a_short_one, [(1, 14, 9), (1, 5, 5)]);
        assert_eq!(gathered(&[(1, 5), (1, 9)]), [(1, 5, 5), (1, 9, 9)]);
    }

    #[test]
    fn an_empty_packet_goes_alone() {
        let sent = gathered(&[(1, 3), (1, 0), (1, 0), (1, 3)]);
        assert_eq!(sent, [(1, 3, 3), (1, 0, 0), (1, 0, 0), (1, 3, 3)]);
    }

    #[test]
    fn more_flows_than_are_gathered_leave_in_their_order() {
        let flows = u8::try_from(MAX_FLOWS).unwrap() + 1;
        let sent = gathered(&(0..flows).map(|flow| (flow, 9)).collect::<Vec<_>>());
        assert!(sent.iter().map(|(socket, ..)| *socket).eq(0..flows));
    }
}
