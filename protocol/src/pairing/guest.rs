//! The guest's end of a pairing: from nothing to a link. Sans-IO.
//!
//! ```text
//! start ─► AwaitingReply ── reply ──► AwaitingVerdict ── paired ──► AwaitingWord ── yes ──► Link
//!                                     shows the digits              of the owner, by voice
//! ```

use super::code::{Compared, Digits};
use super::{PairingError, commitment};
use crate::id::{ClusterName, NodeId, Nonce, PairingId, ServiceName};
use crate::key::SigningKey;
use crate::link::Link;
use crate::secret::Secret;
use crate::signal::pairing::{Pair, PairReply, Reveal};
use crate::token::TrustedKeys;
use crate::token::machine::MachineClaims;

/// What a guest wants to be paired with.
#[derive(Debug, Clone)]
pub struct Wanted {
    /// The cluster.
    pub cluster: ClusterName,
    /// The service.
    pub service: ServiceName,
    /// The node; any that waits if there is none.
    pub node: Option<NodeId>,
}

/// Random values of one attempt; none is used twice.
#[derive(Debug)]
pub struct Fresh {
    /// Names the attempt.
    pub pairing: PairingId,
    /// Of the link.
    pub secret: Secret<[u8; 32]>,
    /// Of the guest.
    pub nonce: Nonce,
}

/// The commitment is made.
#[derive(Debug)]
pub struct AwaitingReply {
    wanted: Wanted,
    fresh: Fresh,
}

/// Both ends have their digits.
#[derive(Debug)]
pub struct AwaitingVerdict {
    digits: Digits,
    link: Link,
}

/// Somebody says that the owner has accepted the digits. Only the owner knows.
#[derive(Debug)]
pub struct AwaitingWord(Link);

/// Begins. The message is for signaling.
#[must_use]
pub fn start(wanted: Wanted, fresh: Fresh) -> (Pair, AwaitingReply) {
    let key = SigningKey::from_link_secret(&fresh.secret).public();
    let pair = Pair {
        pairing: fresh.pairing,
        service: wanted.service.clone(),
        node: wanted.node.clone(),
        commitment: commitment((&wanted.cluster, &wanted.service), &key, &fresh.nonce),
        address: None,
    };
    (pair, AwaitingReply { wanted, fresh })
}

impl AwaitingReply {
    /// Takes the node's answer at `now` (seconds since 1970); the message is for the node.
    ///
    /// # Errors
    /// See [`PairingError`]: the certificate is not that of the key in the answer, or another node's.
    pub fn receive(
        self,
        reply: &PairReply,
        now: u64,
    ) -> Result<(Reveal, AwaitingVerdict), PairingError> {
        let Wanted {
            cluster,
            service,
            node,
        } = self.wanted;
        let trusted = TrustedKeys::new([reply.cluster_key]);
        let claims = MachineClaims::verify(&reply.certificate, &cluster, &trusted, now)?;
        let got = reply.node.clone();
        if claims.node_id != got {
            return Err(PairingError::NotItsCertificate {
                got,
                certified: claims.node_id,
            });
        }
        if let Some(wanted) = node.filter(|wanted| *wanted != got) {
            return Err(PairingError::WrongNode { wanted, got });
        }
        let key = SigningKey::from_link_secret(&self.fresh.secret).public();
        let compared = Compared {
            cluster: &cluster,
            service: &service,
            node: &got,
            cluster_key: &reply.cluster_key,
            node_key: &claims.cnf.ed25519,
            grant: &reply.grant,
            key: &key,
            guest_nonce: &self.fresh.nonce,
            node_nonce: &reply.nonce,
        };
        let digits = compared.digits();
        let reveal = Reveal {
            pairing: self.fresh.pairing,
            key,
            nonce: self.fresh.nonce,
        };
        let link = Link {
            cluster,
            cluster_key: reply.cluster_key,
            grant: reply.grant,
            secret: self.fresh.secret,
        };
        Ok((reveal, AwaitingVerdict { digits, link }))
    }
}

impl AwaitingVerdict {
    /// To be read to the owner.
    #[must_use]
    pub const fn digits(&self) -> Digits {
        self.digits
    }

    /// The node says that its owner has typed the same.
    #[must_use]
    pub fn paired(self) -> AwaitingWord {
        AwaitingWord(self.link)
    }
}

impl AwaitingWord {
    /// The owner says so, too.
    #[must_use]
    pub fn confirmed(self) -> Link {
        self.0
    }
}
