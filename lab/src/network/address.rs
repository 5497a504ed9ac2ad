//! Who gets which address. Pure.
//!
//! ```text
//! public segment   11.0.i.0/24    2600:11:0:i::/64    one subnet for each who is there, router .1
//! LAN k            10.k.0.0/24    2600:11:1:k::/64    behind a router that translates
//!                  100.64.k.0/24                      the same, with routers within (RFC 6598)
//!                  11.1.k.0/24                        behind one that does not
//! ```
//! The public addresses are none of the special-use ones: relays and gateways treat them as they
//! would a stranger's. Nothing leaves the namespaces.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::spec::{Name, Role, Spec};

/// Prefix length of every IPv4 subnet.
pub(crate) const PREFIX_V4: u8 = 24;

/// Prefix length of every IPv6 subnet.
pub(crate) const PREFIX_V6: u8 = 64;

/// IPv4 addresses on the public segment: relays tell clients what NAT they are behind, which takes two
/// (RFC 5780).
const ADDRESSES: u8 = 1;
const ADDRESSES_OF_RELAY: u8 = 2;

/// The first one that a host of a LAN gets.
const FIRST_HOST: u8 = 10;

/// Where something is plugged in, and as what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Attachment {
    /// The LAN; otherwise the public segment.
    pub(crate) lan: Option<Name>,
    pub(crate) v4: Vec<Ipv4Addr>,
    pub(crate) v6: Vec<Ipv6Addr>,
    /// The next router, in each family.
    pub(crate) router_v4: Ipv4Addr,
    pub(crate) router_v6: Ipv6Addr,
    /// Name of the interface at the other end of the link.
    pub(crate) port: String,
}

impl Attachment {
    /// All its addresses.
    pub(crate) fn addresses(&self) -> impl Iterator<Item = IpAddr> {
        let v4 = self.v4.iter().copied().map(IpAddr::V4);
        v4.chain(self.v6.iter().copied().map(IpAddr::V6))
    }
}

/// Subnets of a LAN.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Subnet {
    pub(crate) v4: Ipv4Addr,
    pub(crate) v6: Ipv6Addr,
}

impl Subnet {
    /// The router's own address within.
    pub(crate) fn router(self) -> (Ipv4Addr, Ipv6Addr) {
        (host_v4(self.v4, 1), host_v6(self.v6, 1))
    }
}

/// Gives addresses; each once.
#[derive(Debug)]
pub(crate) struct Addresses {
    lans: BTreeMap<Name, LanAddresses>,
    next_public: u8,
}

#[derive(Debug)]
struct LanAddresses {
    subnet: Subnet,
    next: u8,
}

impl Addresses {
    /// The subnets of all LANs.
    pub(crate) fn new(spec: &Spec) -> Self {
        let subnet = |(k, (name, lan)): (u8, (&Name, &crate::spec::Lan))| {
            let is_carrier = spec
                .lans
                .values()
                .any(|below| below.via.as_ref() == Some(name));
            let v4 = match (lan.nat.translates(), is_carrier) {
                (false, _) => Ipv4Addr::new(11, 1, k, 0),
                (true, false) => Ipv4Addr::new(10, k, 0, 0),
                (true, true) => Ipv4Addr::new(100, 64, k, 0),
            };
            let v6 = Ipv6Addr::new(0x2600, 0x11, 1, u16::from(k), 0, 0, 0, 0);
            let addresses = LanAddresses {
                subnet: Subnet { v4, v6 },
                next: FIRST_HOST,
            };
            (name.clone(), addresses)
        };
        Self {
            lans: (1..).zip(&spec.lans).map(subnet).collect(),
            next_public: 1,
        }
    }

    /// The subnets of a LAN.
    pub(crate) fn subnet(&self, lan: &Name) -> Subnet {
        self.lans[lan].subnet
    }

