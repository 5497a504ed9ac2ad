//! STUN Binding (RFC 8489), both ends: how a machine learns the address that others see it at.
//!
//! Just this one method, without credentials. Bytes in, bytes out: no socket, no clock, no rng.
//!
//! Security: an answer is at most 24 bytes longer than its request, so that a forged source address
//! gains an attacker nothing worth having.

use std::net::{IpAddr, SocketAddr};

/// Largest message that is looked at; a Binding request of a browser has 20 to 28 bytes.
pub const MAX_MESSAGE: usize = 548;

/// Identifier of a transaction (RFC 8489 §5).
pub type TransactionId = [u8; 12];

const HEADER: usize = 20;
const MAGIC_COOKIE: [u8; 4] = [0x21, 0x12, 0xa4, 0x42];

const BINDING_REQUEST: u16 = 0x0001;
const BINDING_SUCCESS: u16 = 0x0101;
const BINDING_ERROR: u16 = 0x0111;

const ERROR_CODE: u16 = 0x0009;
const UNKNOWN_ATTRIBUTES: u16 = 0x000a;
const XOR_MAPPED_ADDRESS: u16 = 0x0020;

/// Attributes below must be understood (RFC 8489 §14).
const COMPREHENSION_OPTIONAL: u16 = 0x8000;

/// "420 Unknown Attribute": class and number (RFC 8489 §14.8).
const UNKNOWN_ATTRIBUTE: [u8; 4] = [0, 0, 4, 20];

/// Unknown attributes that an error lists; the rest of a strange request is not worth an answer.
const MAX_LISTED: usize = 4;

/// A Binding request.
#[must_use]
pub fn binding_request(transaction: &TransactionId) -> Vec<u8> {
    message(BINDING_REQUEST, transaction, &[])
}

/// What a server answers to `packet` from `source`; `None` if it is no Binding request.
#[must_use]
pub fn answer(packet: &[u8], source: SocketAddr) -> Option<Vec<u8>> {
    let (kind, transaction, attributes) = parse(packet)?;
    if kind != BINDING_REQUEST {
        return None;
    }
    let mut unknown = Vec::new();
    for attribute in attributes {
        let (kind, _value) = attribute?;
        if kind < COMPREHENSION_OPTIONAL && unknown.len() < MAX_LISTED {
            unknown.push(kind);
        }
    }
    if unknown.is_empty() {
        let mapped = xor_address(source, &transaction);
        return Some(message(
            BINDING_SUCCESS,
            &transaction,
            &[(XOR_MAPPED_ADDRESS, &mapped)],
        ));
    }
    let listed: Vec<u8> = unknown.iter().flat_map(|kind| kind.to_be_bytes()).collect();
    let attributes: [(u16, &[u8]); 2] = [
        (ERROR_CODE, &UNKNOWN_ATTRIBUTE),
        (UNKNOWN_ATTRIBUTES, &listed),
    ];
    Some(message(BINDING_ERROR, &transaction, &attributes))
}

/// The address in a success response to our transaction.
#[must_use]
pub fn mapped_address(packet: &[u8], transaction: &TransactionId) -> Option<SocketAddr> {
    let (kind, answered, attributes) = parse(packet)?;
    if kind != BINDING_SUCCESS || answered != *transaction {
        return None;
    }
    for attribute in attributes {
        let (kind, value) = attribute?;
        if kind == XOR_MAPPED_ADDRESS {
            return unxor_address(value, transaction);
        }
    }
    None
}

/// Type, transaction and attributes of a message whose length is as its header says.
fn parse(packet: &[u8]) -> Option<(u16, TransactionId, Attributes<'_>)> {
    let (header, rest) = packet.split_at_checked(HEADER)?;
    let length = usize::from(u16::from_be_bytes([header[2], header[3]]));
    if packet.len() > MAX_MESSAGE
        || header[4..8] != MAGIC_COOKIE
        || length != rest.len()
        || length % 4 != 0
    {
        return None;
    }
    let kind = u16::from_be_bytes([header[0], header[1]]);
    Some((kind, header[8..].try_into().ok()?, Attributes(rest)))
}

/// Type and value of each attribute; `None` where the bytes end too early.
struct Attributes<'a>(&'a [u8]);

impl<'a> Iterator for Attributes<'a> {
    type Item = Option<(u16, &'a [u8])>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let attribute = self.split();
        if attribute.is_none() {
            self.0 = &[];
        }
        Some(attribute)
    }
}

impl<'a> Attributes<'a> {
    fn split(&mut self) -> Option<(u16, &'a [u8])> {
        let (head, rest) = self.0.split_at_checked(4)?;
        let length = usize::from(u16::from_be_bytes([head[2], head[3]]));
        let value = rest.get(..length)?;
        self.0 = rest.get(length.next_multiple_of(4)..)?;
        Some((u16::from_be_bytes([head[0], head[1]]), value))
    }
}

fn message(kind: u16, transaction: &TransactionId, attributes: &[(u16, &[u8])]) -> Vec<u8> {
    let mut body = Vec::new();
    for (kind, value) in attributes {
        body.extend(kind.to_be_bytes());
        body.extend(length(value));
        body.extend(*value);
        body.resize(body.len().next_multiple_of(4), 0);
    }
    let mut message = Vec::with_capacity(HEADER + body.len());
    message.extend(kind.to_be_bytes());
    message.extend(length(&body));
    message.extend(MAGIC_COOKIE);
    message.extend(transaction);
    message.extend(body);
    message
}

