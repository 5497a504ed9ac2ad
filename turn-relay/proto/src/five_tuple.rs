//! Who a client is (RFC 8656 §2.2).

use std::hash::{Hash, Hasher};
use std::net::{IpAddr, SocketAddr};

/// One of the server's listening sockets: its address and protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ListenerId(pub u16);

/// Client address, server address and protocol; the listener stands for the last two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FiveTuple {
    /// Where the client was heard.
    pub listener: ListenerId,
    /// Where it sends from.
    pub client: SocketAddr,
    /// Where it sends to, if the listener has many addresses: it must be answered from there.
    pub local: Option<IpAddr>,
}

/// By one number where that says all: a packet of a client is looked up by it.
impl Hash for FiveTuple {
    fn hash<H: Hasher>(&self, state: &mut H) {
        match self.client {
            SocketAddr::V4(client) => {
                let address = u64::from(client.ip().to_bits());
                let port = u64::from(client.port());
                state.write_u64(address << 32 | port << 16 | u64::from(self.listener.0));
            }
            SocketAddr::V6(client) => {
                state.write_u128(client.ip().to_bits());
                state.write_u32(u32::from(client.port()) << 16 | u32::from(self.listener.0));
            }
        }
    }
}
