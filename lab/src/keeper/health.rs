//! Whether all is well: each part by itself, and each pair of nodes.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Mutex;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, bail};
use nix::unistd::{SysconfVar, sysconf};
use serde::{Deserialize, Serialize};

use super::client::{self, Opening, Pinged};
use super::{Keeper, lock};
use crate::cluster::run_json;
use crate::identity;
use crate::process::Program;
use crate::spec::{Name, Role};

/// Pairs that are tried at a time.
const AT_ONCE: usize = 4;

/// Largest difference of clocks; tokens allow 30 s.
const MAX_SKEW_MS: i64 = 2_000;

/// A node is offline after two missed heartbeats of 30 s.
const MAX_HEARTBEAT_AGE_S: u64 = 60;

/// Most memory that a part may use, KiB.
const MAX_RSS_KIB: u64 = 512 * 1024;

/// Most of a core that a part may use on average since its start, percent.
const MAX_CPU_PERCENT: f64 = 90.0;

/// Most descriptors that a part may use, of those it is allowed, percent.
const MAX_FD_PERCENT: u64 = 80;

/// The matrix.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Health {
    pub(crate) healthy: bool,
    pub(crate) took_ms: u64,
    pub(crate) parts: Vec<PartHealth>,
    pub(crate) pairs: Vec<PairHealth>,
}

/// A part of Portway.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct PartHealth {
    pub(crate) host: Name,
    pub(crate) role: Role,
    pub(crate) checks: Vec<Check>,
}

/// One check.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Check {
    pub(crate) name: String,
    pub(crate) ok: bool,
    /// The figure, or what is wrong.
    pub(crate) detail: String,
}

/// Whether one node reaches another.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct PairHealth {
    pub(crate) from: Name,
    pub(crate) to: Name,
    /// `direct` or `relayed`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) path: Option<String>,
    /// From the start to the open session, milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) open_ms: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) rtt_ms: Option<f64>,
    /// Status of a request, and its time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) status: Option<u16>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) request_ms: Option<f64>,
    /// Why not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) error: Option<String>,
}

impl PairHealth {
    pub(crate) fn is_ok(&self) -> bool {
        self.error.is_none() && self.status.is_some_and(|status| status < 400)
    }
}

/// `portway nodes --json`.
#[derive(Debug, Deserialize)]
struct Nodes {
    nodes: Vec<Registered>,
}

#[derive(Debug, Clone, Deserialize)]
struct Registered {
    node: String,
    status: String,
    heartbeat_age_s: u64,
    services: Vec<Service>,
}

#[derive(Debug, Clone, Deserialize)]
struct Service {
    name: String,
    health: String,
}

/// What each signaling service knows, or why it cannot be asked.
type Registries = BTreeMap<Name, Result<Vec<Registered>, String>>;

/// Checks everything.
pub(super) fn check(keeper: &Keeper) -> anyhow::Result<Health> {
    let started = Instant::now();
    let spec = &keeper.plan.spec;
    let (portway, _) = keeper.portway();
    let registries: Registries = spec
        .running(Role::Signaling)
        .map(|name| {
            let state = keeper.dir.node(name).join("state").display().to_string();
            let known: anyhow::Result<Nodes> =
                run_json(&portway, &["nodes", "--state", &state], "");
            let known = known.map(|known| known.nodes);
            (name.clone(), known.map_err(|error| format!("{error:#}")))
        })
        .collect();
    let parts = Mutex::new(Vec::new());
    let pairs = Mutex::new(Vec::new());
    let jobs = Mutex::new(jobs(keeper));
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                loop {
                    let Some(job) = lock(&jobs).pop() else { return };
                    match job {
                        Job::Part(name, role) => {
                            let health = part(keeper, &registries, name, role);
                            lock(&parts).push(health);
                        }
                        Job::Pair(from, to) => {
                            let health = pair(keeper, &registries, from, to);
                            lock(&pairs).push(health);
                        }
                    }
                }
            });
        }
    });
    let mut parts = parts.into_inner().unwrap_or_default();
    let mut pairs = pairs.into_inner().unwrap_or_default();
    parts.sort_by(|a, b| a.host.cmp(&b.host));
    pairs.sort_by(|a, b| (&a.from, &a.to).cmp(&(&b.from, &b.to)));
    let healthy = parts
        .iter()
        .flat_map(|part| &part.checks)
        .all(|check| check.ok)
        && pairs.iter().all(PairHealth::is_ok);
    Ok(Health {
        healthy,
        took_ms: u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX),
        parts,
        pairs,
    })
}

