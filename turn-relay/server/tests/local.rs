//! Peers in the relay's own process.

#![allow(clippy::unwrap_used, reason = "in a test, a panic is the report")]

mod client;
mod loopback;

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use client::Client;
use portway_relay::config::Config;
use portway_relay::{Attachment, LocalPeer, Relay};
use portway_relay_proto::peer_policy::PeerPolicy;

const CHANNEL: u16 = 0x4000;

const FORBIDDEN: Option<u16> = Some(403);

/// What has been received: from where, and each packet.
#[derive(Debug, Default)]
struct Heard(Mutex<Vec<(SocketAddr, Vec<u8>)>>);

impl LocalPeer for Heard {
    fn receive(&self, from: SocketAddr, packets: &[u8], segment: usize) {
        let mut heard = self.0.lock().unwrap();
        if packets.is_empty() {
            heard.push((from, Vec::new()));
        }
        let cut = packets.chunks(segment.max(1));
        heard.extend(cut.map(|packet| (from, packet.to_vec())));
    }
}

impl Heard {
    fn take(&self) -> Vec<(SocketAddr, Vec<u8>)> {
        std::mem::take(&mut self.0.lock().unwrap())
    }
}

/// A peer in this process, at the address of a socket that the kernel would serve.
fn attach(relay: &Relay) -> (Attachment, Arc<Heard>, UdpSocket) {
    let kernel = UdpSocket::bind("127.0.0.1:0").unwrap();
    kernel.set_read_timeout(Some(client::PATIENCE)).unwrap();
    let heard = Arc::new(Heard::default());
    let attachment = relay.attach(kernel.local_addr().unwrap(), heard.clone());
    obeyed(relay);
    (attachment, heard, kernel)
}

/// Returns when the relay has done what it was told before.
fn obeyed(relay: &Relay) {
    assert_eq!(relay.revoke("nobody", Duration::ZERO).ended, 0);
}

/// A relay whose only peers are in this process.
fn closed_relay() -> Relay {
    Relay::start(&Config {
        peers: PeerPolicy {
            attached_only: true,
            ..PeerPolicy::default()
        },
        ..loopback::config(1)
    })
    .unwrap()
}

/// The kernel had nothing for this socket.
fn assert_silent(socket: &UdpSocket) {
    socket.set_nonblocking(true).unwrap();
    let heard = socket.recv(&mut [0; 16]);
    assert_eq!(heard.unwrap_err().kind(), io::ErrorKind::WouldBlock);
    socket.set_nonblocking(false).unwrap();
}

#[test]
fn data_passes_both_ways_and_not_through_the_kernel() {
    let relay = loopback::relay(1);
    let (client, relayed) = Client::allocated(relay.listening()[0].address);
    let (attachment, heard, kernel) = attach(&relay);
    let address = kernel.local_addr().unwrap();
    assert_eq!(client.bind(CHANNEL, address), None);

    client.send_on(CHANNEL, b"by channel");
    client.send_to(address, b"by indication");
    client.settle();
    let expected = [&b"by channel"[..], b"by indication"];
    assert_eq!(heard.take(), expected.map(|data| (relayed, data.to_vec())));
    assert_silent(&kernel);

    assert!(attachment.send(relayed, b"back", 4));
    assert_eq!(client.receive(), b"\x40\x00\x00\x04back");
    assert!(!attachment.send(address, b"x", 1), "nobody's address");
}

#[test]
fn who_is_detached_is_served_by_the_kernel_as_anybody_else() {
    let relay = loopback::relay(1);
    let (client, relayed) = Client::allocated(relay.listening()[0].address);
    let (attachment, heard, kernel) = attach(&relay);
    assert_eq!(client.bind(CHANNEL, kernel.local_addr().unwrap()), None);
    drop(attachment);
    obeyed(&relay);

    client.send_on(CHANNEL, b"there");
    let mut packet = [0; 16];
    let (length, from) = kernel.recv_from(&mut packet).unwrap();
    assert_eq!((&packet[..length], from), (&b"there"[..], relayed));
    assert_eq!(heard.take(), []);
}

#[test]
fn a_local_peer_needs_a_permission_too() {
    let relay = loopback::relay(1);
    let (client, relayed) = Client::allocated(relay.listening()[0].address);
    let (attachment, heard, kernel) = attach(&relay);
    let address = kernel.local_addr().unwrap();

    assert!(attachment.send(relayed, b"unasked", 7));
    client.send_to(address, b"not permitted");
    client.settle();
    assert_eq!(heard.take(), []);
    let passed = relay.metrics();
    assert_eq!(passed.dropped_no_permission, 2);
    assert_eq!((passed.packets_to_clients, passed.packets_to_peers), (0, 0));

    assert_eq!(client.permit(address), None);
    assert!(attachment.send(relayed, b"asked", 5));
    assert_eq!(client.hear(), b"asked");
}

#[test]
fn where_peers_must_be_attached_there_are_no_others() {
    let relay = closed_relay();
    let (client, _) = Client::allocated(relay.listening()[0].address);
    let (attachment, heard, kernel) = attach(&relay);
    let address = kernel.local_addr().unwrap();
    let other = UdpSocket::bind("127.0.0.2:0").unwrap();
    for stranger in [other.local_addr().unwrap(), "8.8.8.8:53".parse().unwrap()] {
        assert_eq!(client.permit(stranger), FORBIDDEN);
        assert_eq!(client.bind(CHANNEL + 1, stranger), FORBIDDEN);
    }
    assert_eq!(client.bind(CHANNEL, address), None);
    client.send_on(CHANNEL, b"there");
    client.settle();
    assert_eq!(heard.take().len(), 1);

    drop(attachment);
    obeyed(&relay);
    client.send_on(CHANNEL, b"gone");
    client.settle();
    assert_eq!(heard.take(), []);
    assert_silent(&kernel);
    assert_eq!(relay.metrics().dropped_forbidden, 1);
    assert_eq!(client.bind(CHANNEL, address), FORBIDDEN);
}

#[test]
fn packets_in_one_piece_arrive_as_packets() {
    let relay = loopback::relay(1);
    let server = &relay.listening()[2];
    let client = Client::over_tcp(server.address);
    let relayed = client.allocate();
    let (attachment, heard, kernel) = attach(&relay);
    assert_eq!(client.bind(CHANNEL, kernel.local_addr().unwrap()), None);

    assert!(attachment.send(relayed, b"aaaabbbbc", 4));
    for data in [&b"aaaa"[..], b"bbbb", b"c"] {
        assert_eq!(&client.receive()[4..], data);
    }

    client.send_together(CHANNEL, &[b"aaaa", b"bbbb", b"", b"", b"c", b"dddd"]);
    client.settle();
    let packets: Vec<_> = heard.take().into_iter().map(|(_, data)| data).collect();
    assert_eq!(packets, [&b"aaaa"[..], b"bbbb", b"", b"", b"c", b"dddd"]);
}

#[test]
fn an_empty_packet_arrives_both_ways() {
    let relay = loopback::relay(1);
    let (client, relayed) = Client::allocated(relay.listening()[0].address);
    let (attachment, heard, kernel) = attach(&relay);
    assert_eq!(client.bind(CHANNEL, kernel.local_addr().unwrap()), None);

    client.send_on(CHANNEL, b"");
    client.settle();
    assert_eq!(heard.take(), [(relayed, Vec::new())]);

    assert!(attachment.send(relayed, b"", 0));
    assert_eq!(client.receive(), b"\x40\x00\x00\x00");
}
