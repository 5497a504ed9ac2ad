//! The handshake on channel 0, see `docs/protocol.md` §5. Sans-IO.
//!
//! ```text
//! client                                   gateway
//! start                  ── client hello ─► hello
//!   AwaitHello::receive  ◄─ gateway hello ──   AwaitProof
//!   AwaitDevice::signed  ── authenticate ──►   AwaitProof::receive → Claim::verify
//!   AwaitVerdict::receive ◄─ accepted ──────   accepted()
//!                         ◄─ refused ───────   refused()
//! ```
//! Every state consumes itself; a message out of turn ends the handshake. The gateway side decides
//! on a claim outside of here: it looks the grant up, verifies its token, then the proofs. The device key may
//! be where only its owner can use it, in a browser's store of keys say: what it is to sign goes out, and the
//! signature comes in, when it is there.
//!
//! A client may ask to go on with a session whose channel is lost, see [`super::resumption`]. The messages
//! are the same, and so is what the gateway checks; the proof covers that session and its key as well.
//!
//! Security: all proofs cover both nonces, the session id, cluster, node and service, so they serve no other
//! session, and the certificates of both ends of the channel, so they serve no other channel: who stands in
//! between has two channels. The node proves itself first, with a certificate of the cluster key that the
//! client has from elsewhere; nothing of the client but what it wants is said before. The proof of the grant
//! covers the key of the device, so nobody else's device goes by it. How long messages an end takes is covered
//! by no proof but the channel's own encryption: it opens nothing.

use serde::de::{DeserializeOwned, Error as _};
use serde::{Deserialize, Serialize};

use crate::check::Check;
use crate::id::{ClusterName, GrantId, NodeId, Nonce, ServiceName, SessionId};
use crate::key::{KeyError, PublicKey, Signature};
use crate::lane::MaxMessage;
use crate::limits::MAX_HANDSHAKE_MESSAGE;
use crate::permission::Permission;
use crate::reason::Reason;
use crate::revocation::RevocationError;
use crate::rotation::{Rotation, RotationError};
use crate::session::binding::Binding;
use crate::session::party::{Certificate, Certified, Holder, Node, Proven, Trust};
use crate::session::resumption::{Resumption, ResumptionKey};
use crate::target::ServiceKind;
use crate::token::TokenError;
use crate::transcript::{
    Transcript, device_proof, sign_node, sign_session, verify_device, verify_node, verify_session,
};

/// The version that this code speaks.
pub const VERSION: u32 = 1;

const CLIENT_HELLO: u8 = 0x01;
const GATEWAY_HELLO: u8 = 0x02;
const AUTHENTICATE: u8 = 0x03;
const ACCEPTED: u8 = 0x04;
const REFUSED: u8 = 0x05;

