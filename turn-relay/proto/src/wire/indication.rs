//! Send and Data indications (RFC 8656 §11): a payload with the address of its peer. Hot path.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::ops::Range;

/// Type of a Send indication.
const SEND: u16 = 0x0016;

/// Type of a Data indication.
const DATA_INDICATION: u16 = 0x0017;

const MAGIC_COOKIE: [u8; 4] = [0x21, 0x12, 0xa4, 0x42];

const XOR_PEER_ADDRESS: u16 = 0x0012;
const DATA: u16 = 0x0013;
const DONT_FRAGMENT: u16 = 0x001a;

/// Attributes from this number on may be ignored by who does not know them (RFC 8489 §14).
const COMPREHENSION_OPTIONAL: u16 = 0x8000;

const HEADER: usize = 20;
const ATTRIBUTE_HEADER: usize = 4;

/// What comes before a payload at most: header, an IPv6 address, the header of the data.
const MAX_PREFIX: usize = HEADER + ATTRIBUTE_HEADER + 20 + ATTRIBUTE_HEADER;

/// Whether a packet is a Send indication.
#[must_use]
pub fn is_send(packet: &[u8]) -> bool {
    packet.starts_with(&SEND.to_be_bytes())
}

/// Peer and place of the payload of a Send indication; `None` if it must be dropped.
#[must_use]
pub fn parse_send(packet: &[u8]) -> Option<(SocketAddr, Range<usize>)> {
    let header = packet.get(..HEADER)?;
    let length = usize::from(u16::from_be_bytes([header[2], header[3]]));
    if header[4..8] != MAGIC_COOKIE || length % 4 != 0 || HEADER + length > packet.len() {
        return None;
    }
    let transaction: [u8; 12] = header[8..].try_into().ok()?;
    let (mut peer, mut data) = (None, None);
    let mut at = HEADER;
    while at < HEADER + length {
        let [a, b, c, d] = *packet.get(at..)?.first_chunk()?;
        let (kind, size) = (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]));
        let value = at + ATTRIBUTE_HEADER..at + ATTRIBUTE_HEADER + usize::from(size);
        if value.end > HEADER + length {
            return None;
        }
        match kind {
            XOR_PEER_ADDRESS if peer.is_none() => {
                peer = Some(address(&packet[value.clone()], &transaction)?);
            }
            DATA if data.is_none() => data = Some(value.clone()),
            // Sockets do not fragment what they relay anyway.
            XOR_PEER_ADDRESS | DATA | DONT_FRAGMENT => {}
            COMPREHENSION_OPTIONAL.. => {}
            _ => return None,
        }
        at = value.end.next_multiple_of(4);
    }
    Some((peer?, data?))
}

/// What precedes a payload on its way to a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Prefix {
    bytes: [u8; MAX_PREFIX],
    length: usize,
    /// Zeroes that follow the payload.
    pub padding: usize,
}

impl Prefix {
    /// The header of ChannelData.
    #[must_use]
    pub fn channel_data(header: [u8; super::channel_data::HEADER]) -> Self {
        let mut bytes = [0; MAX_PREFIX];
        bytes[..header.len()].copy_from_slice(&header);
        Self {
            bytes,
            length: header.len(),
            padding: 0,
        }
    }

    /// A Data indication up to its payload, whose length is given; `None` if that is too long.
    /// `transaction` only has to differ from others.
    #[must_use]
    pub fn data_indication(peer: SocketAddr, payload: usize, transaction: u64) -> Option<Self> {
        let size = u16::try_from(payload).ok()?;
        let mut writer = Self {
            bytes: [0; MAX_PREFIX],
            length: HEADER,
            padding: payload.next_multiple_of(4) - payload,
        };
        let mut id = [0; 12];
        id[4..].copy_from_slice(&transaction.to_be_bytes());
        let mask = mask(&id);
        let (family, ip): (u8, &[u8]) = match peer.ip() {
            IpAddr::V4(v4) => (1, &v4.octets()),
            IpAddr::V6(v6) => (2, &v6.octets()),
        };
        writer.push(&XOR_PEER_ADDRESS.to_be_bytes());
        writer.push(&[0, if family == 1 { 8 } else { 20 }, 0, family]);
        let [a, b] = peer.port().to_be_bytes();
        writer.push(&[a ^ mask[0], b ^ mask[1]]);
        for (byte, mask) in ip.iter().zip(mask) {
            writer.push(&[byte ^ mask]);
        }
        writer.push(&DATA.to_be_bytes());
        writer.push(&size.to_be_bytes());
        let length = u16::try_from(writer.length - HEADER + payload.next_multiple_of(4)).ok()?;
        let header = &mut writer.bytes[..HEADER];
        header[..2].copy_from_slice(&DATA_INDICATION.to_be_bytes());
        header[2..4].copy_from_slice(&length.to_be_bytes());
        header[4..8].copy_from_slice(&MAGIC_COOKIE);
        header[8..].copy_from_slice(&id);
        Some(writer)
    }

