//! Clients reach peers by TCP through a relay that permits it (RFC 6062).

#![allow(clippy::unwrap_used, reason = "in a test, a panic is the report")]

mod client;
mod coturn;
mod loopback;

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

use client::{Client, relayed};
use coturn::{NOTHING_LOST, run};
use portway_relay::Relay;
use portway_relay::config::{Config, ConfigError};
use portway_relay_proto::quota::Quota;
use portway_relay_proto::tcp::{CONNECTION_ATTEMPT, CONNECTION_BIND};
use stun_types::message::Message;
use turn_types::attribute::{ConnectionId, RequestedTransport};
use turn_types::message::ALLOCATE;

const TCP: u8 = 6;

/// Longest that anything may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// More than every buffer on the way together.
const MUCH: usize = 8 * 1024 * 1024;

fn config() -> Config {
    Config {
        tcp_allocations: true,
        ..loopback::config(1)
    }
}

/// A relay, where it takes connections, and a client with a relayed TCP address.
fn start() -> (Relay, SocketAddr, Client, SocketAddr) {
    let relay = Relay::start(&config()).unwrap();
    let server = relay.listening()[2].address;
    let client = Client::over_tcp(server);
    let answer = client.ask(ALLOCATE, &[&RequestedTransport::new(TCP)]);
    let relayed = relayed(&answer)[0];
    (relay, server, client, relayed)
}

fn id(answer: &[u8]) -> ConnectionId {
    Message::from_bytes(answer).unwrap().attribute().unwrap()
}

fn code(answer: &[u8]) -> Option<u16> {
    client::world::code(answer)
}

/// A connection of a client for one with a peer.
fn joined(server: SocketAddr, id: &ConnectionId) -> Client {
    let data = Client::over_tcp(server);
    assert_eq!(code(&data.ask(CONNECTION_BIND, &[id])), None);
    data
}

fn listener() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

fn accept(listener: &TcpListener) -> TcpStream {
    let (peer, _) = listener.accept().unwrap();
    peer.set_read_timeout(Some(PATIENCE)).unwrap();
    peer
}

/// Bytes that differ wherever they are cut.
fn much() -> Vec<u8> {
    (0..MUCH).map(|i| (i * 31 + i / 251) as u8).collect()
}

/// Sends everything and the end of it; what the other side reads until its end.
fn carried(mut from: TcpStream, mut to: TcpStream, bytes: &[u8]) -> Vec<u8> {
    thread::scope(|scope| {
        scope.spawn(move || {
            from.write_all(bytes).unwrap();
            from.shutdown(Shutdown::Write).unwrap();
        });
        let mut read = Vec::new();
        to.read_to_end(&mut read).unwrap();
        read
    })
}

#[test]
fn bytes_and_their_end_pass_both_ways() {
    let (relay, server, client, relayed) = start();
    let (listener, peer) = listener();
    let answer = client.connect(peer);
    assert_eq!(code(&answer), None);
    let peer = accept(&listener);
    assert_eq!(peer.peer_addr().unwrap(), relayed);
    let data = joined(server, &id(&answer));
    let (near, much) = (data.stream(), much());
    let clone = |stream: &TcpStream| stream.try_clone().unwrap();
    assert!(carried(clone(near), clone(&peer), &much) == much);
    // The other direction is still open.
    assert!(carried(clone(&peer), clone(near), &much) == much);
    let session = relay.sessions(10).remove(0);
    assert_eq!(session.traffic.bytes_to_peers, MUCH as u64);
    assert_eq!(session.traffic.bytes_to_client, MUCH as u64);
}

#[test]
fn a_peer_comes_if_it_may() {
    let (_relay, server, client, relayed) = start();
    let mut refused = TcpStream::connect(relayed).unwrap();
    refused.set_read_timeout(Some(PATIENCE)).unwrap();
    assert!(!matches!(refused.read(&mut [0]), Ok(1..)), "turned away");
    assert_eq!(client.permit("127.0.0.1:1".parse().unwrap()), None);
    let mut peer = TcpStream::connect(relayed).unwrap();
    peer.set_read_timeout(Some(PATIENCE)).unwrap();
    peer.write_all(b"early").unwrap();
    let attempt = client.receive();
    let message = Message::from_bytes(&attempt).unwrap();
    assert_eq!(message.method(), CONNECTION_ATTEMPT);
    let data = joined(server, &id(&attempt));
    let mut heard = [0; 5];
    data.stream().read_exact(&mut heard).unwrap();
    assert_eq!(&heard, b"early", "what came before is not lost");
    data.stream().write_all(b"reply").unwrap();
    peer.read_exact(&mut heard).unwrap();
    assert_eq!(&heard, b"reply");
}

