//! Which peers a client may name. The relay stands inside networks that its clients do not, so every
//! special-use address is refused unless the operator allows it.
//!
//! Security: an IPv4 address has many IPv6 spellings (mapped, compatible, NAT64, 6to4); each is judged
//! as the IPv4 address that a router or kernel would make of it. Order of the rules: what the operator
//! denies, who is attached, what the operator allows, special use.

use std::collections::HashSet;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

/// A range of addresses: `192.168.0.0/16`, or one address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Network {
    address: IpAddr,
    prefix: u32,
}

/// Not `ADDRESS` or `ADDRESS/PREFIX`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("\"{0}\" is not an address or ADDRESS/PREFIX")]
pub struct NetworkError(String);

impl Network {
    const fn v4(a: u8, b: u8, c: u8, d: u8, prefix: u32) -> Self {
        Self {
            address: IpAddr::V4(Ipv4Addr::new(a, b, c, d)),
            prefix,
        }
    }

    const fn v6(first: u16, second: u16, third: u16, prefix: u32) -> Self {
        Self {
            address: IpAddr::V6(Ipv6Addr::new(first, second, third, 0, 0, 0, 0, 0)),
            prefix,
        }
    }

    /// Whether an address is in it.
    #[must_use]
    pub fn contains(&self, ip: IpAddr) -> bool {
        let differing = match (self.address, ip) {
            (IpAddr::V4(a), IpAddr::V4(b)) => (a.to_bits() ^ b.to_bits()).leading_zeros(),
            (IpAddr::V6(a), IpAddr::V6(b)) => (a.to_bits() ^ b.to_bits()).leading_zeros(),
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => return false,
        };
        differing >= self.prefix
    }
}

impl From<IpAddr> for Network {
    /// The network of one address.
    fn from(address: IpAddr) -> Self {
        let prefix = if address.is_ipv4() { 32 } else { 128 };
        Self { address, prefix }
    }
}

impl FromStr for Network {
    type Err = NetworkError;

    fn from_str(text: &str) -> Result<Self, NetworkError> {
        let wrong = || NetworkError(text.to_owned());
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| wrong())?;
        let longest = if address.is_ipv4() { 32 } else { 128 };
        let prefix = match prefix {
            Some(prefix) => prefix.parse().map_err(|_| wrong())?,
            None => longest,
        };
        if prefix > longest {
            return Err(wrong());
        }
        Ok(Self { address, prefix })
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

/// Special-use ranges of IPv4 (RFC 6890 and its registry) and what else a relay has no business with.
const SPECIAL_V4: &[Network] = &[
    Network::v4(0, 0, 0, 0, 8),
    Network::v4(10, 0, 0, 0, 8),
    Network::v4(100, 64, 0, 0, 10),
    Network::v4(127, 0, 0, 0, 8),
    Network::v4(169, 254, 0, 0, 16),
    Network::v4(172, 16, 0, 0, 12),
    Network::v4(192, 0, 0, 0, 24),
    Network::v4(192, 0, 2, 0, 24),
    Network::v4(192, 88, 99, 0, 24),
    Network::v4(192, 168, 0, 0, 16),
    Network::v4(198, 18, 0, 0, 15),
    Network::v4(198, 51, 100, 0, 24),
    Network::v4(203, 0, 113, 0, 24),
    Network::v4(224, 0, 0, 0, 4),
    Network::v4(240, 0, 0, 0, 4),
];

/// Special-use ranges of IPv6. `::/96` also catches `::` and `::1`; Teredo and the local NAT64 prefix
/// carry IPv4 addresses in ways that are not worth to follow.
const SPECIAL_V6: &[Network] = &[
    Network::v6(0, 0, 0, 96),
    Network::v6(0x64, 0xff9b, 1, 48),
    Network::v6(0x100, 0, 0, 64),
    Network::v6(0x2001, 0, 0, 23),
    Network::v6(0x2001, 0xdb8, 0, 32),
    Network::v6(0x3fff, 0, 0, 20),
    Network::v6(0x5f00, 0, 0, 16),
    Network::v6(0xfc00, 0, 0, 7),
    Network::v6(0xfe80, 0, 0, 10),
    Network::v6(0xfec0, 0, 0, 10),
    Network::v6(0xff00, 0, 0, 8),
];

/// The IPv4 address that an IPv6 address stands for, if it does.
fn canonical(ip: IpAddr) -> IpAddr {
    let IpAddr::V6(v6) = ip else { return ip };
    let [a, b, c, d, e, f, g, h] = v6.segments();
    let v4 = |high: u16, low: u16| {
        IpAddr::V4(Ipv4Addr::from_bits(u32::from(high) << 16 | u32::from(low)))
    };
    match [a, b, c, d, e, f] {
        // ::ffff:a.b.c.d (mapped), ::ffff:0:a.b.c.d (translated), ::a.b.c.d (compatible).
        [0, 0, 0, 0, 0, 0xffff] | [0, 0, 0, 0, 0xffff, 0] => v4(g, h),
        [0, 0, 0, 0, 0, 0] if g != 0 || h > 1 => v4(g, h),
        // 64:ff9b::a.b.c.d (NAT64, RFC 6052).
        [0x64, 0xff9b, 0, 0, 0, 0] => v4(g, h),
        // 2002:aabb:ccdd:: (6to4, RFC 3056).
        [0x2002, high, low, ..] => v4(high, low),
        _ => ip,
    }
}

/// The rules of one server. The default: the whole Internet but its special uses.
#[derive(Debug, Clone, Default)]
pub struct PeerPolicy {
    /// Permitted although special use would refuse it.
    pub allow: Vec<Network>,
    /// Refused before anything else.
    pub deny: Vec<Network>,
    /// Where the server itself is heard, of addresses that peers may have: data would come around.
    pub listeners: HashSet<SocketAddr>,
    /// Peers that have said themselves that they are: permitted, whatever their address.
    pub attached: HashSet<SocketAddr>,
    /// Whether attached peers are the only ones.
    pub attached_only: bool,
}

impl PeerPolicy {
    /// Whether data may go there.
    #[must_use]
    pub fn permits(&self, peer: &SocketAddr) -> bool {
        let is_attached = || self.attached.contains(peer);
        let is_own = self
            .listeners
            .contains(&SocketAddr::new(canonical(peer.ip()), peer.port()));
        peer.port() != 0 && !is_own && self.judge(peer.ip(), is_attached)
    }