    /// Its bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.length]
    }

    fn push(&mut self, bytes: &[u8]) {
        self.bytes[self.length..self.length + bytes.len()].copy_from_slice(bytes);
        self.length += bytes.len();
    }
}

/// What addresses are masked with (RFC 8489 §14.2): cookie and transaction.
fn mask(transaction: &[u8; 12]) -> [u8; 16] {
    let mut mask = [0; 16];
    mask[..4].copy_from_slice(&MAGIC_COOKIE);
    mask[4..].copy_from_slice(transaction);
    mask
}

fn address(value: &[u8], transaction: &[u8; 12]) -> Option<SocketAddr> {
    let mask = mask(transaction);
    let [_, family, a, b, ip @ ..] = value else {
        return None;
    };
    let port = u16::from_be_bytes([a ^ mask[0], b ^ mask[1]]);
    let ip = match (family, ip.len()) {
        (1, 4) => {
            let ip: [u8; 4] = std::array::from_fn(|i| ip[i] ^ mask[i]);
            IpAddr::V4(Ipv4Addr::from(ip))
        }
        (2, 16) => {
            let ip: [u8; 16] = std::array::from_fn(|i| ip[i] ^ mask[i]);
            IpAddr::V6(Ipv6Addr::from(ip))
        }
        _ => return None,
    };
    Some(SocketAddr::new(ip, port))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use stun_types::message::{Message, MessageWrite as _, MessageWriteExt as _, MessageWriteVec};
    use turn_types::attribute::{Data, XorPeerAddress};
    use turn_types::message::{DATA as DATA_METHOD, SEND as SEND_METHOD};

    use super::*;

    fn peers() -> impl Strategy<Value = SocketAddr> {
        (any::<std::net::IpAddr>(), any::<u16>()).prop_map(SocketAddr::from)
    }

    proptest! {
        #[test]
        fn a_send_indication_is_read_as_another_wrote_it(peer in peers(), payload: Vec<u8>) {
            let mut message = Message::builder_indication(SEND_METHOD, MessageWriteVec::new());
            let transaction = message.transaction_id();
            message.add_attribute(&XorPeerAddress::new(peer, transaction)).unwrap();
            message.add_attribute(&Data::new(&payload)).unwrap();
            let packet = message.finish();
            prop_assert!(is_send(&packet));
            let (read, range) = parse_send(&packet).unwrap();
            prop_assert_eq!(read, peer);
            prop_assert_eq!(&packet[range], &payload[..]);
        }

        #[test]
        fn a_data_indication_is_read_by_another_as_written(peer in peers(), payload: Vec<u8>, id: u64) {
            let prefix = Prefix::data_indication(peer, payload.len(), id).unwrap();
            let mut packet = prefix.as_bytes().to_vec();
            packet.extend_from_slice(&payload);
            packet.resize(packet.len() + prefix.padding, 0);
            let message = Message::from_bytes(&packet).unwrap();
            prop_assert_eq!(message.method(), DATA_METHOD);
            let address: XorPeerAddress = message.attribute().unwrap();
            prop_assert_eq!(address.addr(message.transaction_id()), peer);
            let data: Data<'_> = message.attribute().unwrap();
            prop_assert_eq!(data.data(), &payload[..]);
        }

        #[test]
        fn any_bytes_are_taken_or_refused(mut packet: Vec<u8>) {
            if packet.len() >= 8 {
                packet[..2].copy_from_slice(&SEND.to_be_bytes());
                packet[4..8].copy_from_slice(&MAGIC_COOKIE);
            }
            if let Some((_, range)) = parse_send(&packet) {
                prop_assert!(packet.get(range).is_some());
            }
        }
    }
}
