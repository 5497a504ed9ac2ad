//! Clients of other projects in Rust talk to a relay over real sockets: `turn-client-proto` over UDP,
//! TCP and TLS, and `turn`.

#![allow(clippy::unwrap_used, reason = "in a test, a panic is the report")]

mod loopback;

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use loopback::{config, relay};
use portway_relay::Relay;
use portway_relay::config::{Config, Transport};
use rustls::{ClientConnection, StreamOwned};
use stun_types::message::IntegrityAlgorithm;
use turn_client_proto::api::{Transmit, TurnConfig, TurnEvent, TurnPollRet, TurnRecvRet};
use turn_client_proto::client::TurnClient;
use turn_client_proto::prelude::*;
use turn_client_proto::stun::Instant;
use turn_client_proto::stun::auth::Feature;
use turn_client_proto::tcp::TurnClientTcp;
use turn_client_proto::udp::TurnClientUdp;
use turn_types::{AddressFamily, TransportType, TurnCredentials};
use webrtc_util::Conn as _;

/// The longest that a test waits for a packet that must come.
const PATIENCE: Duration = Duration::from_secs(10);

/// `turn-client-proto` leaves less than this between requests, and more before it repeats one.
const PAUSE: Duration = Duration::from_millis(200);

/// Payloads with each padding, and as large as most networks take.
const LENGTHS: &[usize] = &[0, 1, 2, 3, 4, 1200];

/// Payloads that need no padding: `turn-client-proto` 0.7 neither sends nor expects any after
/// ChannelData in a stream, though RFC 8656 §12.5 demands it there.
const UNPADDED: &[usize] = &[0, 4, 1200];

/// A socket to the relay.
enum Wire {
    Udp(UdpSocket),
    Tcp(TcpStream),
    Tls(Box<StreamOwned<ClientConnection, TcpStream>>),
}

impl Wire {
    fn udp(server: SocketAddr) -> Self {
        let socket = UdpSocket::bind((server.ip(), 0)).unwrap();
        socket.connect(server).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        Self::Udp(socket)
    }

    fn tcp(server: SocketAddr) -> TcpStream {
        let socket = TcpStream::connect(server).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket
    }

    fn tls(server: SocketAddr, trusted: &rcgen::Certificate) -> Self {
        let config = loopback::trusting(trusted);
        let name = server.ip().into();
        let connection = ClientConnection::new(config, name).unwrap();
        Self::Tls(Box::new(StreamOwned::new(connection, Self::tcp(server))))
    }

    fn local(&self) -> SocketAddr {
        let local = match self {
            Self::Udp(socket) => socket.local_addr(),
            Self::Tcp(socket) => socket.local_addr(),
            Self::Tls(stream) => stream.sock.local_addr(),
        };
        local.unwrap()
    }

    fn send(&mut self, bytes: &[u8]) {
        match self {
            Self::Udp(socket) => socket.send(bytes).map(drop),
            Self::Tcp(socket) => socket.write_all(bytes),
            Self::Tls(stream) => stream.write_all(bytes),
        }
        .unwrap();
    }

    fn receive(&mut self) -> Vec<u8> {
        let mut bytes = vec![0; 4096];
        let length = match self {
            Self::Udp(socket) => socket.recv(&mut bytes),
            Self::Tcp(socket) => socket.read(&mut bytes),
            Self::Tls(stream) => stream.read(&mut bytes),
        };
        bytes.truncate(length.expect("a packet comes"));
        assert!(!bytes.is_empty(), "the relay has closed the connection");
        bytes
    }
}

/// `turn-client-proto` with a socket and a clock that a test moves.
struct Driven {
    client: TurnClient,
    wire: Wire,
    now: Instant,
}

impl Driven {
    fn new(wire: Wire, server: SocketAddr, config: TurnConfig) -> Self {
        let local = wire.local();
        let client = match wire {
            Wire::Udp(_) => TurnClientUdp::allocate(local, server, config).into(),
            Wire::Tcp(_) | Wire::Tls(_) => TurnClientTcp::allocate(local, server, config).into(),
        };
        Self {
            client,
            wire,
            now: Instant::ZERO,
        }
    }

    /// Sends what the client wants sent. It leaves a pause between requests: its clock jumps over it.
    fn flush(&mut self) {
        loop {
            let due = match self.client.poll(self.now) {
                TurnPollRet::WaitUntil(due) => due,
                other @ (TurnPollRet::AllocateTcpSocket { .. }
                | TurnPollRet::TcpClose { .. }
                | TurnPollRet::Closed) => panic!("{other:?}"),
            };
            let mut is_idle = true;
            while let Some(transmit) = self.client.poll_transmit(self.now) {
                self.wire.send(&transmit.data);
                is_idle = false;
            }
            if is_idle {
                if due <= self.now || due > self.now + PAUSE {
                    return;
                }
                self.now = due;
            }
        }
    }

