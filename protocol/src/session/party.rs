//! Who takes part in a session, and what they hold.

use super::binding::Binding;
use super::handshake::HandshakeError;
use crate::check::Check;
use crate::id::{ClusterName, GrantId, NodeId};
use crate::key::{KeyError, PublicKey, SigningKey};
use crate::revocation::Revocations;
use crate::rotation::{self, Rotation};
use crate::token::TrustedKeys;
use crate::token::machine::MachineClaims;

/// Whom a client believes.
#[derive(Debug, Clone, Copy)]
pub struct Trust<'a> {
    /// Key of the cluster, from the link.
    pub cluster_key: PublicKey,
    /// The one that was believed before, if it is known: both have to lead to the same newest one.
    pub pinned: Option<PublicKey>,
    /// The node that is meant; any of the cluster if there is none.
    pub node: Option<&'a NodeId>,
    /// What it knows of nodes that are none any more.
    pub revocations: &'a Revocations,
    /// The channel, as the client's end sees it.
    pub binding: Binding,
    /// Seconds since 1970.
    pub now: u64,
}

/// What a client shows once the node has proven itself.
#[derive(Debug, Clone, Copy)]
pub struct Holder<'a> {
    /// The grant.
    pub grant: GrantId,
    /// User token, if the gateway cannot know the grant.
    pub token: Option<&'a str>,
    /// Key of the grant.
    pub key: &'a SigningKey,
    /// Key of the device.
    pub device: PublicKey,
}

/// Who a gateway is.
#[derive(Debug, Clone, Copy)]
pub struct Node<'a> {
    /// Its cluster.
    pub cluster: &'a ClusterName,
    /// Its name.
    pub id: &'a NodeId,
    /// The cluster's word for it.
    pub certificate: Certificate<'a>,
    /// Key of the certificate.
    pub key: &'a SigningKey,
}

/// The cluster's word for a node, as the node shows it.
#[derive(Debug, Clone, Copy)]
pub struct Certificate<'a> {
    /// Machine token.
    pub token: &'a str,
    /// How the cluster key came to be the present one, for those who know an earlier one.
    pub rotations: &'a [Rotation],
}

/// The other end of a session, once it has proven itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proven {
    /// The node.
    pub node: NodeId,
    /// Its key.
    pub key: PublicKey,
    /// The newest key of the cluster: to be believed from now on, in place of the one that was pinned.
    pub cluster_key: PublicKey,
}

/// A node whose certificate is good.
pub(super) struct Certified {
    /// Its key.
    pub(super) key: PublicKey,
    /// Newest key of the cluster.
    pub(super) cluster_key: PublicKey,
}

impl Trust<'_> {
    /// The key of a node, from its certificate. What it has signed is not looked at.
    ///
    /// # Errors
    /// [`HandshakeError::KeyChanged`], [`HandshakeError::Rotation`], [`HandshakeError::Certificate`],
    /// [`HandshakeError::Revocation`] or [`HandshakeError::Unproven`] if the certificate is not the cluster's
    /// word for this node, [`HandshakeError::WrongNode`] if another one is meant.
    pub(super) fn node_key(
        &self,
        cluster: &ClusterName,
        node: &NodeId,
        certificate: Certificate<'_>,
    ) -> Result<Certified, HandshakeError> {
        let keys = rotation::follow(cluster, self.cluster_key, certificate.rotations)?;
        let newest = keys.last().copied().unwrap_or(self.cluster_key);
        if let Some(pinned) = self.pinned {
            let known = rotation::follow(cluster, pinned, certificate.rotations)?;
            if known.last() != Some(&newest) {
                return Err(HandshakeError::KeyChanged);
            }
        }
        let trusted = TrustedKeys::new(keys);
        let claims = MachineClaims::verify(certificate.token, cluster, &trusted, self.now)?;
        Check::Revocation.enforce(self.revocations.judge(&claims, self.now))?;
        if claims.node_id != *node {
            return Err(HandshakeError::Unproven(KeyError::BadSignature));
        }
        match self.node {
            Some(wanted) if wanted != node && Check::Node.is_on() => {
                Err(HandshakeError::WrongNode {
                    wanted: wanted.clone(),
                    got: node.clone(),
                })
            }
            Some(_) | None => Ok(Certified {
                key: claims.cnf.ed25519,
                cluster_key: newest,
            }),
        }
    }
}
