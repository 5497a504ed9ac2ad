//! Clients talk to a server, in virtual time.

#![allow(clippy::unwrap_used, reason = "in a test, a panic is the report")]

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use portway_relay_proto::Now;
use portway_relay_proto::auth::{Users, ephemeral_credentials};
use portway_relay_proto::command::{Command, Family, PortWish, RelayId};
use portway_relay_proto::five_tuple::{FiveTuple, ListenerId};
use portway_relay_proto::peer_policy::PeerPolicy;
use portway_relay_proto::quota::{Ledger, Quota};
use portway_relay_proto::server::{Config, Drop, FromClient, FromPeer, Server};
use proptest::prelude::*;
use stun_types::attribute::{
    AttributeWrite, ErrorCode, Nonce, RawAttribute, Realm, UnknownAttributes, Username,
    XorMappedAddress,
};
use stun_types::message::{
    BINDING, IntegrityAlgorithm, LongTermKeyCredentials, Message, MessageWrite as _,
    MessageWriteExt as _, MessageWriteVec, Method,
};
use turn_types::AddressFamily;
use turn_types::attribute::{
    AdditionalAddressFamily, AddressErrorCode, ChannelNumber, Data, EvenPort, Lifetime,
    RequestedAddressFamily, RequestedTransport, ReservationToken, XorPeerAddress,
    XorRelayedAddress,
};
use turn_types::message::{ALLOCATE, CHANNEL_BIND, CREATE_PERMISSION, REFRESH, SEND};

const REALM: &str = "portway";
const SECRET: &[u8] = b"shared";

fn peer() -> SocketAddr {
    "8.8.8.8:5000".parse().unwrap()
}

/// A server whose sockets are always to be had.
struct World {
    server: Server,
    now: Now,
    next_port: u16,
    closed: Vec<RelayId>,
    released: usize,
    last_relay: Option<RelayId>,
}

struct Client {
    tuple: FiveTuple,
    username: String,
    password: String,
    nonce: String,
}

impl World {
    fn new() -> Self {
        Self::with(Quota::default(), vec![Family::V4])
    }

    fn with(quota: Quota, families: Vec<Family>) -> Self {
        let mut users = Users::new(REALM);
        users.add("ann", "ann's");
        users.add("bob", "bob's");
        users.add_secret(SECRET);
        let config = Config {
            users,
            peers: PeerPolicy::default(),
            quota,
            families,
            announce_sha256: false,
            nonce_key: [1; 32],
        };
        Self {
            server: Server::new(config, Arc::new(Ledger::default()), 7),
            now: Now {
                monotonic: Duration::from_secs(100),
                unix: 1_000_000,
            },
            next_port: 50_000,
            closed: Vec::new(),
            released: 0,
            last_relay: None,
        }
    }

    /// Time passes; what is due happens.
    fn pass(&mut self, seconds: u64) {
        self.now.monotonic += Duration::from_secs(seconds);
        self.now.unix += seconds;
        if self
            .server
            .poll_timeout()
            .is_some_and(|due| due <= self.now.monotonic)
        {
            self.server.handle_timeout(self.now);
        }
        self.settle();
    }

    /// Does what the server wants; returns its last answer.
    fn settle(&mut self) -> Option<Vec<u8>> {
        let mut answer = None;
        while let Some(command) = self.server.next_command() {
            match command {
                Command::Reply { message, .. } => answer = Some(message),
                Command::Bind { relay, port } => {
                    let step = if port == PortWish::Any { 1 } else { 2 };
                    self.next_port = self.next_port.next_multiple_of(step) + step;
                    let ip = match relay.family {
                        Family::V4 => "198.51.100.1".parse().unwrap(),
                        Family::V6 => "2a00::1".parse().unwrap(),
                    };
                    self.last_relay = Some(relay);
                    let address = SocketAddr::new(ip, self.next_port);
                    self.server.relay_bound(relay, Some(address), self.now);
                }
                Command::Close(relay) => self.closed.push(relay),
                Command::Release(_) => self.released += 1,
            }
        }
        answer
    }

