//! Signaling messages: JSON-RPC 2.0 over one WebSocket, see `docs/protocol.md` §4.
//!
//! [`Envelope`] is any message on the socket; [`Call`] the typed requests and notifications inside.
//! A side parses an envelope, then `Call::from_parts` for requests and notifications. A browser, where each
//! kilobyte is waited for, reads and writes by [`Params`] just the methods that it has a use for.
//!
//! [`pairing`]: what is said until two devices are paired. [`news`]: what happens to nodes.

pub mod news;
pub mod pairing;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::id::{ClusterName, GrantId, NodeId, Nonce, ServiceName, SessionId};
use crate::key::{PublicKey, Signature};
use crate::reason::Reason;
use crate::revocation::RevocationList;
use crate::rotation::Rotation;
use crate::session::party::Certificate;
use news::{Paths, Told, Watch};
use pairing::{Cancel, Pair, Paired, Reveal};

/// WebSocket subprotocol.
pub const SUBPROTOCOL: &str = "portway.signal.v1";

/// Path of the WebSocket on the holder origin.
pub const PATH: &str = "/_portway/signal";

/// JSON-RPC error code of a refusal that carries a [`Reason`].
pub const CODE_REFUSED: i32 = -32000;
/// JSON-RPC "Parse error".
pub const CODE_PARSE: i32 = -32700;
/// JSON-RPC "Method not found".
pub const CODE_METHOD: i32 = -32601;
/// JSON-RPC "Invalid params".
pub const CODE_PARAMS: i32 = -32602;

/// One message on the socket. Which fields are present tells what it is.
#[derive(Debug, Serialize, Deserialize)]
pub struct Envelope {
    /// Always `2.0`.
    pub jsonrpc: Version,
    /// Present in requests and in responses.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// Present in requests and notifications.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub method: Option<String>,
    /// Parameters of a request or notification.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub params: Option<Box<RawValue>>,
    /// Result of a request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub result: Option<Box<RawValue>>,
    /// Failure of a request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<RpcError>,
}

/// The text `2.0`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Version {
    /// JSON-RPC 2.0.
    #[serde(rename = "2.0")]
    V2,
}

/// A JSON-RPC error object.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RpcError {
    /// JSON-RPC code.
    pub code: i32,
    /// Plain words.
    pub message: String,
    /// Reason code and advice.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<ErrorData>,
}

impl RpcError {
    /// A refusal with its reason's own words.
    #[must_use]
    pub fn refused(reason: Reason) -> Self {
        Self {
            code: CODE_REFUSED,
            message: reason.message().to_owned(),
            data: Some(ErrorData {
                reason,
                retry_after_ms: None,
            }),
        }
    }

    /// The reason, [`Reason::ProtocolViolation`] for errors of the RPC layer itself.
    #[must_use]
    pub fn reason(&self) -> Reason {
        self.data
            .as_ref()
            .map_or(Reason::ProtocolViolation, |data| data.reason)
    }
}

/// `data` of an [`RpcError`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorData {
    /// Why.
    pub reason: Reason,
    /// Earliest sensible retry, milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after_ms: Option<u64>,
}

