//! Networks that come with the lab, by name.

use super::{Families, Host, Impairment, Lan, Name, Nat, Role, Spec};

/// How many of each a built-in network shall have.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Counts {
    /// Hosts with a gateway.
    pub(crate) nodes: usize,
    /// Hosts with signaling.
    pub(crate) signaling: usize,
    /// Hosts with a relay.
    pub(crate) relays: usize,
}

/// A network that comes with the lab.
struct Builtin {
    name: &'static str,
    what: &'static str,
    /// The routers that nodes are spread over.
    routers: &'static [(&'static str, Nat)],
    clients: Clients,
}

/// Hosts that run nothing, for browsers.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Clients {
    /// One, beside the first node.
    One,
    /// One in every LAN; every LAN has a node, too.
    Everywhere,
}

const BUILTIN: &[Builtin] = &[
    Builtin {
        name: "public",
        what: "every node on the public segment",
        routers: &[],
        clients: Clients::One,
    },
    Builtin {
        name: "office",
        what: "every node behind one port-restricted router",
        routers: &[("office", Nat::PortRestricted)],
        clients: Clients::One,
    },
    Builtin {
        name: "three-nats",
        what: "nodes behind a full-cone, a port-restricted and a symmetric router",
        routers: &[
            ("cone", Nat::FullCone),
            ("port", Nat::PortRestricted),
            ("sym", Nat::Symmetric),
        ],
        clients: Clients::One,
    },
    Builtin {
        name: "all-nats",
        what: "a node and a client behind each kind of router",
        routers: &[
            ("open", Nat::Open),
            ("fw", Nat::Firewall),
            ("cone", Nat::FullCone),
            ("addr", Nat::AddressRestricted),
            ("port", Nat::PortRestricted),
            ("sym", Nat::Symmetric),
            ("noudp", Nat::UdpBlocked),
            ("tcp443", Nat::Tcp443),
        ],
        clients: Clients::Everywhere,
    },
];

/// The names, and what they stand for.
pub(crate) fn descriptions() -> impl Iterator<Item = (&'static str, &'static str)> {
    BUILTIN.iter().map(|network| (network.name, network.what))
}

/// A network by its name, with at least that many of each; `None`: there is none.
pub(crate) fn builtin(name: &str, counts: Counts) -> Option<Spec> {
    let network = BUILTIN.iter().find(|network| network.name == name)?;
    let routers = network.routers;
    let lan = |nat| Lan {
        nat,
        via: None,
        ip: Families::V4,
        hairpin: false,
        udp_timeout: None,
        link: Impairment::default(),
    };
    let mut spec = Spec {
        lans: routers
            .iter()
            .map(|(name, nat)| (label(name), lan(*nat)))
            .collect(),
        ..Spec::default()
    };
    let mut add = |name: &str, run, lan: Option<&str>| {
        let host = Host {
            lan: lan.map(label),
            run,
            ..Host::default()
        };
        spec.hosts.insert(label(name), host);
    };
    for n in 1..=counts.signaling {
        add(&format!("sig{n}"), Some(Role::Signaling), None);
    }
    for n in 1..=counts.relays {
        add(&format!("relay{n}"), Some(Role::Relay), None);
    }
    let nodes = match network.clients {
        Clients::One => counts.nodes,
        Clients::Everywhere => counts.nodes.max(routers.len()),
    };
    for n in 0..nodes {
        let lan = routers.get(n % routers.len().max(1)).map(|(lan, _)| *lan);
        add(&format!("n{}", n + 1), Some(Role::Gateway), lan);
    }
    match network.clients {
        Clients::One => add("client", None, routers.first().map(|(lan, _)| *lan)),
        Clients::Everywhere => {
            for (lan, _) in routers {
                add(&format!("{lan}-client"), None, Some(lan));
            }
        }
    }
    Some(spec)
}

fn label(text: &str) -> Name {
    text.parse().expect("our own names are labels")
}
