//! What signaling carries before there is a channel, signed by those who say it.
//!
//! ```text
//! client ── offer: wants, certificate; signed by the grant's key ──► gateway
//! client ◄─ answer: node, certificates of both; signed by the node's key ── gateway
//! ```
//! The handshake on the channel proves the same and more, with nonces of both ends, and it alone decides.
//! This refuses a changed description at once, with a name for what is wrong, and keeps a gateway from
//! making connections for anybody who holds no grant.
//!
//! Security: an offer that comes a second time starts nothing: the gateway remembers sessions, and a
//! connection made for it would need the key of the certificate that it names.

use super::binding::{Binding, Fingerprint};
use super::handshake::HandshakeError;
use super::party::{Node, Trust};
use crate::check::Check;
use crate::id::{ClusterName, GrantId, NodeId, ServiceName, SessionId};
use crate::key::{KeyError, PublicKey, Signature, SigningKey};
use crate::signal::Answer;
use crate::transcript::Transcript;

/// What a client wants to be introduced for.
#[derive(Debug, Clone, Copy)]
pub struct Introduction<'a> {
    /// Its cluster.
    pub cluster: &'a ClusterName,
    /// Wanted service.
    pub service: &'a ServiceName,
    /// Wanted node; any that offers the service if there is none.
    pub node: Option<&'a NodeId>,
    /// Chosen by the client.
    pub session: SessionId,
}

