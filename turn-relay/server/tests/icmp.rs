//! A client hears that a peer is not there (RFC 8656 §11.4).

#![allow(clippy::unwrap_used, reason = "in a test, a panic is the report")]

mod client;
mod loopback;

use std::net::UdpSocket;
use std::time::Duration;

use client::Client;
use loopback::relay;
use stun_types::message::Message;
use turn_types::attribute::{Data, Icmp, XorPeerAddress};
use turn_types::message::DATA;

/// Longest that a packet may take.
const PATIENCE: Duration = Duration::from_secs(10);

#[test]
fn a_port_that_nobody_listens_on_is_told_and_the_next_packet_is_not_lost() {
    for (host, expected) in [("127.0.0.1", (3, 3)), ("::1", (1, 4))] {
        let relay = relay(1);
        let (client, _) = Client::with_both_families(relay.listening()[0].address);
        let gone = UdpSocket::bind((host, 0)).unwrap().local_addr().unwrap();
        let there = UdpSocket::bind((host, 0)).unwrap();
        there.set_read_timeout(Some(PATIENCE)).unwrap();
        let peer = there.local_addr().unwrap();
        assert_eq!(client.permit(gone), None);
        client.send_to(gone, b"to nobody");
        let told = client.receive();
        let message = Message::from_bytes(&told).unwrap();
        assert_eq!(message.method(), DATA);
        let named: XorPeerAddress = message.attribute().unwrap();
        assert_eq!(named.addr(message.transaction_id()), gone);
        let icmp: Icmp = message.attribute().unwrap();
        assert_eq!((icmp.icmp_type(), icmp.code()), expected);
        assert!(message.attribute::<Data>().is_err());

        // The system tells of the error with the next call; its packet must still leave.
        for round in 0..200_u8 {
            client.send_to(gone, b"to nobody");
            client.send_to(peer, &[round]);
        }
        for round in 0..200_u8 {
            let mut heard = [0; 10];
            let (length, _) = there.recv_from(&mut heard).unwrap();
            assert_eq!(&heard[..length], [round]);
        }
    }
}
