//! What a relay is told.

use std::collections::HashSet;
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroUsize;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use portway_relay_proto::auth::Users;
use portway_relay_proto::command::Family;
use portway_relay_proto::discovery::Discovery;
use portway_relay_proto::five_tuple::ListenerId;
use portway_relay_proto::peer_policy::PeerPolicy;
use portway_relay_proto::quota::Quota;

/// The range that RFC 8656 §7.2 wants relayed addresses to be in.
pub const RELAY_PORTS: RangeInclusive<u16> = 49_152..=65_535;

/// Longest realm that keeps an answer to a stranger within 64 bytes.
pub const SHORT_REALM: usize = 8;

/// Longest realm (RFC 8489 §14.9).
const MAX_REALM: usize = 763;

/// What a listener speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Transport {
    /// Datagrams.
    Udp,
    /// A stream.
    Tcp,
    /// A stream within TLS.
    Tls,
}

/// One address where clients come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Listen {
    /// What it speaks.
    pub transport: Transport,
    /// Where it is.
    pub address: SocketAddr,
}

/// What a relay is told.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where clients come.
    pub listen: Vec<Listen>,
    /// Another address and port: with the first UDP listener, which must name its address, they make
    /// the four at which clients find out what NAT they are behind (RFC 5780).
    pub alternate: Option<SocketAddr>,
    /// Whether clients may have TCP between their relayed addresses and peers (RFC 6062).
    pub tcp_allocations: bool,
    /// Certificate and key of TLS listeners.
    pub tls: Option<Arc<rustls::ServerConfig>>,
    /// Where relay sockets are bound, one address of each family that is offered.
    pub relay_ips: Vec<IpAddr>,
    /// What peers see instead of `relay_ips`, where a NAT stands before this machine.
    pub external_ips: Vec<IpAddr>,
    /// Ports of relay sockets.
    pub relay_ports: RangeInclusive<u16>,
    /// The realm of passwords.
    pub realm: String,
    /// Users with a password.
    pub users: Vec<(String, String)>,
    /// Secrets of ephemeral credentials, the newest last; two count.
    pub secrets: Vec<Vec<u8>>,
    /// What parts the name of a user from that of a session in ephemeral names, if anything does.
    pub session_separator: Option<char>,
    /// How long an allocation that is refreshed may outlive the ephemeral credentials that it was made by.
    pub prolong: Duration,
    /// Which peers may be named.
    pub peers: PeerPolicy,
    /// How much one may hold.
    pub quota: Quota,
    /// Whether SHA-256 is announced to clients.
    pub announce_sha256: bool,
    /// Threads.
    pub workers: NonZeroUsize,
}

/// What cannot be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// Nowhere to listen.
    #[error("no address to listen on")]
    NoListener,
    /// TLS without a certificate.
    #[error("a TLS listener needs a certificate and its key")]
    NoCertificate,
    /// Nowhere to relay from.
    #[error("no address to relay from")]
    NoRelayAddress,
    /// Two addresses of one family.
    #[error("more than one relay or external address of a family: {0}")]
    TwoOfAFamily(IpAddr),
    /// An external address without one that stands behind it.
    #[error("the external address {0} has no relay address of its family")]
    ExternalWithoutRelay(IpAddr),
    /// The alternate address does not differ in both, or there is nothing that it is the alternate of.
    #[error(
        "the alternate address {0} needs a UDP listener of its family that names another address and \
         another port"
    )]
    Alternate(SocketAddr),
    /// TCP allocations where they are not possible.
    #[error("TCP allocations need a relay with one thread and without limits of bandwidth")]
    TcpAllocations,
    /// An empty range, or port 0.
    #[error("no ports to relay from: {0}-{1}")]
    NoPorts(u16, u16),
    /// The realm is empty or too long.
    #[error("a realm has 1 to {MAX_REALM} bytes")]
    Realm,
}