impl Introduction<'_> {
    /// Signs an offer that names this certificate.
    #[must_use]
    pub fn sign_offer(
        &self,
        (grant, key): (&GrantId, &SigningKey),
        client: &Fingerprint,
    ) -> Signature {
        key.sign(self.offer(grant, client).bytes())
    }

    /// Checks who made an offer, by the key that the grant is bound to.
    ///
    /// # Errors
    /// [`KeyError::BadSignature`].
    pub fn verify_offer(
        &self,
        (grant, key): (&GrantId, &PublicKey),
        client: &Fingerprint,
        proof: &Signature,
    ) -> Result<(), KeyError> {
        Check::Offer.enforce(key.verify(self.offer(grant, client).bytes(), proof))
    }

    /// Signs an answer to the offer.
    #[must_use]
    pub fn sign_answer(&self, node: &Node<'_>, binding: &Binding) -> Signature {
        node.key.sign(self.answer(node.id, binding).bytes())
    }

    /// Checks who made an answer.
    ///
    /// # Errors
    /// See [`HandshakeError`]: as for a node's proof in the handshake.
    pub fn verify_answer(&self, answer: &Answer, trust: &Trust<'_>) -> Result<(), HandshakeError> {
        let verified = trust
            .node_key(self.cluster, &answer.node, answer.certificate())
            .and_then(|certified| {
                let signed = self.answer(&answer.node, &trust.binding);
                Ok(certified.key.verify(signed.bytes(), &answer.proof)?)
            });
        Check::Answer.enforce(verified)
    }

    fn offer(&self, grant: &GrantId, client: &Fingerprint) -> Transcript {
        self.begin("portway/offer/1")
            .field(self.node.map_or(&[][..], |node| node.as_str().as_bytes()))
            .fixed(grant.as_bytes())
            .fixed(client.as_bytes())
    }

    fn answer(&self, node: &NodeId, binding: &Binding) -> Transcript {
        self.begin("portway/answer/1")
            .field(node.as_str().as_bytes())
            .fixed(binding.client.as_bytes())
            .fixed(binding.gateway.as_bytes())
    }

    fn begin(&self, domain: &str) -> Transcript {
        Transcript::new(domain)
            .field(self.cluster.as_str().as_bytes())
            .field(self.service.as_str().as_bytes())
            .fixed(self.session.as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::revocation::Revocations;
    use crate::secret::Secret;
    use crate::session::party::Certificate;
    use crate::signal::{SdpKind, SessionDescription};
    use crate::token::Confirmation;
    use crate::token::machine::{MachineClaims, RevokedBy};

    const NOW: u64 = 1000;

    fn key(seed: u8) -> SigningKey {
        SigningKey::from_seed(&Secret::new([seed; 32]))
    }

    fn print(byte: u8) -> Fingerprint {
        Fingerprint::from_bytes([byte; 32])
    }

    fn certificate(node: &NodeId, cluster: &ClusterName) -> String {
        let claims = MachineClaims {
            iss: cluster.clone(),
            aud: cluster.clone(),
            sub: node.clone(),
            node_id: node.clone(),
            cluster_id: cluster.clone(),
            iat: NOW,
            exp: NOW + 100,
            jti: "1".into(),
            cnf: Confirmation {
                ed25519: key(11).public(),
            },
            revoked_by: RevokedBy::Nothing,
        };
        claims.issue(&key(10))
    }

    #[test]
    fn an_offer_is_its_client_s_word_for_word() {
        let (home, away) = ("home".parse().unwrap(), "away".parse().unwrap());
        let (lab, nas) = ("lab".parse().unwrap(), "nas".parse().unwrap());
        let node: NodeId = "pi".parse().unwrap();
        let (grant, other) = (GrantId::from_bytes([5; 9]), GrantId::from_bytes([6; 9]));
        let asked = Introduction {
            cluster: &home,
            service: &lab,
            node: Some(&node),
            session: SessionId::from_bytes([2; 16]),
        };
        let proof = asked.sign_offer((&grant, &key(1)), &print(1));
        let (own, theirs) = (key(1).public(), key(2).public());
        let heard = |heard: Introduction<'_>, grant, key, client| {
            heard
                .verify_offer((grant, key), &print(client), &proof)
                .is_ok()
        };
        assert!(heard(asked, &grant, &own, 1));
        assert!(!heard(asked, &grant, &own, 2), "another certificate");
        assert!(!heard(asked, &other, &own, 1), "another grant");
        assert!(!heard(asked, &grant, &theirs, 1), "another holder");
        let session = SessionId::from_bytes([3; 16]);
        for changed in [
            Introduction {
                cluster: &away,
                ..asked
            },
            Introduction {
                service: &nas,
                ..asked
            },
            Introduction {
                node: None,
                ..asked
            },
            Introduction { session, ..asked },
        ] {
            assert!(!heard(changed, &grant, &own, 1), "{changed:?}");
        }
    }

    #[test]
    fn an_answer_is_the_node_s_to_this_offer() {
        let home = "home".parse().unwrap();
        let lab = "lab".parse().unwrap();
        let (node, other): (NodeId, NodeId) = ("pi".parse().unwrap(), "nas".parse().unwrap());
        let asked = Introduction {
            cluster: &home,
            service: &lab,
            node: None,
            session: SessionId::from_bytes([2; 16]),
        };
        let revocations = Revocations::new(home.clone(), key(10).public());
        let trust = Trust {
            cluster_key: key(10).public(),
            pinned: None,
            revocations: &revocations,
            node: Some(&node),
            binding: Binding {
                client: print(1),
                gateway: print(2),
            },
            now: NOW,
        };
        let certificate = certificate(&node, &home);
        let proof = asked.sign_answer(
            &Node {
                cluster: &home,
                id: &node,
                certificate: Certificate {
                    token: &certificate,
                    rotations: &[],
                },
                key: &key(11),
            },
            &trust.binding,
        );
        let answer = Answer {
            session: asked.session,
            description: SessionDescription {
                kind: SdpKind::Answer,
                sdp: String::new(),
            },
            node: node.clone(),
            certificate,
            rotations: Vec::new(),
            proof,
        };
        asked.verify_answer(&answer, &trust).unwrap();
        let refused = |asked: Introduction<'_>, answer: &Answer, trust: Trust<'_>| {
            asked.verify_answer(answer, &trust).unwrap_err()
        };
        let session = SessionId::from_bytes([3; 16]);
        let replayed = refused(Introduction { session, ..asked }, &answer, trust);
        assert!(matches!(replayed, HandshakeError::Unproven(_)));
        let middle = Binding {
            gateway: print(3),
            ..trust.binding
        };
        let middle = refused(
            asked,
            &answer,
            Trust {
                binding: middle,
                ..trust
            },
        );
        assert!(matches!(middle, HandshakeError::Unproven(_)));
        let another = refused(
            asked,
            &answer,
            Trust {
                node: Some(&other),
                ..trust
            },
        );
        assert!(matches!(another, HandshakeError::WrongNode { .. }));
        let renamed = Answer {
            node: other.clone(),
            ..answer.clone()
        };
        let renamed = refused(
            asked,
            &renamed,
            Trust {
                node: None,
                ..trust
            },
        );
        assert!(matches!(renamed, HandshakeError::Unproven(_)));
        let foreign = Trust {
            cluster_key: key(12).public(),
            ..trust
        };
        let foreign = refused(asked, &answer, foreign);
        assert!(matches!(foreign, HandshakeError::Certificate(_)));
        let late = refused(
            asked,
            &answer,
            Trust {
                now: NOW + 200,
                ..trust
            },
        );
        assert_eq!(late.reason(), crate::reason::Reason::CertificateExpired);
    }
}
