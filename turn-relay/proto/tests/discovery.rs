//! A client finds out what NAT it is behind (RFC 5780).

#![allow(clippy::unwrap_used, reason = "in a test, a panic is the report")]

mod world;

use std::net::SocketAddr;

use portway_relay_proto::discovery::{CHANGE_REQUEST, OTHER_ADDRESS, RESPONSE_ORIGIN};
use portway_relay_proto::five_tuple::ListenerId;
use stun_types::attribute::{AttributeType, RawAttribute, XorMappedAddress};
use stun_types::message::{BINDING, Message};
use world::*;

/// An address of IPv4 as MAPPED-ADDRESS has it.
fn address(message: &Message<'_>, kind: AttributeType) -> SocketAddr {
    let raw = message.raw_attribute(kind).unwrap();
    let [0, 1, high, low, a, b, c, d] = raw.value[..] else {
        panic!("not an IPv4 address: {raw:?}")
    };
    ([a, b, c, d], u16::from_be_bytes([high, low])).into()
}

#[test]
fn each_change_is_answered_from_there() {
    for at in 1..=4 {
        for (flags, expected) in [
            (0, at),
            (2, 1 + ((at - 1) ^ 1)),
            (4, 1 + ((at - 1) ^ 2)),
            (6, 1 + ((at - 1) ^ 3)),
        ] {
            let mut world = World::new();
            let mut ann = world.ann();
            ann.tuple.listener = ListenerId(at);
            let flags = [0, 0, 0, flags];
            let change = RawAttribute::new(CHANGE_REQUEST, &flags);
            let answer = world.naked(&ann, BINDING, &[&change]);
            let message = Message::from_bytes(&answer).unwrap();
            let to = world.last_reply.unwrap();
            assert_eq!(
                (to.listener, to.client),
                (ListenerId(expected), ann.tuple.client)
            );
            assert_eq!(address(&message, RESPONSE_ORIGIN), discoverer(expected).1);
            assert_eq!(
                address(&message, OTHER_ADDRESS),
                discoverer(1 + ((at - 1) ^ 3)).1
            );
            let mapped: XorMappedAddress = message.attribute().unwrap();
            assert_eq!(mapped.addr(message.transaction_id()), ann.tuple.client);
        }
    }
}

#[test]
fn a_listener_with_one_address_knows_no_changes() {
    let mut world = World::new();
    let ann = world.ann();
    let change = RawAttribute::new(CHANGE_REQUEST, &[0, 0, 0, 6]);
    assert_eq!(code(&world.naked(&ann, BINDING, &[&change])), Some(420));
}

#[test]
fn what_could_be_turned_against_others_is_refused() {
    let mut world = World::new();
    let mut ann = world.ann();
    ann.tuple.listener = ListenerId(1);
    for (kind, value) in [
        (0x0026, &[0; 64][..]),
        (0x0027, &[0, 53, 0, 0]),
        (0x0003, &[0, 6]),
    ] {
        let attribute = RawAttribute::new(AttributeType::new(kind), value);
        let answer = world.naked(&ann, BINDING, &[&attribute]);
        let refused = if kind == 3 { 400 } else { 420 };
        assert_eq!(code(&answer), Some(refused), "{kind:#x}");
    }
}