    fn send(&mut self, client: &Client, packet: &[u8]) -> FromClient {
        self.server.handle_client(client.tuple, packet, self.now)
    }

    /// A request without proof.
    fn naked(
        &mut self,
        client: &Client,
        method: Method,
        attributes: &[&dyn AttributeWrite],
    ) -> Vec<u8> {
        let mut message = Message::builder_request(method, MessageWriteVec::new());
        for attribute in attributes {
            message.add_attribute(*attribute).unwrap();
        }
        assert_eq!(self.send(client, &message.finish()), FromClient::Answered);
        self.settle().unwrap()
    }

    fn client(&mut self, address: &str, username: &str, password: &str) -> Client {
        let mut client = Client {
            tuple: FiveTuple {
                listener: ListenerId(0),
                client: address.parse().unwrap(),
                local: None,
            },
            username: username.to_owned(),
            password: password.to_owned(),
            nonce: String::new(),
        };
        self.challenge(&mut client);
        client
    }

    /// Fetches a nonce.
    fn challenge(&mut self, client: &mut Client) {
        let answer = self.naked(client, ALLOCATE, &[]);
        let message = Message::from_bytes(&answer).unwrap();
        client.nonce = message.attribute::<Nonce>().unwrap().nonce().to_owned();
    }

    fn ann(&mut self) -> Client {
        self.client("192.0.2.1:1000", "ann", "ann's")
    }

    fn ask(
        &mut self,
        client: &Client,
        method: Method,
        attributes: &[&dyn AttributeWrite],
    ) -> Vec<u8> {
        let request = signed(client, method, attributes);
        assert_eq!(self.send(client, &request), FromClient::Answered);
        self.settle().unwrap()
    }

    fn allocate(&mut self, client: &Client) -> Vec<u8> {
        self.ask(client, ALLOCATE, &[&RequestedTransport::new(17)])
    }

    fn permit(&mut self, client: &Client, peer: SocketAddr) -> Vec<u8> {
        self.with_peer(client, CREATE_PERMISSION, peer, None)
    }

    fn bind(&mut self, client: &Client, number: u16, peer: SocketAddr) -> Vec<u8> {
        self.with_peer(client, CHANNEL_BIND, peer, Some(number))
    }

    /// Peer addresses are masked with the transaction, so these are made in one go.
    fn with_peer(
        &mut self,
        client: &Client,
        method: Method,
        peer: SocketAddr,
        number: Option<u16>,
    ) -> Vec<u8> {
        let mut message = Message::builder_request(method, MessageWriteVec::new());
        let transaction = message.transaction_id();
        if let Some(number) = number {
            message.add_attribute(&ChannelNumber::new(number)).unwrap();
        }
        message
            .add_attribute(&XorPeerAddress::new(peer, transaction))
            .unwrap();
        let request = sign(client, message);
        assert_eq!(self.send(client, &request), FromClient::Answered);
        self.settle().unwrap()
    }

    /// A packet of a peer to the last relayed address.
    fn hear_peer(&mut self, peer: SocketAddr, length: usize) -> FromPeer {
        let relay = self.last_relay.unwrap();
        self.server.handle_peer(relay, peer, length, self.now)
    }
}

fn signed(client: &Client, method: Method, attributes: &[&dyn AttributeWrite]) -> Vec<u8> {
    let mut message = Message::builder_request(method, MessageWriteVec::new());
    for attribute in attributes {
        message.add_attribute(*attribute).unwrap();
    }
    sign(client, message)
}

fn sign(client: &Client, mut message: MessageWriteVec) -> Vec<u8> {
    message
        .add_attribute(&Username::new(&client.username).unwrap())
        .unwrap();
    message.add_attribute(&Realm::new(REALM).unwrap()).unwrap();
    message
        .add_attribute(&Nonce::new(&client.nonce).unwrap())
        .unwrap();
    message
        .add_message_integrity(&credentials(client), IntegrityAlgorithm::Sha1)
        .unwrap();
    message.finish()
}

fn credentials(client: &Client) -> stun_types::message::MessageIntegrityCredentials {
    LongTermKeyCredentials::new(
        client.username.clone(),
        client.password.clone(),
        REALM.to_owned(),
    )
    .into()
}

