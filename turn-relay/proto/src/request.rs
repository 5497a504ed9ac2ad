//! What a client asks for: bytes to a typed request (RFC 8656 §5), or the reason to refuse it.

use std::net::SocketAddr;
use std::time::Duration;

use stun_types::attribute::{
    Attribute as _, AttributeStaticType as _, AttributeType, Fingerprint, MessageIntegrity,
    MessageIntegritySha256, Nonce, PasswordAlgorithm, PasswordAlgorithms, Realm, Userhash,
    Username,
};
use stun_types::message::{BINDING, Message};
use turn_types::attribute::{
    AdditionalAddressFamily, ChannelNumber as ChannelNumberAttribute,
    ConnectionId as ConnectionIdAttribute, DontFragment, EvenPort, Lifetime,
    RequestedAddressFamily, RequestedTransport, ReservationToken, XorPeerAddress,
};
use turn_types::message::{ALLOCATE, CHANNEL_BIND, CREATE_PERMISSION, REFRESH};

use crate::channel::ChannelNumber;
use crate::command::{Family, ReservationId};
use crate::discovery::CHANGE_REQUEST;
use crate::limits::MAX_PEERS;
use crate::mobility::Mobility;
use crate::tcp::{CONNECT, CONNECTION_BIND, ConnectionId, RelayTransport};

/// Why a request is refused: the error codes of RFC 8489 §14.8 and RFC 8656 §19.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// 400
    #[error("bad request")]
    BadRequest,
    /// 401
    #[error("unauthorized")]
    Unauthorized,
    /// 403
    #[error("forbidden peer")]
    Forbidden,
    /// 420, with the attributes.
    #[error("unknown attribute")]
    UnknownAttribute(Vec<u16>),
    /// 437
    #[error("allocation mismatch")]
    AllocationMismatch,
    /// 438
    #[error("stale nonce")]
    StaleNonce,
    /// 440
    #[error("address family not supported")]
    AddressFamilyNotSupported,
    /// 441
    #[error("wrong credentials")]
    WrongCredentials,
    /// 442
    #[error("unsupported transport protocol")]
    UnsupportedTransport,
    /// 443
    #[error("peer address family mismatch")]
    PeerFamilyMismatch,
    /// 446
    #[error("a connection with this peer exists")]
    ConnectionAlreadyExists,
    /// 447
    #[error("the peer cannot be reached")]
    ConnectionFailed,
    /// 486
    #[error("allocation quota reached")]
    QuotaReached,
    /// 508
    #[error("insufficient capacity")]
    InsufficientCapacity,
}

impl Refusal {
    /// The code on the wire.
    #[must_use]
    pub const fn code(&self) -> u16 {
        match self {
            Self::BadRequest => 400,
            Self::Unauthorized => 401,
            Self::Forbidden => 403,
            Self::UnknownAttribute(_) => 420,
            Self::AllocationMismatch => 437,
            Self::StaleNonce => 438,
            Self::AddressFamilyNotSupported => 440,
            Self::WrongCredentials => 441,
            Self::UnsupportedTransport => 442,
            Self::PeerFamilyMismatch => 443,
            Self::ConnectionAlreadyExists => 446,
            Self::ConnectionFailed => 447,
            Self::QuotaReached => 486,
            Self::InsufficientCapacity => 508,
        }
    }
}

/// A request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request {
    /// What is my address?
    Binding,
    /// A relayed address, please.
    Allocate(Allocate),
    /// Longer, or no more.
    Refresh {
        /// `None`: as long as usual; zero: no more.
        lifetime: Option<Duration>,
        /// Which of its families it is sure of.
        family: Option<Family>,
        /// Whether it has moved.
        mobility: Mobility,
    },
    /// These peers may send to me.
    CreatePermission {
        /// At least one.
        peers: Vec<SocketAddr>,
    },
    /// This number stands for this peer.
    ChannelBind {
        /// The number.
        number: ChannelNumber,
        /// The peer.
        peer: SocketAddr,
    },
    /// A connection with this peer, please (RFC 6062).
    Connect {
        /// The peer.
        peer: SocketAddr,
    },
    /// This connection of mine is for that one.
    ConnectionBind {
        /// The one with a peer.
        connection: ConnectionId,
    },
}

