//! What a router does to packets, as a ruleset for `nft`. Pure.
//!
//! Translation of Linux keeps ports and filters by address and port. What differs is made so:
//! - *Full cone* and *address-restricted*: sets remember which port belongs to whom and whom it has
//!   spoken to; a rule translates inbound packets that they allow.
//! - *Symmetric*: a random port for every flow.
//! - *Another mapping for the same port* (a router that has restarted): ports are changed by a mask
//!   before and behind the translation, without state.
//!
//! Inbound packets that nothing claims must be dropped before they reach the router itself: otherwise
//! its connection tracking remembers them, and the answer that crosses them leaves by another port, so
//! that a port-restricted router would look like a symmetric one.

use std::net::Ipv4Addr;

use crate::lines::put;
use crate::spec::{Lan, Nat};

use super::address::{PREFIX_V4, Subnet};

/// How long a mapping is remembered unless the lab says otherwise, in seconds.
pub(crate) const DEFAULT_UDP_TIMEOUT: u64 = 120;

/// What is changed in ports at first: nothing.
pub(crate) const SAME_PORTS: u16 = 0;

/// A router as its rules see it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Router<'a> {
    pub(crate) lan: &'a Lan,
    pub(crate) subnet: Subnet,
    /// Its external address; none in an IPv6-only uplink.
    pub(crate) external: Option<Ipv4Addr>,
    /// Changes the external port of every internal one; [`SAME_PORTS`] changes none.
    pub(crate) port_mask: u16,
}

/// Everything that `nft -f` shall load, in place of what was loaded before.
pub(crate) fn ruleset(router: &Router<'_>) -> String {
    let mut rules = String::from("table inet nat\ndelete table inet nat\ntable inet nat {\n");
    let external = router.external.filter(|_| router.lan.nat.translates());
    if let Some(external) = external {
        let memory = remembers(router.lan);
        if memory {
            remember(&mut rules, router);
        }
        if router.port_mask != SAME_PORTS {
            change_ports(&mut rules, router);
        }
        if memory {
            let_in(&mut rules, router.lan, external);
        }
        translate(&mut rules, router.lan, external);
    }
    forward(&mut rules, router.lan.nat);
    protect(&mut rules, router.external);
    rules.push_str("}\n");
    rules
}

/// Whether sets of our own decide what comes in.
const fn remembers(lan: &Lan) -> bool {
    match lan.nat {
        Nat::FullCone | Nat::AddressRestricted => true,
        Nat::PortRestricted => lan.hairpin,
        Nat::Open | Nat::Firewall | Nat::Symmetric | Nat::UdpBlocked | Nat::Tcp443 => false,
    }
}

/// Which port belongs to whom, and whom it has spoken to.
fn remember(rules: &mut String, router: &Router<'_>) {
    let timeout = router
        .lan
        .udp_timeout
        .map_or(DEFAULT_UDP_TIMEOUT, |span| span.0.as_secs().max(1));
    let subnet = format!("{}/{PREFIX_V4}", router.subnet.v4);
    let flags = format!("flags dynamic,timeout; timeout {timeout}s; size 65535;");
    put(
        rules,
        format_args!(
            " map owners {{ type inet_service : ipv4_addr . inet_service; {flags} }}
 set addresses {{ type inet_service . ipv4_addr; {flags} }}
 set endpoints {{ type inet_service . ipv4_addr . inet_service; {flags} }}
 chain watch {{ type filter hook prerouting priority -150;
  iifname \"lan\" ip daddr != {{ {subnet}, 224.0.0.0/4 }} meta l4proto udp jump note
 }}
 chain note {{
  update @owners {{ udp sport : ip saddr . udp sport }}
  update @addresses {{ udp sport . ip daddr }}
  update @endpoints {{ udp sport . ip daddr . udp dport }}
 }}"
        ),
    );
}

