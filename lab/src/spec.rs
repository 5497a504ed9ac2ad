//! What a lab consists of: LANs behind routers, hosts, and what they run. TOML, read by [`Spec::parse`].
//!
//! ```toml
//! [lan.office]
//! nat = "port-restricted"
//! link = { delay = "20ms" }     # the router's uplink, in each direction
//!
//! [host.sig1]                   # no lan: on the public segment
//! run = "signaling"
//! [host.n1]
//! lan = "office"
//! run = "gateway"
//! services = { files = "http://127.0.0.1:8000" }
//! with = ["python3 -m http.server 8000 --bind 127.0.0.1"]
//! [host.laptop]                 # runs nothing: for browsers, by `exec`
//! lan = "office"
//! ```

mod builtin;
mod quantity;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

pub(crate) use builtin::{Counts, builtin, descriptions};
pub(crate) use quantity::{Rate, Share, Span};

/// Longest name of a host or LAN: it becomes a DNS label.
const MAX_NAME: usize = 32;

/// Most hosts and LANs of a lab together: each is a network namespace.
pub(crate) const MAX_NAMESPACES: usize = 120;

/// Most routers above each other.
const MAX_DEPTH: usize = 4;

/// A whole lab.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Spec {
    /// Routers with the LANs behind them.
    #[serde(rename = "lan")]
    pub(crate) lans: BTreeMap<Name, Lan>,
    /// Machines.
    #[serde(rename = "host")]
    pub(crate) hosts: BTreeMap<Name, Host>,
}

/// A router, and the LAN behind it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Lan {
    /// What the router lets through, and how it translates.
    pub(crate) nat: Nat,
    /// LAN that the router's uplink is in; otherwise the public segment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) via: Option<Name>,
    /// Families within.
    #[serde(default)]
    pub(crate) ip: Families,
    /// Whether hosts of the LAN reach each other by the router's external address.
    #[serde(default)]
    pub(crate) hairpin: bool,
    /// How long the router remembers a silent UDP flow.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) udp_timeout: Option<Span>,
    /// Of the router's uplink.
    #[serde(default, skip_serializing_if = "Impairment::is_none")]
    pub(crate) link: Impairment,
}

/// A machine.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Host {
    /// Where it is; otherwise on the public segment.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) lan: Option<Name>,
    /// Which part of Portway it runs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) run: Option<Role>,
    /// Services of a gateway; without any, its own demo.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) services: BTreeMap<Name, String>,
    /// Other programs to run there, each a shell command that stays in the foreground.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) with: Vec<String>,
    /// Of its link.
    #[serde(default, skip_serializing_if = "Impairment::is_none")]
    pub(crate) link: Impairment,
}

/// A part of Portway.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Role {
    /// `portway signaling`.
    Signaling,
    /// `portway relay`.
    Relay,
    /// `portway gateway`: a node of the cluster.
    Gateway,
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Signaling => "signaling",
            Self::Relay => "relay",
            Self::Gateway => "gateway",
        })
    }
}

/// How a router treats UDP, and whether it translates at all. Mapping is endpoint-independent unless
/// said otherwise (RFC 4787 §4, §5).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Nat {
    /// Routes; filters nothing.
    Open,
    /// Routes; lets in only what answers.
    Firewall,
    /// Translates; lets anybody in through a mapping.
    FullCone,
    /// Translates; filters by address.
    AddressRestricted,
    /// Translates; filters by address and port.
    PortRestricted,
    /// Translates with another external port for every destination.
    Symmetric,
    /// Translates; lets no UDP out.
    UdpBlocked,
    /// Lets out TCP to port 443 and nothing else.
    Tcp443,
}

impl Nat {
    /// Whether hosts behind it have addresses of the public segment.
    pub(crate) const fn translates(self) -> bool {
        !matches!(self, Self::Open | Self::Firewall)
    }
}

impl fmt::Display for Nat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Open => "open",
            Self::Firewall => "firewall",
            Self::FullCone => "full-cone",
            Self::AddressRestricted => "address-restricted",
            Self::PortRestricted => "port-restricted",
            Self::Symmetric => "symmetric",
            Self::UdpBlocked => "udp-blocked",
            Self::Tcp443 => "tcp443",
        })
    }
}

/// Address families of a LAN.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Families {
    /// IPv4 only.
    #[default]
    #[serde(rename = "4")]
    V4,
    /// IPv6 only.
    #[serde(rename = "6")]
    V6,
    /// Both.
    #[serde(rename = "dual")]
    Dual,
}