impl Config {
    /// Whether it can be.
    ///
    /// # Errors
    /// What cannot.
    pub fn check(&self) -> Result<(), ConfigError> {
        if self.listen.is_empty() {
            return Err(ConfigError::NoListener);
        }
        let is_tls = |listen: &Listen| listen.transport == Transport::Tls;
        if self.tls.is_none() && self.listen.iter().any(is_tls) {
            return Err(ConfigError::NoCertificate);
        }
        if self.relay_ips.is_empty() {
            return Err(ConfigError::NoRelayAddress);
        }
        for ips in [&self.relay_ips, &self.external_ips] {
            for (i, ip) in ips.iter().enumerate() {
                if ips[..i].iter().any(|other| other.is_ipv4() == ip.is_ipv4()) {
                    return Err(ConfigError::TwoOfAFamily(*ip));
                }
            }
        }
        for ip in &self.external_ips {
            if !self
                .relay_ips
                .iter()
                .any(|own| own.is_ipv4() == ip.is_ipv4())
            {
                return Err(ConfigError::ExternalWithoutRelay(*ip));
            }
        }
        if let Some(alternate) = self.alternate
            && self.primary().is_none()
        {
            return Err(ConfigError::Alternate(alternate));
        }
        let is_limited =
            self.quota.bandwidth_per_user.is_some() || self.quota.bandwidth_per_source.is_some();
        if self.tcp_allocations && (self.workers.get() > 1 || is_limited) {
            return Err(ConfigError::TcpAllocations);
        }
        if self.relay_ports.is_empty() || *self.relay_ports.start() == 0 {
            let (start, end) = self.relay_ports.clone().into_inner();
            return Err(ConfigError::NoPorts(start, end));
        }
        if self.realm.is_empty() || self.realm.len() > MAX_REALM {
            return Err(ConfigError::Realm);
        }
        Ok(())
    }

    /// The listener of which there is an alternate.
    fn primary(&self) -> Option<(usize, SocketAddr)> {
        let alternate = self.alternate?;
        let udp = |(_, listen): &(usize, &Listen)| listen.transport == Transport::Udp;
        let (index, listen) = self.listen.iter().enumerate().find(udp)?;
        let primary = listen.address;
        let is_usable =
            |address: &SocketAddr| !address.ip().is_unspecified() && address.port() != 0;
        let fits = is_usable(&primary)
            && is_usable(&alternate)
            && primary.is_ipv4() == alternate.is_ipv4()
            && primary.ip() != alternate.ip()
            && primary.port() != alternate.port();
        fits.then_some((index, primary))
    }

    /// All listeners: after those that are named come those for the discovery of NATs.
    pub(crate) fn listeners(&self) -> Vec<Listen> {
        let mut listeners = self.listen.clone();
        if let (Some(other), Some((_, primary))) = (self.alternate, self.primary()) {
            let pairs = [
                (primary.ip(), other.port()),
                (other.ip(), primary.port()),
                (other.ip(), other.port()),
            ];
            listeners.extend(pairs.map(|(ip, port)| Listen {
                transport: Transport::Udp,
                address: SocketAddr::new(ip, port),
            }));
        }
        listeners
    }

    pub(crate) fn discovery(&self) -> Option<Discovery> {
        let (index, _) = self.primary()?;
        let listeners = self.listeners();
        let (first, named) = (index, self.listen.len());
        let at = |index: usize| {
            let id = u16::try_from(index).ok().map(ListenerId)?;
            Some((id, listeners.get(index)?.address))
        };
        Some(Discovery {
            listeners: [[at(first)?, at(named)?], [at(named + 1)?, at(named + 2)?]],
        })
    }

    /// Where these listeners are heard, with all addresses that this machine is known to have for those
    /// which are bound to every one.
    pub(crate) fn own_addresses(&self, listen: &[Listen]) -> HashSet<SocketAddr> {
        let own = || self.relay_ips.iter().chain(&self.external_ips).copied();
        listen
            .iter()
            .flat_map(|listen| {
                let (ip, port) = (listen.address.ip(), listen.address.port());
                let known = own().map(move |own| SocketAddr::new(own, port));
                let named = (!ip.is_unspecified()).then_some(listen.address);
                known.chain(named)
            })
            .collect()
    }

    pub(crate) fn users(&self) -> Users {
        let mut users = Users::new(&self.realm);
        for (name, password) in &self.users {
            users.add(name, password);
        }
        for secret in &self.secrets {
            users.add_secret(secret);
        }
        if let Some(separator) = self.session_separator {
            users.separate_sessions(separator);
        }
        users.prolong_allocations(self.prolong);
        users
    }

    pub(crate) fn families(&self) -> Vec<Family> {
        let family = |ip: &IpAddr| if ip.is_ipv4() { Family::V4 } else { Family::V6 };
        self.relay_ips.iter().map(family).collect()
    }

    /// Where a relay socket of a family is bound, and as what peers see it.
    pub(crate) fn relay_ip(&self, family: Family) -> Option<(IpAddr, IpAddr)> {
        let of_family = |ips: &[IpAddr]| {
            ips.iter()
                .copied()
                .find(|ip| ip.is_ipv4() == (family == Family::V4))
        };
        let own = of_family(&self.relay_ips)?;
        Some((own, of_family(&self.external_ips).unwrap_or(own)))
    }
}