/// Why a message was not understood.
#[derive(Debug, thiserror::Error)]
pub enum SignalError {
    /// No JSON-RPC message.
    #[error("not a JSON-RPC message: {0}")]
    Parse(#[source] serde_json::Error),
    /// The method is not one of ours.
    #[error("unknown method")]
    Method,
    /// The parameters do not fit the method.
    #[error("bad parameters: {0}")]
    Params(#[source] serde_json::Error),
}

impl SignalError {
    /// The JSON-RPC error to answer with.
    #[must_use]
    pub fn to_rpc(&self) -> RpcError {
        let (code, message) = match self {
            Self::Parse(_) => (CODE_PARSE, "not a JSON-RPC message"),
            Self::Method => (CODE_METHOD, "unknown method"),
            Self::Params(_) => (CODE_PARAMS, "bad parameters"),
        };
        RpcError {
            code,
            message: message.to_owned(),
            data: Some(ErrorData {
                reason: Reason::ProtocolViolation,
                retry_after_ms: None,
            }),
        }
    }
}

impl Envelope {
    /// Parses one text message.
    ///
    /// # Errors
    /// [`SignalError::Parse`].
    pub fn parse(text: &str) -> Result<Self, SignalError> {
        serde_json::from_str(text).map_err(SignalError::Parse)
    }

    /// A request (`id` given) or notification.
    #[must_use]
    pub fn call(id: Option<String>, call: &Call) -> Self {
        Self {
            jsonrpc: Version::V2,
            id,
            method: Some(call.method().to_owned()),
            params: Some(call.params()),
            result: None,
            error: None,
        }
    }

    /// As [`Self::call`]; of all methods, only this one is compiled in.
    #[must_use]
    pub fn of<P: Params>(id: Option<String>, params: &P) -> Self {
        Self {
            jsonrpc: Version::V2,
            id,
            method: Some(P::METHOD.to_owned()),
            params: Some(raw(params)),
            result: None,
            error: None,
        }
    }

    /// Types the parameters of a request or notification; of all methods, only this one is compiled in.
    ///
    /// # Errors
    /// [`SignalError::Method`] if it has another method or none, or [`SignalError::Params`].
    pub fn params<P: Params>(&self) -> Result<P, SignalError> {
        if self.method.as_deref() != Some(P::METHOD) {
            return Err(SignalError::Method);
        }
        let params = self.params.as_deref().map_or("{}", RawValue::get);
        serde_json::from_str(params).map_err(SignalError::Params)
    }

    /// A successful response.
    #[must_use]
    pub fn result<T: Serialize>(id: String, result: &T) -> Self {
        Self {
            jsonrpc: Version::V2,
            id: Some(id),
            method: None,
            params: None,
            result: Some(raw(result)),
            error: None,
        }
    }

    /// A failed response. `id` is absent when the request could not be read.
    #[must_use]
    pub const fn error(id: Option<String>, error: RpcError) -> Self {
        Self {
            jsonrpc: Version::V2,
            id,
            method: None,
            params: None,
            result: None,
            error: Some(error),
        }
    }

    /// The text to send.
    #[must_use]
    pub fn to_text(&self) -> String {
        serde_json::to_string(self).expect("our own types serialise")
    }
}

/// Decodes the result of a request.
///
/// # Errors
/// [`SignalError::Params`] if it has another shape.
pub fn decode_result<T: DeserializeOwned>(result: &RawValue) -> Result<T, SignalError> {
    serde_json::from_str(result.get()).map_err(SignalError::Params)
}

fn raw<T: Serialize>(value: &T) -> Box<RawValue> {
    serde_json::value::to_raw_value(value).expect("our own types serialise")
}

/// The parameters of a method.
pub trait Params: Serialize + DeserializeOwned {
    /// The method's name on the wire.
    const METHOD: &'static str;
}

/// Makes the table of methods.
macro_rules! calls {
    ($($(#[$doc:meta])* $variant:ident($params:ty) = $method:literal;)*) => {
        /// A request or notification with its parameters.
        #[derive(Debug, Clone)]
        pub enum Call {
            $($(#[$doc])* $variant($params),)*
        }

        impl Call {
            /// The method's name on the wire.
            #[must_use]
            pub const fn method(&self) -> &'static str {
                match self {
                    $(Self::$variant(_) => $method,)*
                }
            }

            fn params(&self) -> Box<RawValue> {
                match self {
                    $(Self::$variant(params) => raw(params),)*
                }
            }

            /// Types the method and parameters of an [`Envelope`].
            ///
            /// # Errors
            /// [`SignalError::Method`] or [`SignalError::Params`].
            pub fn from_parts(method: &str, params: Option<&RawValue>) -> Result<Self, SignalError> {
                let params = params.map_or("{}", RawValue::get);
                match method {
                    $($method => serde_json::from_str(params).map(Self::$variant),)*
                    _ => return Err(SignalError::Method),
                }
                .map_err(SignalError::Params)
            }
        }

        $(impl Params for $params {
            const METHOD: &'static str = $method;
        })*
    };
}

calls! {
    /// Server → any: the first message.
    Challenge(Challenge) = "challenge";
    /// Any → server: the first request.
    Authenticate(Authenticate) = "authenticate";
    /// Gateway → server: what the node offers; replaces what it said before.
    Announce(Announce) = "announce";
    /// Any → server.
    Heartbeat(Heartbeat) = "heartbeat";
    /// Client → server → gateway.
    Offer(Offer) = "offer";
    /// Gateway → server → client.
    Answer(Answer) = "answer";
    /// Both ways.
    Candidate(Candidate) = "candidate";
    /// Both ways: the session ends or was refused.
    Bye(Bye) = "bye";
    /// Server → client: a node of a service came or went.
    Presence(Presence) = "presence";
    /// Server → any: a newer list of revoked nodes.
    Revocations(RevocationList) = "revocations";
    /// Gateway → server: how its sessions are reached.
    Paths(Paths) = "paths";
    /// Gateway → server: asks for news of nodes.
    Watch(Watch) = "watch";
    /// Server → gateway: something happened to a node.
    News(Told) = "news";
    /// Guest → server → gateway.
    Pair(Pair) = "pair";
    /// Guest → server → gateway.
    Reveal(Reveal) = "reveal";
    /// Gateway → server → guest.
    Paired(Paired) = "paired";
    /// Both ways: there will be no pairing.
    Cancel(Cancel) = "cancel";
}

/// First message of the server.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Challenge {
    /// To be signed by the other end.
    pub nonce: Nonce,
    /// Version of the server.
    pub version: String,
    /// Interval of heartbeats, milliseconds.
    pub heartbeat_ms: u64,
}

/// First request of either kind of client.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "role", rename_all = "lowercase")]
pub enum Authenticate {
    /// A node, by its machine token and node key.
    Gateway {
        /// Machine token.
        token: String,
        /// Signature of the node key over the challenge.
        proof: Signature,
    },
    /// A visitor, by a grant key.
    Client {
        /// Cluster of the grant.
        cluster: ClusterName,
        /// The grant.
        grant: GrantId,
        /// The session that it will open: relays get to know it with the credentials.
        session: SessionId,
        /// Signature of the grant key over the challenge.
        proof: Signature,
    },
    /// Somebody who has no grant yet, and may only pair.
    Guest {
        /// Cluster of the service.
        cluster: ClusterName,
    },
}

/// Result of [`Authenticate`].
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Authenticated {
    /// The cluster that this socket belongs to now.
    pub cluster: ClusterName,
    /// Gateways: how long the node stays online without a heartbeat, milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lease_ms: Option<u64>,
    /// STUN and TURN servers to use.
    pub ice_servers: Vec<IceServer>,
    /// The newest list of revoked nodes that the server knows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revocations: Option<RevocationList>,
}

/// RTCIceServer.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IceServer {
    /// `stun:` and `turn:` addresses.
    pub urls: Vec<String>,
    /// TURN user name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub username: Option<String>,
    /// TURN password.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credential: Option<String>,
}

impl std::fmt::Debug for IceServer {
    /// The credential stays hidden.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("IceServer")
            .field("urls", &self.urls)
            .finish_non_exhaustive()
    }
}

/// What a node offers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Announce {
    /// Start time of the gateway process, milliseconds since 1970: the higher one wins.
    pub epoch: u64,
    /// Whether it takes new sessions.
    pub status: NodeStatus,
    /// Version of the gateway.
    pub version: String,
    /// Commit that it was built from.
    pub commit: String,
    /// Its services.
    pub services: Vec<AnnouncedService>,
    /// Grants that it will accept.
    pub grants: Vec<AnnouncedGrant>,
    /// The newest list of revoked nodes that it knows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revocations: Option<RevocationList>,
    /// Services with which a guest may pair now.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub pairing: Vec<ServiceName>,
}

/// State of a node as others see it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NodeStatus {
    /// Authenticated, not announced yet.
    Connecting,
    /// Takes sessions.
    Online,
    /// Finishes its sessions, takes no new ones.
    Draining,
    /// Gone.
    Offline,
}

