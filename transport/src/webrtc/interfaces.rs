//! Where a peer connection listens unless it is told.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use rtc::shared::ifaces::ifaces;

use super::candidates::{self, LoopbackPolicy};

/// Every interface of each family that has an address others can reach. The stack puts a socket on
/// every address of a family; on a family without any it would put one that nobody reaches, or fail
/// where the system does not know the family.
pub(super) fn all() -> Vec<SocketAddr> {
    let known = ifaces().unwrap_or_else(|error| {
        tracing::warn!(%error, "the interfaces of this machine cannot be listed");
        Vec::new()
    });
    let addresses = known.iter().filter_map(|interface| interface.addr);
    families(addresses.map(|address| address.ip()))
}

/// The unspecified address of each family among `addresses`; IPv4's if there is none.
fn families(addresses: impl Iterator<Item = IpAddr>) -> Vec<SocketAddr> {
    let (mut has_v4, mut has_v6) = (false, false);
    for address in addresses {
        if candidates::is_reachable(address, LoopbackPolicy::Refuse) {
            has_v4 |= address.is_ipv4();
            has_v6 |= address.is_ipv6();
        }
    }
    let v4 = (has_v4 || !has_v6).then_some(Ipv4Addr::UNSPECIFIED.into());
    let v6 = has_v6.then_some(Ipv6Addr::UNSPECIFIED.into());
    [v4, v6]
        .into_iter()
        .flatten()
        .map(|address| SocketAddr::new(address, 0))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_families_with_a_reachable_address_are_used() {
        let v4 = SocketAddr::from(([0, 0, 0, 0], 0));
        let v6: SocketAddr = "[::]:0".parse().unwrap();
        for (addresses, expected) in [
            (&["127.0.0.1", "::1"][..], vec![v4]),
            (&["127.0.0.1", "192.0.2.1", "fe80::1"], vec![v4]),
            (&["127.0.0.1", "2001:db8::1"], vec![v6]),
            (&["fd00::1", "10.0.0.1"], vec![v4, v6]),
            (&[], vec![v4]),
        ] {
            let parsed = addresses.iter().map(|address| address.parse().unwrap());
            assert_eq!(families(parsed), expected, "{addresses:?}");
        }
    }
}
