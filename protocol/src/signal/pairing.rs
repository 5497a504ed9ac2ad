//! Messages of a pairing, see [`crate::pairing`] for what they mean.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::id::{Commitment, GrantId, NodeId, Nonce, PairingId, ServiceName};
use crate::key::PublicKey;
use crate::reason::Reason;

/// A guest asks to be paired. The result is [`PairReply`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pair {
    /// Chosen by the guest.
    pub pairing: PairingId,
    /// Wanted service.
    pub service: ServiceName,
    /// Wanted node; absent = any that waits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<NodeId>,
    /// To the guest's key and nonce, which it tells later.
    pub commitment: Commitment,
    /// Added by the server: where the guest's socket comes from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<IpAddr>,
}

/// What the node says to a [`Pair`] that it takes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PairReply {
    /// Its name.
    pub node: NodeId,
    /// The cluster's key, to be compared with the rest.
    pub cluster_key: PublicKey,
    /// The node's certificate, a machine token.
    pub certificate: String,
    /// Of the node.
    pub nonce: Nonce,
    /// The grant that will be made.
    pub grant: GrantId,
}

/// What the guest was committed to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reveal {
    /// Of the [`Pair`].
    pub pairing: PairingId,
    /// Public half of the key that the grant is to be bound to.
    pub key: PublicKey,
    /// Of the guest.
    pub nonce: Nonce,
}

/// The owner has typed the right digits, and the grant is there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Paired {
    /// Of the [`Pair`].
    pub pairing: PairingId,
}

/// The pairing is over without a grant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cancel {
    /// Of the [`Pair`].
    pub pairing: PairingId,
    /// Why.
    pub reason: Reason,
}