enum Job<'a> {
    Part(&'a Name, Role),
    Pair(&'a Name, &'a Name),
}

fn jobs(keeper: &Keeper) -> Vec<Job<'_>> {
    let spec = &keeper.plan.spec;
    let gateways: Vec<&Name> = spec.running(Role::Gateway).collect();
    let pairs = gateways.iter().flat_map(|from| {
        let others = gateways.iter().filter(move |to| *to != from);
        others.map(|to| Job::Pair(from, to))
    });
    let hosts = spec.hosts.iter();
    let parts = hosts.filter_map(|(name, host)| Some(Job::Part(name, host.run?)));
    // Taken from the end: quick ones first.
    pairs.chain(parts).collect()
}

fn part(keeper: &Keeper, registries: &Registries, name: &Name, role: Role) -> PartHealth {
    let mut checks = Vec::new();
    let mut add = |name: &str, outcome: anyhow::Result<String>| {
        checks.push(Check {
            name: name.to_owned(),
            ok: outcome.is_ok(),
            detail: outcome.unwrap_or_else(|error| format!("{error:#}")),
        });
    };
    let running = keeper.running().get(name).cloned().unwrap_or_default();
    let alive = running
        .part
        .context("it was never started")
        .and_then(|part| match part.ended() {
            Some(status) => bail!("it ended with {status}"),
            None if running.is_frozen => bail!("it is frozen"),
            None => Ok(part),
        });
    let alive = match alive {
        Ok(part) => {
            add("process", Ok(format!("pid {}", part.pid)));
            part
        }
        Err(error) => {
            add("process", Err(error));
            return PartHealth {
                host: name.clone(),
                role,
                checks,
            };
        }
    };
    let (portway, expected) = keeper.portway();
    let state = keeper.dir.node(name).join("state");
    match identity::ask(&portway, &state) {
        Ok(status) => {
            add("reachable", Ok(format!("version {}", status.version)));
            let checked = expected.check(&status);
            add(
                "build",
                checked.map(|()| format!("commit {}", status.commit)),
            );
            add("clock", skew(status.now_ms));
            if role == Role::Gateway {
                add("signaling", connected(&status.signaling));
            }
        }
        Err(error) => add("reachable", Err(error)),
    }
    if role == Role::Gateway {
        add("registered", registered(registries, name));
        add("services", services(registries, name));
    }
    for (figure, outcome) in resources(&alive) {
        add(figure, outcome);
    }
    PartHealth {
        host: name.clone(),
        role,
        checks,
    }
}

fn skew(now_ms: i64) -> anyhow::Result<String> {
    let ours = SystemTime::now().duration_since(UNIX_EPOCH)?.as_millis();
    let skew = now_ms - i64::try_from(ours)?;
    if skew.abs() > MAX_SKEW_MS {
        bail!("{:+.1} s", f64::from(i32::try_from(skew / 100)?) / 10.0);
    }
    Ok(format!("{skew:+} ms"))
}

fn connected(signaling: &[identity::Connection]) -> anyhow::Result<String> {
    let away: Vec<&str> = signaling
        .iter()
        .filter(|connection| !connection.connected)
        .map(|connection| connection.url.as_str())
        .collect();
    if !away.is_empty() {
        bail!("not connected to {}", away.join(", "));
    }
    Ok(format!("connected to {}", signaling.len()))
}

fn registered(registries: &Registries, name: &Name) -> anyhow::Result<String> {
    let mut oldest = 0;
    for (signaling, known) in registries {
        let entry = find(known, name).with_context(|| format!("at {signaling}"))?;
        if entry.status != "online" {
            bail!("{signaling} says {}", entry.status);
        }
        oldest = oldest.max(entry.heartbeat_age_s);
    }
    if oldest > MAX_HEARTBEAT_AGE_S {
        bail!("the last heartbeat was {oldest} s ago");
    }
    Ok(format!("heartbeat {oldest} s ago"))
}

