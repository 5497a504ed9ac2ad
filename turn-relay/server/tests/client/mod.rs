//! A client over a real socket; its messages are those of `portway-relay-proto`'s tests.

#![allow(clippy::unwrap_used, reason = "in a test, a panic is the report")]
#![allow(dead_code, reason = "each test uses a part")]

#[path = "../../../proto/tests/world/mod.rs"]
pub(crate) mod world;

use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::time::Duration;

use portway_relay_proto::five_tuple::{FiveTuple, ListenerId};
use portway_relay_proto::tcp::CONNECT;
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
    wire: Wire,
    who: world::Client,
}

enum Wire {
    Udp(UdpSocket),
    Tcp(TcpStream),
}

impl Wire {
    fn send(&self, packet: &[u8]) -> io::Result<()> {
        match self {
            Self::Udp(socket) => socket.send(packet).map(drop),
            Self::Tcp(socket) => {
                let padding = packet.len().next_multiple_of(4) - packet.len();
                (&*socket).write_all(&[packet, &[0; 3][..padding]].concat())
            }
        }
    }

    fn receive(&self) -> io::Result<Vec<u8>> {
        match self {
            Self::Udp(socket) => {
                let mut packet = vec![0; 2048];
                let length = socket.recv(&mut packet)?;
                packet.truncate(length);
                Ok(packet)
            }
            Self::Tcp(socket) => {
                let mut packet = vec![0; 4];
                (&*socket).read_exact(&mut packet)?;
                let header = if packet[0] < 0x40 { 16 } else { 0 };
                let length = usize::from(u16::from_be_bytes([packet[2], packet[3]]));
                packet.resize(4 + header + length.next_multiple_of(4), 0);
                (&*socket).read_exact(&mut packet[4..])?;
                packet.truncate(4 + header + length);
                Ok(packet)
            }
        }
    }
}

impl Client {
    /// A client that has been challenged.
    pub(crate) fn new(server: SocketAddr) -> Self {
        let socket = UdpSocket::bind((server.ip(), 0)).unwrap();
        socket.connect(server).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        Self::over(socket.local_addr().unwrap(), Wire::Udp(socket))
    }

    /// The same over TCP.
    pub(crate) fn over_tcp(server: SocketAddr) -> Self {
        let socket = TcpStream::connect(server).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        Self::over(socket.local_addr().unwrap(), Wire::Tcp(socket))
    }

    fn over(local: SocketAddr, wire: Wire) -> Self {
        let who = world::Client {
            tuple: FiveTuple {
                listener: ListenerId(0),
                client: local,
                local: None,
            },
            username: ANN.0.to_owned(),
            password: ANN.1.to_owned(),
            nonce: String::new(),
        };
        let mut client = Self { wire, who };
        client.learn_nonce(&client.exchange(&request(ALLOCATE, &[]).finish()));
        client
    }

    /// Takes the nonce of an answer for its own.
    pub(crate) fn learn_nonce(&mut self, answer: &[u8]) {
        let message = Message::from_bytes(answer).unwrap();
        self.who.nonce = message.attribute::<Nonce>().unwrap().nonce().to_owned();
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
        let relayed = client.allocate();
        (client, relayed)
    }

    /// With an allocation, and a channel to this peer.
    pub(crate) fn talking(
        server: SocketAddr,
        channel: u16,
        peer: &UdpSocket,
    ) -> (Self, SocketAddr) {
        let (client, relayed) = Self::allocated(server);
        assert_eq!(client.bind(channel, peer.local_addr().unwrap()), None);
        (client, relayed)
    }

    /// A relayed IPv4 address.
    pub(crate) fn allocate(&self) -> SocketAddr {
        let answer = self.ask(
            ALLOCATE,
            &[&RequestedTransport::new(RequestedTransport::UDP)],
        );
        assert_eq!(world::code(&answer), None);
        relayed(&answer)[0]
    }

    pub(crate) fn ask(&self, method: Method, attributes: &[&dyn AttributeWrite]) -> Vec<u8> {
        self.exchange(&signed(&self.who, method, attributes))
    }

    /// Asks for a connection with a peer (RFC 6062).
    pub(crate) fn connect(&self, peer: SocketAddr) -> Vec<u8> {
        self.exchange(&naming_peers(&self.who, CONNECT, &[peer], None))
    }

    /// Its connection, for bytes that are no messages.
    pub(crate) fn stream(&self) -> &TcpStream {
        match &self.wire {
            Wire::Tcp(socket) => socket,
            Wire::Udp(_) => panic!("it has no connection"),
        }
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
        self.wire.send(&send_packet(peer, payload)).unwrap();
    }

    /// Sends by ChannelData.
    pub(crate) fn send_on(&self, number: u16, payload: &[u8]) {
        self.try_send_on(number, payload).unwrap();
    }

    /// Sends by ChannelData, unless the relay is gone.
    pub(crate) fn try_send_on(&self, number: u16, payload: &[u8]) -> io::Result<()> {
        self.wire.send(&channel_packet(number, payload))
    }

    /// Sends several by ChannelData in one piece of a stream.
    pub(crate) fn send_together(&self, number: u16, payloads: &[&[u8]]) {
        let padded = |payload: &&[u8]| {
            let mut frame = channel_packet(number, payload);
            frame.resize(frame.len().next_multiple_of(4), 0);
            frame
        };
        let frames: Vec<u8> = payloads.iter().flat_map(padded).collect();
        self.wire.send(&frames).unwrap();
    }

    /// Returns when the relay has done all that it was sent before.
    pub(crate) fn settle(&self) {
        self.exchange(&request(BINDING, &[]).finish());
    }

    /// The next packet.
    pub(crate) fn receive(&self) -> Vec<u8> {
        self.try_receive().expect("a packet comes")
    }

    /// The next packet, unless the relay is gone.
    pub(crate) fn try_receive(&self) -> io::Result<Vec<u8>> {
        self.wire.receive()
    }

    /// The payload of the next packet, which is a Data indication.
    pub(crate) fn hear(&self) -> Vec<u8> {
        let packet = self.receive();
        let message = Message::from_bytes(&packet).unwrap();
        message.attribute::<Data<'_>>().unwrap().data().to_vec()
    }

    fn exchange(&self, request: &[u8]) -> Vec<u8> {
        let asked = Message::from_bytes(request).unwrap().transaction_id();
        self.wire.send(request).unwrap();
        let answer = self.receive();
        let answered = Message::from_bytes(&answer).unwrap().transaction_id();
        assert_eq!(answered, asked, "the answer to another request");
        answer
    }
}

/// A peer that waits for no packet longer than a client does.
pub(crate) fn peer() -> UdpSocket {
    let peer = UdpSocket::bind("127.0.0.1:0").unwrap();
    peer.set_read_timeout(Some(PATIENCE)).unwrap();
    peer
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