    /// Hears one packet; what it carries, if it is data.
    fn hear(&mut self) -> Option<Vec<u8>> {
        let packet = self.wire.receive();
        let (from, to) = (self.client.remote_addr(), self.client.local_addr());
        let transport = self.client.transport();
        match self
            .client
            .recv(Transmit::new(packet, transport, from, to), self.now)
        {
            TurnRecvRet::PeerData(data) => Some(data.data().to_vec()),
            TurnRecvRet::Handled => None,
            other @ (TurnRecvRet::Ignored(_) | TurnRecvRet::PeerIcmp { .. }) => {
                panic!("{other:?}")
            }
        }
    }

    /// The next thing that happens to the client.
    fn event(&mut self) -> TurnEvent {
        loop {
            self.flush();
            if let Some(event) = self.client.poll_event() {
                return event;
            }
            assert_eq!(self.hear(), None);
        }
    }

    fn data(&mut self) -> Vec<u8> {
        loop {
            self.flush();
            if let Some(data) = self.hear() {
                return data;
            }
        }
    }

    fn send_to(&mut self, peer: SocketAddr, payload: &[u8]) {
        self.flush();
        let transmit = self
            .client
            .send_to(TransportType::Udp, peer, payload, self.now)
            .unwrap();
        if let Some(transmit) = transmit {
            self.wire.send(&transmit.data.build());
        }
    }

    /// Data passes both ways.
    fn echo(&mut self, peer: &UdpSocket, relayed: SocketAddr, lengths: &[usize]) {
        let address = peer.local_addr().unwrap();
        let mut heard = [0; 2048];
        for length in lengths.iter().copied() {
            let there = vec![length as u8; length];
            self.send_to(address, &there);
            let (count, from) = peer.recv_from(&mut heard).unwrap();
            assert_eq!((&heard[..count], from), (&there[..], relayed));
            let back = vec![!(length as u8); length];
            peer.send_to(&back, relayed).unwrap();
            assert_eq!(self.data(), back);
        }
    }

    /// Allocates; the relayed addresses.
    fn allocate(&mut self) -> Vec<SocketAddr> {
        let event = self.event();
        assert!(
            matches!(event, TurnEvent::AllocationCreated(..)),
            "{event:?}"
        );
        self.client
            .relayed_addresses()
            .map(|(_, address)| address)
            .collect()
    }
}

fn peer(family: AddressFamily) -> UdpSocket {
    let own = match family {
        AddressFamily::IPV4 => "127.0.0.1:0",
        AddressFamily::IPV6 => "[::1]:0",
    };
    let peer = UdpSocket::bind(own).unwrap();
    peer.set_read_timeout(Some(PATIENCE)).unwrap();
    peer
}

fn credentials() -> TurnCredentials {
    TurnCredentials::new("ann", "ann's")
}

/// Allocate, permission, data, channel, data, refresh, data, delete.
fn session(relay: &Relay, mut client: Driven, family: AddressFamily) {
    let relayed = client.allocate();
    assert_eq!(relayed.len(), 1, "{relayed:?}");
    let peer = peer(family);
    let address = peer.local_addr().unwrap();
    let udp = TransportType::Udp;
    let channel_lengths = match client.wire {
        Wire::Udp(_) => LENGTHS,
        Wire::Tcp(_) | Wire::Tls(_) => UNPADDED,
    };

    let now = client.now;
    client
        .client
        .create_permission(udp, address.ip(), now)
        .unwrap();
    let event = client.event();
    assert!(
        matches!(event, TurnEvent::PermissionCreated(_, ip) if ip == address.ip()),
        "{event:?}"
    );
    client.echo(&peer, relayed[0], LENGTHS);

    client.client.bind_channel(udp, address, now).unwrap();
    let event = client.event();
    assert!(
        matches!(event, TurnEvent::ChannelCreated(_, to) if to == address),
        "{event:?}"
    );
    client.echo(&peer, relayed[0], channel_lengths);

    // By its clock, an hour passes: it keeps alive what it has.
    let answers = relay.metrics().answers;
    for _minute in 0..60 {
        client.now += Duration::from_secs(60);
        client.echo(&peer, relayed[0], channel_lengths);
    }
    let refreshed = relay.metrics().answers - answers;
    assert!(
        refreshed >= 6 + 12,
        "allocation and permission: {refreshed}"
    );

    assert_eq!(relay.metrics().allocations, 1);
    client.client.delete(client.now).unwrap();
    while relay.metrics().allocations > 0 {
        client.flush();
        client.hear();
    }
}