/// Why a handshake ended.
#[derive(Debug, thiserror::Error)]
pub enum HandshakeError {
    /// The message is not the one that is due.
    #[error("expected message {expected:#04x}, got {got:#04x}")]
    OutOfTurn {
        /// Type that is due.
        expected: u8,
        /// Type that came; 0 for an empty message.
        got: u8,
    },
    /// Too long for a handshake message.
    #[error("a handshake message of {0} bytes")]
    TooLong(usize),
    /// Its body has another shape.
    #[error("malformed: {0}")]
    Malformed(#[from] serde_json::Error),
    /// No version in common.
    #[error("no common version")]
    Version,
    /// The client wants another cluster.
    #[error("for another cluster")]
    WrongCluster,
    /// The cluster key has not given way to another as the node says.
    #[error("the keys of the cluster: {0}")]
    Rotation(#[from] RotationError),
    /// It is not the cluster that was believed before, by its key.
    #[error(
        "the cluster has another key than the one that is pinned, and no word of that one for it"
    )]
    KeyChanged,
    /// The node has no certificate of this cluster.
    #[error("the certificate of the node: {0}")]
    Certificate(#[from] TokenError),
    /// Its certificate was taken back, or nobody says that it was not.
    #[error("the certificate of the node: {0}")]
    Revocation(#[from] RevocationError),
    /// It is not the one of the certificate, or not the other end of this channel.
    #[error("the node did not prove itself: {0}")]
    Unproven(#[from] KeyError),
    /// It is one of the cluster, not the one that is meant.
    #[error("the node `{got}` answered for `{wanted}`")]
    WrongNode {
        /// Whom the client means.
        wanted: NodeId,
        /// Who it is.
        got: NodeId,
    },
    /// The other end refused.
    #[error("refused: {reason}: {message}")]
    Refused {
        /// Why.
        reason: Reason,
        /// In plain words.
        message: String,
    },
}

impl HandshakeError {
    /// The reason code that the other end is told.
    #[must_use]
    pub const fn reason(&self) -> Reason {
        match self {
            Self::OutOfTurn { .. } | Self::TooLong(_) | Self::Malformed(_) => {
                Reason::ProtocolViolation
            }
            Self::Version => Reason::VersionUnsupported,
            Self::WrongCluster => Reason::LinkInvalid,
            Self::Certificate(TokenError::Expired { .. } | TokenError::FromTheFuture { .. }) => {
                Reason::CertificateExpired
            }
            Self::KeyChanged => Reason::ClusterKeyChanged,
            Self::Revocation(error) => error.reason(),
            Self::Rotation(_)
            | Self::Certificate(_)
            | Self::Unproven(_)
            | Self::WrongNode { .. } => Reason::E2eAuthFailed,
            Self::Refused { reason, .. } => *reason,
        }
    }
}

/// Body of the client hello.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ClientHello {
    /// Versions that the client speaks.
    pub versions: Vec<u32>,
    /// The session.
    pub session: SessionId,
    /// Cluster that the client means.
    pub cluster: ClusterName,
    /// Service that it wants.
    pub service: ServiceName,
    /// Client nonce.
    pub nonce: Nonce,
}

#[derive(Debug, Serialize, Deserialize)]
struct GatewayHello {
    version: u32,
    node: NodeId,
    nonce: Nonce,
    /// Machine token of the node.
    certificate: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    rotations: Vec<Rotation>,
    proof: Signature,
}

#[derive(Debug, Serialize, Deserialize)]
struct Authenticate {
    grant: GrantId,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    resumes: Option<SessionId>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    token: Option<String>,
    proof: Signature,
    device: Device,
    #[serde(default, skip_serializing_if = "MaxMessage::is_default")]
    max_message: MaxMessage,
}

/// A device, and that it is there.
#[derive(Debug, Serialize, Deserialize)]
struct Device {
    key: PublicKey,
    proof: Signature,
}

/// What an accepted client may do.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Accepted {
    /// Name of the user.
    pub user: String,
    /// End of the grant, seconds since 1970.
    pub expires: u64,
    /// Permissions on the service.
    pub services: Vec<Permission>,
    /// What it needs to go on with this session over another channel.
    pub resumption: ResumptionKey,
    /// What the service speaks.
    #[serde(default, skip_serializing_if = "ServiceKind::is_http")]
    pub kind: ServiceKind,
    /// What the gateway takes from then on.
    #[serde(default, skip_serializing_if = "MaxMessage::is_default")]
    pub max_message: MaxMessage,
}

#[derive(Debug, Serialize, Deserialize)]
struct Refused {
    reason: Reason,
    message: String,
}

/// Client side, before the gateway's hello.
#[derive(Debug)]
pub struct AwaitHello {
    hello: ClientHello,
    resumption: Option<Resumption>,
    max_message: MaxMessage,
}

/// Starts the client side; returns the first message.
#[must_use]
pub fn start(
    session: SessionId,
    cluster: ClusterName,
    service: ServiceName,
    nonce: Nonce,
) -> (Vec<u8>, AwaitHello) {
    let hello = ClientHello {
        versions: vec![VERSION],
        session,
        cluster,
        service,
        nonce,
    };
    let state = AwaitHello {
        hello: hello.clone(),
        resumption: None,
        max_message: MaxMessage::default(),
    };
    (encode(CLIENT_HELLO, &hello), state)
}

impl AwaitHello {
    /// Goes on with a session instead of beginning one.
    #[must_use]
    pub fn resuming(self, resumption: Resumption) -> Self {
        Self {
            resumption: Some(resumption),
            ..self
        }
    }

    /// Says that longer messages are taken than a browser's, once the session is accepted.
    #[must_use]
    pub fn taking(self, max_message: MaxMessage) -> Self {
        Self {
            max_message,
            ..self
        }
    }

