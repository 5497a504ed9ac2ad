//! STUN/TURN relays that clients are given credentials for: somewhere else, or beside this service, in
//! the same process and on the same port.

use std::net::SocketAddr;

use portway_protocol::id::{GrantId, SessionId};
use portway_protocol::signal::IceServer;

/// Makes credentials of a relay, wherever that runs.
pub trait Issuer: Send + Sync {
    /// The relay's addresses with credentials for one session of a client, none that outlive the grant.
    fn issue(&self, lease: &Lease) -> Vec<IceServer>;
}

/// A relay in this process: it also takes the connections at the port that speak STUN.
pub trait Relay: Issuer {
    /// Takes a connection, which is ended by dropping it.
    fn take(&self, connection: StunConnection);
}

/// Whom credentials are for.
#[derive(Debug, Clone, Copy)]
pub struct Lease {
    /// By which grant the client came.
    pub grant: GrantId,
    /// What it will open.
    pub session: SessionId,
    /// When the grant expires, seconds since 1970.
    pub expires: u64,
}

/// A connection whose first byte is that of a STUN request. Nothing has been taken out of it.
#[derive(Debug)]
pub struct StunConnection {
    /// The socket, not blocking.
    pub socket: std::net::TcpStream,
    /// What it speaks within, after the handshake. Holds what has been received.
    pub tls: Option<Box<rustls::ServerConnection>>,
    /// The client.
    pub peer: SocketAddr,
}

/// Whether a connection that begins with this byte speaks STUN (RFC 8489 §5: a request of a method
/// below 0x100). HTTP begins with a letter, a TLS handshake with 22.
pub(crate) const fn is_stun(first: u8) -> bool {
    first < 2
}
