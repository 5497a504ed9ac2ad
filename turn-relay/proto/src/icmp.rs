//! What routers and hosts say of packets that did not arrive (RFC 8656 §18.13).

use crate::command::Family;

/// An ICMP error about a packet of a relay socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IcmpError {
    /// ICMP type, of the family of the packet.
    pub kind: u8,
    /// ICMP code.
    pub code: u8,
    /// The MTU of the next hop where the packet was too big for it, else 0.
    pub data: u32,
}

impl IcmpError {
    /// ICMPv4: destination unreachable, time exceeded.
    const V4: [u8; 2] = [3, 11];
    /// ICMPv6: destination unreachable, packet too big, time exceeded.
    const V6: [u8; 3] = [1, 2, 3];

    /// Whether a client is told of it (RFC 8656 §11.4).
    pub(crate) fn is_passed_on(self, family: Family) -> bool {
        match family {
            Family::V4 => Self::V4.contains(&self.kind),
            Family::V6 => Self::V6.contains(&self.kind),
        }
    }

    /// The packet was too big for the path, and this is what is not.
    #[must_use]
    pub const fn too_big(family: Family, mtu: u32) -> Self {
        let (kind, code) = match family {
            Family::V4 => (3, 4),
            Family::V6 => (2, 0),
        };
        Self {
            kind,
            code,
            data: mtu,
        }
    }
}
