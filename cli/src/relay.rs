//! The relay of `portway up`: on the same port as signaling, over UDP, for this machine's gateway only.
//!
//! Security: its only peers are this machine's own addresses, above the ports of its services, so that
//! a link opens no way to anything but a gateway; credentials are made for each client and end.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use portway_protocol::id::GrantId;
use portway_protocol::signal::IceServer;
use portway_relay::Relay;
use portway_relay_proto::auth::ephemeral_credentials;
use portway_relay_proto::peer_policy::{Others, PeerPolicy};

use crate::args;
use crate::config::relay::RelayFile;
use crate::control::relay::Operated;
use crate::exit::Failure;
use crate::links::unix_now;

/// How long credentials are good for. A relayed session ends with them, and the client connects anew.
const CREDENTIALS_LIFETIME: Duration = Duration::from_secs(12 * 3600);

/// Ports that the system gives to sockets which ask for none, as a gateway's do.
const EPHEMERAL_PORTS: &str = "/proc/sys/net/ipv4/ip_local_port_range";

/// What that is where it cannot be read: the kernel's default.
const DEFAULT_EPHEMERAL_PORTS: RangeInclusive<u16> = 32_768..=60_999;

/// A relay that runs beside signaling.
pub(crate) struct Beside {
    running: Operated,
    url: String,
    secret: [u8; 32],
}

impl Beside {
    /// Starts it at the address of signaling. `name`: its host name, if it has one.
    pub(crate) fn start(
        file: &RelayFile,
        listen: SocketAddr,
        name: Option<&str>,
    ) -> anyhow::Result<Self> {
        let mut addresses = vec![listen];
        if listen.ip() == Ipv6Addr::UNSPECIFIED {
            // Signaling takes both families on this address; a UDP socket of ours takes one.
            addresses.push((Ipv4Addr::UNSPECIFIED, listen.port()).into());
        }
        let mut config = file.resolve(&args::Relay::at(addresses))?;
        let mut secret = [0; 32];
        getrandom::fill(&mut secret).map_err(|error| anyhow::anyhow!("no randomness: {error}"))?;
        config.secrets = vec![secret.to_vec()];
        config.users.clear();
        config.peers = PeerPolicy {
            allow: config
                .relay_ips
                .iter()
                .chain(&config.external_ips)
                .map(|ip| (*ip).into())
                .collect(),
            others: Others::Refused,
            ports: ephemeral_ports(),
            ..PeerPolicy::default()
        };
        let public: IpAddr = *config
            .external_ips
            .first()
            .or(config.relay_ips.first())
            .context("a relay has an address")?;
        let host = name.map_or_else(
            || SocketAddr::new(public, listen.port()).to_string(),
            |name| format!("{name}:{}", listen.port()),
        );
        let running = Relay::start(&config)
            .map_err(|error| Failure::configuration(format!("the relay: {error}")))?;
        Ok(Self {
            running: Operated::new(Arc::new(running), &config),
            url: format!("turn:{host}?transport=udp"),
            secret,
        })
    }

    /// Its address, as browsers have it.
    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// As its operator sees it.
    pub(crate) const fn operated(&self) -> &Operated {
        &self.running
    }

    /// Ends what a grant has relayed, and refuses the credentials made for it; returns how many
    /// allocations there were.
    pub(crate) fn revoke(&self, grant: &GrantId) -> usize {
        let revoked = self
            .running
            .relay
            .revoke(&grant.to_string(), CREDENTIALS_LIFETIME);
        revoked.ended
    }

    /// Makes credentials, for [`offer_relay`](portway_signaling::Signaling::offer_relay).
    pub(crate) fn issue(&self) -> impl Fn(&GrantId, u64) -> IceServer + Send + Sync + use<> {
        let (url, secret) = (self.url.clone(), self.secret);
        move |grant, expires| {
            let expires = expires.min(unix_now() + CREDENTIALS_LIFETIME.as_secs());
            let (username, credential) =
                ephemeral_credentials(&secret, &grant.to_string(), expires);
            IceServer {
                urls: vec![url.clone()],
                username: Some(username),
                credential: Some(credential),
            }
        }
    }
}

fn ephemeral_ports() -> RangeInclusive<u16> {
    let text = fs::read_to_string(EPHEMERAL_PORTS).unwrap_or_default();
    let mut ports = text.split_whitespace().map(str::parse);
    match (ports.next(), ports.next()) {
        (Some(Ok(first)), Some(Ok(last))) if first <= last => first..=last,
        _ => DEFAULT_EPHEMERAL_PORTS,
    }
}