    /// Takes the gateway hello; what the device is to sign follows, if the node has proven itself.
    ///
    /// # Errors
    /// See [`HandshakeError`].
    pub fn receive(
        self,
        message: &[u8],
        trust: &Trust<'_>,
        holder: Holder<'_>,
    ) -> Result<AwaitDevice, HandshakeError> {
        let reply: GatewayHello = decode_or_refusal(GATEWAY_HELLO, message)?;
        if reply.version != VERSION {
            return Err(HandshakeError::Version);
        }
        let hello = &self.hello;
        let certificate = Certificate {
            token: &reply.certificate,
            rotations: &reply.rotations,
        };
        let Certified { key, cluster_key } =
            trust.node_key(&hello.cluster, &reply.node, certificate)?;
        let begun = digest(hello, &reply.node, &reply.nonce, &trust.binding, None);
        Check::NodeProof.enforce(verify_node(&key, &begun, &reply.proof))?;
        let resumption = self.resumption.as_ref();
        let digest = digest(hello, &reply.node, &reply.nonce, &trust.binding, resumption);
        Ok(AwaitDevice {
            to_sign: device_proof(&digest, &holder.grant),
            grant: holder.grant,
            resumes: resumption.map(|resumption| resumption.session),
            token: holder.token.map(str::to_owned),
            proof: sign_session(holder.key, &digest, &holder.grant, &holder.device),
            device: holder.device,
            max_message: self.max_message,
            proven: Proven {
                node: reply.node,
                key,
                cluster_key,
            },
        })
    }
}

/// Client side, until the device has signed.
#[derive(Debug)]
pub struct AwaitDevice {
    to_sign: Transcript,
    grant: GrantId,
    resumes: Option<SessionId>,
    token: Option<String>,
    proof: Signature,
    device: PublicKey,
    max_message: MaxMessage,
    proven: Proven,
}

impl AwaitDevice {
    /// What the device key is to sign.
    #[must_use]
    pub fn to_sign(&self) -> &[u8] {
        self.to_sign.bytes()
    }

    /// Takes the device's signature; returns our proofs.
    #[must_use]
    pub fn signed(self, by_device: Signature) -> (Vec<u8>, AwaitVerdict) {
        let authenticate = Authenticate {
            grant: self.grant,
            resumes: self.resumes,
            token: self.token,
            proof: self.proof,
            device: Device {
                key: self.device,
                proof: by_device,
            },
            max_message: self.max_message,
        };
        let verdict = AwaitVerdict {
            proven: self.proven,
        };
        (encode(AUTHENTICATE, &authenticate), verdict)
    }
}

/// Client side, after the proof.
#[derive(Debug)]
pub struct AwaitVerdict {
    proven: Proven,
}

impl AwaitVerdict {
    /// Takes the gateway's verdict. Lane messages follow.
    ///
    /// # Errors
    /// [`HandshakeError::Refused`] and others.
    pub fn receive(self, message: &[u8]) -> Result<(Proven, Accepted), HandshakeError> {
        let accepted = decode_or_refusal(ACCEPTED, message)?;
        Ok((self.proven, accepted))
    }
}

/// Gateway side, after the client hello.
#[derive(Debug)]
pub struct AwaitProof {
    hello: ClientHello,
    node: NodeId,
    nonce: Nonce,
    binding: Binding,
}

/// Starts the gateway side with the client hello; returns our hello.
///
/// # Errors
/// See [`HandshakeError`].
pub fn hello(
    message: &[u8],
    node: &Node<'_>,
    nonce: Nonce,
    binding: Binding,
) -> Result<(Vec<u8>, AwaitProof), HandshakeError> {
    let hello: ClientHello = decode(CLIENT_HELLO, message)?;
    if !hello.versions.contains(&VERSION) {
        return Err(HandshakeError::Version);
    }
    if hello.cluster != *node.cluster {
        return Err(HandshakeError::WrongCluster);
    }
    let digest = digest(&hello, node.id, &nonce, &binding, None);
    let reply = GatewayHello {
        version: VERSION,
        node: node.id.clone(),
        nonce,
        certificate: node.certificate.token.to_owned(),
        rotations: node.certificate.rotations.to_vec(),
        proof: sign_node(node.key, &digest),
    };
    let state = AwaitProof {
        hello,
        node: reply.node.clone(),
        nonce,
        binding,
    };
    Ok((encode(GATEWAY_HELLO, &reply), state))
}

impl AwaitProof {
    /// The client hello.
    #[must_use]
    pub const fn hello(&self) -> &ClientHello {
        &self.hello
    }