/// A service in an announcement.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AnnouncedService {
    /// Its name.
    pub name: ServiceName,
    /// Result of the active check.
    pub health: ServiceHealth,
}

/// Health of a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ServiceHealth {
    /// Not checked yet.
    Unknown,
    /// The last check passed.
    Healthy,
    /// Checks fail.
    Unhealthy,
}

/// A grant in an announcement: enough to recognise its holder, nothing to redeem it with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AnnouncedGrant {
    /// The grant.
    pub id: GrantId,
    /// Public half of the grant key.
    pub key: PublicKey,
    /// Services that it opens.
    pub services: Vec<ServiceName>,
    /// End of validity, seconds since 1970.
    pub expires: u64,
}

/// Keeps a socket and a lease alive.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Heartbeat {}

/// An empty result.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Empty {}

/// Introduces a client to a node: for a new session, or for another channel of one that goes on.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Offer {
    /// Chosen by the client.
    pub session: SessionId,
    /// Wanted service.
    pub service: ServiceName,
    /// Wanted node; absent = any that offers the service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<NodeId>,
    /// Added by the server: grant of the client.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grant: Option<GrantId>,
    /// The offer.
    pub description: SessionDescription,
    /// Signature of the grant key, see [`Introduction::sign_offer`].
    ///
    /// [`Introduction::sign_offer`]: crate::session::introduction::Introduction::sign_offer
    pub proof: Signature,
    /// Added by the server: ICE servers for the gateway.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ice_servers: Vec<IceServer>,
}