impl Families {
    pub(crate) const fn v4(self) -> bool {
        matches!(self, Self::V4 | Self::Dual)
    }

    pub(crate) const fn v6(self) -> bool {
        matches!(self, Self::V6 | Self::Dual)
    }
}

/// What a link does to packets, in each direction.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Impairment {
    /// Added to every packet.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) delay: Option<Span>,
    /// Uniform, around the delay; packets stay in order.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) jitter: Option<Span>,
    /// Share of packets that vanish.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) loss: Option<Share>,
    /// Bits in a second.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) rate: Option<Rate>,
    /// Share of packets that overtake the delay.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) reorder: Option<Share>,
    /// Packets that wait for the rate before more are dropped.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) queue: Option<u32>,
}

impl Impairment {
    /// Whether it does nothing.
    pub(crate) fn is_none(&self) -> bool {
        *self == Self::default()
    }

    /// This one, with what `change` says in place of what it said.
    pub(crate) fn changed(&self, change: &Self) -> Self {
        Self {
            delay: change.delay.or(self.delay),
            jitter: change.jitter.or(self.jitter),
            loss: change.loss.or(self.loss),
            rate: change.rate.or(self.rate),
            reorder: change.reorder.or(self.reorder),
            queue: change.queue.or(self.queue),
        }
    }
}

/// Why a text is no lab.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SpecError {
    /// No TOML, or unknown words in it; the text names the line.
    #[error("{0}")]
    Syntax(#[from] toml::de::Error),
    /// A host or router is somewhere that is not described.
    #[error("{item} `{name}` is in LAN `{lan}`, which is not there")]
    NoLan {
        /// `host` or `lan`.
        item: &'static str,
        /// Which.
        name: Name,
        /// Where it should be.
        lan: Name,
    },
    /// Routers above each other in a circle, or too many of them.
    #[error("lan `{0}`: at most {MAX_DEPTH} routers above each other, none above itself")]
    Depth(Name),
    /// A host and a LAN of one name.
    #[error("`{0}` is a host and a LAN: events could not tell them apart")]
    Twice(Name),
    /// More than the kernel should be asked for.
    #[error("{0} hosts and LANs: at most {MAX_NAMESPACES}")]
    TooMany(usize),
    /// A host has services that nobody offers.
    #[error("host `{0}` has services but runs no gateway")]
    NoGateway(Name),
    /// Nobody could meet.
    #[error("a lab with a gateway needs a host that runs signaling")]
    NoSignaling,
    /// Signaling must be reachable by all.
    #[error(
        "host `{0}` runs {1} behind a router that lets nobody in: put it on the public segment"
    )]
    Hidden(Name, Role),
    /// Two families cannot talk.
    #[error("lan `{0}` has IPv6 behind a router that is in an IPv4 LAN")]
    Family(Name),
}

impl Spec {
    /// Reads and checks a file.
    ///
    /// # Errors
    /// See [`SpecError`].
    pub(crate) fn parse(text: &str) -> Result<Self, SpecError> {
        let spec: Self = toml::from_str(text)?;
        spec.check()?;
        Ok(spec)
    }

    /// The LANs above a place, nearest first.
    pub(crate) fn above<'a>(&'a self, lan: Option<&'a Name>) -> impl Iterator<Item = &'a Name> {
        std::iter::successors(lan, |lan| self.lans.get(*lan)?.via.as_ref())
    }

    /// Hosts with a role.
    pub(crate) fn running(&self, role: Role) -> impl Iterator<Item = &Name> {
        self.hosts
            .iter()
            .filter(move |(_, host)| host.run == Some(role))
            .map(|(name, _)| name)
    }

