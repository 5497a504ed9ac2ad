//! Sessions of clients with and without proof, of peers, and time between: the relay never panics,
//! forwards only parts of what it got and only to peers that may be named, answers with what is STUN,
//! and when all is over, nothing is left behind.
//!
//! A session is a row of records: kind, who, length (16 bits), bytes. See [`World::play`].
#![no_main]

use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use libfuzzer_sys::fuzz_target;
use portway_relay_proto::Now;
use portway_relay_proto::auth::Users;
use portway_relay_proto::command::{Command, Family, PortWish, RelayId, ReservationId};
use portway_relay_proto::five_tuple::{FiveTuple, ListenerId};
use portway_relay_proto::icmp::IcmpError;
use portway_relay_proto::peer_policy::PeerPolicy;
use portway_relay_proto::quota::{Ledger, Quota};
use portway_relay_proto::server::{Config, FromClient, FromPeer, Server};
use portway_relay_proto::wire::channel_data;
use stun_types::attribute::{
    AttributeStaticType as _, AttributeType, Fingerprint, MessageIntegrity, MessageIntegritySha256,
    Nonce, RawAttribute, Realm, Username,
};
use stun_types::message::{
    IntegrityAlgorithm, LongTermKeyCredentials, Message, MessageClass, MessageType,
    MessageWrite as _, MessageWriteExt as _, MessageWriteVec, Method,
};

const REALM: &str = "fuzz";
const USERS: [&str; 2] = ["ann", "bob"];
const PASSWORD: &str = "theirs";
const CLIENTS: usize = 4;

/// Attributes that the writer of messages adds by itself.
const PROOFS: [AttributeType; 3] = [
    MessageIntegrity::TYPE,
    MessageIntegritySha256::TYPE,
    Fingerprint::TYPE,
];

fuzz_target!(|session: &[u8]| {
    let mut world = World::new();
    let mut rest = session;
    while let [kind, who, high, low, tail @ ..] = rest {
        let length = usize::from(u16::from_be_bytes([*high, *low])).min(tail.len());
        let (bytes, next) = tail.split_at(length);
        world.play(*kind, usize::from(*who), bytes);
        rest = next;
    }
    world.end();
});

struct World {
    server: Server,
    policy: PeerPolicy,
    now: Now,
    nonces: [Option<String>; CLIENTS],
    transaction: u128,
    open: Vec<RelayId>,
    kept: HashSet<ReservationId>,
    next_port: u16,
    has_ports: bool,
}

impl World {
    fn new() -> Self {
        Self {
            server: Server::new(
                Config {
                    users: users(&USERS),
                    peers: PeerPolicy::default(),
                    quota: Quota::default(),
                    families: vec![Family::V4, Family::V6],
                    announce_sha256: true,
                    mobility: true,
                    tcp_allocations: [ListenerId(1)].into(),
                    discovery: None,
                    nonce_key: [0; 32],
                },
                Arc::new(Ledger::default()),
                0,
            ),
            policy: PeerPolicy::default(),
            now: Now {
                monotonic: Duration::from_secs(1000),
                unix: 1_000_000,
            },
            nonces: [const { None }; CLIENTS],
            transaction: 0,
            open: Vec::new(),
            kept: HashSet::new(),
            next_port: 50_000,
            has_ports: true,
        }
    }

    /// One record.
    fn play(&mut self, kind: u8, who: usize, bytes: &[u8]) {
        match kind % 8 {
            0 => self.packet(who, bytes),
            1 => self.request(who, bytes),
            2 => self.peer_packet(who, bytes),
            3 => self.pass(bytes),
            4 => self.server.client_gone(&tuple(who)),
            5 => {
                self.server.revoke(USERS[who % USERS.len()], 0, self.now);
            }
            6 => self.has_ports = who.is_multiple_of(2),
            _ => self.reload(who, bytes),
        }
        self.settle();
    }

    /// Any bytes from a client.
    fn packet(&mut self, who: usize, packet: &[u8]) {
        let action = self.server.handle_client(tuple(who), packet, self.now);
        if let FromClient::ToPeer {
            relay,
            peer,
            payload,
        } = action
        {
            assert!(packet.get(payload).is_some(), "not a part of {packet:?}");
            assert!(self.open.contains(&relay), "{relay:?} is not open");
            assert!(self.policy.permits(&peer), "{peer} may not be named");
        }
    }

    /// A request that the client proves to be its own: method, then any attributes.
    fn request(&mut self, who: usize, bytes: &[u8]) {
        let Some((method, mut attributes)) = bytes.split_first() else {
            return;
        };
        let kind =
            MessageType::from_class_method(MessageClass::Request, Method::new(u16::from(*method)));
        self.transaction += 1;
        let mut message = Message::builder(kind, self.transaction.into(), MessageWriteVec::new());
        while let [a, b, c, d, tail @ ..] = attributes {
            let length = usize::from(u16::from_be_bytes([*c, *d])).min(tail.len());
            let kind = AttributeType::new(u16::from_be_bytes([*a, *b]));
            let attribute = RawAttribute::new(kind, &tail[..length]);
            if PROOFS.contains(&kind) || message.add_attribute(&attribute).is_err() {
                return;
            }
            attributes = tail.get(length.next_multiple_of(4)..).unwrap_or_default();
        }
        let name = USERS[who % USERS.len()];
        let nonce = self.nonces[who % CLIENTS].clone().unwrap_or_default();
        let proof =
            LongTermKeyCredentials::new(name.to_owned(), PASSWORD.to_owned(), REALM.to_owned());
        let is_signed = message
            .add_attribute(&Username::new(name).expect("short"))
            .and_then(|()| message.add_attribute(&Realm::new(REALM).expect("short")))
            .and_then(|()| message.add_attribute(&Nonce::new(&nonce).expect("short")))
            .and_then(|()| message.add_message_integrity(&proof.into(), IntegrityAlgorithm::Sha1));
        if is_signed.is_ok() {
            self.packet(who, &message.finish());
        }
    }