fn code(answer: &[u8]) -> Option<u16> {
    let message = Message::from_bytes(answer).unwrap();
    message
        .attribute::<ErrorCode>()
        .ok()
        .map(|error| error.code())
}

fn granted(answer: &[u8]) -> u32 {
    let message = Message::from_bytes(answer).unwrap();
    message.attribute::<Lifetime>().unwrap().seconds()
}

fn channel_packet(number: u16, payload: &[u8]) -> Vec<u8> {
    let mut packet = number.to_be_bytes().to_vec();
    packet.extend(u16::try_from(payload.len()).unwrap().to_be_bytes());
    packet.extend(payload);
    packet
}

fn send_packet(peer: SocketAddr, payload: &[u8]) -> Vec<u8> {
    let mut message = Message::builder_indication(SEND, MessageWriteVec::new());
    let transaction = message.transaction_id();
    message
        .add_attribute(&XorPeerAddress::new(peer, transaction))
        .unwrap();
    message.add_attribute(&Data::new(payload)).unwrap();
    message.finish()
}

#[test]
fn a_binding_tells_the_address_in_32_bytes() {
    let mut world = World::new();
    let ann = world.ann();
    let answer = world.naked(&ann, BINDING, &[]);
    assert_eq!(answer.len(), 32);
    let message = Message::from_bytes(&answer).unwrap();
    let mapped: XorMappedAddress = message.attribute().unwrap();
    assert_eq!(mapped.addr(message.transaction_id()), ann.tuple.client);
}

#[test]
fn who_proves_nothing_gets_64_bytes_and_leaves_nothing() {
    let mut world = World::new();
    let ann = world.ann();
    let answer = world.naked(&ann, ALLOCATE, &[&RequestedTransport::new(17)]);
    assert_eq!(code(&answer), Some(401));
    assert!(answer.len() <= 64, "{} bytes", answer.len());
    for method in [REFRESH, CREATE_PERMISSION, CHANNEL_BIND] {
        assert_eq!(code(&world.naked(&ann, method, &[])), Some(401));
    }
    assert_eq!(world.server.allocation_count(), 0);
    assert_eq!(world.server.poll_timeout(), None);
}

#[test]
fn strangers_are_answered_so_often_and_users_always() {
    let quota = Quota {
        strangers_per_second: 2,
        ..Quota::default()
    };
    let mut world = World::with(quota, vec![Family::V4]);
    let ann = world.ann();
    world.naked(&ann, BINDING, &[]);
    let again = Message::builder_request(BINDING, MessageWriteVec::new()).finish();
    assert_eq!(world.send(&ann, &again), FromClient::Dropped(Drop::TooMany));
    let unproved = Message::builder_request(ALLOCATE, MessageWriteVec::new()).finish();
    assert_eq!(
        world.send(&ann, &unproved),
        FromClient::Dropped(Drop::TooMany)
    );
    assert_eq!(
        code(&world.allocate(&ann)),
        None,
        "who proves itself is served"
    );
    world.pass(1);
    world.naked(&ann, BINDING, &[]);
}

#[test]
fn an_allocation_lives_as_long_as_it_is_refreshed() {
    let mut world = World::new();
    let ann = world.ann();
    let answer = world.allocate(&ann);
    let message = Message::from_bytes(&answer).unwrap();
    assert!(message.validate_integrity(&credentials(&ann)).is_ok());
    let relayed: XorRelayedAddress = message.attribute().unwrap();
    assert_eq!(
        relayed.addr(message.transaction_id()),
        "198.51.100.1:50001".parse().unwrap()
    );
    assert_eq!(granted(&answer), 600);
    world.pass(599);
    let answer = world.ask(&ann, REFRESH, &[&Lifetime::new(100_000)]);
    assert_eq!(granted(&answer), 3600);
    world.pass(3599);
    assert_eq!(world.server.allocation_count(), 1);
    world.pass(1);
    assert_eq!(world.server.allocation_count(), 0);
    assert_eq!(world.closed.len(), 1);
}

