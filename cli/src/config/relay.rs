//! The relay's part of the configuration: `[relay]`, and the flags of `portway relay`.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::num::NonZeroUsize;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use portway_relay::config::{Config, Listen, RELAY_PORTS, Transport};
use portway_relay_proto::peer_policy::{Network, PeerPolicy};
use portway_relay_proto::quota::Quota;
use portway_signaling::config::TlsFiles;
use serde::Deserialize;
use toml::Spanned;

use super::{credentials_lifetime, optional, parse_all};
use crate::args::{ListenUrl, PortRange, Rate, Relay, Span, Wait};
use crate::exit::Failure;

/// Where clients come unless told otherwise: the port of RFC 8656 §4.
const DEFAULT_ADDRESS: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 3478);

/// How they come unless told otherwise.
const DEFAULT_LISTEN: &[Listen] = &[
    Listen {
        transport: Transport::Udp,
        address: DEFAULT_ADDRESS,
    },
    Listen {
        transport: Transport::Tcp,
        address: DEFAULT_ADDRESS,
    },
];

const DEFAULT_REALM: &str = "portway";

/// Time that those who are there have after SIGTERM: within what systemd and Kubernetes give.
const DEFAULT_DRAIN: Duration = Duration::from_secs(30);

/// Largest file with a secret that is read.
const MAX_SECRET: u64 = 4096;

/// An address outside, of documentation: asking the system how it would get there sends nothing.
const ELSEWHERE: (Ipv4Addr, u16) = (Ipv4Addr::new(192, 0, 2, 1), 9);

/// `[relay]`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct RelayFile {
    /// Whether `up` runs one.
    enabled: Option<bool>,
    realm: Option<String>,
    listen: Vec<Spanned<String>>,
    alternate: Option<SocketAddr>,
    relay_ip: Vec<IpAddr>,
    external_ip: Vec<IpAddr>,
    relay_ports: Option<Spanned<String>>,
    users: BTreeMap<String, String>,
    secret: Option<String>,
    secret_file: Option<PathBuf>,
    allow_peers: Vec<Spanned<String>>,
    deny_peers: Vec<Spanned<String>>,
    quota: QuotaFile,
    sha256: bool,
    tcp_allocations: bool,
    threads: Option<NonZeroUsize>,
    metrics: Option<SocketAddr>,
    credentials: Option<Spanned<String>>,
    per_user_metrics: bool,
    prolong: Option<Spanned<String>>,
    session_separator: Option<char>,
    drain: Option<Spanned<String>>,
    tls: TlsPart,
    #[serde(skip)]
    parsed: Parsed,
}

/// `[relay.tls]`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct TlsPart {
    cert: Option<PathBuf>,
    key: Option<PathBuf>,
}

/// `[relay.quota]`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct QuotaFile {
    allocations_per_user: Option<usize>,
    allocations_per_source: Option<usize>,
    permissions: Option<usize>,
    channels: Option<usize>,
    bandwidth_per_user: Option<Spanned<String>>,
    bandwidth_per_source: Option<Spanned<String>>,
    strangers_per_second: Option<u32>,
}

/// What is text in a file, understood.
#[derive(Debug, Default)]
struct Parsed {
    listen: Vec<ListenUrl>,
    relay_ports: Option<PortRange>,
    credentials: Option<Span>,
    bandwidth_per_user: Option<Rate>,
    bandwidth_per_source: Option<Rate>,
    allow_peers: Vec<Network>,
    deny_peers: Vec<Network>,
    drain: Option<Wait>,
    prolong: Option<Wait>,
}

impl RelayFile {
    /// Understands what is text; a mistake is told with its line. Paths are relative to `folder`.
    pub(super) fn understand(&mut self, text: &str, folder: &Path) -> Result<(), String> {
        self.parsed = Parsed {
            listen: parse_all(text, &self.listen)?,
            relay_ports: optional(text, self.relay_ports.as_ref())?,
            credentials: optional(text, self.credentials.as_ref())?,
            allow_peers: parse_all(text, &self.allow_peers)?,
            deny_peers: parse_all(text, &self.deny_peers)?,
            bandwidth_per_user: optional(text, self.quota.bandwidth_per_user.as_ref())?,
            bandwidth_per_source: optional(text, self.quota.bandwidth_per_source.as_ref())?,
            drain: optional(text, self.drain.as_ref())?,
            prolong: optional(text, self.prolong.as_ref())?,
        };
        let paths = [&mut self.secret_file, &mut self.tls.cert, &mut self.tls.key];
        for path in paths.into_iter().flatten() {
            *path = folder.join(&*path);
        }
        Ok(())
    }

    /// Whether there is an address to relay from, if clients come there.
    pub(crate) fn has_address(&self, listen: SocketAddr) -> bool {
        !self.relay_ip.is_empty() || !listen.ip().is_unspecified() || outgoing_ip().is_ok()
    }

    /// Where metrics are served.
    pub(crate) fn metrics(&self, args: &Relay) -> Option<SocketAddr> {
        args.metrics.or(self.metrics)
    }

    /// How long the credentials that `up` hands out are good for.
    pub(crate) fn credentials(&self) -> Duration {
        credentials_lifetime(self.parsed.credentials)
    }

    /// How long those who are there may go on after SIGTERM.
    pub(crate) fn drain(&self, args: &Relay) -> Duration {
        let own = self.parsed.drain.map(|Wait(drain)| drain);
        args.drain.or(own).unwrap_or(DEFAULT_DRAIN)
    }

    /// Whether metrics name users.
    pub(crate) const fn names_users(&self) -> bool {
        self.per_user_metrics
    }