/// What an allocation shall be like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Allocate {
    /// What it and its peers speak.
    pub transport: RelayTransport,
    /// Families of its relayed addresses.
    pub families: Families,
    /// Which port.
    pub port: Port,
    /// How long.
    pub lifetime: Option<Duration>,
    /// Whether it may move.
    pub is_mobile: bool,
}

/// Families of relayed addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Families {
    /// One.
    One(Family),
    /// IPv4, and IPv6 too (ADDITIONAL-ADDRESS-FAMILY).
    Both,
}

/// Which port of a relayed address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Port {
    /// Any.
    Any,
    /// An even one; `reserve`: keep the next one.
    Even {
        /// Whether a token for the next port is wanted.
        reserve: bool,
    },
    /// The one kept under this token.
    Reserved(ReservationId),
}

/// Attributes that are understood where comprehension is required.
const KNOWN: &[AttributeType] = &[
    Username::TYPE,
    Userhash::TYPE,
    Realm::TYPE,
    Nonce::TYPE,
    MessageIntegrity::TYPE,
    MessageIntegritySha256::TYPE,
    PasswordAlgorithm::TYPE,
    PasswordAlgorithms::TYPE,
    Fingerprint::TYPE,
    Lifetime::TYPE,
    XorPeerAddress::TYPE,
    RequestedAddressFamily::TYPE,
    AdditionalAddressFamily::TYPE,
    EvenPort::TYPE,
    RequestedTransport::TYPE,
    DontFragment::TYPE,
    ReservationToken::TYPE,
    ChannelNumberAttribute::TYPE,
    CHANGE_REQUEST,
    ConnectionIdAttribute::TYPE,
];

/// Protocol number of TCP in REQUESTED-TRANSPORT (RFC 6062 §4.1).
const TCP: u8 = 6;

impl Request {
    /// Reads a request.
    ///
    /// # Errors
    /// Why it is refused.
    pub fn parse(message: &Message<'_>) -> Result<Self, Refusal> {
        let unknown: Vec<u16> = message
            .iter_attributes()
            .map(|(_, attribute)| attribute.get_type())
            .filter(|kind| kind.comprehension_required() && !KNOWN.contains(kind))
            .map(|kind| kind.value())
            .collect();
        if !unknown.is_empty() {
            return Err(Refusal::UnknownAttribute(unknown));
        }
        match message.method() {
            BINDING => Ok(Self::Binding),
            ALLOCATE => allocate(message).map(Self::Allocate),
            REFRESH => Ok(Self::Refresh {
                lifetime: lifetime(message)?,
                family: family(message, RequestedAddressFamily::TYPE)?,
                mobility: Mobility::of(message).ok_or(Refusal::BadRequest)?,
            }),
            CREATE_PERMISSION => Ok(Self::CreatePermission {
                peers: peers(message)?,
            }),
            CHANNEL_BIND => channel_bind(message),
            CONNECT => match peers(message)?[..] {
                [peer] => Ok(Self::Connect { peer }),
                _ => Err(Refusal::BadRequest),
            },
            CONNECTION_BIND => match message.attribute::<ConnectionIdAttribute>() {
                Ok(id) => Ok(Self::ConnectionBind {
                    connection: ConnectionId(id.id()),
                }),
                Err(_) => Err(Refusal::BadRequest),
            },
            _ => Err(Refusal::BadRequest),
        }
    }
}

