//! A relay takes another configuration while clients are there.

#![allow(
    clippy::unwrap_used,
    clippy::unwrap_in_result,
    reason = "in a test, a panic is the report"
)]

mod client;
mod loopback;

use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::time::Duration;

use client::Client;
use portway_relay::Relay;
use portway_relay::config::Config;
use rustls::{ClientConnection, StreamOwned};

/// Longest that a packet may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// A Binding request and the length of its answer.
const BINDING: &[u8] = &[
    0, 1, 0, 0, 0x21, 0x12, 0xa4, 0x42, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12,
];
const ANSWER: usize = 32;

/// Asks for its address within TLS, if the server has this certificate.
fn ask_within_tls(server: SocketAddr, trusted: &rcgen::Certificate) -> io::Result<()> {
    let config = loopback::trusting(trusted);
    let connection = ClientConnection::new(config, "localhost".try_into().unwrap()).unwrap();
    let socket = TcpStream::connect(server)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    let mut stream = StreamOwned::new(connection, socket);
    stream.write_all(BINDING)?;
    stream.read_exact(&mut [0; ANSWER])
}

#[test]
fn a_certificate_is_renewed_and_who_is_there_does_not_notice() {
    let (first, tls) = loopback::certificate();
    let config = Config {
        tls: Some(tls),
        ..loopback::config(2)
    };
    let relay = Relay::start(&config).unwrap();
    let within_tls = relay.listening()[3].address;
    let (client, _) = Client::with_both_families(relay.listening()[0].address);
    let peer = UdpSocket::bind("127.0.0.1:0").unwrap();
    peer.set_read_timeout(Some(PATIENCE)).unwrap();
    assert_eq!(client.bind(0x4000, peer.local_addr().unwrap()), None);
    ask_within_tls(within_tls, &first).unwrap();

    let (second, tls) = loopback::certificate();
    let renewed = Config {
        tls: Some(tls),
        ..config.clone()
    };
    relay.reload(&renewed).unwrap();
    // An answer of each worker: it has obeyed before.
    assert_eq!(relay.sessions(10).len(), 1);
    ask_within_tls(within_tls, &second).unwrap();
    ask_within_tls(within_tls, &first).unwrap_err();

    client.send_on(0x4000, b"still there");
    let mut heard = [0; 32];
    let (length, _) = peer.recv_from(&mut heard).unwrap();
    assert_eq!(&heard[..length], b"still there");
    relay
        .reload(&Config {
            tls: None,
            ..config
        })
        .unwrap_err();
    ask_within_tls(within_tls, &second).unwrap();
}
