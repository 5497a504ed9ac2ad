//! A client that allocates and binds a channel, over a plain socket; enough of one for a bench.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use stun_types::attribute::{Nonce, Realm, Username};
use stun_types::message::{
    BINDING, IntegrityAlgorithm, LongTermKeyCredentials, Message, MessageClass,
    MessageIntegrityCredentials, MessageWrite as _, MessageWriteExt as _, MessageWriteVec, Method,
};
use turn_types::attribute::{ChannelNumber, RequestedTransport, XorPeerAddress, XorRelayedAddress};
use turn_types::message::{ALLOCATE, CHANNEL_BIND};

pub(crate) const USER: &str = "user";
pub(crate) const PASSWORD: &str = "password";
pub(crate) const REALM: &str = "realm";

/// The channel of every client.
pub(crate) const CHANNEL: u16 = 0x4000;

/// The longest that an answer may take.
const PATIENCE: Duration = Duration::from_secs(2);

/// A client and its socket, which does not block.
pub(crate) struct Client {
    pub(crate) socket: UdpSocket,
    nonce: String,
}

impl Client {
    /// From a free port of this address.
    pub(crate) fn new(from: Ipv4Addr, server: SocketAddr) -> anyhow::Result<Self> {
        let socket = UdpSocket::bind((from, 0))?;
        socket.connect(server)?;
        socket.set_nonblocking(true)?;
        Ok(Self {
            socket,
            nonce: String::new(),
        })
    }

    /// Fetches a nonce; returns how long the answer was.
    pub(crate) fn challenge(&mut self) -> anyhow::Result<usize> {
        self.socket.send(&bare(ALLOCATE).finish())?;
        let answer = self.answer()?;
        let message = Message::from_bytes(&answer)?;
        self.nonce = message.attribute::<Nonce>()?.nonce().to_owned();
        Ok(answer.len())
    }

    /// What asks for an allocation.
    pub(crate) fn allocate_request(&self) -> anyhow::Result<Vec<u8>> {
        let mut message = bare(ALLOCATE);
        message.add_attribute(&RequestedTransport::new(17))?;
        self.sign(message)
    }

    /// Waits for an allocation; returns its address.
    pub(crate) fn allocated(&self) -> anyhow::Result<SocketAddr> {
        let answer = self.answer()?;
        let message = Message::from_bytes(&answer)?;
        if !message.has_class(MessageClass::Success) {
            bail!("no allocation: {message}");
        }
        let relayed = message.attribute::<XorRelayedAddress>()?;
        Ok(relayed.addr(message.transaction_id()))
    }

    /// An allocation with a channel to a peer, from a fresh port; the relayed address.
    pub(crate) fn open(server: SocketAddr, peer: SocketAddr) -> anyhow::Result<(Self, SocketAddr)> {
        let mut client = Self::new(Ipv4Addr::LOCALHOST, server)?;
        client.challenge()?;
        client.socket.send(&client.allocate_request()?)?;
        let relayed = client.allocated()?;
        let mut message = bare(CHANNEL_BIND);
        let transaction = message.transaction_id();
        message.add_attribute(&ChannelNumber::new(CHANNEL))?;
        message.add_attribute(&XorPeerAddress::new(peer, transaction))?;
        client.socket.send(&client.sign(message)?)?;
        let answer = client.answer()?;
        let message = Message::from_bytes(&answer)?;
        if !message.has_class(MessageClass::Success) {
            bail!("no channel: {message}");
        }
        Ok((client, relayed))
    }

    /// Asks for the own address; returns how long the answer was.
    pub(crate) fn binding(&self) -> anyhow::Result<usize> {
        self.socket.send(&binding_request())?;
        Ok(self.answer()?.len())
    }

    fn sign(&self, mut message: MessageWriteVec) -> anyhow::Result<Vec<u8>> {
        message.add_attribute(&Username::new(USER)?)?;
        message.add_attribute(&Realm::new(REALM)?)?;
        message.add_attribute(&Nonce::new(&self.nonce)?)?;
        let credentials = LongTermKeyCredentials::new(USER.into(), PASSWORD.into(), REALM.into());
        let credentials = MessageIntegrityCredentials::from(credentials);
        message.add_message_integrity(&credentials, IntegrityAlgorithm::Sha1)?;
        Ok(message.finish())
    }

    fn answer(&self) -> anyhow::Result<Vec<u8>> {
        receive(&self.socket).context("the server does not answer")
    }
}

/// The next packet. Asks again and again instead of sleeping: a wake-up would be the server's cost.
pub(crate) fn receive(socket: &UdpSocket) -> anyhow::Result<Vec<u8>> {
    let mut buffer = [0; 2048];
    let deadline = Instant::now() + PATIENCE;
    loop {
        match socket.recv(&mut buffer) {
            Ok(length) => return Ok(buffer[..length].to_vec()),
            Err(error)
                if error.kind() == std::io::ErrorKind::WouldBlock && Instant::now() < deadline => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// A stranger's address: another one for each number below 2^22.
pub(crate) fn stranger(number: u32) -> Ipv4Addr {
    Ipv4Addr::from_bits(Ipv4Addr::new(127, 1, 0, 1).to_bits() + number)
}

/// What asks for the own address.
pub(crate) fn binding_request() -> Vec<u8> {
    bare(BINDING).finish()
}

fn bare(method: Method) -> MessageWriteVec {
    Message::builder_request(method, MessageWriteVec::new())
}
