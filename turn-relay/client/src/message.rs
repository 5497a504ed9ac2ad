//! What a client says and hears, as bytes. Sans-IO.

use std::net::SocketAddr;

use portway_relay_proto::channel::ChannelNumber;
use portway_relay_proto::wire::channel_data;
use stun_types::attribute::{
    AttributeFromRaw, AttributeStaticType, ErrorCode, Nonce, Realm, Software, Username,
    XorMappedAddress,
};
use stun_types::message::{
    IntegrityAlgorithm, IntegrityKey, LongTermKeyCredentials, Message, MessageClass,
    MessageWrite as _, MessageWriteExt as _, MessageWriteVec, Method, TransactionId,
};
use turn_types::AddressFamily;
use turn_types::attribute::{
    ChannelNumber as ChannelNumberAttribute, Data, Lifetime, RequestedAddressFamily,
    RequestedTransport, XorPeerAddress, XorRelayedAddress,
};
use turn_types::message::{ALLOCATE, CHANNEL_BIND, CREATE_PERMISSION, DATA, REFRESH, SEND};

pub(crate) use stun_types::message::BINDING;

/// Name and password.
#[derive(Clone)]
pub struct Credentials {
    /// As the server knows it.
    pub username: String,
    /// Secret.
    pub password: String,
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Credentials")
            .field("username", &self.username)
            .finish_non_exhaustive()
    }
}

/// What proves a request: credentials with what the server asked them for.
#[derive(Clone)]
pub(crate) struct Proof {
    username: String,
    pub(crate) realm: String,
    pub(crate) nonce: String,
    key: IntegrityKey,
}

impl Proof {
    pub(crate) fn new(credentials: &Credentials, realm: &str, nonce: &str) -> Self {
        let long_term = LongTermKeyCredentials::new(
            credentials.username.clone(),
            credentials.password.clone(),
            realm.to_owned(),
        );
        Self {
            username: credentials.username.clone(),
            realm: realm.to_owned(),
            nonce: nonce.to_owned(),
            key: long_term.make_key(IntegrityAlgorithm::Sha1),
        }
    }
}

/// A request.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Ask {
    /// What is my address?
    Binding,
    /// A relayed address, please.
    Allocate { ipv6: Ipv6 },
    /// This long, in seconds.
    Refresh { lifetime: u32 },
    /// This peer may send to me.
    Permission { peer: SocketAddr },
    /// This number stands for this peer.
    Channel {
        number: ChannelNumber,
        peer: SocketAddr,
    },
}

/// Which family of relayed address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ipv6 {
    /// IPv4, as every server has.
    No,
    /// IPv6.
    Yes,
}

impl Ask {
    const fn method(self) -> Method {
        match self {
            Self::Binding => BINDING,
            Self::Allocate { .. } => ALLOCATE,
            Self::Refresh { .. } => REFRESH,
            Self::Permission { .. } => CREATE_PERMISSION,
            Self::Channel { .. } => CHANNEL_BIND,
        }
    }

    /// The bytes, with a proof if there is one, and the name of the transaction.
    pub(crate) fn bytes(self, proof: Option<&Proof>) -> (Vec<u8>, TransactionId) {
        const FITS: &str = "a request is short";
        let mut message = Message::builder_request(self.method(), MessageWriteVec::new());
        let transaction = message.transaction_id();
        match self {
            Self::Binding => {}
            Self::Allocate { ipv6 } => {
                let udp = RequestedTransport::new(RequestedTransport::UDP);
                message.add_attribute(&udp).expect(FITS);
                if ipv6 == Ipv6::Yes {
                    let family = RequestedAddressFamily::new(AddressFamily::IPV6);
                    message.add_attribute(&family).expect(FITS);
                }
            }
            Self::Refresh { lifetime } => {
                message.add_attribute(&Lifetime::new(lifetime)).expect(FITS);
            }
            Self::Permission { peer } => {
                let peer = XorPeerAddress::new(peer, transaction);
                message.add_attribute(&peer).expect(FITS);
            }
            Self::Channel { number, peer } => {
                let number = ChannelNumberAttribute::new(number.get());
                message.add_attribute(&number).expect(FITS);
                let peer = XorPeerAddress::new(peer, transaction);
                message.add_attribute(&peer).expect(FITS);
            }
        }
        if let Some(proof) = proof {
            // What a server or a user gave is of any length; what does not fit is left out, and the
            // server says so.
            if let Ok(username) = Username::new(&proof.username) {
                message.add_attribute(&username).expect(FITS);
            }
            if let Ok(realm) = Realm::new(&proof.realm) {
                message.add_attribute(&realm).expect(FITS);
            }
            if let Ok(nonce) = Nonce::new(&proof.nonce) {
                message.add_attribute(&nonce).expect(FITS);
            }
            message
                .add_message_integrity_with_key(&proof.key, IntegrityAlgorithm::Sha1)
                .expect(FITS);
        }
        (message.finish(), transaction)
    }
}

/// A packet for a peer, as an indication.
pub(crate) fn send_indication(peer: SocketAddr, payload: &[u8]) -> Vec<u8> {
    const FITS: &str = "a payload of ours is short";
    let mut message = Message::builder_indication(SEND, MessageWriteVec::new());
    let peer = XorPeerAddress::new(peer, message.transaction_id());
    message.add_attribute(&peer).expect(FITS);
    message.add_attribute(&Data::new(payload)).expect(FITS);
    message.finish()
}