fn change_ports(rules: &mut String, router: &Router<'_>) {
    let (mask, subnet) = (router.port_mask, router.subnet.v4);
    put(
        rules,
        format_args!(
            " chain mask_out {{ type filter hook prerouting priority -310;
  iifname \"lan\" ip daddr != {subnet}/{PREFIX_V4} jump mask_source
 }}
 chain mask_source {{
  udp sport set udp sport ^ {mask}
  tcp sport set tcp sport ^ {mask}
 }}
 chain mask_in {{ type filter hook postrouting priority 310;
  oifname \"lan\" ip saddr != {subnet}/{PREFIX_V4} jump mask_destination
 }}
 chain mask_destination {{
  udp dport set udp dport ^ {mask}
  tcp dport set tcp dport ^ {mask}
 }}"
        ),
    );
}

fn let_in(rules: &mut String, lan: &Lan, external: Ipv4Addr) {
    let (from_outside, from_inside) = match lan.nat {
        Nat::AddressRestricted => (
            "udp dport . ip saddr @addresses",
            "udp dport . ip daddr @addresses",
        ),
        Nat::PortRestricted => (
            "udp dport . ip saddr . udp sport @endpoints",
            "udp dport . ip daddr . udp sport @endpoints",
        ),
        Nat::FullCone
        | Nat::Open
        | Nat::Firewall
        | Nat::Symmetric
        | Nat::UdpBlocked
        | Nat::Tcp443 => ("", ""),
    };
    // Without hairpinning, endpoints that were spoken to are what the kernel lets in anyway.
    let sides: &[(&str, &str)] = match (lan.nat, lan.hairpin) {
        (Nat::PortRestricted, _) => &[("lan", from_inside)],
        (_, true) => &[("wan", from_outside), ("lan", from_inside)],
        (_, false) => &[("wan", from_outside)],
    };
    rules.push_str(" chain let_in { type nat hook prerouting priority -100;\n");
    for (from, filter) in sides {
        put(
            rules,
            format_args!(
                "  iifname \"{from}\" ip daddr {external} meta l4proto udp {filter} dnat ip to udp dport map @owners"
            ),
        );
    }
    rules.push_str(" }\n");
}

fn translate(rules: &mut String, lan: &Lan, external: Ipv4Addr) {
    let ports = if lan.nat == Nat::Symmetric {
        " random,fully-random"
    } else {
        ""
    };
    put(
        rules,
        format_args!(
            " chain translate {{ type nat hook postrouting priority 100;
  oifname \"wan\" meta nfproto ipv4 masquerade{ports}"
        ),
    );
    if lan.hairpin {
        put(
            rules,
            format_args!("  iifname \"lan\" oifname \"lan\" ct status dnat snat ip to {external}"),
        );
    }
    rules.push_str(" }\n");
}

fn forward(rules: &mut String, nat: Nat) {
    let policy = if nat == Nat::Open { "accept" } else { "drop" };
    put(
        rules,
        format_args!(
            " chain pass {{ type filter hook forward priority 0; policy {policy};
  ct state established,related accept"
        ),
    );
    match nat {
        Nat::UdpBlocked => rules.push_str("  iifname \"lan\" meta l4proto udp drop\n"),
        Nat::Tcp443 => {
            rules.push_str("  iifname \"lan\" tcp dport 443 accept\n  iifname \"lan\" drop\n");
        }
        Nat::Open
        | Nat::Firewall
        | Nat::FullCone
        | Nat::AddressRestricted
        | Nat::PortRestricted
        | Nat::Symmetric => {}
    }
    rules.push_str("  iifname \"lan\" oifname \"wan\" accept\n  ct status dnat accept\n }\n");
}

/// Nothing reaches the router itself but what it asked for and pings.
fn protect(rules: &mut String, external: Option<Ipv4Addr>) {
    rules.push_str(
        " chain own { type filter hook input priority 0; policy accept;
  iifname \"wan\" ct state established,related accept
  iifname \"wan\" meta l4proto { icmp, ipv6-icmp } accept
  iifname \"wan\" drop\n",
    );
    if let Some(external) = external {
        put(
            rules,
            format_args!("  iifname \"lan\" ip daddr {external} meta l4proto {{ tcp, udp }} drop"),
        );
    }
    rules.push_str(" }\n");
}
