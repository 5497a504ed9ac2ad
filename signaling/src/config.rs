//! What a signaling service must know.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use portway_protocol::id::ClusterName;
use portway_protocol::key::PublicKey;
use portway_protocol::signal::IceServer;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

/// Checked configuration.
#[derive(Debug, Clone)]
pub struct Config {
    /// Address to listen on; port 0 = any free one.
    pub listen: SocketAddr,
    /// The cluster.
    pub cluster: ClusterName,
    /// Keys that sign the cluster's machine tokens, the newest last.
    pub cluster_keys: Vec<PublicKey>,
    /// Domain below which the cluster's names live: `localhost`, or a real one.
    pub domain: String,
    /// Certificate, if this end speaks TLS itself.
    pub tls: Option<TlsFiles>,
    /// STUN and TURN servers handed out to both ends.
    pub ice_servers: Vec<IceServer>,
    /// Who answers STUN on the same port over UDP. If somebody does, both ends are told to use it.
    pub stun: Stun,
    /// Shown to others.
    pub version: String,
}

/// Who answers STUN on our port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stun {
    /// Nobody.
    Nobody,
    /// This service.
    Own,
    /// A relay beside it.
    Relay,
}

/// PEM files of a certificate.
#[derive(Debug, Clone)]
pub struct TlsFiles {
    /// Certificate chain.
    pub certificate: PathBuf,
    /// Private key.
    pub key: PathBuf,
}

/// Why a certificate cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsFilesError {
    /// A file cannot be read, or holds something else.
    #[error("cannot read {}: {message}", path.display())]
    Pem {
        /// Which.
        path: PathBuf,
        /// Why.
        message: String,
    },
    /// Certificate and key do not fit.
    #[error("certificate and key do not fit: {0}")]
    Mismatch(#[from] rustls::Error),
}

impl TlsFiles {
    /// What a server with this certificate speaks, and the protocols within.
    ///
    /// # Errors
    /// See [`TlsFilesError`].
    pub fn server_config(
        &self,
        protocols: &[&[u8]],
    ) -> Result<Arc<rustls::ServerConfig>, TlsFilesError> {
        let unusable = |path: &PathBuf, error: rustls::pki_types::pem::Error| TlsFilesError::Pem {
            path: path.clone(),
            message: error.to_string(),
        };
        let certificates = CertificateDer::pem_file_iter(&self.certificate)
            .and_then(Iterator::collect::<Result<Vec<_>, _>>)
            .map_err(|error| unusable(&self.certificate, error))?;
        let key =
            PrivateKeyDer::from_pem_file(&self.key).map_err(|error| unusable(&self.key, error))?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(certificates, key)?;
        config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
        Ok(Arc::new(config))
    }
}

impl Config {
    /// `http` or `https`.
    #[must_use]
    pub const fn scheme(&self) -> &'static str {
        if self.tls.is_some() { "https" } else { "http" }
    }
}