    /// Whether a client may name this peer. A permission has no port (RFC 8656 §9).
    #[must_use]
    pub fn permits_ip(&self, peer: IpAddr) -> bool {
        self.judge(peer, || self.attached.iter().any(|one| one.ip() == peer))
    }

    fn judge(&self, peer: IpAddr, is_attached: impl FnOnce() -> bool) -> bool {
        let judged = canonical(peer);
        let is_in = |ranges: &[Network]| {
            ranges
                .iter()
                .any(|range| range.contains(judged) || range.contains(peer))
        };
        if is_in(&self.deny) {
            return false;
        }
        if self.attached_only || !self.attached.is_empty() {
            let is_attached = is_attached();
            if is_attached || self.attached_only {
                return is_attached;
            }
        }
        if is_in(&self.allow) {
            return true;
        }
        let special = match judged {
            IpAddr::V4(_) => SPECIAL_V4,
            IpAddr::V6(_) => SPECIAL_V6,
        };
        !special.iter().any(|range| range.contains(judged))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An IPv4 address as itself and in every IPv6 spelling.
    fn spellings(v4: Ipv4Addr) -> Vec<IpAddr> {
        let [a, b, c, d] = v4.octets();
        let (high, low) = (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]));
        vec![
            v4.into(),
            v4.to_ipv6_mapped().into(),
            Ipv6Addr::new(0, 0, 0, 0, 0, 0, high, low).into(),
            Ipv6Addr::new(0, 0, 0, 0, 0xffff, 0, high, low).into(),
            Ipv6Addr::new(0x64, 0xff9b, 0, 0, 0, 0, high, low).into(),
            Ipv6Addr::new(0x2002, high, low, 0, 0, 0, 0, 1).into(),
        ]
    }