#[test]
fn a_lost_answer_is_repeated_and_a_second_allocation_refused() {
    let mut world = World::new();
    let ann = world.ann();
    let request = signed(&ann, ALLOCATE, &[&RequestedTransport::new(17)]);
    world.send(&ann, &request);
    let first = world.settle().unwrap();
    world.send(&ann, &request);
    assert_eq!(world.settle().unwrap(), first);
    assert_eq!(code(&world.allocate(&ann)), Some(437));
    assert_eq!(world.server.allocation_count(), 1);
}

#[test]
fn a_client_gives_its_allocation_back() {
    let mut world = World::new();
    let ann = world.ann();
    world.allocate(&ann);
    assert_eq!(granted(&world.ask(&ann, REFRESH, &[&Lifetime::new(0)])), 0);
    assert_eq!(
        (world.server.allocation_count(), world.closed.len()),
        (0, 1)
    );
    assert_eq!(code(&world.ask(&ann, REFRESH, &[])), Some(437));
}

#[test]
fn data_passes_with_a_permission_only_and_while_it_lasts() {
    let mut world = World::new();
    let ann = world.ann();
    world.allocate(&ann);
    let packet = send_packet(peer(), b"hello");
    assert_eq!(
        world.send(&ann, &packet),
        FromClient::Dropped(Drop::NoPermission)
    );
    assert_eq!(
        world.hear_peer(peer(), 5),
        FromPeer::Dropped(Drop::NoPermission)
    );
    assert_eq!(code(&world.permit(&ann, peer())), None);
    let FromClient::ToPeer {
        peer: to, payload, ..
    } = world.send(&ann, &packet)
    else {
        panic!("it is permitted");
    };
    assert_eq!((to, &packet[payload]), (peer(), &b"hello"[..]));
    let other_port = SocketAddr::new(peer().ip(), 1);
    assert!(matches!(
        world.hear_peer(other_port, 5),
        FromPeer::ToClient { .. }
    ));
    world.pass(300);
    assert_eq!(
        world.send(&ann, &packet),
        FromClient::Dropped(Drop::NoPermission)
    );
    assert_eq!(
        world.hear_peer(peer(), 5),
        FromPeer::Dropped(Drop::NoPermission)
    );
}

#[test]
fn a_channel_carries_data_both_ways() {
    let mut world = World::new();
    let ann = world.ann();
    world.allocate(&ann);
    let packet = channel_packet(0x4001, b"hello");
    assert_eq!(
        world.send(&ann, &packet),
        FromClient::Dropped(Drop::NoChannel)
    );
    assert_eq!(code(&world.bind(&ann, 0x4001, peer())), None);
    assert!(matches!(
        world.send(&ann, &packet),
        FromClient::ToPeer { peer: to, payload, .. } if to == peer() && packet[payload.clone()] == *b"hello"
    ));
    let FromPeer::ToClient { client, prefix } = world.hear_peer(peer(), 5) else {
        panic!("it is permitted");
    };
    assert_eq!(
        (client, prefix.as_bytes()),
        (ann.tuple, &[0x40, 1, 0, 5][..])
    );
}

#[test]
fn a_channel_stands_for_one_peer_and_a_peer_has_one_channel() {
    let mut world = World::new();
    let ann = world.ann();
    world.allocate(&ann);
    assert_eq!(code(&world.bind(&ann, 0x4001, peer())), None);
    assert_eq!(
        code(&world.bind(&ann, 0x4001, peer())),
        None,
        "again is a refresh"
    );
    assert_eq!(code(&world.bind(&ann, 0x4002, peer())), Some(400));
    let other = SocketAddr::new(peer().ip(), 1);
    assert_eq!(code(&world.bind(&ann, 0x4001, other)), Some(400));
    for wrong in [0x3fff, 0x5000, 0] {
        assert_eq!(
            code(&world.bind(&ann, wrong, other)),
            Some(400),
            "{wrong:x}"
        );
    }
}

