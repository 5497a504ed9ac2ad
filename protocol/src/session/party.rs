//! Who takes part in a session, and what they hold.

use super::binding::Binding;
use super::handshake::HandshakeError;
use crate::check::Check;
use crate::id::{ClusterName, GrantId, NodeId};
use crate::key::{KeyError, PublicKey, SigningKey};
use crate::token::TrustedKeys;
use crate::token::machine::MachineClaims;

/// Whom a client believes.
#[derive(Debug, Clone, Copy)]
pub struct Trust<'a> {
    /// Key of the cluster, from the link or what was pinned before.
    pub cluster_key: PublicKey,
    /// The node that is meant; any of the cluster if there is none.
    pub node: Option<&'a NodeId>,
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
    /// The cluster's word for it: its machine token.
    pub certificate: &'a str,
    /// Key of the certificate.
    pub key: &'a SigningKey,
}

impl Trust<'_> {
    /// The key of a node, from its certificate. What it has signed is not looked at.
    ///
    /// # Errors
    /// [`HandshakeError::Certificate`] or [`HandshakeError::Unproven`] if the certificate is not the cluster's
    /// word for this node, [`HandshakeError::WrongNode`] if another one is meant.
    pub(super) fn node_key(
        &self,
        cluster: &ClusterName,
        node: &NodeId,
        certificate: &str,
    ) -> Result<PublicKey, HandshakeError> {
        let keys = TrustedKeys::new([self.cluster_key]);
        let claims = MachineClaims::verify(certificate, cluster, &keys, self.now)?;
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
            Some(_) | None => Ok(claims.cnf.ed25519),
        }
    }
}
