//! Who a client is (RFC 8656 §2.2).

use std::net::{IpAddr, SocketAddr};

/// One of the server's listening sockets: its address and protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ListenerId(pub u16);

/// Client address, server address and protocol; the listener stands for the last two.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct FiveTuple {
    /// Where the client was heard.
    pub listener: ListenerId,
    /// Where it sends from.
    pub client: SocketAddr,
    /// Where it sends to, if the listener has many addresses: it must be answered from there.
    pub local: Option<IpAddr>,
}
