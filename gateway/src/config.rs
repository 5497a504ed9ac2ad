//! What a gateway must know.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use portway_protocol::id::{ClusterName, NodeId};
use portway_protocol::key::{PublicKey, SigningKey};
use portway_transport::webrtc::shortcut::Shortcut;

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
    /// Token that says so.
    pub machine_token: String,
    /// Where signaling is.
    pub signaling: SignalingEndpoint,
    /// The relay in the same process, if there is one.
    pub shortcut: Option<Arc<dyn Shortcut>>,
    /// File of the grants.
    pub grants_file: PathBuf,
    /// Version and commit, shown to others.
    pub version: String,
    /// Commit that this was built from.
    pub commit: String,
}

/// How to reach signaling.
#[derive(Clone)]
pub struct SignalingEndpoint {
    /// Address to connect to.
    pub address: SocketAddr,
    /// `Host` of the holder origin, with port if it is not the default one.
    pub host: String,
    /// TLS, if it is spoken there.
    pub tls: Option<Arc<rustls::ClientConfig>>,
}

impl std::fmt::Debug for SignalingEndpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SignalingEndpoint")
            .field("address", &self.address)
            .field("host", &self.host)
            .finish_non_exhaustive()
    }
}
