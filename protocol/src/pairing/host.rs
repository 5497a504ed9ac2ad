//! The node's end of a pairing: a window, one guest, one try. Sans-IO.
//!
//! ```text
//! Open ── commitment ──► AwaitingReveal ── key, nonce ──► AwaitingDigits ── typed ──► the key to grant to
//! ```

use super::code::{Compared, Digits};
use super::{PairingError, commitment};
use crate::id::{ClusterName, Commitment, GrantId, NodeId, Nonce, ServiceName};
use crate::key::PublicKey;

/// What the node stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Offered {
    /// Its cluster.
    pub cluster: ClusterName,
    /// The service to be opened.
    pub service: ServiceName,
    /// Its name.
    pub node: NodeId,
    /// Key of the cluster.
    pub cluster_key: PublicKey,
    /// Key of the node, which its certificate names.
    pub node_key: PublicKey,
    /// The grant that will be made.
    pub grant: GrantId,
}

/// Nobody has come yet.
#[derive(Debug)]
pub struct Open(Offered);

/// A guest is committed.
#[derive(Debug)]
pub struct AwaitingReveal {
    offered: Offered,
    commitment: Commitment,
    nonce: Nonce,
}

/// The node has its digits, and waits for those of the guest.
#[derive(Debug)]
pub struct AwaitingDigits {
    digits: Digits,
    key: PublicKey,
}

impl Open {
    /// Opens the window.
    #[must_use]
    pub const fn new(offered: Offered) -> Self {
        Self(offered)
    }

    /// What it stands for.
    #[must_use]
    pub const fn offered(&self) -> &Offered {
        &self.0
    }

    /// Takes the first guest. `nonce` is fresh, and goes out after this only.
    #[must_use]
    pub fn commit(self, commitment: Commitment, nonce: Nonce) -> AwaitingReveal {
        AwaitingReveal {
            offered: self.0,
            commitment,
            nonce,
        }
    }
}

impl AwaitingReveal {
    /// Takes what the guest was committed to.
    ///
    /// # Errors
    /// [`PairingError::Uncommitted`] if it is something else.
    pub fn reveal(self, key: PublicKey, nonce: &Nonce) -> Result<AwaitingDigits, PairingError> {
        let Offered {
            cluster,
            service,
            node,
            cluster_key,
            node_key,
            grant,
        } = &self.offered;
        if commitment((cluster, service), &key, nonce) != self.commitment {
            return Err(PairingError::Uncommitted);
        }
        let compared = Compared {
            cluster,
            service,
            node,
            cluster_key,
            node_key,
            grant,
            key: &key,
            guest_nonce: nonce,
            node_nonce: &self.nonce,
        };
        let digits = compared.digits();
        Ok(AwaitingDigits { digits, key })
    }
}

impl AwaitingDigits {
    /// Compares with what the owner types. There is no second try. Returns the key that the grant is to be
    /// bound to.
    ///
    /// # Errors
    /// [`PairingError::DigitsDiffer`].
    pub fn compare(self, typed: Digits) -> Result<PublicKey, PairingError> {
        if typed != self.digits {
            return Err(PairingError::DigitsDiffer);
        }
        Ok(self.key)
    }
}
