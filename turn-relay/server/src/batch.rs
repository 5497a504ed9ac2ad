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

/// Packets of one flow, all of one size but the last, which may be shorter.
#[derive(Debug)]
pub(crate) struct Batch<S> {
    flow: Option<Flow<S>>,
    bytes: Vec<u8>,
    segment: usize,
    count: usize,
    is_closed: bool,
}

impl<S: Copy + PartialEq> Batch<S> {
    pub(crate) fn new() -> Self {
        Self {
            flow: None,
            bytes: Vec::with_capacity(MAX_BYTES),
            segment: 0,
            count: 0,
            is_closed: false,
        }
    }

    /// Whether a packet of this length may join; if not, the batch is to be sent first. One without a
    /// payload goes alone: among the bytes of others, it cannot be seen.
    pub(crate) fn takes(&self, flow: &Flow<S>, length: usize, segments: usize) -> bool {
        match &self.flow {
            None => true,
            Some(own) => {
                own == flow
                    && !self.is_closed
                    && (1..=self.segment).contains(&length)
                    && self.count < segments
                    && self.bytes.len() + length <= MAX_BYTES
            }
        }
    }

    /// Adds a packet made of these parts, after [`Batch::takes`].
    pub(crate) fn push(&mut self, flow: Flow<S>, parts: &[&[u8]]) {
        let before = self.bytes.len();
        for part in parts {
            self.bytes.extend_from_slice(part);
        }
        let length = self.bytes.len() - before;
        if self.count == 0 {
            self.flow = Some(flow);
            self.segment = length;
        }
        self.count += 1;
        self.is_closed = length < self.segment;
    }

    /// What to send, if anything; the batch is empty then.
    pub(crate) fn take(&mut self) -> Option<(Flow<S>, Ready<'_, S>)> {
        let flow = self.flow.take()?;
        Some((flow, Ready(self)))
    }
}

/// A batch on its way out; cleared when dropped.
pub(crate) struct Ready<'a, S>(&'a mut Batch<S>);

impl<S> Ready<'_, S> {
    /// How many packets it has.
    pub(crate) fn count(&self) -> usize {
        self.0.count
    }

    /// The packets, one after another, and how long each but the last is.
    pub(crate) fn packets(&self) -> (&[u8], usize) {
        (&self.0.bytes, self.0.segment)
    }

    /// Sends all of it by one call.
    pub(crate) fn send(&self, flow: &Flow<S>, bound: &Bound) -> std::io::Result<()> {
        if self.0.count == 1 && flow.from.is_none() {
            // Nothing to say to the kernel but where to: sendto(2) costs less than sendmsg(2).
            return bound.socket.send_to(&self.0.bytes, flow.to).map(drop);
        }
        bound.state.try_send(
            (&bound.socket).into(),
            &Transmit {
                destination: flow.to,
                ecn: None,
                contents: &self.0.bytes,
                segment_size: (self.0.count > 1).then_some(self.0.segment),
                src_ip: flow.from,
            },
        )
    }
}

impl<S> Drop for Ready<'_, S> {
    fn drop(&mut self) {
        self.0.bytes.clear();
        self.0.count = 0;
        self.0.is_closed = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flow() -> Flow<usize> {
        Flow {
            socket: 0,
            to: ([192, 0, 2, 1], 1).into(),
            from: None,
        }
    }

    /// How many batches these packets of one flow make.
    fn batches(packets: &[&[u8]]) -> usize {
        let mut batch = Batch::new();
        let mut sent = 0;
        for packet in packets {
            if !batch.takes(&flow(), packet.len(), 64) {
                sent += usize::from(batch.take().is_some());
            }
            batch.push(flow(), &[packet]);
        }
        sent + usize::from(batch.take().is_some())
    }

    #[test]
    fn packets_of_one_size_and_a_shorter_last_go_together() {
        assert_eq!(batches(&[b"abc", b"def", b"g"]), 1);
        assert_eq!(batches(&[b"abc", b"d", b"efg"]), 2);
        assert_eq!(batches(&[b"a", b"bcd"]), 2);
    }

    #[test]
    fn an_empty_packet_goes_alone() {
        assert_eq!(batches(&[b"abc", b"", b"", b"def"]), 4);
    }
}
