//! A client that moves to another network (RFC 8016), over real sockets.

#![allow(clippy::unwrap_used, reason = "in a test, a panic is the report")]

mod client;
mod loopback;

use std::net::{SocketAddr, UdpSocket};

use client::Client;
use client::world::code;
use portway_relay_proto::mobility::MOBILITY_TICKET;
use stun_types::attribute::RawAttribute;
use stun_types::message::Message;
use turn_types::attribute::RequestedTransport;
use turn_types::message::{ALLOCATE, REFRESH};

const CHANNEL: u16 = 0x4000;

/// Allocates with a wish for a ticket; the relayed address, and the ticket if one was given.
fn allocate_mobile(client: &Client) -> (SocketAddr, Option<Vec<u8>>) {
    let answer = client.ask(
        ALLOCATE,
        &[
            &RequestedTransport::new(RequestedTransport::UDP),
            &RawAttribute::new(MOBILITY_TICKET, &[]),
        ],
    );
    assert_eq!(code(&answer), None);
    let message = Message::from_bytes(&answer).unwrap();
    let ticket = message.raw_attribute(MOBILITY_TICKET);
    let ticket = ticket.map(|attribute| attribute.value.to_vec());
    (client::relayed(&answer)[0], ticket)
}

#[test]
fn a_client_goes_on_from_another_socket_and_over_another_transport() {
    let relay = loopback::relay(1);
    let (udp, tcp) = (relay.listening()[0].address, relay.listening()[2].address);
    let peer = UdpSocket::bind("127.0.0.1:0").unwrap();
    peer.set_read_timeout(Some(client::PATIENCE)).unwrap();
    for (elsewhere, moves) in [(Client::new(udp), 1), (Client::over_tcp(tcp), 2)] {
        let client = Client::new(udp);
        let (relayed, ticket) = allocate_mobile(&client);
        assert_eq!(client.bind(CHANNEL, peer.local_addr().unwrap()), None);

        let ticket = ticket.expect("a ticket");
        let shown = RawAttribute::new(MOBILITY_TICKET, &ticket);
        assert_eq!(code(&elsewhere.ask(REFRESH, &[&shown])), None);
        assert_eq!(relay.metrics().allocations_moved_total, moves);

        elsewhere.send_on(CHANNEL, b"there");
        let mut packet = [0; 16];
        let (length, from) = peer.recv_from(&mut packet).unwrap();
        assert_eq!((&packet[..length], from), (&b"there"[..], relayed));
        peer.send_to(b"back", relayed).unwrap();
        assert_eq!(&elsewhere.receive()[4..], b"back");

        let before = relay.metrics().dropped_no_allocation;
        client.send_on(CHANNEL, b"from where it was");
        client.settle();
        assert_eq!(relay.metrics().dropped_no_allocation, before + 1);
    }
    assert_eq!(relay.metrics().allocations_started_total, 2);
}

#[test]
fn where_the_kernel_may_lead_a_client_to_another_worker_there_are_no_tickets() {
    let relay = loopback::relay(2);
    let client = Client::new(relay.listening()[0].address);
    let (_, ticket) = allocate_mobile(&client);
    assert_eq!(ticket, None);
}