    /// A packet to one of the open relay sockets; its first bytes say from whom.
    fn peer_packet(&mut self, who: usize, bytes: &[u8]) {
        let Some(relay) = self.open.get(who % self.open.len().max(1)).copied() else {
            return;
        };
        let Some(([last, port], payload)) = bytes.split_first_chunk() else {
            return;
        };
        let peer: SocketAddr = match relay.family {
            Family::V4 => ([8, 8, 8, *last], u16::from(*port)).into(),
            Family::V6 => (
                [0x2a00, 0, 0, 0, 0, 0, 0, u16::from(*last)],
                u16::from(*port),
            )
                .into(),
        };
        if who & 0x80 != 0 {
            let kind = payload.first().copied().unwrap_or(3);
            let error = IcmpError {
                kind,
                code: *port,
                data: 0,
            };
            self.server.handle_icmp(relay, peer, error, self.now);
        }
        if who & 0x40 != 0 {
            self.server.peer_arrived(relay, peer, self.now);
        }
        let action = self
            .server
            .handle_peer(relay, peer, payload.len(), self.now);
        let FromPeer::ToClient { prefix, .. } = action else {
            return;
        };
        let mut packet = prefix.as_bytes().to_vec();
        packet.extend_from_slice(payload);
        packet.resize(packet.len() + prefix.padding, 0);
        if channel_data::is_channel_data(&packet) {
            let (_, range) = channel_data::parse(&packet).expect("whole");
            assert_eq!(&packet[range], payload);
        } else {
            Message::from_bytes(&packet).expect("a Data indication");
        }
    }

    fn pass(&mut self, bytes: &[u8]) {
        let seconds = bytes.first_chunk().copied().map_or(1, u16::from_be_bytes);
        self.now.monotonic += Duration::from_secs(seconds.into());
        self.now.unix += u64::from(seconds);
        self.expire();
    }

    fn expire(&mut self) {
        if self
            .server
            .poll_timeout()
            .is_some_and(|due| due <= self.now.monotonic)
        {
            self.server.handle_timeout(self.now);
        }
    }

    fn reload(&mut self, who: usize, bytes: &[u8]) {
        let denied = bytes.first_chunk().map(|ip: &[u8; 4]| (*ip).into());
        self.policy.deny = denied.into_iter().map(std::net::IpAddr::into).collect();
        let users = users(&USERS[..=who % USERS.len()]);
        self.server
            .reload(users, self.policy.clone(), Quota::default());
    }

    /// Does what the server wants.
    fn settle(&mut self) {
        while let Some(command) = self.server.next_command() {
            match command {
                Command::Reply { to, message } => self.reply(to, &message),
                Command::Bind { relay, port, .. } => self.bind(relay, port),
                Command::Connect { connection, .. } => {
                    let is_reached = connection.0 % 2 == 0;
                    self.server.peer_connected(connection, is_reached, self.now);
                }
                Command::Splice { connection, .. } => self.server.spliced(connection, 1, 1),
                Command::CloseConnection(_) => {}
                Command::Close(relay) => self.open.retain(|open| *open != relay),
                Command::Release(id) => assert!(self.kept.remove(&id), "{id:?} is not kept"),
                Command::Tell(_) => {}
            }
        }
        let most = USERS.len() * Quota::default().allocations_per_user;
        assert!(self.server.allocation_count() <= most.min(CLIENTS));
    }

    fn reply(&mut self, to: FiveTuple, message: &[u8]) {
        let message = Message::from_bytes(message).expect("an answer is STUN");
        let index = usize::from(to.client.port()) % CLIENTS;
        if let Ok(nonce) = message.attribute::<Nonce>() {
            self.nonces[index] = Some(nonce.nonce().to_owned());
        }
    }

    fn bind(&mut self, relay: RelayId, port: PortWish) {
        assert!(!self.open.contains(&relay), "{relay:?} is open");
        let is_bound = match port {
            PortWish::Any | PortWish::Even => self.has_ports,
            PortWish::EvenAndNext(id) => self.has_ports && self.kept.insert(id),
            PortWish::Reserved(id) => self.kept.remove(&id) && self.has_ports,
        };
        let address = is_bound.then(|| {
            self.next_port = self.next_port.wrapping_add(2);
            self.open.push(relay);
            match relay.family {
                Family::V4 => ([198, 51, 100, 1], self.next_port).into(),
                Family::V6 => ([0x2a01, 0, 0, 0, 0, 0, 0, 1], self.next_port).into(),
            }
        });
        self.server.relay_bound(relay, address, self.now);
    }

    /// Two hours later nobody is left.
    fn end(mut self) {
        self.now.monotonic += Duration::from_secs(7200);
        self.now.unix += 7200;
        self.expire();
        self.settle();
        assert_eq!(self.server.allocation_count(), 0);
        assert_eq!(self.server.poll_timeout(), None);
        assert_eq!(self.open, []);
        assert!(self.kept.is_empty(), "{:?}", self.kept);
    }
}

fn users(names: &[&str]) -> Users {
    let mut users = Users::new(REALM);
    for name in names {
        users.add(name, PASSWORD);
    }
    users
}

fn tuple(who: usize) -> FiveTuple {
    let port = u16::try_from(who % CLIENTS).expect("few");
    FiveTuple {
        // Every other client comes by a connection.
        listener: ListenerId(port % 2),
        client: ([192, 0, 2, 1], port).into(),
        local: None,
    }
}
