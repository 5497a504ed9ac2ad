//! Pairing: two people compare six digits by voice, and one of them has a link that was never sent. Sans-IO.
//!
//! ```text
//! guest                                                  node
//!   commitment = H(key, nonce of the guest) ──────────────►│ takes the first one
//!   │◄─────────── cluster key, certificate, grant, nonce of the node
//!   key, nonce of the guest ──────────────────────────────►│ are they what it was committed to?
//!   digits = H(all of that)                                digits = H(all of that)
//!   │ ))) the guest reads them to the owner (((            │ the owner types them: one try
//!   │◄──────────────────────────────────────── paired      │ makes the grant, bound to the key
//!   the guest asks the owner whether they were accepted
//! ```
//! - [`guest`]: one end. [`host`]: the other. [`code`]: what both compute.
//!
//! Security: whoever carries the messages can put keys of its own in the place of both. Then the two ends
//! compute digits from different values. It cannot choose these so that the digits agree: towards the node it
//! is committed before it knows the node's nonce, and the guest tells its own only after it has the node's
//! answer. So it has one guess, and one in a million is right. The key of the grant never leaves the guest.

pub mod code;
pub mod guest;
pub mod host;

use crate::id::{ClusterName, Commitment, NodeId, Nonce, ServiceName};
use crate::key::PublicKey;
use crate::reason::Reason;
use crate::token::TokenError;
use crate::transcript::Transcript;

/// Why there is no pairing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PairingError {
    /// The certificate is not the word of the key that came with it.
    #[error("the node's certificate: {0}")]
    Certificate(#[from] TokenError),
    /// The certificate is another node's.
    #[error("node {got} answered with the certificate of {certified}")]
    NotItsCertificate {
        /// Who answered.
        got: NodeId,
        /// Whose certificate it is.
        certified: NodeId,
    },
    /// Another node is meant.
    #[error("node {got} answered, {wanted} is meant")]
    WrongNode {
        /// The one that is meant.
        wanted: NodeId,
        /// Who answered.
        got: NodeId,
    },
    /// The guest tells something else than it was committed to.
    #[error("the guest is not the one that began")]
    Uncommitted,
    /// The two ends have different digits.
    #[error("the digits differ")]
    DigitsDiffer,
}

impl PairingError {
    /// The reason code.
    #[must_use]
    pub const fn reason(&self) -> Reason {
        match self {
            Self::Certificate(TokenError::Expired { .. } | TokenError::FromTheFuture { .. }) => {
                Reason::CertificateExpired
            }
            Self::Certificate(_)
            | Self::NotItsCertificate { .. }
            | Self::WrongNode { .. }
            | Self::Uncommitted => Reason::E2eAuthFailed,
            Self::DigitsDiffer => Reason::PairingMismatch,
        }
    }
}

/// What a guest binds itself to.
fn commitment(
    (cluster, service): (&ClusterName, &ServiceName),
    key: &PublicKey,
    nonce: &Nonce,
) -> Commitment {
    let transcript = Transcript::new("portway/pairing-commit/1")
        .field(cluster.as_str().as_bytes())
        .field(service.as_str().as_bytes())
        .fixed(key.as_bytes())
        .fixed(nonce.as_bytes());
    Commitment::from_bytes(transcript.digest())
}

#[cfg(test)]
mod tests;
