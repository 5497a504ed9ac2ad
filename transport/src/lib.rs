//! Data channels of a peer connection behind one trait.
//!
//! [`Channel`] is all that sessions know of a transport. [`webrtc`] provides it over WebRTC,
//! [`loopback`] inside one process for tests. [`lane`] makes a byte stream of a channel. What lives
//! here: peer connections, candidates, sockets. What does not: who the peer is
//! (`protocol::session`) and what the bytes mean.
//!
//! The law of a channel:
//! - Messages arrive whole, in order, once, or the channel ends.
//! - [`Channel::send`] waits while [`SEND_HIGH_WATER`] bytes or more are not yet acknowledged by the
//!   other end's transport: backpressure shows in the signature. Callers that want less in flight
//!   (for latency) keep less in flight.
//! - Received messages are queued up to a bound of the transport, then the peer's window closes.

pub mod lane;
pub mod loopback;
pub mod webrtc;

use std::net::IpAddr;

use async_trait::async_trait;
use bytes::Bytes;
use portway_protocol::signal::news;

/// [`Channel::send`] waits while this many bytes are unacknowledged. Covers 50 ms at 640 Mbit/s;
/// the lane's own window keeps the amount at the bandwidth-delay product.
pub const SEND_HIGH_WATER: usize = 4 * 1024 * 1024;

/// An ordered, reliable channel of messages.
#[async_trait]
pub trait Channel: Send + Sync + 'static {
    /// Queues one message, waiting for room.
    ///
    /// # Errors
    /// [`Closed`] once either end has closed or the path is gone.
    async fn send(&self, message: Bytes) -> Result<(), Closed>;

    /// The next message; `None` once the channel is closed. One task at a time may wait here.
    async fn recv(&self) -> Option<Bytes>;

    /// Closes the channel; both ends' `recv` return `None`.
    async fn close(&self);
}

/// The channel is closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the data channel is closed")]
pub struct Closed;

/// How two ends reach each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Path {
    /// Directly or not.
    pub kind: PathKind,
    /// Where the other end's packets come from: its own address, its NAT's, or its relay's.
    pub remote: IpAddr,
    /// What this end's address is.
    pub local_kind: CandidateKind,
    /// What the other end's address is.
    pub remote_kind: CandidateKind,
    /// What carries the packets.
    pub protocol: Protocol,
}

/// Where an address of a path comes from (RFC 8445 §5.1.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CandidateKind {
    /// An interface of that machine.
    Host,
    /// What a server outside saw: the address of a NAT.
    ServerReflexive,
    /// What the other end saw.
    PeerReflexive,
    /// A relay's.
    Relay,
}

impl CandidateKind {
    /// The word that ICE has for it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Host => "host",
            Self::ServerReflexive => "srflx",
            Self::PeerReflexive => "prflx",
            Self::Relay => "relay",
        }
    }
}

/// What carries the packets of a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// UDP.
    Udp,
    /// TCP.
    Tcp,
}

impl Protocol {
    /// The word for it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Udp => "udp",
            Self::Tcp => "tcp",
        }
    }
}

/// Whether a relay is between two ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PathKind {
    /// Packets go straight from one to the other.
    Direct,
    /// Packets go through a relay.
    Relayed,
}

impl PathKind {
    /// The word for it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Relayed => "relayed",
        }
    }
}

impl From<PathKind> for news::Way {
    fn from(kind: PathKind) -> Self {
        match kind {
            PathKind::Direct => Self::Direct,
            PathKind::Relayed => Self::Relayed,
        }
    }
}

impl From<Protocol> for news::Transport {
    fn from(protocol: Protocol) -> Self {
        match protocol {
            Protocol::Udp => Self::Udp,
            Protocol::Tcp => Self::Tcp,
        }
    }
}

impl From<CandidateKind> for news::CandidateKind {
    fn from(kind: CandidateKind) -> Self {
        match kind {
            CandidateKind::Host => Self::Host,
            CandidateKind::ServerReflexive => Self::Srflx,
            CandidateKind::PeerReflexive => Self::Prflx,
            CandidateKind::Relay => Self::Relay,
        }
    }
}
