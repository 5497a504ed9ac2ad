//! What is done to the programs of a lab: restarts, signals, clocks; and how they are.

use std::collections::BTreeMap;
use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, bail};
use nix::sys::signal::Signal;
use serde::{Deserialize, Serialize};

use super::{ENDING, Keeper, lock};
use crate::control::Nudge;
use crate::identity::Identity;
use crate::network::fault::Cut;
use crate::spec::{Impairment, Name, Role};

/// Where Debian has the library that shows programs another time.
const FAKETIME: &str = "/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1";

/// A node's file with the offset of its clock, which that library reads.
const CLOCK: &str = "clock";

/// A lab and who is in it.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Status {
    pub(crate) name: Name,
    pub(crate) net: String,
    pub(crate) mode: crate::state::Mode,
    pub(crate) commit: String,
    /// Portal of each signaling service.
    pub(crate) portals: BTreeMap<Name, String>,
    pub(crate) hosts: Vec<HostStatus>,
    pub(crate) routers: Vec<RouterStatus>,
    pub(crate) cuts: Vec<Cut>,
}

/// A host.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct HostStatus {
    pub(crate) host: Name,
    pub(crate) lan: Option<Name>,
    pub(crate) role: Option<Role>,
    pub(crate) state: HostState,
    pub(crate) pid: Option<i32>,
    pub(crate) uptime_s: u64,
    pub(crate) addresses: Vec<IpAddr>,
    pub(crate) link: Impairment,
}

/// A router.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct RouterStatus {
    pub(crate) router: Name,
    pub(crate) nat: crate::spec::Nat,
    pub(crate) via: Option<Name>,
    pub(crate) addresses: Vec<IpAddr>,
    pub(crate) link: Impairment,
}

/// What a host's part of Portway does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum HostState {
    /// It runs none.
    Nothing,
    /// It runs.
    Running,
    /// It stands still.
    Frozen,
    /// It has ended.
    Ended,
}

impl Keeper {
    pub(super) fn status(&self) -> anyhow::Result<Status> {
        let network = self.network.as_ref().map(lock);
        // What has roamed is elsewhere than the plan says.
        let spec = network
            .as_ref()
            .map_or(&self.plan.spec, |network| network.spec());
        let running = self.running().clone();
        let at = |name: &Name| match &network {
            Some(network) => network.addresses(name),
            None => Ok(vec![std::net::Ipv4Addr::LOCALHOST.into()]),
        };
        let link = |name: &Name| match &network {
            Some(network) => network.impairment(name).cloned(),
            None => Ok(Impairment::default()),
        };
        let host = |(name, host): (&Name, &crate::spec::Host)| {
            let running = running.get(name).cloned().unwrap_or_default();
            let part = running.part.as_ref();
            let state = match part {
                None => HostState::Nothing,
                Some(part) if part.ended().is_some() => HostState::Ended,
                Some(_) if running.is_frozen => HostState::Frozen,
                Some(_) => HostState::Running,
            };
            let alive = part.filter(|part| part.ended().is_none());
            Ok(HostStatus {
                host: name.clone(),
                lan: host.lan.clone(),
                role: host.run,
                state,
                pid: alive.map(|part| part.pid.as_raw()),
                uptime_s: alive.map_or(0, |part| part.started.elapsed().as_secs()),
                addresses: at(name)?,
                link: link(name)?,
            })
        };
        let router = |(name, lan): (&Name, &crate::spec::Lan)| {
            Ok(RouterStatus {
                router: name.clone(),
                nat: lan.nat,
                via: lan.via.clone(),
                addresses: at(name)?,
                link: link(name)?,
            })
        };
        let portals = self.cluster.portals.iter();
        Ok(Status {
            name: self.plan.name.clone(),
            net: self.plan.net.clone(),
            mode: self.plan.mode,
            commit: self.portway().1.commit,
            portals: portals
                .map(|(name, portal)| (name.clone(), portal.origin.clone()))
                .collect(),
            hosts: spec.hosts.iter().map(host).collect::<anyhow::Result<_>>()?,
            routers: match network {
                Some(_) => spec
                    .lans
                    .iter()
                    .map(router)
                    .collect::<anyhow::Result<_>>()?,
                None => Vec::new(),
            },
            cuts: network
                .as_ref()
                .map_or_else(Vec::new, |network| network.cuts().to_vec()),
        })
    }

