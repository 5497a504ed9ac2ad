//! A client over a real UDP socket; its messages are those of `portway-relay-proto`'s tests.

#![allow(clippy::unwrap_used, reason = "in a test, a panic is the report")]
#![allow(dead_code, reason = "each test uses a part")]

#[path = "../../../proto/tests/world/mod.rs"]
pub(crate) mod world;

use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

use portway_relay_proto::five_tuple::{FiveTuple, ListenerId};
use stun_types::attribute::{AttributeWrite, Nonce};
use stun_types::message::{BINDING, Message, MessageWrite as _, Method};
use turn_types::attribute::{
    AdditionalAddressFamily, Lifetime, RequestedTransport, XorRelayedAddress,
};
use turn_types::message::{ALLOCATE, CHANNEL_BIND, CREATE_PERMISSION, REFRESH};
use turn_types::{AddressFamily, attribute::Data};
use world::{channel_packet, naming_peers, request, send_packet, signed};

/// The longest that a test waits for a packet that must come.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

/// The user of the relay in `loopback`.
const ANN: (&str, &str) = ("ann", "ann's");

pub(crate) struct Client {
    socket: UdpSocket,
    who: world::Client,
}

impl Client {
    /// A client that has been challenged.
    pub(crate) fn new(server: SocketAddr) -> Self {
        let socket = UdpSocket::bind((server.ip(), 0)).unwrap();
        socket.connect(server).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        let who = world::Client {
            tuple: FiveTuple {
                listener: ListenerId(0),
                client: socket.local_addr().unwrap(),
                local: None,
            },
            username: ANN.0.to_owned(),
            password: ANN.1.to_owned(),
            nonce: String::new(),
        };
        let mut client = Self { socket, who };
        let answer = client.exchange(&request(ALLOCATE, &[]).finish());
        let message = Message::from_bytes(&answer).unwrap();
        client.who.nonce = message.attribute::<Nonce>().unwrap().nonce().to_owned();
        client
    }

    /// A client with a relayed address of each family.
    pub(crate) fn with_both_families(server: SocketAddr) -> (Self, Vec<SocketAddr>) {
        let client = Self::new(server);
        let answer = client.ask(
            ALLOCATE,
            &[
                &RequestedTransport::new(RequestedTransport::UDP),
                &AdditionalAddressFamily::new(AddressFamily::IPV6),
            ],
        );
        let relayed = relayed(&answer);
        assert_eq!(relayed.len(), 2);
        (client, relayed)
    }

    /// A client with a relayed IPv4 address.
    pub(crate) fn allocated(server: SocketAddr) -> (Self, SocketAddr) {
        let client = Self::new(server);
        let answer = client.ask(
            ALLOCATE,
            &[&RequestedTransport::new(RequestedTransport::UDP)],
        );
        assert_eq!(world::code(&answer), None);
        let relayed = relayed(&answer)[0];
        (client, relayed)
    }

    pub(crate) fn ask(&self, method: Method, attributes: &[&dyn AttributeWrite]) -> Vec<u8> {
        self.exchange(&signed(&self.who, method, attributes))
    }

    /// The code of a refusal.
    pub(crate) fn permit(&self, peer: SocketAddr) -> Option<u16> {
        let request = naming_peers(&self.who, CREATE_PERMISSION, &[peer], None);
        world::code(&self.exchange(&request))
    }

    /// The code of a refusal.
    pub(crate) fn bind(&self, number: u16, peer: SocketAddr) -> Option<u16> {
        let request = naming_peers(&self.who, CHANNEL_BIND, &[peer], Some(number));
        world::code(&self.exchange(&request))
    }

    /// Gives its allocation back.
    pub(crate) fn leave(&self) {
        assert_eq!(world::granted(&self.ask(REFRESH, &[&Lifetime::new(0)])), 0);
    }

    /// Sends by a Send indication.
    pub(crate) fn send_to(&self, peer: SocketAddr, payload: &[u8]) {
        self.socket.send(&send_packet(peer, payload)).unwrap();
    }

    /// Sends by ChannelData.
    pub(crate) fn send_on(&self, number: u16, payload: &[u8]) {
        self.socket.send(&channel_packet(number, payload)).unwrap();
    }

    /// Returns when the relay has done all that it was sent before.
    pub(crate) fn settle(&self) {
        self.exchange(&request(BINDING, &[]).finish());
    }

    /// The next packet.
    pub(crate) fn receive(&self) -> Vec<u8> {
        let mut packet = [0; 2048];
        let length = self.socket.recv(&mut packet).expect("a packet comes");
        packet[..length].to_vec()
    }

    /// The payload of the next packet, which is a Data indication.
    pub(crate) fn hear(&self) -> Vec<u8> {
        let packet = self.receive();
        let message = Message::from_bytes(&packet).unwrap();
        message.attribute::<Data<'_>>().unwrap().data().to_vec()
    }

    fn exchange(&self, request: &[u8]) -> Vec<u8> {
        let asked = Message::from_bytes(request).unwrap().transaction_id();
        self.socket.send(request).unwrap();
        let answer = self.receive();
        let answered = Message::from_bytes(&answer).unwrap().transaction_id();
        assert_eq!(answered, asked, "the answer to another request");
        answer
    }
}

/// Relayed addresses of an allocation.
pub(crate) fn relayed(answer: &[u8]) -> Vec<SocketAddr> {
    let message = Message::from_bytes(answer).unwrap();
    let transaction = message.transaction_id();
    message
        .iter_attributes()
        .filter_map(|(_, raw)| XorRelayedAddress::try_from(&raw).ok())
        .map(|address| address.addr(transaction))
        .collect()
}