/// A packet for a peer, on a channel.
pub(crate) fn channel_packet(number: ChannelNumber, payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(payload.len()).expect("a payload of ours is short");
    let mut packet = channel_data::header(number, length).to_vec();
    packet.extend_from_slice(payload);
    packet
}

/// What a server has sent.
#[derive(Debug)]
pub(crate) enum Heard {
    /// An answer to this transaction.
    Answer(TransactionId, Answer),
    /// A packet of a peer.
    Data(Vec<u8>),
    /// Nothing that is understood.
    Noise,
}

/// An answer.
#[derive(Debug, Clone, Default)]
pub(crate) struct Answer {
    /// What the server does not want, and its words.
    pub(crate) error: Option<(u16, String)>,
    /// Bytes of the whole message.
    pub(crate) length: usize,
    pub(crate) realm: Option<String>,
    pub(crate) nonce: Option<String>,
    pub(crate) software: Option<String>,
    pub(crate) mapped: Option<SocketAddr>,
    pub(crate) relayed: Option<SocketAddr>,
    pub(crate) lifetime: Option<u32>,
}

/// Reads a packet. With a proof, an answer without the server's own proof is noise, unless it is an
/// error that needs none.
pub(crate) fn hear(packet: &[u8], proof: Option<&Proof>) -> Heard {
    if channel_data::is_channel_data(packet) {
        return match channel_data::parse(packet) {
            Some((_, payload)) => Heard::Data(packet[payload].to_vec()),
            None => Heard::Noise,
        };
    }
    let Ok(message) = Message::from_bytes(packet) else {
        return Heard::Noise;
    };
    match message.class() {
        MessageClass::Indication if message.method() == DATA => match message.attribute::<Data>() {
            Ok(data) => Heard::Data(data.data().to_vec()),
            Err(_) => Heard::Noise,
        },
        MessageClass::Success | MessageClass::Error => {
            let answer = answer(&message, packet.len());
            let is_proved =
                proof.is_none_or(|proof| message.validate_integrity_with_key(&proof.key).is_ok());
            if answer.error.is_none() && !is_proved {
                return Heard::Noise;
            }
            Heard::Answer(message.transaction_id(), answer)
        }
        MessageClass::Request | MessageClass::Indication => Heard::Noise,
    }
}

fn answer(message: &Message<'_>, length: usize) -> Answer {
    let transaction = message.transaction_id();
    let error = message.has_class(MessageClass::Error).then(|| {
        get::<ErrorCode>(message).map_or((0, String::new()), |error| {
            (error.code(), error.reason().to_owned())
        })
    });
    Answer {
        error,
        length,
        realm: get::<Realm>(message).map(|realm| realm.realm().to_owned()),
        nonce: get::<Nonce>(message).map(|nonce| nonce.nonce().to_owned()),
        software: get::<Software>(message).map(|software| software.software().to_owned()),
        mapped: get::<XorMappedAddress>(message).map(|address| address.addr(transaction)),
        relayed: get::<XorRelayedAddress>(message).map(|address| address.addr(transaction)),
        lifetime: get::<Lifetime>(message).map(|lifetime| lifetime.seconds()),
    }
}

fn get<'a, A>(message: &'a Message<'a>) -> Option<A>
where
    A: AttributeFromRaw<'a> + AttributeStaticType,
{
    message.attribute().ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_answer_that_the_server_did_not_sign_is_noise() {
        let credentials = |password: &str| Credentials {
            username: "ann".into(),
            password: password.into(),
        };
        let (request, transaction) = Ask::Allocate { ipv6: Ipv6::No }.bytes(None);
        let request = Message::from_bytes(&request).unwrap();
        let server = Proof::new(&credentials("right"), "here", "n");
        let mut success = Message::builder_success(&request, MessageWriteVec::new());
        success.add_attribute(&Lifetime::new(600)).unwrap();
        success
            .add_message_integrity_with_key(&server.key, IntegrityAlgorithm::Sha1)
            .unwrap();
        let success = success.finish();
        let heard = hear(&success, Some(&server));
        assert!(
            matches!(&heard, Heard::Answer(id, answer) if *id == transaction && answer.lifetime == Some(600)),
            "{heard:?}"
        );
        let other = Proof::new(&credentials("wrong"), "here", "n");
        assert!(matches!(hear(&success, Some(&other)), Heard::Noise));
    }

    proptest! {
        #[test]
        fn whatever_a_server_sends_is_survived(mut packet: Vec<u8>, is_stun: bool) {
            let credentials = Credentials {
                username: "ann".into(),
                password: "ann's".into(),
            };
            let proof = Proof::new(&credentials, "here", "n");
            if is_stun && packet.len() >= 20 {
                let length = u16::try_from(packet.len() - 20).unwrap_or(0) & !3;
                packet[0] &= 1;
                packet[2..4].copy_from_slice(&length.to_be_bytes());
                packet[4..8].copy_from_slice(&[0x21, 0x12, 0xa4, 0x42]);
                packet.truncate(20 + usize::from(length));
            }
            hear(&packet, None);
            hear(&packet, Some(&proof));
        }
    }

    #[test]
    fn data_comes_on_channels_and_in_indications() {
        let number = ChannelNumber::new(0x4000).unwrap();
        let packet = channel_packet(number, b"hello");
        assert!(matches!(hear(&packet, None), Heard::Data(data) if data == b"hello"));
        let mut message = Message::builder_indication(DATA, MessageWriteVec::new());
        message.add_attribute(&Data::new(b"hello")).unwrap();
        assert!(matches!(hear(&message.finish(), None), Heard::Data(data) if data == b"hello"));
        assert!(matches!(hear(b"garbage", None), Heard::Noise));
    }
}