/// Result of a client's [`Offer`].
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Offered {
    /// The node that will answer.
    pub node: NodeId,
}

/// The gateway's answer.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Answer {
    /// Session of the offer.
    pub session: SessionId,
    /// The answer.
    pub description: SessionDescription,
    /// Who answers.
    pub node: NodeId,
    /// Its certificate, a machine token.
    pub certificate: String,
    /// How the cluster key came to be the present one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rotations: Vec<Rotation>,
    /// Signature of the node key, see [`Introduction::sign_answer`].
    ///
    /// [`Introduction::sign_answer`]: crate::session::introduction::Introduction::sign_answer
    pub proof: Signature,
}

impl Answer {
    /// What the node shows.
    #[must_use]
    pub fn certificate(&self) -> Certificate<'_> {
        Certificate {
            token: &self.certificate,
            rotations: &self.rotations,
        }
    }
}

/// RTCSessionDescriptionInit.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionDescription {
    /// Offer or answer.
    #[serde(rename = "type")]
    pub kind: SdpKind,
    /// The description.
    pub sdp: String,
}

impl std::fmt::Debug for SessionDescription {
    /// The SDP carries ICE passwords, so it stays hidden.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "SessionDescription({:?}, {} B)",
            self.kind,
            self.sdp.len()
        )
    }
}

/// Kind of a description.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SdpKind {
    /// Of the client.
    Offer,
    /// Of the gateway.
    Answer,
}

/// A trickled candidate; `None` = end of candidates.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Candidate {
    /// Session that it belongs to.
    pub session: SessionId,
    /// The candidate.
    pub candidate: Option<IceCandidate>,
}

/// RTCIceCandidateInit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct IceCandidate {
    /// candidate-attribute (RFC 8839 §5.1).
    pub candidate: String,
    /// Media section by id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sdp_mid: Option<String>,
    /// Media section by index.
    #[serde(
        default,
        rename = "sdpMLineIndex",
        skip_serializing_if = "Option::is_none"
    )]
    pub sdp_m_line_index: Option<u16>,
    /// Generation that it belongs to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub username_fragment: Option<String>,
}

