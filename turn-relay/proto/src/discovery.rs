//! What kind of NAT a client is behind (RFC 5780): a server on two addresses with two ports each answers
//! from where the client wants to be answered.
//!
//! Security: RESPONSE-PORT and PADDING are refused: the first would send answers to somebody who did
//! not ask, the second would make them large. Mapping and filtering are found without.

use std::net::SocketAddr;

use stun_types::attribute::{AttributeType, RawAttribute};
use stun_types::message::Message;

use crate::five_tuple::ListenerId;
use crate::request::Refusal;

/// CHANGE-REQUEST (RFC 5780 §7.2).
pub const CHANGE_REQUEST: AttributeType = AttributeType::new(0x0003);
/// RESPONSE-ORIGIN (RFC 5780 §7.3).
pub const RESPONSE_ORIGIN: AttributeType = AttributeType::new(0x802b);
/// OTHER-ADDRESS (RFC 5780 §7.4).
pub const OTHER_ADDRESS: AttributeType = AttributeType::new(0x802c);

const CHANGE_ADDRESS: u32 = 0x4;
const CHANGE_PORT: u32 = 0x2;

/// Four listeners: two addresses with the same two ports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Discovery {
    /// By address, then by port.
    pub listeners: [[(ListenerId, SocketAddr); 2]; 2],
}

/// From where a client is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Origin {
    pub(crate) listener: ListenerId,
    address: SocketAddr,
    other: SocketAddr,
}

impl Discovery {
    /// From where a request at a listener is to be answered, if that listener is one of the four.
    ///
    /// # Errors
    /// If it says that badly.
    pub(crate) fn origin(
        &self,
        listener: ListenerId,
        request: &Message<'_>,
    ) -> Result<Option<Origin>, Refusal> {
        let places = [(0, 0), (0, 1), (1, 0), (1, 1)];
        let at = |(address, port): (usize, usize)| self.listeners[address][port];
        let Some((address, port)) = places.into_iter().find(|place| at(*place).0 == listener)
        else {
            return Ok(None);
        };
        let change = match request.raw_attribute(CHANGE_REQUEST) {
            None => 0,
            Some(raw) => {
                u32::from_be_bytes((*raw.value).try_into().map_err(|_| Refusal::BadRequest)?)
            }
        };
        let flip = |index: usize, flag: u32| index ^ usize::from(change & flag != 0);
        let (listener, from) = at((flip(address, CHANGE_ADDRESS), flip(port, CHANGE_PORT)));
        Ok(Some(Origin {
            listener,
            address: from,
            other: at((1 - address, 1 - port)).1,
        }))
    }
}

impl Origin {
    /// RESPONSE-ORIGIN and OTHER-ADDRESS.
    pub(crate) fn attributes(&self) -> [RawAttribute<'static>; 2] {
        [(RESPONSE_ORIGIN, self.address), (OTHER_ADDRESS, self.other)]
            .map(|(kind, address)| RawAttribute::new(kind, &plain(address)).into_owned())
    }
}

/// An address as MAPPED-ADDRESS has it (RFC 8489 §14.1).
fn plain(address: SocketAddr) -> Vec<u8> {
    let mut bytes = vec![0, if address.is_ipv4() { 1 } else { 2 }];
    bytes.extend_from_slice(&address.port().to_be_bytes());
    match address {
        SocketAddr::V4(v4) => bytes.extend_from_slice(&v4.ip().octets()),
        SocketAddr::V6(v6) => bytes.extend_from_slice(&v6.ip().octets()),
    }
    bytes
}