    /// Whether `up` runs one.
    pub(crate) fn is_enabled(&self) -> bool {
        self.enabled.unwrap_or(true)
    }

    /// What the command line says, and for the rest the file, and for the rest the defaults.
    pub(crate) fn resolve(&self, args: &Relay) -> anyhow::Result<Config> {
        let listen = first(&args.listen, &self.parsed.listen);
        let listen: Vec<Listen> = listen.iter().map(|url| url.0).collect();
        let listen = first(&listen, DEFAULT_LISTEN);
        let relay_ips = first(&args.relay_ip, &self.relay_ip);
        let relay_ips = if relay_ips.is_empty() {
            vec![own_ip(&listen)?]
        } else {
            relay_ips
        };
        let ports = args.relay_ports.or(self.parsed.relay_ports);
        let quota = Quota::default();
        let certificate = args.tls_cert.as_ref().or(self.tls.cert.as_ref());
        let key = args.tls_key.as_ref().or(self.tls.key.as_ref());
        let tls = match (certificate, key) {
            (Some(certificate), Some(key)) => {
                let files = TlsFiles {
                    certificate: certificate.clone(),
                    key: key.clone(),
                };
                let config = files.server_config(&[]);
                Some(config.map_err(|error| Failure::configuration(error.to_string()))?)
            }
            (None, None) => None,
            (Some(_), None) | (None, Some(_)) => {
                return Err(Failure::configuration(
                    "a certificate and its key belong together: give --tls-cert and --tls-key",
                )
                .into());
            }
        };
        let config = Config {
            listen,
            tls,
            relay_ips,
            external_ips: first(&args.external_ip, &self.external_ip),
            relay_ports: ports.map_or(RELAY_PORTS, |range| RangeInclusive::new(range.0, range.1)),
            realm: args
                .realm
                .clone()
                .or_else(|| self.realm.clone())
                .unwrap_or_else(|| DEFAULT_REALM.to_owned()),
            users: self.users.clone().into_iter().collect(),
            secrets: self.secrets(args.secret_file.as_deref())?,
            alternate: args.alternate.or(self.alternate),
            tcp_allocations: self.tcp_allocations,
            session_separator: self.session_separator,
            prolong: self.parsed.prolong.map_or(Duration::ZERO, |Wait(by)| by),
            peers: PeerPolicy {
                allow: first(&args.allow_peer, &self.parsed.allow_peers),
                deny: first(&args.deny_peer, &self.parsed.deny_peers),
                ..PeerPolicy::default()
            },
            quota: Quota {
                allocations_per_user: self
                    .quota
                    .allocations_per_user
                    .unwrap_or(quota.allocations_per_user),
                allocations_per_source: self
                    .quota
                    .allocations_per_source
                    .unwrap_or(quota.allocations_per_source),
                permissions: self.quota.permissions.unwrap_or(quota.permissions),
                channels: self.quota.channels.unwrap_or(quota.channels),
                bandwidth_per_user: self.parsed.bandwidth_per_user.map(|rate| rate.0),
                bandwidth_per_source: self.parsed.bandwidth_per_source.map(|rate| rate.0),
                strangers_per_second: self
                    .quota
                    .strangers_per_second
                    .unwrap_or(quota.strangers_per_second),
            },
            announce_sha256: self.sha256,
            workers: self.threads.unwrap_or(NonZeroUsize::MIN),
        };
        config
            .check()
            .map_err(|error| Failure::configuration(format!("the relay: {error}")))?;
        Ok(config)
    }

    fn secrets(&self, flag: Option<&Path>) -> anyhow::Result<Vec<Vec<u8>>> {
        let mut secrets = Vec::new();
        if let Some(secret) = &self.secret {
            secrets.push(secret.clone().into_bytes());
        }
        if let Some(path) = flag.or(self.secret_file.as_deref()) {
            secrets.extend(read_secrets(path)?);
        }
        Ok(secrets)
    }
}

/// The secrets of a file, one on each line, the newest last.
pub(crate) fn read_secrets(path: &Path) -> anyhow::Result<Vec<Vec<u8>>> {
    let unusable = |problem: &dyn std::fmt::Display| {
        Failure::configuration(format!("{}: {problem}", path.display()))
    };
    let metadata = fs::metadata(path).map_err(|error| unusable(&error))?;
    if metadata.len() > MAX_SECRET {
        return Err(unusable(&"far too large for a secret").into());
    }
    let text = fs::read_to_string(path).map_err(|error| unusable(&error))?;
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    let secrets: Vec<Vec<u8>> = lines.map(|line| line.as_bytes().to_vec()).collect();
    if secrets.is_empty() {
        return Err(unusable(&"there is no secret in it").into());
    }
    Ok(secrets)
}

/// The first list, or the second where that is empty.
fn first<T: Clone>(flags: &[T], file: &[T]) -> Vec<T> {
    if flags.is_empty() { file } else { flags }.to_vec()
}

/// The address of this machine that relayed packets leave from.
fn own_ip(listen: &[Listen]) -> anyhow::Result<IpAddr> {
    let mut ips = listen.iter().map(|listen| listen.address.ip());
    if let Some(ip) = ips.find(|ip| !ip.is_unspecified()) {
        return Ok(ip);
    }
    outgoing_ip().context("this machine has no way to other networks: give --relay-ip")
}

/// The address that packets to other networks leave from. A connected UDP socket sends nothing.
pub(crate) fn outgoing_ip() -> io::Result<IpAddr> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    socket.connect(ELSEWHERE)?;
    Ok(socket.local_addr()?.ip())
}