/// An introduction is called off. A session that was accepted ends otherwise: by
/// [`Frame::Bye`](crate::lane::frame::Frame::Bye) on its channel.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Bye {
    /// What was introduced.
    pub session: SessionId,
    /// Why.
    pub reason: Reason,
}

/// A node of a service came or went.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Presence {
    /// The service.
    pub service: ServiceName,
    /// The node.
    pub node: NodeId,
    /// `online` or `offline`.
    pub status: NodeStatus,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_request_looks_as_documented() {
        let call = Call::Bye(Bye {
            session: SessionId::from_bytes([0; 16]),
            reason: Reason::Draining,
        });
        assert_eq!(
            Envelope::call(Some("7".into()), &call).to_text(),
            r#"{"jsonrpc":"2.0","id":"7","method":"bye","params":{"session":"AAAAAAAAAAAAAAAAAAAAAA","reason":"DRAINING"}}"#
        );
    }

    #[test]
    fn one_method_alone_is_written_and_read_like_any_of_them() {
        let bye = Bye {
            session: SessionId::from_bytes([7; 16]),
            reason: Reason::Draining,
        };
        let text = Envelope::of(None, &bye).to_text();
        assert_eq!(text, Envelope::call(None, &Call::Bye(bye)).to_text());

        let envelope = Envelope::parse(&text).unwrap();
        let read: Bye = envelope.params().unwrap();
        assert_eq!(read.session, SessionId::from_bytes([7; 16]));
        let another = envelope.params::<Cancel>();
        assert!(matches!(another, Err(SignalError::Method)));
        let no_call = Envelope::result("1".into(), &Empty {});
        assert!(matches!(no_call.params::<Bye>(), Err(SignalError::Method)));
        let without = r#"{"jsonrpc":"2.0","method":"bye"}"#;
        let without = Envelope::parse(without).unwrap().params::<Bye>();
        assert!(matches!(without, Err(SignalError::Params(_))));
    }

    #[test]
    fn an_error_carries_its_reason() {
        let text =
            Envelope::error(Some("1".into()), RpcError::refused(Reason::NodeOffline)).to_text();
        let parsed = Envelope::parse(&text).unwrap();
        assert_eq!(parsed.error.unwrap().reason(), Reason::NodeOffline);
        assert!(text.contains(r#""data":{"reason":"NODE_OFFLINE"}"#));
    }

    #[test]
    fn a_browser_candidate_is_understood() {
        let text = r#"{"jsonrpc":"2.0","method":"candidate","params":{"session":"AAAAAAAAAAAAAAAAAAAAAA","candidate":{"candidate":"candidate:1 1 udp 1 192.0.2.1 5000 typ host","sdpMid":"0","sdpMLineIndex":0,"usernameFragment":"abcd"}}}"#;
        let envelope = Envelope::parse(text).unwrap();
        let call = Call::from_parts(&envelope.method.unwrap(), envelope.params.as_deref()).unwrap();
        let Call::Candidate(candidate) = call else {
            panic!("another call: {call:?}");
        };
        assert_eq!(candidate.candidate.unwrap().sdp_m_line_index, Some(0));
    }

    #[test]
    fn debug_hides_credentials_and_sdp() {
        let server = IceServer {
            urls: vec!["turn:x".into()],
            username: Some("u".into()),
            credential: Some("hunter2".into()),
        };
        let description = SessionDescription {
            kind: SdpKind::Offer,
            sdp: "a=ice-pwd:hunter2".into(),
        };
        assert!(!format!("{server:?}{description:?}").contains("hunter2"));
    }

    proptest! {
        #[test]
        fn any_text_is_understood_or_refused(text: String, method: String) {
            if let Ok(envelope) = Envelope::parse(&text) {
                let _parsed = Envelope::parse(&envelope.to_text()).unwrap();
            }
            prop_assert!(Call::from_parts(&method, None).is_err() || method == "heartbeat");
        }
    }
}