    fn check(&self) -> Result<(), SpecError> {
        let count = self.lans.len() + self.hosts.len();
        if count > MAX_NAMESPACES {
            return Err(SpecError::TooMany(count));
        }
        for (name, lan) in &self.lans {
            self.there("lan", name, lan.via.as_ref())?;
            let mut seen = BTreeSet::new();
            let is_tree = self
                .above(Some(name))
                .take(MAX_DEPTH + 1)
                .all(|lan| seen.insert(lan));
            if !is_tree || seen.len() > MAX_DEPTH {
                return Err(SpecError::Depth(name.clone()));
            }
            if self.hosts.contains_key(name) {
                return Err(SpecError::Twice(name.clone()));
            }
            let uplink = lan.via.as_ref().map(|via| self.lans[via].ip);
            if uplink.is_some_and(|uplink| lan.ip.v6() && !uplink.v6()) {
                return Err(SpecError::Family(name.clone()));
            }
        }
        for (name, host) in &self.hosts {
            self.there("host", name, host.lan.as_ref())?;
            if !host.services.is_empty() && host.run != Some(Role::Gateway) {
                return Err(SpecError::NoGateway(name.clone()));
            }
            let role = host.run.filter(|role| *role != Role::Gateway);
            let is_public = self
                .above(host.lan.as_ref())
                .all(|lan| self.lans[lan].nat == Nat::Open);
            if let Some(role) = role.filter(|_| !is_public) {
                return Err(SpecError::Hidden(name.clone(), role));
            }
        }
        let needs_signaling = self.running(Role::Gateway).next().is_some();
        if needs_signaling && self.running(Role::Signaling).next().is_none() {
            return Err(SpecError::NoSignaling);
        }
        Ok(())
    }

    fn there(&self, item: &'static str, name: &Name, lan: Option<&Name>) -> Result<(), SpecError> {
        match lan {
            Some(lan) if !self.lans.contains_key(lan) => Err(SpecError::NoLan {
                item,
                name: name.clone(),
                lan: lan.clone(),
            }),
            Some(_) | None => Ok(()),
        }
    }
}

/// Name of a host or a LAN: a DNS label.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub(crate) struct Name(String);

impl Name {
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for Name {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let is_label = text
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
        let ends = [text.bytes().next(), text.bytes().next_back()];
        if !is_label || ends.contains(&None) || ends.contains(&Some(b'-')) || text.len() > MAX_NAME
        {
            return Err(format!(
                "`{text}` is no name: lower-case letters, digits and inner hyphens, at most {MAX_NAME}"
            ));
        }
        Ok(Self(text.to_owned()))
    }
}

impl TryFrom<String> for Name {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Name> for String {
    fn from(name: Name) -> Self {
        name.0
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_lab_is_read_and_written() {
        let text = r#"
            [lan.office]
            nat = "port-restricted"
            link = { delay = "20ms", loss = "0.5%" }
            [lan.home]
            nat = "symmetric"
            via = "office"
            [host.sig1]
            run = "signaling"
            [host.n1]
            lan = "home"
            run = "gateway"
            link = { rate = "20mbit" }
        "#;
        let spec = Spec::parse(text).unwrap();
        let office = &spec.lans[&"office".parse().unwrap()];
        assert_eq!(office.link.delay, Some(Span(Duration::from_millis(20))));
        assert_eq!(office.link.loss, Some(Share(0.005)));
        let again = Spec::parse(&toml::to_string(&spec).unwrap()).unwrap();
        assert_eq!(again, spec);
        let home = "home".parse().unwrap();
        let above: Vec<&str> = spec.above(Some(&home)).map(Name::as_str).collect();
        assert_eq!(above, ["home", "office"]);
    }

    #[test]
    fn mistakes_are_told() {
        for (text, told) in [
            ("[lan.a]\nnat = \"nosuch\"", "nosuch"),
            ("[lan.a]\nnat = \"open\"\ncolour = 1", "colour"),
            ("[host.a]\nlan = \"b\"", "LAN `b`"),
            ("[lan.a]\nnat = \"open\"\nvia = \"a\"", "none above itself"),
            ("[lan.a]\nnat = \"open\"\n[host.a]", "host and a LAN"),
            (
                "[host.a]\nrun = \"gateway\"",
                "needs a host that runs signaling",
            ),
            ("[host.a]\nservices = { x = \"y\" }", "runs no gateway"),
            ("[host.A]", "no name"),
            ("[lan.a]\nnat = \"open\"\nlink = { delay = \"20\" }", "20ms"),
            (
                "[lan.a]\nnat = \"open\"\nlink = { loss = \"101%\" }",
                "100%",
            ),
            (
                "[lan.a]\nnat = \"symmetric\"\n[host.s]\nlan = \"a\"\nrun = \"relay\"",
                "public segment",
            ),
        ] {
            let error = Spec::parse(text).unwrap_err().to_string();
            assert!(error.contains(told), "{text}: {error}");
        }
    }

    #[test]
    fn every_network_of_ours_is_a_lab() {
        for (name, _) in descriptions() {
            let spec = builtin(
                name,
                Counts {
                    nodes: 5,
                    signaling: 2,
                    relays: 1,
                },
            )
            .unwrap();
            spec.check().unwrap();
            assert!(spec.running(Role::Gateway).count() >= 5, "{name}");
        }
    }
}