#[test]
fn special_peers_are_forbidden_however_they_are_named() {
    let mut world = World::with(Quota::default(), vec![Family::V4, Family::V6]);
    let ann = world.ann();
    world.ask(
        &ann,
        ALLOCATE,
        &[
            &RequestedTransport::new(17),
            &AdditionalAddressFamily::new(AddressFamily::IPV6),
        ],
    );
    for ip in [
        "127.0.0.1",
        "10.0.0.1",
        "169.254.169.254",
        "::1",
        "::ffff:127.0.0.1",
        "64:ff9b::a00:1",
        "2002:7f00:1::",
    ] {
        let peer = SocketAddr::new(ip.parse().unwrap(), 80);
        assert_eq!(code(&world.permit(&ann, peer)), Some(403), "{ip}");
        assert_eq!(code(&world.bind(&ann, 0x4001, peer)), Some(403), "{ip}");
        assert_eq!(
            world.send(&ann, &send_packet(peer, b"x")),
            FromClient::Dropped(Drop::Forbidden),
            "{ip}"
        );
    }
}

#[test]
fn one_bad_peer_of_many_permits_none() {
    let mut world = World::new();
    let ann = world.ann();
    world.allocate(&ann);
    let mut message = Message::builder_request(CREATE_PERMISSION, MessageWriteVec::new());
    let transaction = message.transaction_id();
    for peer in [peer(), "10.0.0.1:1".parse().unwrap()] {
        message
            .add_attribute(&XorPeerAddress::new(peer, transaction))
            .unwrap();
    }
    let request = sign(&ann, message);
    world.send(&ann, &request);
    assert_eq!(code(&world.settle().unwrap()), Some(403));
    assert_eq!(
        world.hear_peer(peer(), 1),
        FromPeer::Dropped(Drop::NoPermission)
    );
}

#[test]
fn nobody_touches_the_allocation_of_another() {
    let mut world = World::new();
    let ann = world.ann();
    world.allocate(&ann);
    // The same five-tuple, another user.
    let mut bob = world.client("192.0.2.1:1000", "bob", "bob's");
    assert_eq!(
        code(&world.ask(&bob, REFRESH, &[&Lifetime::new(0)])),
        Some(441)
    );
    assert_eq!(code(&world.permit(&bob, peer())), Some(441));
    // Another five-tuple.
    bob.tuple.client = "192.0.2.1:1001".parse().unwrap();
    world.challenge(&mut bob);
    assert_eq!(code(&world.ask(&bob, REFRESH, &[])), Some(437));
    assert_eq!(
        world.send(&bob, &channel_packet(0x4001, b"x")),
        FromClient::Dropped(Drop::NoAllocation)
    );
    assert_eq!(world.server.allocation_count(), 1);
}

#[test]
fn proofs_are_checked() {
    let mut world = World::new();
    let mut ann = world.ann();
    ann.password = "wrong".to_owned();
    assert_eq!(code(&world.allocate(&ann)), Some(401));
    ann.password = "ann's".to_owned();
    ann.username = "nobody".to_owned();
    assert_eq!(code(&world.allocate(&ann)), Some(401));
    ann.username = "ann".to_owned();
    world.pass(601);
    assert_eq!(code(&world.allocate(&ann)), Some(438), "an old nonce");
    world.challenge(&mut ann);
    ann.tuple.client = "192.0.2.9:9".parse().unwrap();
    assert_eq!(
        code(&world.allocate(&ann)),
        Some(438),
        "the nonce of another"
    );
    world.challenge(&mut ann);
    assert_eq!(code(&world.allocate(&ann)), None);
}

#[test]
fn an_allocation_ends_with_its_credentials() {
    let mut world = World::new();
    let (username, password) = ephemeral_credentials(SECRET, "eve", world.now.unix + 60);
    let mut eve = world.client("192.0.2.5:5", &username, &password);
    assert_eq!(granted(&world.allocate(&eve)), 60);
    world.pass(30);
    // Newer credentials of the same user go on.
    (eve.username, eve.password) = ephemeral_credentials(SECRET, "eve", world.now.unix + 100);
    assert_eq!(granted(&world.ask(&eve, REFRESH, &[])), 100);
    world.pass(99);
    assert_eq!(world.server.allocation_count(), 1);
    world.pass(1);
    assert_eq!(world.server.allocation_count(), 0);
    world.challenge(&mut eve);
    assert_eq!(code(&world.allocate(&eve)), Some(401));
}

