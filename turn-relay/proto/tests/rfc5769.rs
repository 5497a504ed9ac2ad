//! The sample messages of RFC 5769 with short-term credentials; the one with long-term ones is among the
//! unit tests of `auth`.

#![allow(clippy::unwrap_used, reason = "in a test, a panic is the report")]

mod world;

use std::net::SocketAddr;

use stun_types::attribute::{UnknownAttributes, XorMappedAddress};
use stun_types::message::{
    IntegrityAlgorithm, Message, MessageIntegrityCredentials, ShortTermCredentials,
};
use world::*;

const PASSWORD: &str = "VOkJxbRl1RmTxUk/WvJxBt";

/// §2.1: as ICE sends it.
const REQUEST: &str = "000100582112a442b7e7a701bc34d686fa87dfae802200105354554e207465737420636c69656e74\
    002400046e0001ff80290008932ff9b151263b36000600096576746a3a68367659202020000800149aeaa70cbfd8cb56\
    781ef2b5b2d3f249c1b571a280280004e57a3bcf";

/// §2.2 and §2.3: responses, and the address in them.
const RESPONSES: [(&str, &str); 2] = [
    (
        "0101003c2112a442b7e7a701bc34d686fa87dfae8022000b7465737420766563746f7220002000080001a147e112\
         a643000800142b91f599fd9e90c38c7489f92af9ba53f06be7d780280004c07d4c96",
        "192.0.2.1:32853",
    ),
    (
        "010100482112a442b7e7a701bc34d686fa87dfae8022000b7465737420766563746f7220002000140002a1470113\
         a9faa5d3f179bc25f4b5bed2b9d900080014a382954e4be67bf11784c97c8292c275bfe3ed4180280004c8fb0b4c",
        "[2001:db8:1234:5678:11:2233:4455:6677]:32853",
    ),
];

fn bytes(hex: &str) -> Vec<u8> {
    let digits: Vec<u8> = hex.bytes().filter(u8::is_ascii_hexdigit).collect();
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
    digits.chunks(2).map(byte).collect()
}

fn is_proven(message: &Message<'_>) -> bool {
    let password = ShortTermCredentials::new(PASSWORD.to_owned());
    let proof = message.validate_integrity(&MessageIntegrityCredentials::ShortTerm(password));
    matches!(proof, Ok(IntegrityAlgorithm::Sha1))
}

#[test]
fn the_samples_are_read_and_their_proofs_believed_unless_a_bit_differs() {
    for (hex, address) in RESPONSES {
        let sample = bytes(hex);
        let message = Message::from_bytes(&sample).unwrap();
        assert!(is_proven(&message));
        let mapped: XorMappedAddress = message.attribute().unwrap();
        let expected: SocketAddr = address.parse().unwrap();
        assert_eq!(mapped.addr(message.transaction_id()), expected);
    }
    let sample = bytes(REQUEST);
    assert!(is_proven(&Message::from_bytes(&sample).unwrap()));
    // What follows is the fingerprint, which proves nothing.
    for at in 4..sample.len() - 8 {
        let mut forged = sample.clone();
        forged[at] ^= 1;
        let is_believed = Message::from_bytes(&forged).is_ok_and(|message| is_proven(&message));
        assert!(!is_believed, "byte {at}");
    }
}

#[test]
fn a_check_of_ice_is_told_what_a_server_does_not_know() {
    let mut world = World::new();
    let ann = world.ann();
    world.send(&ann, &bytes(REQUEST));
    let answer = world.settle().unwrap();
    assert_eq!(code(&answer), Some(420));
    let message = Message::from_bytes(&answer).unwrap();
    let unknown: UnknownAttributes = message.attribute().unwrap();
    // PRIORITY; ICE-CONTROLLED may be ignored.
    assert!(unknown.has_attribute(0x0024.into()) && !unknown.has_attribute(0x8029.into()));
}
