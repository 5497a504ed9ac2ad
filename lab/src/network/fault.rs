//! Silent partitions, as a ruleset for `nft`. Pure.
//!
//! Packets are dropped where they are forwarded, never where they are sent: a sender that learned of
//! it (`EPERM`) would not meet silence. The table goes before the router's own translation, where
//! whoever is inside is known by the inner address and whoever is outside by the outer one.

use std::collections::BTreeSet;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::lines::put;
use crate::spec::Name;

/// Which packets are dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Direction {
    /// Both ways.
    Both,
    /// Those of the first to the second only.
    OneWay,
}

/// Two that do not hear each other.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Cut {
    /// A host or a router with everything behind it.
    pub(crate) from: Name,
    /// The other; everybody if there is none.
    pub(crate) to: Option<Name>,
    pub(crate) direction: Direction,
}

/// A cut with the addresses of both sides as the forwarding namespace sees them.
#[derive(Debug, Clone)]
pub(crate) struct Blocked {
    pub(crate) from: BTreeSet<Range>,
    /// `None`: everybody.
    pub(crate) to: Option<BTreeSet<Range>>,
    pub(crate) direction: Direction,
}

/// An address, or a subnet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Range {
    pub(crate) address: IpAddr,
    pub(crate) prefix: u8,
}

impl Range {
    /// A single address.
    pub(crate) const fn single(address: IpAddr) -> Self {
        let prefix = if address.is_ipv4() { 32 } else { 128 };
        Self { address, prefix }
    }
}

/// What is dropped in one namespace, in place of what was dropped before. Hosts of one LAN meet in a
/// bridge, so the rules stand in both families.
pub(crate) fn ruleset(blocked: &[Blocked]) -> String {
    let mut rules = String::new();
    for family in ["inet", "bridge"] {
        put(
            &mut rules,
            format_args!("table {family} cut\ndelete table {family} cut"),
        );
        if blocked.is_empty() {
            continue;
        }
        put(
            &mut rules,
            format_args!(
                "table {family} cut {{\n chain drops {{ type filter hook forward priority -50; policy accept;"
            ),
        );
        for cut in blocked {
            drop_rules(&mut rules, cut);
        }
        rules.push_str(" }\n}\n");
    }
    rules
}

fn drop_rules(rules: &mut String, cut: &Blocked) {
    for (word, is_family) in [
        ("ip", IpAddr::is_ipv4 as fn(&IpAddr) -> bool),
        ("ip6", IpAddr::is_ipv6),
    ] {
        let set = |ranges: &BTreeSet<Range>| {
            let texts: Vec<String> = ranges
                .iter()
                .filter(|range| is_family(&range.address))
                .map(|range| format!("{}/{}", range.address, range.prefix))
                .collect();
            (!texts.is_empty()).then(|| format!("{{ {} }}", texts.join(", ")))
        };
        let Some(from) = set(&cut.from) else { continue };
        let (to_destination, to_source) = match &cut.to {
            None => (String::new(), String::new()),
            Some(to) => match set(to) {
                Some(to) => (format!("{word} daddr {to}"), format!("{word} saddr {to}")),
                None => continue,
            },
        };
        put(
            rules,
            format_args!("  {word} saddr {from} {to_destination} drop"),
        );
        if cut.direction == Direction::Both {
            put(
                rules,
                format_args!("  {word} daddr {from} {to_source} drop"),
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(text: &str) -> Range {
        Range::single(text.parse().unwrap())
    }

    #[test]
    fn a_cut_drops_both_ways_and_a_one_way_cut_one_way() {
        let mut cut = Blocked {
            from: [range("10.1.0.10")].into(),
            to: Some([range("11.0.1.2"), range("2600::2")].into()),
            direction: Direction::Both,
        };
        let rules = ruleset(std::slice::from_ref(&cut));
        assert!(rules.contains("ip saddr { 10.1.0.10/32 } ip daddr { 11.0.1.2/32 } drop"));
        assert!(rules.contains("ip daddr { 10.1.0.10/32 } ip saddr { 11.0.1.2/32 } drop"));
        assert!(!rules.contains("ip6"), "no common family: {rules}");
        cut.direction = Direction::OneWay;
        assert!(!ruleset(&[cut]).contains("ip daddr { 10.1.0.10/32 }"));
    }

    #[test]
    fn healing_removes_the_tables() {
        assert_eq!(
            ruleset(&[]),
            "table inet cut\ndelete table inet cut\ntable bridge cut\ndelete table bridge cut\n"
        );
    }
}