#[test]
fn quotas_bound_what_one_user_holds() {
    let quota = Quota {
        allocations_per_user: 2,
        permissions: 2,
        channels: 1,
        ..Quota::default()
    };
    let mut world = World::with(quota, vec![Family::V4]);
    let clients: Vec<Client> = (0..3)
        .map(|i| world.client(&format!("192.0.2.{i}:1"), "ann", "ann's"))
        .collect();
    assert_eq!(code(&world.allocate(&clients[0])), None);
    assert_eq!(code(&world.allocate(&clients[1])), None);
    assert_eq!(code(&world.allocate(&clients[2])), Some(486));
    world.ask(&clients[0], REFRESH, &[&Lifetime::new(0)]);
    assert_eq!(code(&world.allocate(&clients[2])), None);
    for (ip, expected) in [
        ("8.8.8.1", None),
        ("8.8.8.2", None),
        ("8.8.8.1", None),
        ("8.8.8.3", Some(508)),
    ] {
        let peer = SocketAddr::new(ip.parse().unwrap(), 1);
        assert_eq!(code(&world.permit(&clients[2], peer)), expected, "{ip}");
    }
    world.pass(301);
    assert_eq!(code(&world.bind(&clients[2], 0x4000, peer())), None);
    assert_eq!(
        code(&world.bind(&clients[2], 0x4001, "8.8.8.8:1".parse().unwrap())),
        Some(508)
    );
}

#[test]
fn a_revoked_user_loses_every_allocation() {
    let mut world = World::new();
    let ann = world.ann();
    let bob = world.client("192.0.2.2:2", "bob", "bob's");
    world.allocate(&ann);
    world.allocate(&bob);
    assert_eq!(world.server.revoke("ann"), 1);
    world.settle();
    assert_eq!(
        (world.server.allocation_count(), world.closed.len()),
        (1, 1)
    );
    assert_eq!(
        world.send(&ann, &send_packet(peer(), b"x")),
        FromClient::Dropped(Drop::NoAllocation)
    );
}

#[test]
fn a_reload_cuts_off_who_is_gone_and_what_is_denied() {
    let mut world = World::new();
    let ann = world.ann();
    let bob = world.client("192.0.2.2:2", "bob", "bob's");
    let (username, password) = ephemeral_credentials(SECRET, "eve", world.now.unix + 600);
    let eve = world.client("192.0.2.3:3", &username, &password);
    for client in [&ann, &bob, &eve] {
        assert_eq!(code(&world.allocate(client)), None);
        assert_eq!(code(&world.bind(client, 0x4000, peer())), None);
    }
    let mut users = Users::new(REALM);
    users.add("ann", "ann's");
    users.add("bob", "another");
    users.add_secret(SECRET);
    world
        .server
        .reload(users, PeerPolicy::default(), Quota::default());
    world.settle();
    let packet = channel_packet(0x4000, b"x");
    for (client, is_known) in [(&ann, true), (&bob, false), (&eve, true)] {
        let passes = matches!(world.send(client, &packet), FromClient::ToPeer { .. });
        assert_eq!(passes, is_known, "{}", client.username);
    }
    let mut users = Users::new(REALM);
    users.add("ann", "ann's");
    let peers = PeerPolicy {
        deny: vec![peer().ip().into()],
        ..PeerPolicy::default()
    };
    world.server.reload(users, peers, Quota::default());
    world.settle();
    assert_eq!(world.server.allocation_count(), 1);
    assert_eq!(
        world.send(&ann, &packet),
        FromClient::Dropped(Drop::NoChannel)
    );
    assert_eq!(code(&world.permit(&ann, peer())), Some(403));
}

