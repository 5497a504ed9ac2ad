//! A server in virtual time whose sockets are always to be had, and its clients.

#![allow(clippy::unwrap_used, reason = "in a test, a panic is the report")]
#![allow(dead_code, reason = "each test uses a part")]

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use portway_relay_proto::Now;
use portway_relay_proto::auth::Users;
use portway_relay_proto::command::{Command, Family, PortWish, RelayId};
use portway_relay_proto::discovery::Discovery;
use portway_relay_proto::event::Event;
use portway_relay_proto::five_tuple::{FiveTuple, ListenerId};
use portway_relay_proto::peer_policy::PeerPolicy;
use portway_relay_proto::quota::{Ledger, Quota};
use portway_relay_proto::server::{Config, FromClient, FromPeer, Server};
use stun_types::attribute::{AttributeWrite, ErrorCode, Nonce, Realm, Username};
use stun_types::message::{
    IntegrityAlgorithm, LongTermKeyCredentials, Message, MessageWrite as _, MessageWriteExt as _,
    MessageWriteVec, Method,
};
use turn_types::attribute::{ChannelNumber, Data, Lifetime, RequestedTransport, XorPeerAddress};
use turn_types::message::{ALLOCATE, CHANNEL_BIND, CREATE_PERMISSION, SEND};

pub(crate) const REALM: &str = "portway";
pub(crate) const SECRET: &[u8] = b"shared";

pub(crate) fn peer() -> SocketAddr {
    "8.8.8.8:5000".parse().unwrap()
}

/// A listener to which clients come by connections.
pub(crate) const STREAM: ListenerId = ListenerId(9);

/// A listener for the discovery of NATs: 1 and 2 on one address, 3 and 4 on another.
pub(crate) fn discoverer(listener: u16) -> (ListenerId, SocketAddr) {
    let (ip, port) = ((listener - 1) / 2 + 1, 3478 + (listener - 1) % 2);
    let address = format!("198.51.100.{ip}:{port}").parse().unwrap();
    (ListenerId(listener), address)
}

/// A server whose sockets are always to be had.
pub(crate) struct World {
    pub(crate) server: Server,
    pub(crate) now: Now,
    pub(crate) next_port: u16,
    pub(crate) closed: Vec<RelayId>,
    pub(crate) released: usize,
    /// What it wants with connections.
    pub(crate) wishes: Vec<Command>,
    pub(crate) events: Vec<Event>,
    pub(crate) last_relay: Option<RelayId>,
    pub(crate) last_reply: Option<FiveTuple>,
}

pub(crate) struct Client {
    pub(crate) tuple: FiveTuple,
    pub(crate) username: String,
    pub(crate) password: String,
    pub(crate) nonce: String,
}

impl World {
    pub(crate) fn new() -> Self {
        Self::with(Quota::default(), vec![Family::V4])
    }