fn length(bytes: &[u8]) -> [u8; 2] {
    u16::try_from(bytes.len())
        .expect("our messages are short")
        .to_be_bytes()
}

/// Value of XOR-MAPPED-ADDRESS (RFC 8489 §14.2).
fn xor_address(address: SocketAddr, transaction: &TransactionId) -> Vec<u8> {
    let (family, mut octets) = match address.ip().to_canonical() {
        IpAddr::V4(ip) => (1, ip.octets().to_vec()),
        IpAddr::V6(ip) => (2, ip.octets().to_vec()),
    };
    mask(&mut octets, transaction);
    let mut value = vec![0, family];
    let mut port = address.port().to_be_bytes();
    mask(&mut port, transaction);
    value.extend(port);
    value.extend(octets);
    value
}

fn unxor_address(value: &[u8], transaction: &TransactionId) -> Option<SocketAddr> {
    let (head, octets) = value.split_at_checked(4)?;
    let mut port = [head[2], head[3]];
    mask(&mut port, transaction);
    let mut octets = octets.to_vec();
    mask(&mut octets, transaction);
    let ip: IpAddr = match head[1] {
        1 => <[u8; 4]>::try_from(octets).ok()?.into(),
        2 => <[u8; 16]>::try_from(octets).ok()?.into(),
        _ => return None,
    };
    Some(SocketAddr::new(ip, u16::from_be_bytes(port)))
}

/// Addresses travel masked, because some NATs rewrite whatever looks like one.
fn mask(bytes: &mut [u8], transaction: &TransactionId) {
    for (byte, mask) in bytes.iter_mut().zip(MAGIC_COOKIE.iter().chain(transaction)) {
        *byte ^= mask;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Transaction of the samples in RFC 5769 §2.2 and §2.3.
    const SAMPLE: TransactionId = *b"\xb7\xe7\xa7\x01\xbc\x34\xd6\x86\xfa\x87\xdf\xae";

    fn success(attribute: &[u8]) -> Vec<u8> {
        let mut message = vec![0x01, 0x01, 0x00, 0x00, 0x21, 0x12, 0xa4, 0x42];
        message.extend(SAMPLE);
        message.extend(attribute);
        message[3] = u8::try_from(attribute.len()).unwrap();
        message
    }

    #[test]
    fn addresses_are_masked_as_in_rfc_5769() {
        let v4 = success(b"\x00\x20\x00\x08\x00\x01\xa1\x47\xe1\x12\xa6\x43");
        let v6 = success(
            b"\x00\x20\x00\x14\x00\x02\xa1\x47\x01\x13\xa9\xfa\xa5\xd3\xf1\x79\xbc\x25\xf4\xb5\xbe\xd2\xb9\xd9",
        );
        for (response, address) in [
            (v4, "192.0.2.1:32853"),
            (v6, "[2001:db8:1234:5678:11:2233:4455:6677]:32853"),
        ] {
            let address = address.parse().unwrap();
            assert_eq!(mapped_address(&response, &SAMPLE), Some(address));
            assert_eq!(
                answer(&binding_request(&SAMPLE), address),
                Some(response.clone())
            );
            for cut in 0..response.len() {
                assert_eq!(
                    mapped_address(&response[..cut], &SAMPLE),
                    None,
                    "cut at {cut}"
                );
            }
            assert_eq!(mapped_address(&response, &[0; 12]), None);
        }
    }

    #[test]
    fn a_mapped_ipv4_source_is_told_as_ipv4() {
        let source = "[::ffff:192.0.2.1]:32853".parse().unwrap();
        let response = answer(&binding_request(&SAMPLE), source).unwrap();
        assert_eq!(
            mapped_address(&response, &SAMPLE),
            Some("192.0.2.1:32853".parse().unwrap())
        );
    }

    #[test]
    fn an_attribute_that_must_be_understood_is_refused() {
        let mut request = binding_request(&SAMPLE);
        request[3] = 8;
        request.extend(b"\x00\x24\x00\x04\x6e\x00\x01\xff");
        let response = answer(&request, "192.0.2.1:1".parse().unwrap()).unwrap();
        assert_eq!(response[..2], [0x01, 0x11]);
        assert!(
            response.ends_with(b"\x00\x09\x00\x04\x00\x00\x04\x14\x00\x0a\x00\x02\x00\x24\x00\x00")
        );
    }

    #[test]
    fn a_software_attribute_is_no_obstacle() {
        let mut request = binding_request(&SAMPLE);
        request[3] = 8;
        request.extend(b"\x80\x22\x00\x03abc\x00");
        assert!(answer(&request, "192.0.2.1:1".parse().unwrap()).unwrap()[..2] == [0x01, 0x01]);
    }

    proptest! {
        #[test]
        fn nothing_sent_makes_the_answer_much_longer(
            packet in proptest::collection::vec(any::<u8>(), 0..80),
            as_request in any::<bool>(),
        ) {
            let mut packet = packet;
            if as_request && packet.len() >= HEADER {
                let length = u16::try_from((packet.len() - HEADER) / 4 * 4).unwrap();
                packet.truncate(HEADER + usize::from(length));
                packet[..2].copy_from_slice(&[0, 1]);
                packet[2..4].copy_from_slice(&length.to_be_bytes());
                packet[4..8].copy_from_slice(&MAGIC_COOKIE);
            }
            let source = "[2001:db8::1]:9".parse().unwrap();
            if let Some(answer) = answer(&packet, source) {
                prop_assert!(answer.len() <= packet.len() + 24);
            }
            let _address = mapped_address(&packet, &SAMPLE);
        }
    }
}