    /// Starts a part anew, or all: with the binary that there is now.
    pub(super) fn restart(&self, node: Option<&Name>, portway: &Path) -> anyhow::Result<Vec<Name>> {
        let identity = Identity::of(portway)?;
        let kept: PathBuf = identity.keep(portway, &self.dir)?;
        *lock(&self.portway) = (kept, identity);
        let spec = &self.plan.spec;
        let wanted: Vec<(&Name, Role)> = match node {
            Some(node) => vec![(node, self.role(node)?)],
            None => [Role::Signaling, Role::Relay, Role::Gateway]
                .into_iter()
                .flat_map(|role| spec.running(role).map(move |name| (name, role)))
                .collect(),
        };
        for (name, _) in &wanted {
            self.end_part(name)?;
        }
        for (name, role) in &wanted {
            self.start_part(name, *role)?;
        }
        Ok(wanted.into_iter().map(|(name, _)| name.clone()).collect())
    }

    /// Sends a signal to a host's part of Portway.
    pub(super) fn signal(&self, host: &Name, nudge: Nudge) -> anyhow::Result<()> {
        self.role(host)?;
        let signal = match nudge {
            Nudge::Terminate => Signal::SIGTERM,
            Nudge::Kill => Signal::SIGKILL,
            Nudge::Freeze => Signal::SIGSTOP,
            Nudge::Thaw => Signal::SIGCONT,
        };
        let part = self.part(host)?;
        part.signal(signal)
            .with_context(|| format!("{host} has ended; `portway-lab restart {host}` starts it"))?;
        match nudge {
            Nudge::Terminate | Nudge::Kill if !part.wait_ended(ENDING) => {
                bail!("{host} has not ended after {ENDING:?}");
            }
            Nudge::Terminate | Nudge::Kill => {}
            Nudge::Freeze => self.running().entry(host.clone()).or_default().is_frozen = true,
            Nudge::Thaw => self.running().entry(host.clone()).or_default().is_frozen = false,
        }
        Ok(())
    }

    /// Sets a node's clock. Its first change restarts the node, which must be shown another time from
    /// its start; later ones reach it while it runs. Returns whether it was restarted.
    pub(super) fn clock(&self, host: &Name, offset: i64) -> anyhow::Result<bool> {
        let role = self.role(host)?;
        if !Path::new(FAKETIME).exists() {
            bail!("clocks need libfaketime ({FAKETIME}; on Debian: apt install libfaketime)");
        }
        let file = self.dir.node(host).join(CLOCK);
        let is_first = !file.exists();
        fs::write(&file, format!("{offset:+}\n"))?;
        if is_first {
            self.end_part(host)?;
            self.start_part(host, role)?;
        }
        Ok(is_first)
    }

    fn role(&self, host: &Name) -> anyhow::Result<Role> {
        let spec = &self.plan.spec;
        let Some(described) = spec.hosts.get(host) else {
            let known: Vec<&str> = spec.hosts.keys().map(Name::as_str).collect();
            bail!(
                "there is no host `{host}` in this lab; there are: {}",
                known.join(", ")
            );
        };
        described
            .run
            .with_context(|| format!("`{host}` runs no part of Portway"))
    }

    fn part(&self, host: &Name) -> anyhow::Result<std::sync::Arc<crate::process::Program>> {
        let running = self.running();
        let part = running.get(host).and_then(|running| running.part.clone());
        part.with_context(|| format!("`{host}` runs nothing"))
    }

    fn end_part(&self, name: &Name) -> anyhow::Result<()> {
        let part = self.part(name)?;
        for signal in [Signal::SIGCONT, Signal::SIGTERM] {
            // One that has ended needs no signal.
            drop(part.signal(signal));
        }
        if !part.wait_ended(ENDING) {
            drop(part.signal(Signal::SIGKILL));
            if !part.wait_ended(Duration::from_secs(1)) {
                bail!("{name} does not end");
            }
        }
        self.running().entry(name.clone()).or_default().is_frozen = false;
        Ok(())
    }
}

/// What shows a node another time, if its clock has been set.
pub(super) fn clock_env(folder: &Path) -> Vec<(String, String)> {
    let file = folder.join(CLOCK);
    if !file.exists() {
        return Vec::new();
    }
    [
        ("LD_PRELOAD", FAKETIME.to_owned()),
        ("FAKETIME_TIMESTAMP_FILE", file.display().to_string()),
        ("FAKETIME_CACHE_DURATION", "1".to_owned()),
        // Only the time of day: time that passes is the same for all.
        ("FAKETIME_DONT_FAKE_MONOTONIC", "1".to_owned()),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .into()
}
