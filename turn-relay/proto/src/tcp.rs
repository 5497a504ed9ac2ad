//! TCP between a relayed address and peers (RFC 6062): what an allocation holds of it.

use std::net::SocketAddr;
use std::time::Duration;

use stun_types::message::Method;

use crate::five_tuple::FiveTuple;

/// Connect (RFC 6062 §6.1).
pub const CONNECT: Method = Method::new(0x000a);
/// ConnectionBind.
pub const CONNECTION_BIND: Method = Method::new(0x000b);
/// ConnectionAttempt.
pub const CONNECTION_ATTEMPT: Method = Method::new(0x000c);

/// What is spoken between a relayed address and peers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RelayTransport {
    /// Datagrams.
    Udp,
    /// Connections.
    Tcp,
}

/// Names a connection with a peer, as CONNECTION-ID does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConnectionId(pub u32);

/// The connections of one allocation: few.
#[derive(Debug, Default)]
pub(crate) struct PeerConnections(pub(crate) Vec<PeerConnection>);

/// A connection with a peer.
#[derive(Debug)]
pub(crate) struct PeerConnection {
    pub(crate) id: ConnectionId,
    pub(crate) peer: SocketAddr,
    pub(crate) state: Progress,
}

/// How far it is.
#[derive(Debug)]
pub(crate) enum Progress {
    /// The shell connects; the request waits for that.
    Connecting { request: Vec<u8>, until: Duration },
    /// The client must come with a connection for it.
    Waiting { until: Duration },
    /// Bytes pass between it and this connection of the client.
    Bound { client: FiveTuple },
}

impl PeerConnections {
    pub(crate) fn get_mut(&mut self, id: ConnectionId) -> Option<&mut PeerConnection> {
        self.0.iter_mut().find(|connection| connection.id == id)
    }

    pub(crate) fn get(&self, id: ConnectionId) -> Option<&PeerConnection> {
        self.0.iter().find(|connection| connection.id == id)
    }

    pub(crate) fn has_peer(&self, peer: &SocketAddr) -> bool {
        self.0.iter().any(|connection| connection.peer == *peer)
    }

    pub(crate) fn remove(&mut self, id: ConnectionId) -> Option<PeerConnection> {
        let at = self.0.iter().position(|connection| connection.id == id)?;
        Some(self.0.swap_remove(at))
    }
}

impl PeerConnection {
    /// When it is given up unless it goes on.
    pub(crate) const fn until(&self) -> Option<Duration> {
        match self.state {
            Progress::Connecting { until, .. } | Progress::Waiting { until } => Some(until),
            Progress::Bound { .. } => None,
        }
    }
}