#[test]
fn what_is_not_understood_is_said() {
    let mut world = World::new();
    let ann = world.ann();
    let odd = RawAttribute::new(0x7777.into(), &[1, 2, 3, 4]);
    let answer = world.ask(&ann, ALLOCATE, &[&RequestedTransport::new(17), &odd]);
    let message = Message::from_bytes(&answer).unwrap();
    assert_eq!(code(&answer), Some(420));
    assert!(
        message
            .attribute::<UnknownAttributes>()
            .unwrap()
            .has_attribute(0x7777.into())
    );
    assert_eq!(
        code(&world.ask(&ann, ALLOCATE, &[])),
        Some(400),
        "no transport"
    );
    assert_eq!(
        code(&world.ask(&ann, ALLOCATE, &[&RequestedTransport::new(6)])),
        Some(442)
    );
    let v6 = RequestedAddressFamily::new(AddressFamily::IPV6);
    assert_eq!(
        code(&world.ask(&ann, ALLOCATE, &[&RequestedTransport::new(17), &v6])),
        Some(440)
    );
    world.allocate(&ann);
    assert_eq!(
        code(&world.permit(&ann, "[2a00::5]:1".parse().unwrap())),
        Some(443)
    );
}

#[test]
fn an_even_port_and_the_one_beside_it() {
    let mut world = World::new();
    let ann = world.ann();
    let answer = world.ask(
        &ann,
        ALLOCATE,
        &[&RequestedTransport::new(17), &EvenPort::new(true)],
    );
    let message = Message::from_bytes(&answer).unwrap();
    let token: ReservationToken = message.attribute().unwrap();
    let second = world.client("192.0.2.1:1001", "ann", "ann's");
    let thief = world.client("192.0.2.1:1002", "bob", "bob's");
    let ask = [&RequestedTransport::new(17) as &dyn AttributeWrite, &token];
    assert_eq!(code(&world.ask(&thief, ALLOCATE, &ask)), Some(508));
    assert_eq!(code(&world.ask(&second, ALLOCATE, &ask)), None);
    world.pass(31);
    assert_eq!(world.released, 0, "it was asked for");
    let third = world.client("192.0.2.1:1003", "ann", "ann's");
    world.ask(
        &third,
        ALLOCATE,
        &[&RequestedTransport::new(17), &EvenPort::new(true)],
    );
    world.pass(31);
    assert_eq!(world.released, 1);
}

proptest! {
    /// Whatever comes, nothing panics, and only what was permitted goes out.
    #[test]
    fn strangers_reach_nobody(packets in proptest::collection::vec((0u8..4, proptest::collection::vec(any::<u8>(), 0..80)), 0..40)) {
        let mut world = World::new();
        let ann = world.ann();
        world.allocate(&ann);
        for (kind, mut packet) in packets {
            // Of the shapes that are looked at first.
            match (kind, packet.as_mut_slice()) {
                (0, [first, ..]) => *first = 0x40,
                (1, [a, b, ..]) => (*a, *b) = (0, 0x16),
                (2, [a, b, _, _, c @ .., _]) if c.len() >= 4 => {
                    (*a, *b) = (0, 3);
                    c[..4].copy_from_slice(&[0x21, 0x12, 0xa4, 0x42]);
                }
                _ => {}
            }
            let sent = world.send(&ann, &packet);
            prop_assert!(!matches!(sent, FromClient::ToPeer { .. }), "{sent:?}");
            world.settle();
            world.pass(1);
        }
        prop_assert_eq!(world.server.allocation_count(), 1);
    }
}

#[test]
fn both_families_at_once_or_what_there_is() {
    let ask = [
        &RequestedTransport::new(17) as &dyn AttributeWrite,
        &AdditionalAddressFamily::new(AddressFamily::IPV6),
    ];
    let mut world = World::with(Quota::default(), vec![Family::V4, Family::V6]);
    let ann = world.ann();
    let answer = world.ask(&ann, ALLOCATE, &ask);
    let message = Message::from_bytes(&answer).unwrap();
    assert!(message.nth_attribute::<XorRelayedAddress>(1).is_ok());
    world.ask(&ann, REFRESH, &[&Lifetime::new(0)]);
    assert_eq!(world.closed.len(), 2);

    let mut world = World::new();
    let ann = world.ann();
    let answer = world.ask(&ann, ALLOCATE, &ask);
    let message = Message::from_bytes(&answer).unwrap();
    let error: AddressErrorCode = message.attribute().unwrap();
    assert_eq!((code(&answer), error.error().code()), (None, 440));
}
