//! What a gateway must know.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use portway_protocol::id::{ClusterName, NodeId};
use portway_protocol::key::{PublicKey, SigningKey};
use portway_protocol::revocation::RevocationList;
use portway_transport::webrtc::StreamRelays;
use portway_transport::webrtc::shortcut::Shortcut;

use crate::limits::Limits;
use crate::session::NodeCertificate;

/// Checked configuration of one node.
#[derive(Debug, Clone)]
pub struct GatewayConfig {
    /// The cluster.
    pub cluster: ClusterName,
    /// Key that signs the cluster's tokens.
    pub cluster_key: PublicKey,
    /// This node.
    pub node: NodeId,
    /// Key of this node.
    pub node_key: SigningKey,
    /// What says so.
    pub certificate: NodeCertificate,
    /// Which nodes are none any more, as far as it was known when it ended.
    pub revocations: Option<RevocationList>,
    /// Where signaling is. The node is registered at each, so that the loss of one is no outage.
    pub signaling: Vec<SignalingEndpoint>,
    /// The relay in the same process, if there is one.
    pub shortcut: Option<Arc<dyn Shortcut>>,
    /// How relays are reached by TCP and TLS.
    pub stream_relays: Arc<StreamRelays>,
    /// File of the grants.
    pub grants_file: PathBuf,
    /// Directory of the audit log.
    pub audit_dir: PathBuf,
    /// Of the tunnels to its services.
    pub limits: Limits,
    /// Version and commit, shown to others.
    pub version: String,
    /// Commit that this was built from.
    pub commit: String,
}

/// How to reach signaling.
#[derive(Clone)]
pub struct SignalingEndpoint {
    /// `Host` of the holder origin, with port if it is not the default one.
    pub host: String,
    /// Where to connect to, if not to where that name leads.
    pub address: Option<SocketAddr>,
    /// TLS, if it is spoken there.
    pub tls: Option<Arc<rustls::ClientConfig>>,
}

impl SignalingEndpoint {
    /// The two parts of `host`.
    pub(crate) fn name_and_port(&self) -> (&str, u16) {
        let default = if self.tls.is_some() { 443 } else { 80 };
        match self.host.rsplit_once(':') {
            Some((name, port)) => (name, port.parse().unwrap_or(default)),
            None => (&self.host, default),
        }
    }
}

impl std::fmt::Debug for SignalingEndpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SignalingEndpoint")
            .field("address", &self.address)
            .field("host", &self.host)
            .finish_non_exhaustive()
    }
}
