//! What the shell must do.

use std::net::SocketAddr;

use crate::allocation::AllocationId;
use crate::event::Event;
use crate::five_tuple::FiveTuple;
use crate::tcp::{ConnectionId, RelayTransport};

/// Address family of a relayed address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// The family of an address.
    #[must_use]
    pub const fn of(address: &SocketAddr) -> Self {
        match address {
            SocketAddr::V4(_) => Self::V4,
            SocketAddr::V6(_) => Self::V6,
        }
    }
}

/// One relay socket: an allocation has one for each of its families.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct RelayId {
    /// Whose it is.
    pub allocation: AllocationId,
    /// Its family.
    pub family: Family,
}

/// A port that is kept for a client beside its even one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ReservationId(pub u64);

/// Which port a relay socket is wanted on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PortWish {
    /// Any.
    Any,
    /// An even one (RFC 8656 §18.6).
    Even,
    /// An even one, with the next port bound too and kept under this name.
    EvenAndNext(ReservationId),
    /// The one that was kept.
    Reserved(ReservationId),
}

/// What the shell must do, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// Send a message to a client.
    Reply {
        /// To whom.
        to: FiveTuple,
        /// What.
        message: Vec<u8>,
    },
    /// Bind a relay socket, then call [`relay_bound`](crate::server::Server::relay_bound).
    Bind {
        /// Its name from now on.
        relay: RelayId,
        /// On which port.
        port: PortWish,
        /// What peers speak there: connections are to be awaited, too.
        transport: RelayTransport,
    },
    /// Connect to a peer from a relayed address, then call
    /// [`peer_connected`](crate::server::Server::peer_connected).
    Connect {
        /// From there.
        relay: RelayId,
        /// Its name from now on.
        connection: ConnectionId,
        /// Whom.
        peer: SocketAddr,
    },
    /// From now on, pass bytes between a connection with a peer and this one of a client.
    Splice {
        /// The one with a peer.
        connection: ConnectionId,
        /// The client's.
        client: FiveTuple,
    },
    /// Close a connection with a peer, and that of its client, if there is one.
    CloseConnection(ConnectionId),
    /// Close a relay socket. One that was never bound is no error.
    Close(RelayId),
    /// Close the socket of a port that was kept and never asked for.
    Release(ReservationId),
    /// Count this, if anybody wants to know.
    Tell(Event),
}
