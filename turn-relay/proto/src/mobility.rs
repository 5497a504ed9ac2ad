//! Clients that move to another network and keep what they hold (RFC 8016).
//!
//! A ticket names the allocation and is signed, so that no table is needed: each answer to a client that
//! asked for one carries the next. A ticket proves nothing about its bearer, who signs its requests as
//! ever.

use ring::hmac;
use stun_types::attribute::{AttributeType, RawAttribute};
use stun_types::message::Message;
use subtle::ConstantTimeEq as _;

use crate::allocation::AllocationId;

/// MOBILITY-TICKET (RFC 8016 §3.6).
pub const MOBILITY_TICKET: AttributeType = AttributeType::new(0x8030);

/// Bytes of the allocation, of the count of moves, of the hash.
const ID: usize = 8;
const MOVES: usize = 4;
const HASH: usize = 12;

/// What a client says of mobility.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mobility {
    /// Nothing.
    Unwanted,
    /// It wants a ticket.
    Wanted,
    /// It has this one.
    Ticket(Ticket),
}

/// A ticket: opaque to clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ticket([u8; ID + MOVES + HASH]);

impl Mobility {
    /// What a request says. A ticket of another length is nobody's, and told as `None`.
    pub(crate) fn of(message: &Message<'_>) -> Option<Self> {
        match message.raw_attribute(MOBILITY_TICKET) {
            None => Some(Self::Unwanted),
            Some(raw) if raw.value.is_empty() => Some(Self::Wanted),
            Some(raw) => (*raw.value).try_into().ok().map(Ticket).map(Self::Ticket),
        }
    }
}

impl Ticket {
    /// As an attribute.
    pub(crate) fn attribute(&self) -> RawAttribute<'_> {
        RawAttribute::new(MOBILITY_TICKET, &self.0)
    }
}

/// Makes and checks tickets.
#[derive(Debug)]
pub(crate) struct Tickets(hmac::Key);

impl Tickets {
    /// With a key derived from one of this server's own.
    pub(crate) fn new(key: &[u8; 32]) -> Self {
        let root = hmac::Key::new(hmac::HMAC_SHA256, key);
        let derived = hmac::sign(&root, b"mobility tickets");
        Self(hmac::Key::new(hmac::HMAC_SHA256, derived.as_ref()))
    }

    /// The ticket for an allocation that has moved so many times.
    pub(crate) fn issue(&self, id: AllocationId, moves: u32) -> Ticket {
        let mut bytes = [0; ID + MOVES + HASH];
        bytes[..ID].copy_from_slice(&id.to_bits().to_be_bytes());
        bytes[ID..ID + MOVES].copy_from_slice(&moves.to_be_bytes());
        let hash = hmac::sign(&self.0, &bytes[..ID + MOVES]);
        bytes[ID + MOVES..].copy_from_slice(&hash.as_ref()[..HASH]);
        Ticket(bytes)
    }

    /// What a ticket of this server is for.
    pub(crate) fn check(&self, ticket: &Ticket) -> Option<(AllocationId, u32)> {
        let (id, rest) = ticket.0.split_first_chunk::<ID>()?;
        let (moves, _hash) = rest.split_first_chunk::<MOVES>()?;
        let (id, moves) = (
            AllocationId::from_bits(u64::from_be_bytes(*id)),
            u32::from_be_bytes(*moves),
        );
        let is_ours: bool = self.issue(id, moves).0.ct_eq(&ticket.0).into();
        is_ours.then_some((id, moves))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ticket_is_what_its_server_made_it() {
        let tickets = Tickets::new(&[1; 32]);
        let id = AllocationId::from_bits(7 << 32 | 9);
        let ticket = tickets.issue(id, 3);
        assert_eq!(tickets.check(&ticket), Some((id, 3)));
        assert_eq!(Tickets::new(&[2; 32]).check(&ticket), None);
        for at in 0..ticket.0.len() {
            let mut forged = ticket;
            forged.0[at] ^= 1;
            assert_eq!(tickets.check(&forged), None, "byte {at}");
        }
    }
}