    #[test]
    fn special_use_is_refused_in_every_spelling() {
        let policy = PeerPolicy::default();
        for network in SPECIAL_V4 {
            let IpAddr::V4(first) = network.address else {
                panic!("{network} is IPv4")
            };
            let last = Ipv4Addr::from_bits(first.to_bits() | u32::MAX >> network.prefix);
            for v4 in [first, last] {
                for spelling in spellings(v4) {
                    assert!(!policy.permits_ip(spelling), "{spelling} ({v4})");
                }
            }
        }
        for v6 in [
            "::",
            "::1",
            "fe80::1",
            "fec0::1",
            "fc00::1",
            "fdff::1",
            "ff02::1",
            "2001:db8::1",
            "2001::1",
            "64:ff9b:1::a00:1",
            "100::1",
            "3fff::1",
            "5f00::1",
        ] {
            assert!(!policy.permits_ip(v6.parse().unwrap()), "{v6}");
        }
    }

    #[test]
    fn public_addresses_are_permitted_in_every_spelling_but_the_obsolete() {
        let policy = PeerPolicy::default();
        for v4 in [
            "8.8.8.8",
            "1.1.1.1",
            "223.255.255.255",
            "172.32.0.1",
            "100.128.0.1",
        ] {
            for spelling in spellings(v4.parse().unwrap()) {
                assert!(policy.permits_ip(spelling), "{spelling}");
            }
        }
        assert!(policy.permits_ip("2a00:1450::1".parse().unwrap()));
    }

    #[test]
    fn what_is_denied_is_denied_though_allowed() {
        let policy = PeerPolicy {
            allow: vec!["10.0.0.0/8".parse().unwrap()],
            deny: vec!["10.1.0.0/16".parse().unwrap(), "8.8.8.8".parse().unwrap()],
            ..PeerPolicy::default()
        };
        assert!(policy.permits_ip("10.2.0.1".parse().unwrap()));
        assert!(!policy.permits_ip("10.1.0.1".parse().unwrap()));
        assert!(!policy.permits_ip("::ffff:10.1.0.1".parse().unwrap()));
        assert!(!policy.permits_ip("8.8.8.8".parse().unwrap()));
        assert!(!policy.permits_ip("192.168.0.1".parse().unwrap()));
    }

    #[test]
    fn who_is_attached_is_permitted_there_and_perhaps_nobody_else() {
        let mut policy = PeerPolicy::default();
        policy.attached.insert("10.0.0.1:1024".parse().unwrap());
        let permits = |policy: &PeerPolicy, peer: &str| policy.permits(&peer.parse().unwrap());
        assert!(policy.permits_ip("10.0.0.1".parse().unwrap()));
        assert!(permits(&policy, "10.0.0.1:1024"));
        assert!(!permits(&policy, "10.0.0.1:22"));
        assert!(permits(&policy, "8.8.8.8:1024"));
        policy.attached_only = true;
        assert!(permits(&policy, "10.0.0.1:1024"));
        assert!(!permits(&policy, "8.8.8.8:1024"));
        assert!(!policy.permits_ip("8.8.8.8".parse().unwrap()));
        policy.allow.push("8.8.8.8".parse().unwrap());
        assert!(!policy.permits_ip("8.8.8.8".parse().unwrap()));
        policy.deny.push("10.0.0.1".parse().unwrap());
        assert!(!permits(&policy, "10.0.0.1:1024"));
    }

    #[test]
    fn the_server_is_no_peer_of_its_own() {
        let mut policy = PeerPolicy::default();
        policy.listeners.insert("8.8.8.8:3478".parse().unwrap());
        assert!(
            policy.permits(&"8.8.8.8:50000".parse().unwrap()),
            "another client"
        );
        for own in [
            "8.8.8.8:3478",
            "[::ffff:8.8.8.8]:3478",
            "[64:ff9b::8.8.8.8]:3478",
        ] {
            assert!(!policy.permits(&own.parse().unwrap()), "{own}");
        }
    }

    #[test]
    fn nothing_goes_to_port_0() {
        assert!(!PeerPolicy::default().permits(&"8.8.8.8:0".parse().unwrap()));
    }

    #[test]
    fn networks_are_parsed_strictly() {
        for wrong in [
            "",
            "10.0.0.0/33",
            "::/129",
            "10.0.0.0/-1",
            "10.0.0/8",
            "example.org",
        ] {
            assert!(wrong.parse::<Network>().is_err(), "{wrong}");
        }
        let all: Network = "0.0.0.0/0".parse().unwrap();
        assert!(all.contains("255.255.255.255".parse().unwrap()));
    }
}