fn services(registries: &Registries, name: &Name) -> anyhow::Result<String> {
    let known = registries.values().find(|known| known.is_ok());
    let entry = find(known.context("no signaling service answers")?, name)?;
    let ill: Vec<&str> = entry
        .services
        .iter()
        .filter(|service| service.health == "unhealthy")
        .map(|service| service.name.as_str())
        .collect();
    if !ill.is_empty() {
        bail!("unhealthy: {}", ill.join(", "));
    }
    Ok(format!("{} healthy", entry.services.len()))
}

fn find<'a>(
    known: &'a Result<Vec<Registered>, String>,
    name: &Name,
) -> anyhow::Result<&'a Registered> {
    match known {
        Ok(nodes) => nodes
            .iter()
            .find(|node| node.node == name.as_str())
            .context("not registered"),
        Err(error) => bail!("{error}"),
    }
}

/// Memory, processor and descriptors.
fn resources(part: &Program) -> Vec<(&'static str, anyhow::Result<String>)> {
    let folder = format!("/proc/{}", part.pid);
    let uptime = part.started.elapsed().as_secs_f64();
    vec![
        ("memory", memory(Path::new(&folder))),
        ("cpu", cpu(Path::new(&folder), uptime)),
        ("descriptors", descriptors(Path::new(&folder))),
    ]
}

fn memory(folder: &Path) -> anyhow::Result<String> {
    let kib = figure(&fs::read_to_string(folder.join("status"))?, "VmRSS:", 1)?;
    if kib > MAX_RSS_KIB {
        bail!("{} MiB", kib / 1024);
    }
    Ok(format!("{} MiB", kib / 1024))
}

fn cpu(folder: &Path, uptime: f64) -> anyhow::Result<String> {
    let stat = fs::read_to_string(folder.join("stat"))?;
    // Fields 14 and 15 (proc(5)); the second one may contain spaces, and ends with the last bracket.
    let (_, rest) = stat.rsplit_once(')').context("another format")?;
    let ticks: f64 = rest
        .split_whitespace()
        .skip(11)
        .take(2)
        .filter_map(|field| field.parse::<f64>().ok())
        .sum();
    let per_second = sysconf(SysconfVar::CLK_TCK)?.context("no clock ticks")?;
    let percent = 100.0 * ticks / f64::from(i32::try_from(per_second)?) / uptime.max(1.0);
    let text = format!("{percent:.1} %");
    if percent > MAX_CPU_PERCENT {
        bail!(text);
    }
    Ok(text)
}

fn descriptors(folder: &Path) -> anyhow::Result<String> {
    let open = u64::try_from(fs::read_dir(folder.join("fd"))?.count())?;
    let limit = figure(
        &fs::read_to_string(folder.join("limits"))?,
        "Max open files",
        3,
    )?;
    let text = format!("{open} of {limit}");
    if open * 100 > limit * MAX_FD_PERCENT {
        bail!(text);
    }
    Ok(text)
}

/// The number at a place of the line that begins with `start`.
fn figure(text: &str, start: &str, place: usize) -> anyhow::Result<u64> {
    let line = text.lines().find(|line| line.starts_with(start));
    let field = line.and_then(|line| line.split_whitespace().nth(place));
    Ok(field.context("another format")?.parse()?)
}

fn pair(keeper: &Keeper, registries: &Registries, from: &Name, to: &Name) -> PairHealth {
    let empty = PairHealth {
        from: from.clone(),
        to: to.clone(),
        path: None,
        open_ms: None,
        rtt_ms: None,
        status: None,
        request_ms: None,
        error: None,
    };
    match ping(keeper, registries, from, to) {
        Ok(summary) => PairHealth {
            path: Some(summary.path),
            open_ms: Some(summary.open_ms),
            rtt_ms: summary.rtt_ms.map(|rtt| rtt.avg),
            status: summary.request.as_ref().map(|request| request.status),
            request_ms: summary.request.as_ref().map(|request| request.ms),
            ..empty
        },
        Err(error) => PairHealth {
            error: Some(format!("{error:#}")),
            ..empty
        },
    }
}

fn ping(
    keeper: &Keeper,
    registries: &Registries,
    from: &Name,
    to: &Name,
) -> anyhow::Result<Pinged> {
    let signaling = registries
        .iter()
        .find(|(_, known)| known.is_ok())
        .context("no signaling service answers")?
        .0;
    let opening = Opening {
        from,
        to,
        signaling,
    };
    client::ping(keeper, opening)
}
