//! How a machine becomes a node, and stays one, see `docs/protocol.md` §8.
//!
//! ```text
//! GET  /certificate → Invitation      what the join token is for
//! POST /certificate   CertificateRequest → Certificate, or Refusal
//! GET  /nodes/{name} → Vouched        whose key a name stands for
//! ```
//! These are ordinary requests to the service [`enrol`](crate::id::ServiceName::ENROL) of a node that has the
//! cluster key, in an ordinary session: both ends have proven themselves, and signaling can neither read nor
//! alter them. A join token is a link that opens this service and no other; a node that has a certificate
//! opens it with its node key.
//!
//! Security: the machine signs its request with the node key, so nobody gets a certificate for a key that
//! they do not have; the signature names the grant, so it is of no use with another join token.

use serde::{Deserialize, Serialize};

use crate::id::{ClusterName, GrantId, NodeId, ServiceName};
use crate::key::{KeyError, PublicKey, Signature, SigningKey};
use crate::reason::Reason;
use crate::revocation::RevocationList;
use crate::rotation::Rotation;
use crate::transcript::Transcript;

/// Where certificates are asked for.
pub const PATH: &str = "/certificate";

/// What the name of a node follows where its certificate is asked for.
pub const NODES_PATH: &str = "/nodes/";

/// Largest body of a request or an answer, bytes: a token and some addresses.
pub const MAX_BODY: usize = 16 * 1024;

/// What a join token is for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Invitation {
    /// The only name that the machine may have; none: any that is free.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<NodeId>,
    /// Newest key of the cluster: who has a certificate of an earlier one asks for another.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cluster_key: Option<PublicKey>,
    /// The newest list of revoked nodes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revocations: Option<RevocationList>,
}

/// Asks that a key be a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CertificateRequest {
    /// Name of the node.
    pub node: NodeId,
    /// The node key.
    pub key: PublicKey,
    proof: Signature,
}

/// What a node has to know of its cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Certificate {
    /// The cluster.
    pub cluster: ClusterName,
    /// Key of the cluster.
    pub cluster_key: PublicKey,
    /// How it came to be that.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rotations: Vec<Rotation>,
    /// Name of the node.
    pub node: NodeId,
    /// The machine token: the cluster's word that the key is the node.
    pub token: String,
    /// End of the token, seconds since 1970.
    pub expires: u64,
    /// Portals of the signaling services, e.g. `https://home.example.org`.
    pub signaling: Vec<String>,
}

/// The cluster's word whose key a node's name stands for, to a node that wants to let it in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Vouched {
    /// A machine token.
    pub token: String,
    /// How the cluster key came to be the one that has signed it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rotations: Vec<Rotation>,
}

/// The grant by which a node opens a service of other nodes: who lets it in and it itself come to the same id,
/// and nobody has to tell anybody.
#[must_use]
pub fn grant_of_node(node: &PublicKey, service: &ServiceName) -> GrantId {
    let digest = Transcript::new("portway/node-grant/1")
        .fixed(node.as_bytes())
        .field(service.as_str().as_bytes())
        .digest();
    let mut id = [0; GrantId::LEN];
    id.copy_from_slice(&digest[..GrantId::LEN]);
    GrantId::typeable(id)
}

/// Why there is no certificate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// The code.
    pub reason: Reason,
    /// In plain words.
    pub message: String,
}

impl CertificateRequest {
    /// Asks for `key`, in a session of `grant`.
    #[must_use]
    pub fn new(cluster: &ClusterName, grant: &GrantId, node: NodeId, key: &SigningKey) -> Self {
        let proof = key.sign(proof(cluster, grant, &node).bytes());
        Self {
            node,
            key: key.public(),
            proof,
        }
    }

    /// Checks that whoever asks, in a session of `grant`, has the key.
    ///
    /// # Errors
    /// [`KeyError::BadSignature`].
    pub fn verify(&self, cluster: &ClusterName, grant: &GrantId) -> Result<(), KeyError> {
        let signed = proof(cluster, grant, &self.node);
        self.key.verify(signed.bytes(), &self.proof)
    }
}

/// What the node key signs.
fn proof(cluster: &ClusterName, grant: &GrantId, node: &NodeId) -> Transcript {
    Transcript::new("portway/enrolment/1")
        .field(cluster.as_str().as_bytes())
        .field(node.as_str().as_bytes())
        .fixed(grant.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secret::Secret;

    fn request() -> CertificateRequest {
        let key = SigningKey::from_seed(&Secret::new([1; 32]));
        let grant = GrantId::from_bytes([2; 9]);
        let (cluster, node) = ("home".parse().unwrap(), "office".parse().unwrap());
        CertificateRequest::new(&cluster, &grant, node, &key)
    }

    #[test]
    fn a_request_is_good_for_its_cluster_grant_name_and_key_only() {
        let (home, grant) = ("home".parse().unwrap(), GrantId::from_bytes([2; 9]));
        assert!(request().verify(&home, &grant).is_ok());
        let other = GrantId::from_bytes([3; 9]);
        assert!(request().verify(&home, &other).is_err());
        let work = "work".parse().unwrap();
        assert!(request().verify(&work, &grant).is_err());
        let renamed = CertificateRequest {
            node: "attic".parse().unwrap(),
            ..request()
        };
        assert!(renamed.verify(&home, &grant).is_err());
        let stolen = CertificateRequest {
            key: SigningKey::from_seed(&Secret::new([4; 32])).public(),
            ..request()
        };
        assert!(stolen.verify(&home, &grant).is_err());
    }

    #[test]
    fn each_node_has_a_grant_of_its_own_for_each_service() {
        let key = |seed| SigningKey::from_seed(&Secret::new([seed; 32])).public();
        let (ssh, db) = ("ssh".parse().unwrap(), "db".parse().unwrap());
        let id = grant_of_node(&key(1), &ssh);
        assert_eq!(id.to_string(), "hv7HOD5XQer4");
        assert_ne!(id, grant_of_node(&key(1), &db));
        assert_ne!(id, grant_of_node(&key(2), &ssh));
    }

    #[test]
    fn golden_request() {
        let json = serde_json::to_string(&request()).unwrap();
        assert_eq!(
            json,
            r#"{"node":"office","key":"iojj3XQJ8ZX9UtstPLpdcspnCb8dlBIb83SIAbQPb1w","proof":"EmbffIy-MkAudfVtKKT7JvSLin9t9s-jPN9s33L23Fr-kW4sp4kLltsGPn3ci3XbqDNJRHOGQtGerWObWFlKAg"}"#
        );
    }
}
