//! What a signaling service must know.

use std::net::SocketAddr;
use std::path::PathBuf;

use portway_protocol::id::ClusterName;
use portway_protocol::key::PublicKey;
use portway_protocol::signal::IceServer;

/// Checked configuration.
#[derive(Debug, Clone)]
pub struct Config {
    /// Address to listen on; port 0 = any free one.
    pub listen: SocketAddr,
    /// The cluster.
    pub cluster: ClusterName,
    /// Keys that sign the cluster's machine tokens.
    pub cluster_keys: Vec<PublicKey>,
    /// Domain below which the cluster's names live: `localhost`, or a real one.
    pub domain: String,
    /// Certificate, if this end speaks TLS itself.
    pub tls: Option<TlsFiles>,
    /// STUN and TURN servers handed out to both ends.
    pub ice_servers: Vec<IceServer>,
    /// Whether to answer STUN on the same port over UDP, and to tell both ends to use it.
    pub stun: bool,
    /// Shown to others.
    pub version: String,
}

/// PEM files of a certificate.
#[derive(Debug, Clone)]
pub struct TlsFiles {
    /// Certificate chain.
    pub certificate: PathBuf,
    /// Private key.
    pub key: PathBuf,
}

impl Config {
    /// `http` or `https`.
    #[must_use]
    pub const fn scheme(&self) -> &'static str {
        if self.tls.is_some() { "https" } else { "http" }
    }
}
