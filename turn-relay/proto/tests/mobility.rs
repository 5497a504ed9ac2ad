//! A client moves to another network (RFC 8016).

#![allow(clippy::unwrap_used, reason = "in a test, a panic is the report")]

mod world;

use portway_relay_proto::mobility::MOBILITY_TICKET;
use portway_relay_proto::server::{Drop, FromClient, FromPeer};
use stun_types::attribute::RawAttribute;
use stun_types::message::Message;
use turn_types::attribute::{Lifetime, RequestedTransport};
use turn_types::message::{ALLOCATE, REFRESH};
use world::*;

/// A client with an allocation, a channel to a peer, and a ticket.
fn mobile(world: &mut World) -> (Client, Vec<u8>) {
    let ann = world.ann();
    let wish = RawAttribute::new(MOBILITY_TICKET, &[]);
    let transport = RequestedTransport::new(RequestedTransport::UDP);
    let answer = world.ask(&ann, ALLOCATE, &[&transport, &wish]);
    let ticket = ticket(&answer).unwrap();
    assert_eq!(code(&world.bind(&ann, 0x4000, peer())), None);
    (ann, ticket)
}

fn ticket(answer: &[u8]) -> Option<Vec<u8>> {
    let message = Message::from_bytes(answer).unwrap();
    Some(message.raw_attribute(MOBILITY_TICKET)?.value.to_vec())
}

fn show(world: &mut World, client: &Client, ticket: &[u8]) -> Vec<u8> {
    world.ask(
        client,
        REFRESH,
        &[&RawAttribute::new(MOBILITY_TICKET, ticket)],
    )
}

const DATA: &[u8] = &[0x40, 0, 0, 4, 1, 2, 3, 4];

#[test]
fn a_client_takes_what_it_holds_with_it() {
    let mut world = World::new();
    let (ann, first) = mobile(&mut world);
    let mut elsewhere = world.client("198.18.7.7:70", &ann.username, &ann.password);
    let answer = show(&mut world, &elsewhere, &first);
    assert_eq!(code(&answer), None);
    let second = ticket(&answer).unwrap();
    assert_ne!(first, second);
    assert!(matches!(
        world.send(&elsewhere, DATA),
        FromClient::ToPeer { .. }
    ));
    assert_eq!(
        world.send(&ann, DATA),
        FromClient::Dropped(Drop::NoAllocation)
    );
    let relay = world.last_relay.unwrap();
    let FromPeer::ToClient { client, .. } = world.server.handle_peer(relay, peer(), 4, world.now)
    else {
        panic!("the peer is heard")
    };
    assert_eq!(client, elsewhere.tuple);
    // The answer was lost.
    let again = show(&mut world, &elsewhere, &first);
    assert_eq!((code(&again), ticket(&again)), (None, Some(second.clone())));
    // A ticket is good for one move.
    world.challenge(&mut elsewhere);
    let third = world.client("198.18.8.8:80", &ann.username, &ann.password);
    assert_eq!(code(&show(&mut world, &third, &first)), Some(400));
    assert_eq!(code(&show(&mut world, &third, &second)), None);
    let gone = world.ask(&third, REFRESH, &[&Lifetime::new(0)]);
    assert_eq!((code(&gone), world.server.allocation_count()), (None, 0));
}

#[test]
fn nobody_else_can_take_it() {
    let mut world = World::new();
    let (ann, ticket) = mobile(&mut world);
    let bob = world.client("192.0.2.9:9", "bob", "bob's");
    assert_eq!(code(&show(&mut world, &bob, &ticket)), Some(441));
    let elsewhere = world.client("198.18.7.7:70", &ann.username, &ann.password);
    let mut forged = ticket.clone();
    forged[0] ^= 1;
    for wrong in [&forged[..], &ticket[1..], b"x"] {
        assert_eq!(code(&show(&mut world, &elsewhere, wrong)), Some(400));
    }
    assert!(matches!(world.send(&ann, DATA), FromClient::ToPeer { .. }));
    let mut fresh = world.client("198.18.7.7:71", &ann.username, &ann.password);
    world.challenge(&mut fresh);
    let transport = RequestedTransport::new(RequestedTransport::UDP);
    let attribute = RawAttribute::new(MOBILITY_TICKET, &ticket);
    let answer = world.ask(&fresh, ALLOCATE, &[&transport, &attribute]);
    assert_eq!(code(&answer), Some(400), "who has nothing has no ticket");
}

#[test]
fn who_asks_for_no_ticket_cannot_move() {
    let mut world = World::new();
    let ann = world.ann();
    assert_eq!(ticket(&world.allocate(&ann)), None);
    assert_eq!(ticket(&world.ask(&ann, REFRESH, &[])), None);
}

#[test]
fn a_connection_that_breaks_leaves_the_allocation_of_who_may_move() {
    let mut world = World::new();
    let (ann, first) = mobile(&mut world);
    world.server.client_gone(&ann.tuple);
    let elsewhere = world.client("198.18.7.7:70", &ann.username, &ann.password);
    assert_eq!(code(&show(&mut world, &elsewhere, &first)), None);
    world.pass(601);
    assert_eq!(world.server.allocation_count(), 0, "for its time");
}