    /// New addresses at a place; `None`: it has no more.
    pub(crate) fn attach(
        &mut self,
        spec: &Spec,
        lan: Option<&Name>,
        role: Option<Role>,
    ) -> Option<Attachment> {
        let Some(lan) = lan else {
            return self.attach_in_public(match role {
                Some(Role::Relay) => ADDRESSES_OF_RELAY,
                Some(Role::Signaling | Role::Gateway) | None => ADDRESSES,
            });
        };
        let families = spec.lans[lan].ip;
        let addresses = self.lans.get_mut(lan)?;
        let number = addresses.next;
        addresses.next = number.checked_add(1).filter(|next| *next < u8::MAX)?;
        let subnet = addresses.subnet;
        let (router_v4, router_v6) = subnet.router();
        Some(Attachment {
            lan: Some(lan.clone()),
            v4: Vec::from_iter(families.v4().then(|| host_v4(subnet.v4, number))),
            v6: Vec::from_iter(families.v6().then(|| host_v6(subnet.v6, number))),
            router_v4,
            router_v6,
            port: format!("p{number}"),
        })
    }

    fn attach_in_public(&mut self, count: u8) -> Option<Attachment> {
        let number = self.next_public;
        self.next_public = number.checked_add(1)?;
        let v4 = Ipv4Addr::new(11, 0, number, 0);
        let v6 = Ipv6Addr::new(0x2600, 0x11, 0, u16::from(number), 0, 0, 0, 0);
        let own = 2..2 + count;
        Some(Attachment {
            lan: None,
            v4: own.clone().map(|n| host_v4(v4, n)).collect(),
            v6: vec![host_v6(v6, own.start)],
            router_v4: host_v4(v4, 1),
            router_v6: host_v6(v6, 1),
            port: format!("n{number}"),
        })
    }
}

/// Another address in the same subnet of the public segment or a LAN.
pub(crate) fn another(address: Ipv4Addr) -> Ipv4Addr {
    let [a, b, c, d] = address.octets();
    // Beyond what is given out, and back again.
    Ipv4Addr::new(a, b, c, if d < 200 { 200 + d % 50 } else { 100 + d % 50 })
}

fn host_v4(subnet: Ipv4Addr, number: u8) -> Ipv4Addr {
    let [a, b, c, _] = subnet.octets();
    Ipv4Addr::new(a, b, c, number)
}

fn host_v6(subnet: Ipv6Addr, number: u8) -> Ipv6Addr {
    Ipv6Addr::from_bits(subnet.to_bits() | u128::from(number))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_place_has_its_own_kind_of_address() {
        let spec = Spec::parse(
            "[lan.a]\nnat = \"symmetric\"\n[lan.b]\nnat = \"symmetric\"\nvia = \"a\"\n\
             [lan.c]\nnat = \"firewall\"\nip = \"dual\"\n",
        )
        .unwrap();
        let mut addresses = Addresses::new(&spec);
        let mut at = |lan: Option<&str>| {
            let lan = lan.map(|lan| lan.parse().unwrap());
            addresses.attach(&spec, lan.as_ref(), None).unwrap()
        };
        assert_eq!(
            at(Some("a")).v4,
            ["100.64.1.10".parse::<Ipv4Addr>().unwrap()]
        );
        assert_eq!(at(Some("b")).v4, ["10.2.0.10".parse::<Ipv4Addr>().unwrap()]);
        assert_eq!(at(Some("b")).v4, ["10.2.0.11".parse::<Ipv4Addr>().unwrap()]);
        let c = at(Some("c"));
        assert_eq!(c.v4, ["11.1.3.10".parse::<Ipv4Addr>().unwrap()]);
        assert_eq!(c.v6, ["2600:11:1:3::a".parse::<Ipv6Addr>().unwrap()]);
        assert_eq!(at(None).v4.len(), 1);
        assert_ne!(at(None).v4, at(None).v4);
    }

    #[test]
    fn another_address_is_another_one() {
        for d in 2..=254 {
            let address = Ipv4Addr::new(11, 0, 1, d);
            assert_ne!(another(address), address);
            assert!(another(address).octets()[3] > 2);
        }
    }
}
