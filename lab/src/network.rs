//! Networks of namespaces: a public segment, routers with LANs behind them, hosts.
//!
//! ```text
//!        core (public segment)
//!      n1 │      │ n2
//!     eth0│      │wan            one link each: a pair of virtual devices, or an emulated one
//!      host    router ── lan (bridge)
//!                        p10 │    │ p11
//!                        eth0│    │wan
//!                         host    router …
//! ```
//! - [`address`], [`nat`], [`fault`], [`mod@line`], [`netem`]: what shall be. Pure.
//! - [`namespace`], [`link`], [`conntrack`]: hands.
//!
//! Everything ends with the process that holds the descriptors: nothing has a name outside.

pub(crate) mod address;
mod conntrack;
pub(crate) mod fault;
mod line;
mod link;
pub(crate) mod namespace;
mod nat;
pub(crate) mod netem;
mod wiring;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::IpAddr;
use std::path::Path;

use nix::errno::Errno;

use crate::lines::put;
use crate::spec::{Impairment, Lan, Name, Spec};
use address::{Addresses, Attachment, PREFIX_V4, PREFIX_V6, Subnet};
use fault::{Blocked, Cut, Range};
use link::Link;
use namespace::Namespace;
use wiring::{ETH, WAN};

/// Why a network cannot be made or changed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NetworkError {
    /// The kernel gives no namespace.
    #[error("no network namespace: {0} (portway-lab needs root, or user namespaces)")]
    Create(#[source] Errno),
    /// A namespace cannot be kept.
    #[error("cannot keep a network namespace: {0}")]
    Open(#[source] io::Error),
    /// A namespace cannot be entered.
    #[error("cannot enter a network namespace: {0}")]
    Enter(#[source] Errno),
    /// A program is missing.
    #[error("cannot run `{program}`: {error}")]
    Start {
        /// Which.
        program: String,
        /// Why.
        error: io::Error,
    },
    /// A program did not do what it was told.
    #[error("`{program}` refused: {told}\nit was told:\n{input}")]
    Refused {
        /// Which.
        program: &'static str,
        /// What it said.
        told: String,
        /// What it was told.
        input: String,
    },
    /// No virtual device.
    #[error("no virtual network device: {0} (emulated links need /dev/net/tun)")]
    Device(#[source] io::Error),
    /// A setting of the kernel.
    #[error("cannot set {name}: {error}")]
    Setting {
        /// Which, below `/proc/sys/net`.
        name: String,
        /// Why.
        error: io::Error,
    },
    /// Flows are not forgotten.
    #[error("the router does not forget its flows: {0}")]
    Conntrack(#[source] Errno),
    /// No more addresses.
    #[error("no address is left for `{0}`")]
    Full(Name),
    /// Nobody of that name.
    #[error("there is no {what} `{name}` in this lab; there are: {known}")]
    Unknown {
        /// `host` and so on.
        what: &'static str,
        /// What was asked for.
        name: Name,
        /// What there is.
        known: String,
    },
}

/// Who delays and loses packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Emulation {
    /// The kernel.
    Netem,
    /// Threads of ours.
    User,
}

/// A network that is up.
#[derive(Debug)]
pub(crate) struct Network {
    spec: Spec,
    addresses: Addresses,
    core: Namespace,
    nodes: BTreeMap<Name, Node>,
    cuts: Vec<Cut>,
    emulation: Emulation,
}

/// A host or a router.
#[derive(Debug)]
struct Node {
    namespace: Namespace,
    attachment: Attachment,
    mac: [u8; 6],
    impairment: Impairment,
    /// The emulator, if its link has one.
    link: Option<Link>,
    port_mask: u16,
}

/// What changes when a router forgets its flows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rebinding {
    /// Other external ports.
    Ports,
    /// Another external address, too.
    PortsAndAddress,
}

impl Network {
    /// Makes everything that the lab describes.
    pub(crate) fn build(spec: Spec, emulation: Emulation) -> Result<Self, NetworkError> {
        let core = Namespace::create()?;
        settings(
            &core,
            &[
                ("ipv4/ip_forward", "1"),
                ("ipv6/conf/all/forwarding", "1"),
                NO_DAD,
            ],
        )?;
        core.ip("link set lo up\n")?;
        let mut network = Self {
            addresses: Addresses::new(&spec),
            spec,
            core,
            nodes: BTreeMap::new(),
            cuts: Vec::new(),
            emulation,
        };
        for name in network.routers_from_above() {
            network.add(&name)?;
            network.set_up_router(&name)?;
        }
        let hosts: Vec<Name> = network.spec.hosts.keys().cloned().collect();
        for name in hosts {
            network.add(&name)?;
        }
        Ok(network)
    }

    /// What it was made from.
    pub(crate) const fn spec(&self) -> &Spec {
        &self.spec
    }

    /// The namespace of a host or router.
    pub(crate) fn namespace(&self, name: &Name) -> Result<&Namespace, NetworkError> {
        self.node(name).map(|node| &node.namespace)
    }

    /// The addresses of a host or router on its uplink.
    pub(crate) fn addresses(&self, name: &Name) -> Result<Vec<IpAddr>, NetworkError> {
        Ok(self.node(name)?.attachment.addresses().collect())
    }

    /// The partitions there are.
    pub(crate) fn cuts(&self) -> &[Cut] {
        &self.cuts
    }

    /// Makes two silent for each other, or one for everybody.
    pub(crate) fn cut(&mut self, cut: Cut) -> Result<(), NetworkError> {
        self.node(&cut.from)?;
        if let Some(to) = &cut.to {
            self.node(to)?;
        }
        self.cuts.push(cut);
        self.apply_cuts()
    }

    /// Ends all partitions, or those of one, or those between two. Returns how many there were.
    pub(crate) fn heal(
        &mut self,
        one: Option<&Name>,
        other: Option<&Name>,
    ) -> Result<usize, NetworkError> {
        let before = self.cuts.len();
        let touches = |cut: &Cut, name: &Name| cut.from == *name || cut.to.as_ref() == Some(name);
        self.cuts.retain(|cut| {
            let mut named = [one, other].into_iter().flatten();
            !named.all(|name| touches(cut, name))
        });
        self.apply_cuts()?;
        Ok(before - self.cuts.len())
    }

    /// A router forgets its flows and gives other external ports, as after a restart.
    pub(crate) fn rebind(&mut self, router: &Name, kind: Rebinding) -> Result<(), NetworkError> {
        let lan = self.lan(router)?.clone();
        let node = self.node_mut(router)?;
        node.port_mask = other_mask(node.port_mask);
        let old = node.attachment.v4.first().copied();
        if let (Rebinding::PortsAndAddress, Some(old)) = (kind, old) {
            let new = address::another(old);
            node.attachment.v4[0] = new;
            let gateway = node.attachment.router_v4;
            let batch = format!(
                "addr add {new}/{PREFIX_V4} dev {WAN}\naddr del {old}/{PREFIX_V4} dev {WAN}\n\
                 route replace default via {gateway} dev {WAN}\n"
            );
            node.namespace.ip(&batch)?;
            if !lan.nat.translates() {
                self.route_to_lan(router)?;
            }
        }
        self.load_router(router)?;
        self.node(router)?.namespace.run(conntrack::flush)?;
        self.apply_cuts()
    }

    /// Moves a host to another place: another address, while its processes go on.
    pub(crate) fn roam(&mut self, host: &Name, lan: Option<&Name>) -> Result<(), NetworkError> {
        let Some(described) = self.spec.hosts.get_mut(host) else {
            return Err(self.unknown("host", host));
        };
        let before = std::mem::replace(&mut described.lan, lan.cloned());
        if let Some(lan) = lan
            && !self.spec.lans.contains_key(lan)
        {
            let known = self.unknown("LAN", lan);
            self.spec
                .hosts
                .entry(host.clone())
                .and_modify(|host| host.lan = before);
            return Err(known);
        }
        let attachment = self.attach(host)?;
        self.unplug(host)?;
        self.node_mut(host)?.attachment = attachment;
        self.plug(host)?;
        self.apply_cuts()
    }

    /// A link does this to packets from now on, in both directions.
    pub(crate) fn impair(
        &mut self,
        name: &Name,
        impairment: Impairment,
    ) -> Result<(), NetworkError> {
        let emulation = self.emulation;
        let node = self.node_mut(name)?;
        node.impairment = impairment;
        match (emulation, &node.link) {
            (Emulation::Netem, _) => self.apply_netem(name),
            (Emulation::User, Some(link)) => {
                link.impair(node.impairment.clone());
                Ok(())
            }
            // It was a plain pair so far: the same address again, at another device.
            (Emulation::User, None) => {
                self.unplug(name)?;
                self.plug(name)?;
                if self.spec.lans.contains_key(name) {
                    self.load_router(name)?;
                }
                Ok(())
            }
        }
    }

    /// What a link does to packets now.
    pub(crate) fn impairment(&self, name: &Name) -> Result<&Impairment, NetworkError> {
        self.node(name).map(|node| &node.impairment)
    }

    fn routers_from_above(&self) -> Vec<Name> {
        let mut routers: Vec<Name> = self.spec.lans.keys().cloned().collect();
        routers.sort_by_key(|name| self.spec.above(Some(name)).count());
        routers
    }

    fn add(&mut self, name: &Name) -> Result<(), NetworkError> {
        let attachment = self.attach(name)?;
        let namespace = Namespace::create()?;
        settings(&namespace, &[NO_DAD, ("ipv6/conf/default/accept_ra", "0")])?;
        namespace.ip("link set lo up\n")?;
        let impairment = match (self.spec.hosts.get(name), self.spec.lans.get(name)) {
            (Some(host), _) => host.link.clone(),
            (None, Some(lan)) => lan.link.clone(),
            (None, None) => Impairment::default(),
        };
        let node = Node {
            namespace,
            attachment,
            mac: random_mac(),
            impairment,
            link: None,
            port_mask: nat::SAME_PORTS,
        };
        self.nodes.insert(name.clone(), node);
        self.plug(name)
    }

    fn attach(&mut self, name: &Name) -> Result<Attachment, NetworkError> {
        let (place, role) = match (self.spec.hosts.get(name), self.spec.lans.get(name)) {
            (Some(host), _) => (host.lan.as_ref(), host.run),
            (None, Some(lan)) => (lan.via.as_ref(), None),
            (None, None) => (None, None),
        };
        self.addresses
            .attach(&self.spec, place, role)
            .ok_or_else(|| NetworkError::Full(name.clone()))
    }

    /// Makes the link of a node to the place of its attachment, and configures both ends.
    fn plug(&mut self, name: &Name) -> Result<(), NetworkError> {
        let node = self.node(name)?;
        let parent = self.parent(node)?;
        let device = self.device(name);
        let port = &node.attachment.port;
        let mac = node.mac.map(|byte| format!("{byte:02x}")).join(":");
        let emulated = self.emulation == Emulation::User && !node.impairment.is_none();
        let link = if emulated {
            let near = (&node.namespace, device);
            let link = Link::start(near, (parent, port), node.impairment.clone())?;
            node.namespace
                .ip(&format!("link set {device} address {mac}\n"))?;
            Some(link)
        } else {
            let (near, far) = (path(&node.namespace), path(parent));
            self.core.ip(&format!(
                    "link add {device} address {mac} netns {near} type veth peer name {port} netns {far}\n"
                ),
            )?;
            None
        };
        parent.ip(&wiring::far_end(&node.attachment))?;
        node.namespace
            .ip(&wiring::near_end(&node.attachment, device))?;
        self.node_mut(name)?.link = link;
        if self.emulation == Emulation::Netem {
            self.apply_netem(name)?;
        }
        if self.spec.lans.contains_key(name) {
            self.route_to_lan(name)?;
        }
        Ok(())
    }

    /// Takes the link of a node away, and its addresses with it.
    fn unplug(&mut self, name: &Name) -> Result<(), NetworkError> {
        let device = self.device(name);
        let node = self.node_mut(name)?;
        if node.link.take().is_none() {
            let batch = format!("link del {device}\n");
            node.namespace.ip(&batch)?;
        }
        Ok(())
    }

    fn set_up_router(&self, name: &Name) -> Result<(), NetworkError> {
        let lan = self.lan(name)?;
        let batch = wiring::bridge(lan.ip, self.addresses.subnet(name));
        let namespace = &self.node(name)?.namespace;
        namespace.ip(&batch)?;
        let timeout = lan
            .udp_timeout
            .map(|span| span.0.as_secs().max(1).to_string());
        let mut wanted = vec![
            ("ipv4/ip_forward", "1"),
            ("ipv6/conf/all/forwarding", "1"),
            ("ipv4/conf/all/promote_secondaries", "1"),
            ("ipv4/conf/wan/promote_secondaries", "1"),
            ("bridge/bridge-nf-call-iptables", "0"),
            ("bridge/bridge-nf-call-ip6tables", "0"),
        ];
        if let Some(timeout) = &timeout {
            wanted.push(("netfilter/nf_conntrack_udp_timeout", timeout));
            wanted.push(("netfilter/nf_conntrack_udp_timeout_stream", timeout));
        }
        settings(namespace, &wanted)?;
        self.load_router(name)
    }

    /// Loads a router's rules.
    fn load_router(&self, name: &Name) -> Result<(), NetworkError> {
        let node = self.node(name)?;
        let rules = nat::ruleset(&nat::Router {
            lan: self.lan(name)?,
            subnet: self.addresses.subnet(name),
            external: node.attachment.v4.first().copied(),
            port_mask: node.port_mask,
        });
        node.namespace.nft(&rules)
    }

    /// Tells everybody above a router the way to what is behind it, as far as its addresses are known.
    fn route_to_lan(&self, name: &Name) -> Result<(), NetworkError> {
        let lan = self.lan(name)?;
        let subnet = self.addresses.subnet(name);
        let mut below = self.node(name)?;
        let mut shows_v4 = lan.ip.v4() && !lan.nat.translates();
        loop {
            let parent = self.parent(below)?;
            let mut batch = String::new();
            if let (true, Some(hop)) = (shows_v4, below.attachment.v4.first()) {
                put(
                    &mut batch,
                    format_args!("route replace {}/{PREFIX_V4} via {hop}", subnet.v4),
                );
            }
            if let (true, Some(hop)) = (lan.ip.v6(), below.attachment.v6.first()) {
                put(
                    &mut batch,
                    format_args!("route replace {}/{PREFIX_V6} via {hop}", subnet.v6),
                );
            }
            parent.ip(&batch)?;
            let Some(above) = &below.attachment.lan else {
                return Ok(());
            };
            shows_v4 &= !self.lan(above)?.nat.translates();
            below = self.node(above)?;
        }
    }

    fn apply_netem(&self, name: &Name) -> Result<(), NetworkError> {
        let node = self.node(name)?;
        let ends = [
            (&node.namespace, self.device(name)),
            (self.parent(node)?, node.attachment.port.as_str()),
        ];
        for (namespace, device) in ends {
            let batch = netem::commands(device, &node.impairment);
            namespace.tc(&batch)?;
        }
        Ok(())
    }

    fn apply_cuts(&self) -> Result<(), NetworkError> {
        let mut blocked: BTreeMap<Option<Name>, Vec<Blocked>> = BTreeMap::new();
        let places = self.nodes.values().map(|node| node.attachment.lan.clone());
        for place in places {
            blocked.entry(place).or_default();
        }
        for cut in &self.cuts {
            let place = self.node(&cut.from)?.attachment.lan.clone();
            let to = cut.to.as_ref().map(|to| self.seen_by_others(to));
            blocked.entry(place).or_default().push(Blocked {
                from: self.own(&cut.from)?,
                to: to.transpose()?,
                direction: cut.direction,
            });
        }
        for (place, cuts) in blocked {
            let namespace = match &place {
                Some(lan) => &self.node(lan)?.namespace,
                None => &self.core,
            };
            namespace.nft(&fault::ruleset(&cuts))?;
        }
        Ok(())
    }

    /// Addresses of a node, and of what is behind it if they are known where its uplink is.
    fn own(&self, name: &Name) -> Result<BTreeSet<Range>, NetworkError> {
        let node = self.node(name)?;
        let mut ranges: BTreeSet<Range> = node.attachment.addresses().map(Range::single).collect();
        if let Some(lan) = self.spec.lans.get(name) {
            let Subnet { v4, v6 } = self.addresses.subnet(name);
            if lan.ip.v6() {
                ranges.insert(Range {
                    address: v6.into(),
                    prefix: PREFIX_V6,
                });
            }
            if !lan.nat.translates() {
                ranges.insert(Range {
                    address: v4.into(),
                    prefix: PREFIX_V4,
                });
            }
        }
        Ok(ranges)
    }

    /// Every address under which others may meet a node: its own, and those of the routers above.
    fn seen_by_others(&self, name: &Name) -> Result<BTreeSet<Range>, NetworkError> {
        let mut ranges = self.own(name)?;
        let place = self.node(name)?.attachment.lan.as_ref();
        for router in self.spec.above(place) {
            let node = self.node(router)?;
            let v4 = node.attachment.v4.iter().copied().map(IpAddr::V4);
            ranges.extend(v4.map(Range::single));
        }
        Ok(ranges)
    }

    fn parent(&self, node: &Node) -> Result<&Namespace, NetworkError> {
        match &node.attachment.lan {
            Some(lan) => self.namespace(lan),
            None => Ok(&self.core),
        }
    }

    fn device(&self, name: &Name) -> &'static str {
        if self.spec.lans.contains_key(name) {
            WAN
        } else {
            ETH
        }
    }

    fn lan(&self, name: &Name) -> Result<&Lan, NetworkError> {
        let lan = self.spec.lans.get(name);
        lan.ok_or_else(|| self.unknown("router", name))
    }

    fn node(&self, name: &Name) -> Result<&Node, NetworkError> {
        let node = self.nodes.get(name);
        node.ok_or_else(|| self.unknown("host or router", name))
    }

    fn node_mut(&mut self, name: &Name) -> Result<&mut Node, NetworkError> {
        if !self.nodes.contains_key(name) {
            return Err(self.unknown("host or router", name));
        }
        Ok(self.nodes.get_mut(name).expect("it was there just now"))
    }

    fn unknown(&self, what: &'static str, name: &Name) -> NetworkError {
        let names: Vec<&str> = match what {
            "host" => self.spec.hosts.keys().map(Name::as_str).collect(),
            "router" | "LAN" => self.spec.lans.keys().map(Name::as_str).collect(),
            _ => self.nodes.keys().map(Name::as_str).collect(),
        };
        NetworkError::Unknown {
            what,
            name: name.clone(),
            known: names.join(", "),
        }
    }
}

/// Addresses are used at once: nobody else could have them.
const NO_DAD: (&str, &str) = ("ipv6/conf/default/accept_dad", "0");

/// Applies settings below `/proc/sys/net` to a namespace. Those that the kernel does not have are
/// those of parts that it does not have, whose rules would be refused later.
fn settings(namespace: &Namespace, wanted: &[(&str, &str)]) -> Result<(), NetworkError> {
    namespace.run(|| {
        for (name, value) in wanted {
            let file = Path::new("/proc/sys/net").join(name);
            match std::fs::write(file, value) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => {
                    return Err(NetworkError::Setting {
                        name: (*name).to_owned(),
                        error,
                    });
                }
            }
        }
        Ok(())
    })
}

/// A namespace as other processes can name it.
fn path(namespace: &Namespace) -> String {
    format!("/proc/{}/fd/{}", std::process::id(), namespace.descriptor())
}

/// A locally administered address.
fn random_mac() -> [u8; 6] {
    let mut mac = [0; 6];
    getrandom::fill(&mut mac).expect("the operating system provides randomness");
    mac[0] = 0x02;
    mac
}

/// Another mask for ports: not so large that a high port would wrap to a privileged one.
fn other_mask(before: u16) -> u16 {
    let mut byte = [0; 2];
    getrandom::fill(&mut byte).expect("the operating system provides randomness");
    let mask = 0x10 + u16::from_ne_bytes(byte) % 0x3e0;
    if mask == before { mask + 1 } else { mask }
}