    pub(crate) fn with(quota: Quota, families: Vec<Family>) -> Self {
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
            mobility: true,
            tcp_allocations: [STREAM].into(),
            discovery: Some(Discovery {
                listeners: [[1, 2], [3, 4]].map(|ports| ports.map(discoverer)),
            }),
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
            wishes: Vec::new(),
            events: Vec::new(),
            last_relay: None,
            last_reply: None,
        }
    }

    /// Time passes; what is due happens.
    pub(crate) fn pass(&mut self, seconds: u64) {
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
    pub(crate) fn settle(&mut self) -> Option<Vec<u8>> {
        let mut answer = None;
        while let Some(command) = self.server.next_command() {
            match command {
                Command::Reply { to, message } => {
                    self.last_reply = Some(to);
                    answer = Some(message);
                }
                Command::Bind { relay, port, .. } => {
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
                Command::Tell(event) => self.events.push(event),
                wish @ (Command::Connect { .. }
                | Command::Splice { .. }
                | Command::CloseConnection(_)) => self.wishes.push(wish),
            }
        }
        answer
    }

    pub(crate) fn send(&mut self, client: &Client, packet: &[u8]) -> FromClient {
        self.server.handle_client(client.tuple, packet, self.now)
    }

    /// A request without proof.
    pub(crate) fn naked(
        &mut self,
        client: &Client,
        method: Method,
        attributes: &[&dyn AttributeWrite],
    ) -> Vec<u8> {
        let request = request(method, attributes).finish();
        assert_eq!(self.send(client, &request), FromClient::Answered);
        self.settle().unwrap()
    }

    pub(crate) fn client(&mut self, address: &str, username: &str, password: &str) -> Client {
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
    pub(crate) fn challenge(&mut self, client: &mut Client) {
        let answer = self.naked(client, ALLOCATE, &[]);
        let message = Message::from_bytes(&answer).unwrap();
        client.nonce = message.attribute::<Nonce>().unwrap().nonce().to_owned();
    }

    pub(crate) fn ann(&mut self) -> Client {
        self.client("192.0.2.1:1000", "ann", "ann's")
    }

    pub(crate) fn ask(
        &mut self,
        client: &Client,
        method: Method,
        attributes: &[&dyn AttributeWrite],
    ) -> Vec<u8> {
        let request = signed(client, method, attributes);
        assert_eq!(self.send(client, &request), FromClient::Answered);
        self.settle().unwrap()
    }

    pub(crate) fn allocate(&mut self, client: &Client) -> Vec<u8> {
        self.ask(client, ALLOCATE, &[&RequestedTransport::new(17)])
    }

    pub(crate) fn permit(&mut self, client: &Client, peer: SocketAddr) -> Vec<u8> {
        self.permit_all(client, &[peer])
    }

    pub(crate) fn permit_all(&mut self, client: &Client, peers: &[SocketAddr]) -> Vec<u8> {
        self.with_peers(client, CREATE_PERMISSION, peers, None)
    }

    pub(crate) fn bind(&mut self, client: &Client, number: u16, peer: SocketAddr) -> Vec<u8> {
        self.with_peers(client, CHANNEL_BIND, &[peer], Some(number))
    }

    fn with_peers(
        &mut self,
        client: &Client,
        method: Method,
        peers: &[SocketAddr],
        number: Option<u16>,
    ) -> Vec<u8> {
        let request = naming_peers(client, method, peers, number);
        assert_eq!(self.send(client, &request), FromClient::Answered);
        self.settle().unwrap()
    }

    /// A packet of a peer to the last relayed address.
    pub(crate) fn hear_peer(&mut self, peer: SocketAddr, length: usize) -> FromPeer {
        let relay = self.last_relay.unwrap();
        self.server.handle_peer(relay, peer, length, self.now)
    }
}

pub(crate) fn signed(
    client: &Client,
    method: Method,
    attributes: &[&dyn AttributeWrite],
) -> Vec<u8> {
    sign(client, request(method, attributes))
}

/// Peer addresses are masked with the transaction, so these are made in one go.
pub(crate) fn naming_peers(
    client: &Client,
    method: Method,
    peers: &[SocketAddr],
    number: Option<u16>,
) -> Vec<u8> {
    let mut message = Message::builder_request(method, MessageWriteVec::new());
    let transaction = message.transaction_id();
    if let Some(number) = number {
        message.add_attribute(&ChannelNumber::new(number)).unwrap();
    }
    for peer in peers {
        message
            .add_attribute(&XorPeerAddress::new(*peer, transaction))
            .unwrap();
    }
    sign(client, message)
}

pub(crate) fn request(method: Method, attributes: &[&dyn AttributeWrite]) -> MessageWriteVec {
    let mut message = Message::builder_request(method, MessageWriteVec::new());
    for attribute in attributes {
        message.add_attribute(*attribute).unwrap();
    }
    message
}

pub(crate) fn sign(client: &Client, mut message: MessageWriteVec) -> Vec<u8> {
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

pub(crate) fn credentials(client: &Client) -> stun_types::message::MessageIntegrityCredentials {
    LongTermKeyCredentials::new(
        client.username.clone(),
        client.password.clone(),
        REALM.to_owned(),
    )
    .into()
}

pub(crate) fn code(answer: &[u8]) -> Option<u16> {
    let message = Message::from_bytes(answer).unwrap();
    message
        .attribute::<ErrorCode>()
        .ok()
        .map(|error| error.code())
}

pub(crate) fn granted(answer: &[u8]) -> u32 {
    let message = Message::from_bytes(answer).unwrap();
    message.attribute::<Lifetime>().unwrap().seconds()
}

pub(crate) fn channel_packet(number: u16, payload: &[u8]) -> Vec<u8> {
    let mut packet = number.to_be_bytes().to_vec();
    packet.extend(u16::try_from(payload.len()).unwrap().to_be_bytes());
    packet.extend(payload);
    packet
}

pub(crate) fn send_packet(peer: SocketAddr, payload: &[u8]) -> Vec<u8> {
    let mut message = Message::builder_indication(SEND, MessageWriteVec::new());
    let transaction = message.transaction_id();
    message
        .add_attribute(&XorPeerAddress::new(peer, transaction))
        .unwrap();
    message.add_attribute(&Data::new(payload)).unwrap();
    message.finish()
}