#[test]
fn a_peer_that_is_not_there_is_told_and_forbidden_ones_are_refused() {
    let (_relay, _server, client, _) = start();
    let (listener, gone) = listener();
    drop(listener);
    assert_eq!(code(&client.connect(gone)), Some(447));
    for forbidden in ["10.0.0.1:80", "169.254.169.254:80"] {
        assert_eq!(code(&client.connect(forbidden.parse().unwrap())), Some(403));
    }
}

#[test]
fn who_does_not_read_stops_who_writes_and_revocation_ends_both() {
    let (relay, server, client, _) = start();
    let (listener, peer) = listener();
    let answer = client.connect(peer);
    let mut peer = accept(&listener);
    let data = joined(server, &id(&answer));
    // Nobody reads at the peer: the kernel's buffers and ours fill, and then nothing goes any more.
    let mut writer = data.stream().try_clone().unwrap();
    writer
        .set_write_timeout(Some(Duration::from_millis(500)))
        .unwrap();
    let chunk = vec![7; 1024 * 1024];
    let mut written = 0;
    while let Ok(count) = writer.write(&chunk) {
        written += count;
        assert!(written < 256 * 1024 * 1024, "it is taken without end");
    }
    let passed = relay.sessions(10)[0].traffic.bytes_to_peers;
    assert!(
        passed < written as u64,
        "some of it waits in front of the relay"
    );
    // It is read after all, and nothing comes behind it that would wake anybody.
    peer.read_exact(&mut vec![0; written]).unwrap();
    assert_eq!(relay.revoke("ann", Duration::ZERO).ended, 1);
    let mut rest = Vec::new();
    // Its end, or a reset.
    drop(peer.read_to_end(&mut rest));
    assert!(!matches!(data.stream().read(&mut [0]), Ok(1..)));
}

#[test]
fn it_is_off_unless_wanted_and_needs_one_thread_without_limits() {
    let relay = loopback::relay(1);
    let client = Client::over_tcp(relay.listening()[2].address);
    let answer = client.ask(ALLOCATE, &[&RequestedTransport::new(TCP)]);
    assert_eq!(code(&answer), Some(442));
    let threads = Config {
        workers: 2.try_into().unwrap(),
        ..config()
    };
    let limits = Config {
        quota: Quota {
            bandwidth_per_user: 1.try_into().ok(),
            ..Quota::default()
        },
        ..config()
    };
    for config in [&threads, &limits] {
        assert_eq!(config.check(), Err(ConfigError::TcpAllocations));
    }
    let running = Relay::start(&config()).unwrap();
    let later = Config {
        tcp_allocations: false,
        ..limits
    };
    let refused = running.reload(&later);
    assert_eq!(
        refused,
        Err(ConfigError::TcpAllocations),
        "they are still there"
    );
}

#[test]
fn coturn_s_client_does_so_over_tcp_and_tls() {
    let relay = Relay::start(&config()).unwrap();
    let common = ["-T", "-t", "-y", "-c", "-m", "2", "-n", "10", "-l", "200"];
    for (listener, tls) in [(2, &[][..]), (3, &["-S"])] {
        let before = relay.metrics();
        let args = [&common, tls, &["-u", "ann", "-w", "ann's"]].concat();
        let said = run(
            "turnutils_uclient",
            &args,
            relay.listening()[listener].address,
        );
        let after = relay.metrics();
        assert!(after.bytes_to_peers > before.bytes_to_peers, "{said}");
        assert!(after.bytes_to_clients > before.bytes_to_clients, "{said}");
        // Within TLS this client loses messages by itself, with coturn too.
        assert!(said.contains(NOTHING_LOST) || !tls.is_empty(), "{said}");
    }
}