#[test]
fn turn_client_proto_has_a_session_over_every_transport_and_family() {
    let (certificate, tls) = loopback::certificate();
    let relay = Relay::start(&Config {
        tls: Some(tls),
        ..config(1)
    })
    .unwrap();
    for listen in relay.listening() {
        for family in [AddressFamily::IPV4, AddressFamily::IPV6] {
            let server = listen.address;
            let wire = match listen.transport {
                Transport::Udp => Wire::udp(server),
                Transport::Tcp => Wire::Tcp(Wire::tcp(server)),
                Transport::Tls => Wire::tls(server, &certificate),
            };
            let mut config = TurnConfig::new(credentials());
            config.set_address_family(family);
            session(&relay, Driven::new(wire, server, config), family);
        }
    }
    let dropped = relay
        .metrics()
        .iter()
        .filter(|(name, count)| name.starts_with("dropped") && *count > 0)
        .collect::<Vec<_>>();
    assert_eq!(dropped, []);
}

#[test]
fn turn_client_proto_holds_an_address_of_each_family() {
    let relay = relay(1);
    let server = relay.listening()[0].address;
    let mut config = TurnConfig::new(credentials());
    config.add_address_family(AddressFamily::IPV6);
    let mut client = Driven::new(Wire::udp(server), server, config);
    client.allocate();
    client.event();
    let relayed: Vec<_> = client.client.relayed_addresses().collect();
    let [(_, v4), (_, v6)] = relayed[..] else {
        panic!("{relayed:?}")
    };
    for (family, relayed) in [(AddressFamily::IPV4, v4), (AddressFamily::IPV6, v6)] {
        let peer = peer(family);
        let (ip, now) = (peer.local_addr().unwrap().ip(), client.now);
        client
            .client
            .create_permission(TransportType::Udp, ip, now)
            .unwrap();
        client.event();
        client.echo(&peer, relayed, LENGTHS);
    }
}

#[test]
fn turn_client_proto_proves_itself_with_sha256_and_hides_its_name() {
    let relay = Relay::start(&Config {
        announce_sha256: true,
        ..config(1)
    })
    .unwrap();
    let server = relay.listening()[0].address;
    let mut config = TurnConfig::new(credentials());
    config.set_supported_integrity(IntegrityAlgorithm::Sha256);
    config.set_anonymous_username(Feature::Required);
    let client = Driven::new(Wire::udp(server), server, config);
    session(&relay, client, AddressFamily::IPV4);
}

#[test]
fn turn_client_proto_is_told_that_a_peer_is_forbidden() {
    let relay = relay(1);
    let server = relay.listening()[0].address;
    let mut client = Driven::new(Wire::udp(server), server, TurnConfig::new(credentials()));
    client.allocate();
    let (metadata, now) = ("169.254.169.254".parse().unwrap(), client.now);
    client
        .client
        .create_permission(TransportType::Udp, metadata, now)
        .unwrap();
    let event = client.event();
    assert!(
        matches!(event, TurnEvent::PermissionCreateFailed(..)),
        "{event:?}"
    );
}

#[tokio::test]
async fn turn_has_a_session() {
    let relay = relay(2);
    let server = relay.listening()[0].address;
    let socket = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let client = turn::client::Client::new(turn::client::ClientConfig {
        stun_serv_addr: server.to_string(),
        turn_serv_addr: server.to_string(),
        username: "ann".to_owned(),
        password: "ann's".to_owned(),
        realm: loopback::REALM.to_owned(),
        software: String::new(),
        rto_in_ms: 0,
        conn: Arc::new(socket),
        vnet: None,
    })
    .await
    .unwrap();
    client.listen().await.unwrap();
    let mapped = client.send_binding_request().await.unwrap();
    assert_eq!(mapped.ip(), server.ip());

    let relayed = client.allocate().await.unwrap();
    let address = relayed.local_addr().unwrap();
    assert_eq!(relay.metrics().allocations, 1);
    let peer = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let peer_address = peer.local_addr().unwrap();
    let mut heard = [0; 64];
    // The first goes in an indication, later ones by the channel that it asks for meanwhile.
    for round in 0..100u8 {
        relayed.send_to(&[round; 9], peer_address).await.unwrap();
        let (count, from) = peer.recv_from(&mut heard).await.unwrap();
        assert_eq!((&heard[..count], from), (&[round; 9][..], address));
        peer.send_to(&[!round; 9], address).await.unwrap();
        let (count, from) = relayed.recv_from(&mut heard).await.unwrap();
        assert_eq!((&heard[..count], from), (&[!round; 9][..], peer_address));
    }

    relayed.close().await.unwrap();
    tokio::time::timeout(PATIENCE, async {
        while relay.metrics().allocations > 0 {
            tokio::task::yield_now().await;
        }
    })
    .await
    .expect("the client gives its allocation back");
    client.close().await.unwrap();
}
