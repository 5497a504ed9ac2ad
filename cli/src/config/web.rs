//! Where browsers meet: what `up` and `signaling` are told at the top of the file, and by flags.

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::Context as _;
use portway_protocol::id::ClusterName;
use portway_protocol::signal::IceServer;
use portway_signaling::config::TlsFiles;

use super::File;
use crate::args;
use crate::exit::Failure;

/// Where browsers meet unless told otherwise: this machine alone.
const DEFAULT_LISTEN: ([u8; 4], u16) = ([127, 0, 0, 1], 8080);

/// Domain of a cluster that is used on its own machine.
const LOCALHOST: &str = "localhost";

/// Where browsers meet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Web {
    pub(crate) cluster: Option<ClusterName>,
    pub(crate) listen: SocketAddr,
    pub(crate) domain: Option<String>,
    pub(crate) stun: bool,
    pub(crate) tls_cert: Option<PathBuf>,
    tls_key: Option<PathBuf>,
    ice_servers: Vec<String>,
    turn_username: Option<String>,
    turn_password_file: Option<PathBuf>,
}

impl Web {
    /// What the command line says, and for the rest the file, and for the rest the defaults.
    pub(crate) fn resolve(args: &args::Web, file: &File) -> anyhow::Result<Self> {
        let web = Self {
            cluster: args.cluster.clone().or_else(|| file.cluster.clone()),
            listen: args
                .listen
                .or(file.listen)
                .unwrap_or_else(|| DEFAULT_LISTEN.into()),
            domain: args.domain.clone().or_else(|| file.domain.clone()),
            tls_cert: args.tls_cert.clone().or_else(|| file.tls_cert.clone()),
            tls_key: args.tls_key.clone().or_else(|| file.tls_key.clone()),
            ice_servers: if args.ice_server.is_empty() {
                file.ice_servers.clone()
            } else {
                args.ice_server.clone()
            },
            stun: !args.no_stun && file.stun.unwrap_or(true),
            turn_username: args
                .turn_username
                .clone()
                .or_else(|| file.turn_username.clone()),
            turn_password_file: args
                .turn_password_file
                .clone()
                .or_else(|| file.turn_password_file.clone()),
        };
        web.check()?;
        Ok(web)
    }

    /// The certificate, if this end speaks TLS itself.
    pub(crate) fn tls(&self) -> Option<TlsFiles> {
        let (certificate, key) = self.tls_cert.clone().zip(self.tls_key.clone())?;
        Some(TlsFiles { certificate, key })
    }

    /// The domain below which the cluster's names live.
    pub(crate) fn domain_or_localhost(&self) -> String {
        self.domain.clone().unwrap_or_else(|| LOCALHOST.to_owned())
    }

    /// STUN and TURN servers that have fixed credentials, or none.
    pub(crate) fn ice_servers(&self) -> anyhow::Result<Vec<IceServer>> {
        let password = match &self.turn_password_file {
            Some(path) => Some(
                fs::read_to_string(path)
                    .with_context(|| format!("cannot read {}", path.display()))?
                    .trim()
                    .to_owned(),
            ),
            None => None,
        };
        let server = |url: &String| {
            let is_turn = url.starts_with("turn");
            IceServer {
                urls: vec![url.clone()],
                username: is_turn.then(|| self.turn_username.clone()).flatten(),
                credential: is_turn.then(|| password.clone()).flatten(),
            }
        };
        Ok(self.ice_servers.iter().map(server).collect())
    }

    fn check(&self) -> Result<(), Failure> {
        if self.tls_cert.is_some() != self.tls_key.is_some() {
            return Err(Failure::configuration(
                "a certificate and its key belong together: give --tls-cert and --tls-key",
            ));
        }
        if self.domain.is_some() && self.tls_cert.is_none() {
            return Err(Failure::configuration(
                "browsers need a secure origin for a domain: give --tls-cert and --tls-key with --domain",
            ));
        }
        if let Some(url) = self.ice_servers.iter().find(|url| !is_ice_url(url)) {
            return Err(Failure::configuration(format!(
                "`{url}`: an ICE server starts with stun:, turn: or turns:"
            )));
        }
        Ok(())
    }
}

fn is_ice_url(url: &str) -> bool {
    ["stun:", "turn:", "turns:"]
        .iter()
        .any(|scheme| url.starts_with(scheme))
}