fn allocate(message: &Message<'_>) -> Result<Allocate, Refusal> {
    let transport: RequestedTransport = message.attribute().map_err(|_| Refusal::BadRequest)?;
    let transport = match transport.protocol() {
        RequestedTransport::UDP => RelayTransport::Udp,
        TCP => RelayTransport::Tcp,
        _ => return Err(Refusal::UnsupportedTransport),
    };
    let requested = family(message, RequestedAddressFamily::TYPE)?;
    let additional = family(message, AdditionalAddressFamily::TYPE)?;
    let even: Option<EvenPort> = optional(message)?;
    let reserved: Option<ReservationToken> = optional(message)?;
    let is_unfragmented = message.has_attribute(DontFragment::TYPE);
    // RFC 8656 §7.2, RFC 6062 §5.1: what excludes each other.
    let contradicts = (reserved.is_some()
        && (even.is_some() || requested.is_some() || additional.is_some()))
        || (requested.is_some() && additional.is_some())
        || (additional.is_some() && even.is_some())
        || additional == Some(Family::V4)
        || (transport == RelayTransport::Tcp
            && (even.is_some() || reserved.is_some() || additional.is_some() || is_unfragmented));
    if contradicts {
        return Err(Refusal::BadRequest);
    }
    let port = match (even, reserved) {
        (Some(even), _) => Port::Even {
            reserve: even.requested(),
        },
        (None, Some(token)) => Port::Reserved(ReservationId(token.token())),
        (None, None) => Port::Any,
    };
    let families = match additional {
        Some(_) => Families::Both,
        None => Families::One(requested.unwrap_or(Family::V4)),
    };
    // RFC 8016 §3.1.2: who has nothing has no ticket.
    let is_mobile = match Mobility::of(message) {
        Some(Mobility::Unwanted) => false,
        Some(Mobility::Wanted) => true,
        Some(Mobility::Ticket(_)) | None => return Err(Refusal::BadRequest),
    };
    Ok(Allocate {
        transport,
        families,
        port,
        lifetime: lifetime(message)?,
        is_mobile,
    })
}

fn channel_bind(message: &Message<'_>) -> Result<Request, Refusal> {
    let number: ChannelNumberAttribute = message.attribute().map_err(|_| Refusal::BadRequest)?;
    let number = ChannelNumber::new(number.channel()).ok_or(Refusal::BadRequest)?;
    let [peer] = peers(message)?[..] else {
        return Err(Refusal::BadRequest);
    };
    Ok(Request::ChannelBind { number, peer })
}

/// All XOR-PEER-ADDRESSes, at least one.
fn peers(message: &Message<'_>) -> Result<Vec<SocketAddr>, Refusal> {
    let transaction = message.transaction_id();
    let mut peers = Vec::new();
    for (_, raw) in message.iter_attributes() {
        if raw.get_type() == XorPeerAddress::TYPE {
            let peer = XorPeerAddress::try_from(&raw).map_err(|_| Refusal::BadRequest)?;
            peers.push(peer.addr(transaction));
        }
    }
    if peers.is_empty() || peers.len() > MAX_PEERS {
        return Err(Refusal::BadRequest);
    }
    Ok(peers)
}

fn lifetime(message: &Message<'_>) -> Result<Option<Duration>, Refusal> {
    let lifetime: Option<Lifetime> = optional(message)?;
    Ok(lifetime.map(|lifetime| Duration::from_secs(lifetime.seconds().into())))
}

/// A family, of the four-byte form that both attributes have (RFC 8656 §18.8).
fn family(message: &Message<'_>, kind: AttributeType) -> Result<Option<Family>, Refusal> {
    let Some(raw) = message.raw_attribute(kind) else {
        return Ok(None);
    };
    match raw.value.first_chunk::<1>() {
        Some([1]) => Ok(Some(Family::V4)),
        Some([2]) => Ok(Some(Family::V6)),
        Some(_) => Err(Refusal::AddressFamilyNotSupported),
        None => Err(Refusal::BadRequest),
    }
}

/// An attribute that may be absent, but not malformed.
fn optional<'a, A>(message: &'a Message<'a>) -> Result<Option<A>, Refusal>
where
    A: stun_types::attribute::AttributeFromRaw<'a> + stun_types::attribute::AttributeStaticType,
{
    if message.raw_attribute(A::TYPE).is_none() {
        return Ok(None);
    }
    message
        .attribute()
        .map(Some)
        .map_err(|_| Refusal::BadRequest)
}