    /// Takes the client's proof; nothing is believed yet.
    ///
    /// # Errors
    /// See [`HandshakeError`].
    pub fn receive(self, message: &[u8]) -> Result<Claim, HandshakeError> {
        let authenticate: Authenticate = decode(AUTHENTICATE, message)?;
        Ok(Claim {
            service: self.hello.service.clone(),
            session: self.hello.session,
            grant: authenticate.grant,
            resumes: authenticate.resumes,
            token: authenticate.token,
            device: authenticate.device.key,
            max_message: authenticate.max_message,
            by_grant: authenticate.proof,
            by_device: authenticate.device.proof,
            asked: self,
        })
    }
}

/// What a client claims: that it holds the key of a grant and that of a device, and maybe that it is the client
/// of a session.
#[derive(Debug)]
pub struct Claim {
    /// Service that it wants.
    pub service: ServiceName,
    /// The session.
    pub session: SessionId,
    /// The grant.
    pub grant: GrantId,
    /// The session that it wants to go on with, instead of a new one.
    pub resumes: Option<SessionId>,
    /// User token, if the gateway cannot know the grant.
    pub token: Option<String>,
    /// The device.
    pub device: PublicKey,
    /// What the client takes once it is accepted.
    pub max_message: MaxMessage,
    by_grant: Signature,
    by_device: Signature,
    asked: AwaitProof,
}

impl Claim {
    /// Checks the proofs: against the key that the grant is bound to, that of the device and, if the client
    /// [resumes](Claim::resumes) a session, that session's own key.
    ///
    /// # Errors
    /// [`KeyError::BadSignature`].
    pub fn verify(
        &self,
        key: &PublicKey,
        resumption: Option<&ResumptionKey>,
    ) -> Result<(), KeyError> {
        let resumption = match (self.resumes, resumption) {
            (None, None) => None,
            (Some(session), Some(key)) => Some(Resumption {
                session,
                key: key.clone(),
            }),
            (Some(_), None) | (None, Some(_)) => return Err(KeyError::BadSignature),
        };
        let AwaitProof {
            hello,
            node,
            nonce,
            binding,
        } = &self.asked;
        let digest = digest(hello, node, nonce, binding, resumption.as_ref());
        let proven = verify_session(key, &digest, &self.grant, &self.device, &self.by_grant)
            .and_then(|()| verify_device(&self.device, &digest, &self.grant, &self.by_device));
        Check::ClientProof.enforce(proven)
    }
}

/// The gateway's last message to a client that it lets in.
#[must_use]
pub fn accepted(accepted: &Accepted) -> Vec<u8> {
    encode(ACCEPTED, accepted)
}

/// The gateway's last message to a client that it turns away.
#[must_use]
pub fn refused(reason: Reason) -> Vec<u8> {
    let refused = Refused {
        reason,
        message: reason.message().to_owned(),
    };
    encode(REFUSED, &refused)
}

fn digest(
    hello: &ClientHello,
    node: &NodeId,
    gateway_nonce: &Nonce,
    binding: &Binding,
    resumption: Option<&Resumption>,
) -> [u8; 32] {
    let domain = match resumption {
        None => "portway/session/1",
        Some(_) => "portway/resumption/1",
    };
    let versions: Vec<u8> = hello
        .versions
        .iter()
        .flat_map(|version| version.to_be_bytes())
        .collect();
    let [client, gateway] = binding.signed();
    let transcript = Transcript::new(domain)
        .field(hello.cluster.as_str().as_bytes())
        .field(hello.service.as_str().as_bytes())
        .field(node.as_str().as_bytes())
        .fixed(hello.session.as_bytes())
        .fixed(hello.nonce.as_bytes())
        .fixed(gateway_nonce.as_bytes())
        .fixed(client)
        .fixed(gateway)
        .field(&versions);
    match resumption {
        None => transcript.digest(),
        Some(Resumption { session, key }) => transcript
            .fixed(session.as_bytes())
            .fixed(key.expose())
            .digest(),
    }
}

fn encode<T: Serialize>(kind: u8, body: &T) -> Vec<u8> {
    let mut message = vec![kind];
    serde_json::to_writer(&mut message, body).expect("our own types serialise");
    message
}

fn decode<T: DeserializeOwned>(expected: u8, message: &[u8]) -> Result<T, HandshakeError> {
    if message.len() > MAX_HANDSHAKE_MESSAGE {
        return Err(HandshakeError::TooLong(message.len()));
    }
    match message.split_first() {
        Some((kind, body)) if *kind == expected => {
            // Read as text, as all else: a browser carries one parser, not two.
            let text = std::str::from_utf8(body).map_err(serde_json::Error::custom)?;
            Ok(serde_json::from_str(text)?)
        }
        other => Err(HandshakeError::OutOfTurn {
            expected,
            got: other.map_or(0, |(kind, _)| *kind),
        }),
    }
}

/// As [`decode`], where the gateway may refuse instead.
fn decode_or_refusal<T: DeserializeOwned>(
    expected: u8,
    message: &[u8],
) -> Result<T, HandshakeError> {
    if message.first() == Some(&REFUSED) {
        let refused: Refused = decode(REFUSED, message)?;
        return Err(HandshakeError::Refused {
            reason: refused.reason,
            message: refused.message,
        });
    }
    decode(expected, message)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::key::SigningKey;
    use crate::revocation::{RevocationList, Revocations};
    use crate::secret::Secret;
    use crate::session::binding::Fingerprint;
    use crate::token::Confirmation;
    use crate::token::machine::{MachineClaims, RevokedBy};

    fn key() -> SigningKey {
        seeded(1)
    }

    fn cluster() -> ClusterName {
        "home".parse().unwrap()
    }

    const NOW: u64 = 1000;

    /// The two ends of one channel, and what they believe.
    #[derive(Clone)]
    struct World {
        certificate: MachineClaims,
        issuer: SigningKey,
        rotations: Vec<Rotation>,
        /// What the client knows beside its link.
        pinned: Option<SigningKey>,
        revocations: Revocations,
        node_key: SigningKey,
        /// As the client sees it, as the gateway does.
        channels: [Binding; 2],
        /// What the client says to be the key of its device.
        device: PublicKey,
        now: u64,
    }

    fn device() -> SigningKey {
        seeded(13)
    }

    fn channel(client: u8, gateway: u8) -> Binding {
        Binding {
            client: Fingerprint::from_bytes([client; 32]),
            gateway: Fingerprint::from_bytes([gateway; 32]),
        }
    }

    fn seeded(seed: u8) -> SigningKey {
        SigningKey::from_seed(&Secret::new([seed; 32]))
    }

    fn honest() -> World {
        World {
            certificate: MachineClaims {
                iss: cluster(),
                aud: cluster(),
                sub: "nas".parse().unwrap(),
                node_id: "nas".parse().unwrap(),
                cluster_id: cluster(),
                iat: NOW,
                exp: NOW + 100,
                jti: "1".into(),
                cnf: Confirmation {
                    ed25519: seeded(11).public(),
                },
                revoked_by: RevokedBy::Nothing,
            },
            issuer: seeded(10),
            rotations: Vec::new(),
            pinned: None,
            revocations: Revocations::new(cluster(), seeded(10).public()),
            node_key: seeded(11),
            channels: [channel(1, 2); 2],
            device: device().public(),
            now: NOW,
        }
    }

    /// Runs a handshake in which `tamper` may change each message on its way.
    fn converse(
        tamper: impl FnMut(usize, Vec<u8>) -> Vec<u8>,
    ) -> Result<Accepted, Box<dyn std::error::Error>> {
        meet(None, None, tamper)
    }

    fn resumption(session: u8, key: u8) -> Resumption {
        Resumption {
            session: SessionId::from_bytes([session; 16]),
            key: ResumptionKey::from_bytes([key; 32]),
        }
    }

    /// As [`converse`]; the client may claim a session, and the gateway may know one.
    fn meet(
        claimed: Option<Resumption>,
        known: Option<Resumption>,
        tamper: impl FnMut(usize, Vec<u8>) -> Vec<u8>,
    ) -> Result<Accepted, Box<dyn std::error::Error>> {
        meet_in(&honest(), claimed, known, tamper)
    }

    fn meet_in(
        world: &World,
        claimed: Option<Resumption>,
        known: Option<Resumption>,
        mut tamper: impl FnMut(usize, Vec<u8>) -> Vec<u8>,
    ) -> Result<Accepted, Box<dyn std::error::Error>> {
        let (first, mut client) = start(
            SessionId::from_bytes([2; 16]),
            cluster(),
            "lab".parse()?,
            Nonce::from_bytes([3; 32]),
        );
        if let Some(resumption) = claimed {
            client = client.resuming(resumption);
        }
        let node = Node {
            cluster: &cluster(),
            id: &"nas".parse()?,
            certificate: Certificate {
                token: &world.certificate.issue(&world.issuer),
                rotations: &world.rotations,
            },
            key: &world.node_key,
        };
        let nonce = Nonce::from_bytes([4; 32]);
        let (second, gateway) = hello(&tamper(0, first), &node, nonce, world.channels[1])?;
        let grant = GrantId::from_bytes([5; 9]);
        let trust = Trust {
            node: None,
            cluster_key: seeded(10).public(),
            pinned: world.pinned.as_ref().map(SigningKey::public),
            revocations: &world.revocations,
            binding: world.channels[0],
            now: world.now,
        };
        let holder = Holder {
            grant,
            token: None,
            key: &key(),
            device: world.device,
        };
        let client = client.receive(&tamper(1, second), &trust, holder)?;
        let signature = device().sign(client.to_sign());
        let (third, client) = client.signed(signature);
        let claim = gateway.receive(&tamper(2, third))?;
        if claim.grant != grant {
            return Err("another grant".into());
        }
        let known = known.filter(|known| claim.resumes == Some(known.session));
        claim.verify(&key().public(), known.as_ref().map(|known| &known.key))?;
        let verdict = accepted(&Accepted {
            user: "guest".into(),
            expires: 9,
            services: vec![Permission::all(claim.service)],
            resumption: ResumptionKey::from_bytes([6; 32]),
            kind: ServiceKind::Http,
            max_message: MaxMessage::default(),
        });
        let (proven, accepted) = client.receive(&tamper(3, verdict))?;
        assert_eq!(proven.node.as_str(), "nas");
        assert_eq!(proven.cluster_key, world.issuer.public());
        Ok(accepted)
    }

    /// Why the client ends the handshake before it has said anything of itself.
    fn refusal(world: &World) -> Reason {
        let mut said = 0;
        let outcome = meet_in(world, None, None, |i, message| {
            said = i;
            message
        });
        assert_eq!(said, 1, "the client goes on");
        let error = outcome.unwrap_err().downcast::<HandshakeError>().unwrap();
        error.reason()
    }

    #[test]
    fn who_stands_in_between_is_found_out_before_anything_is_shown() {
        let seen = channel(1, 2);
        for other in [channel(9, 2), channel(1, 9), channel(9, 9), channel(2, 1)] {
            for channels in [[seen, other], [other, seen]] {
                let world = World {
                    channels,
                    ..honest()
                };
                assert_eq!(refusal(&world), Reason::E2eAuthFailed);
            }
        }
    }

    #[test]
    fn a_node_is_one_of_the_cluster_by_its_own_key() {
        let mut worlds = vec![
            World {
                issuer: seeded(12),
                ..honest()
            },
            World {
                node_key: seeded(12),
                ..honest()
            },
        ];
        for spoil in [
            |claims: &mut MachineClaims| claims.cluster_id = "work".parse().unwrap(),
            |claims: &mut MachineClaims| {
                claims.iss = "work".parse().unwrap();
                claims.aud = "work".parse().unwrap();
            },
            |claims: &mut MachineClaims| {
                claims.sub = "other".parse().unwrap();
                claims.node_id = "other".parse().unwrap();
            },
        ] {
            let mut world = honest();
            spoil(&mut world.certificate);
            worlds.push(world);
        }
        for world in worlds {
            assert_eq!(
                refusal(&world),
                Reason::E2eAuthFailed,
                "{:?}",
                world.certificate
            );
        }
    }

    #[test]
    fn a_client_follows_the_cluster_to_its_newest_key() {
        let rotated = |cluster: &ClusterName, by: u8| World {
            issuer: seeded(20),
            rotations: vec![Rotation::sign(cluster, 1, &seeded(by), seeded(20).public())],
            ..honest()
        };
        meet_in(&rotated(&cluster(), 10), None, None, |_, message| message).unwrap();
        let stranger = refusal(&rotated(&cluster(), 19));
        assert_eq!(stranger, Reason::E2eAuthFailed);
        let mut forged = rotated(&cluster(), 10);
        forged.rotations[0].new = seeded(21).public();
        assert_eq!(refusal(&forged), Reason::E2eAuthFailed);
        let elsewhere = refusal(&rotated(&"work".parse().unwrap(), 10));
        assert_eq!(elsewhere, Reason::E2eAuthFailed);
    }

    #[test]
    fn what_is_pinned_and_the_link_lead_to_the_same_key() {
        let statement = |old: u8, new: u8, serial| {
            Rotation::sign(&cluster(), serial, &seeded(old), seeded(new).public())
        };
        let rotated = |rotations, pinned| World {
            issuer: seeded(20),
            rotations,
            pinned: Some(seeded(pinned)),
            ..honest()
        };
        // The link is of key 10; 9 came before it, 20 after.
        let chain = vec![statement(9, 10, 1), statement(10, 20, 2)];
        for pinned in [9, 10, 20] {
            let world = rotated(chain.clone(), pinned);
            meet_in(&world, None, None, |_, message| message).unwrap();
        }
        let another = refusal(&rotated(chain.clone(), 30));
        assert_eq!(another, Reason::ClusterKeyChanged);
        // A key that was given up signs for another one.
        let back = World {
            issuer: seeded(10),
            ..rotated(Vec::new(), 20)
        };
        assert_eq!(refusal(&back), Reason::ClusterKeyChanged);
    }

    #[test]
    fn a_certificate_has_its_time() {
        for now in [NOW - 100, NOW + 200] {
            let world = World { now, ..honest() };
            assert_eq!(refusal(&world), Reason::CertificateExpired);
        }
    }

    #[test]
    fn a_node_that_was_taken_back_is_none() {
        let knowing = |serial, nodes: &[u8], expires, revoked_by| {
            let ids = nodes.iter().map(|seed| seeded(*seed).public().id());
            let ends = (serial, expires);
            let list = RevocationList::sign(&cluster(), (&seeded(10), &[]), ends, ids.collect());
            let mut world = honest();
            world.revocations.learn(&list).unwrap();
            world.certificate.revoked_by = revoked_by;
            world
        };
        let (later, by_list) = (NOW + 50, RevokedBy::List);
        for revoked_by in [RevokedBy::Nothing, by_list] {
            let revoked = refusal(&knowing(1, &[12, 11], later, revoked_by));
            assert_eq!(revoked, Reason::NodeRevoked);
            let other = knowing(1, &[12], later, revoked_by);
            meet_in(&other, None, None, |_, message| message).unwrap();
        }
        let ended = refusal(&knowing(1, &[], NOW - 50, by_list));
        assert_eq!(ended, Reason::RevocationsOutdated);
        let mut unlisted = honest();
        unlisted.certificate.revoked_by = by_list;
        assert_eq!(refusal(&unlisted), Reason::RevocationsOutdated);
    }

    #[test]
    fn an_honest_handshake_succeeds() {
        let accepted = converse(|_, message| message).unwrap();
        assert_eq!(accepted.user, "guest");
    }

    #[test]
    fn a_session_is_resumed_with_its_key_and_no_other() {
        let honest = |_, message| message;
        assert!(meet(Some(resumption(7, 8)), Some(resumption(7, 8)), honest).is_ok());
        assert!(meet(Some(resumption(7, 9)), Some(resumption(7, 8)), honest).is_err());
        assert!(meet(Some(resumption(6, 8)), Some(resumption(7, 8)), honest).is_err());
        assert!(meet(Some(resumption(7, 8)), None, honest).is_err());
    }

    #[test]
    fn a_proof_for_a_new_session_resumes_none() {
        let forge = |i, message: Vec<u8>| {
            if i != 2 {
                return message;
            }
            let mut body: serde_json::Value = serde_json::from_slice(&message[1..]).unwrap();
            body["resumes"] = serde_json::json!(SessionId::from_bytes([7; 16]));
            encode(AUTHENTICATE, &body)
        };
        assert!(meet(None, Some(resumption(7, 8)), forge).is_err());
    }

    #[test]
    fn golden_first_message() {
        let mut first = Vec::new();
        converse(|i, message| {
            if i == 0 {
                first.clone_from(&message);
            }
            message
        })
        .unwrap();
        assert_eq!(
            first,
            b"\x01{\"versions\":[1],\"session\":\"AgICAgICAgICAgICAgICAg\",\"cluster\":\"home\",\"service\":\"lab\",\"nonce\":\"AwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwM\"}"
        );
    }

    #[test]
    fn another_key_is_refused() {
        let forge = |i, message: Vec<u8>| {
            if i != 2 {
                return message;
            }
            let mut body: serde_json::Value = serde_json::from_slice(&message[1..]).unwrap();
            let grant = GrantId::from_bytes([5; 9]);
            let forged = sign_session(&seeded(9), &[0; 32], &grant, &device().public());
            body["proof"] = serde_json::json!(forged);
            encode(AUTHENTICATE, &body)
        };
        assert!(meet(None, None, forge).is_err());
    }

    #[test]
    fn a_device_is_one_that_signs_and_that_the_grant_vouches_for() {
        let claimed = World {
            device: seeded(14).public(),
            ..honest()
        };
        assert!(meet_in(&claimed, None, None, |_, message| message).is_err());

        // Another device that is there, too, but for which nobody vouches.
        let other = seeded(14);
        let mut claims = Vec::new();
        converse(|_, message| {
            claims.push(message.clone());
            message
        })
        .unwrap();
        let replace = |i, message: Vec<u8>| {
            if i != 2 {
                return message;
            }
            let grant = GrantId::from_bytes([5; 9]);
            let asked: ClientHello = serde_json::from_slice(&claims[0][1..]).unwrap();
            let nonce = Nonce::from_bytes([4; 32]);
            let digest = digest(
                &asked,
                &"nas".parse().unwrap(),
                &nonce,
                &channel(1, 2),
                None,
            );
            let mut body: serde_json::Value = serde_json::from_slice(&message[1..]).unwrap();
            body["device"] = serde_json::json!(Device {
                key: other.public(),
                proof: other.sign(device_proof(&digest, &grant).bytes()),
            });
            encode(AUTHENTICATE, &body)
        };
        assert!(meet(None, None, replace).is_err());
    }

    #[test]
    fn a_small_order_device_key_is_refused() {
        let weak = |i, message: Vec<u8>| {
            if i != 2 {
                return message;
            }
            let mut body: serde_json::Value = serde_json::from_slice(&message[1..]).unwrap();
            body["device"]["key"] = serde_json::json!("A".repeat(43));
            encode(AUTHENTICATE, &body)
        };
        let error = meet(None, None, weak).unwrap_err();
        let error = error.downcast::<HandshakeError>().unwrap();
        assert!(matches!(*error, HandshakeError::Malformed(_)), "{error}");
    }

    #[test]
    fn a_refusal_reaches_the_client_with_its_reason() {
        let error = converse(|i, message| {
            if i == 1 {
                refused(Reason::GrantExpired)
            } else {
                message
            }
        })
        .unwrap_err();
        let error = error.downcast::<HandshakeError>().unwrap();
        assert_eq!(error.reason(), Reason::GrantExpired);
    }

    proptest! {
        /// A changed byte in a value that the transcript covers breaks the proof; elsewhere it
        /// breaks the message. Only white space and the verdict's own words are free.
        #[test]
        fn a_changed_hello_or_proof_never_passes(which in 0usize..3, at in 0usize..900, to: u8) {
            let mut changed = false;
            let outcome = converse(|i, mut message| {
                if i == which && at < message.len() && message[at] != to {
                    message[at] = to;
                    changed = true;
                }
                message
            });
            prop_assert!(!changed || outcome.is_err());
        }

        #[test]
        fn any_bytes_are_refused(bytes: Vec<u8>) {
            let nonce = Nonce::from_bytes([4; 32]);
            let node = Node {
                cluster: &cluster(),
                id: &"nas".parse().unwrap(),
                certificate: Certificate {
                    token: "",
                    rotations: &[],
                },
                key: &seeded(11),
            };
            prop_assert!(hello(&bytes, &node, nonce, channel(1, 2)).is_err());
        }
    }
}
