//! The process that is a lab: it holds the namespaces, moves the packets of emulated links, watches
//! what runs on the hosts, and answers commands.
//!
//! ```text
//! portway-lab start ── spawns ──► launch ── unshare ──► init (PID 1) ──► keeper ──► portway …
//!        └─ standard input: "keep" detaches; its end before that ends the lab
//! ```
//! With it, everything ends: the kernel ends all processes of a PID namespace with its first one, and
//! a network namespace with its last process.

mod bench;
mod client;
mod doings;
mod health;
mod requests;
mod transfer;

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead as _, Write as _};
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use nix::sys::signal::Signal;
use serde::{Deserialize, Serialize};

use crate::cluster::{Cluster, HostAddresses};
use crate::identity::{self, Identity};
use crate::network::namespace::Namespace;
use crate::network::{Emulation, Network, netem};
use crate::process::{Program, Recipe};
use crate::spec::{Name, Role};
use crate::state::{LabDir, Mode, Plan};

pub(crate) use bench::PairFigures;
pub(crate) use doings::{HostState, HostStatus, Status};
pub(crate) use health::Health;
pub(crate) use transfer::Transfer;

/// Time that a part has to become ready.
const READY: Duration = Duration::from_secs(20);

/// Time that parts have to end in order.
const ENDING: Duration = Duration::from_secs(10);

/// What the keeper tells whoever starts it, one line each.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum News {
    /// Something has been done.
    Progress(String),
    /// Everything runs.
    Ready {
        /// Time since the start, milliseconds.
        took_ms: u64,
    },
    /// It does not, and everything that did has been ended.
    Failed(String),
}

/// The line that detaches a lab from whoever started it.
pub(crate) const KEEP: &str = "keep";

/// A lab that is up.
pub(crate) struct Keeper {
    dir: LabDir,
    plan: Plan,
    /// None on plain loopback.
    network: Option<Mutex<Network>>,
    cluster: Cluster,
    running: Mutex<BTreeMap<Name, Running>>,
    /// Which binary nodes run.
    portway: Mutex<(PathBuf, Identity)>,
    stop: Arc<Stop>,
}

/// What runs on a host.
#[derive(Debug, Clone, Default)]
struct Running {
    /// The part of Portway.
    part: Option<Arc<Program>>,
    /// Others.
    with: Vec<Arc<Program>>,
    /// Whether it has been told to stand still.
    is_frozen: bool,
}

/// Whether the lab shall end.
#[derive(Debug, Default)]
struct Stop {
    wanted: Mutex<bool>,
    changed: Condvar,
}

impl Stop {
    fn want(&self) {
        *self.wanted.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.changed.notify_all();
    }

    fn wait(&self) {
        let wanted = self.wanted.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.changed.wait_while(wanted, |wanted| !*wanted);
        drop(waited.unwrap_or_else(PoisonError::into_inner));
    }
}

/// Runs a lab to its end.
pub(crate) fn run(dir: &LabDir) -> anyhow::Result<()> {
    let started = Instant::now();
    let _lock = dir.lock()?;
    let stop = Arc::new(Stop::default());
    let listening = stop.clone();
    std::thread::Builder::new()
        .name("starter".to_owned())
        .spawn(move || hear_starter(&listening))?;
    let keeper = match Keeper::start(dir, stop) {
        Ok(keeper) => Arc::new(keeper),
        Err(error) => {
            tell(&News::Failed(format!("{error:#}")));
            return Err(error);
        }
    };
    requests::serve(&keeper)?;
    let took_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
    tell(&News::Ready { took_ms });
    keeper.stop.wait();
    keeper.end();
    Ok(())
}

/// Until told to go on alone, the lab lives as long as whoever started it.
fn hear_starter(stop: &Stop) {
    for line in std::io::stdin().lock().lines() {
        if line.is_ok_and(|line| line == KEEP) {
            return;
        }
    }
    stop.want();
    // What is being started has nobody to wait for it: end at once, and the kernel cleans up.
    std::thread::sleep(ENDING);
    std::process::exit(1);
}

fn tell(news: &News) {
    let line = serde_json::to_string(news).expect("our own types serialise");
    let mut out = std::io::stdout().lock();
    // Whoever started the lab may be gone; that is noticed elsewhere.
    drop(writeln!(out, "{line}").and_then(|()| out.flush()));
}

fn progress(text: impl Into<String>) {
    tell(&News::Progress(text.into()));
}

impl Keeper {
    fn start(dir: &LabDir, stop: Arc<Stop>) -> anyhow::Result<Self> {
        let plan = dir.plan()?;
        let identity = Identity::of(&plan.portway)?;
        let portway = identity.keep(&plan.portway, dir)?;
        let network = match plan.mode {
            Mode::Root | Mode::User => Some(build_network(&plan)?),
            Mode::Loopback => None,
        };
        let addresses = network.as_ref().map(addresses).transpose()?;
        let cluster = Cluster::make(dir, portway.clone(), &plan.spec, addresses.as_ref())
            .context("cannot prepare the cluster")?;
        if let Some(addresses) = &addresses {
            // Bound over /etc/hosts: it must stay the same file.
            fs::write(dir.file("hosts"), cluster.hosts_file(addresses))?;
        }
        progress("keys, certificates and configurations are made");
        let keeper = Self {
            dir: dir.clone(),
            network: network.map(Mutex::new),
            cluster,
            running: Mutex::default(),
            portway: Mutex::new((portway, identity)),
            stop,
            plan,
        };
        keeper.start_all()?;
        Ok(keeper)
    }

    /// Signaling and relays first, then what needs them; those of one kind at once.
    fn start_all(&self) -> anyhow::Result<()> {
        let spec = &self.plan.spec;
        for (name, host) in &spec.hosts {
            self.start_others(name, &host.with)?;
        }
        for roles in [&[Role::Signaling, Role::Relay][..], &[Role::Gateway]] {
            let names: Vec<(&Name, Role)> = roles
                .iter()
                .flat_map(|role| spec.running(*role).map(|name| (name, *role)))
                .collect();
            let outcomes: Vec<anyhow::Result<()>> = std::thread::scope(|scope| {
                let starting: Vec<_> = names
                    .iter()
                    .map(|(name, role)| scope.spawn(|| self.start_part(name, *role)))
                    .collect();
                let join = |thread: std::thread::ScopedJoinHandle<'_, _>| thread.join();
                let joined = starting.into_iter().map(join);
                joined
                    .map(|outcome| outcome.unwrap_or_else(|_| bail!("a thread failed")))
                    .collect()
            });
            outcomes.into_iter().collect::<anyhow::Result<()>>()?;
        }
        Ok(())
    }

    /// Starts a host's part of Portway; again if it ends or does not become ready.
    fn start_part(&self, name: &Name, role: Role) -> anyhow::Result<()> {
        let mut reasons = String::new();
        for attempt in 1..=self.plan.attempts {
            match self.try_start(name, role) {
                Ok(took) => {
                    progress(format!(
                        "{name} ({role}) is ready after {} ms",
                        took.as_millis()
                    ));
                    return Ok(());
                }
                Err(error) => {
                    progress(format!("{name} ({role}), attempt {attempt}: {error:#}"));
                    reasons.push_str(&format!("\n  attempt {attempt}: {error:#}"));
                }
            }
        }
        bail!("{name} ({role}) does not start:{reasons}")
    }

    fn try_start(&self, name: &Name, role: Role) -> anyhow::Result<Duration> {
        let (portway, expected) = self.portway();
        let mut recipe = self.cluster.recipe(name, role, &portway);
        recipe.env.extend(doings::clock_env(&self.dir.node(name)));
        let program = self.spawn(name, &recipe)?;
        self.running().entry(name.clone()).or_default().part = Some(program.clone());
        let ready = program.wait_ready(READY).inspect_err(|_| {
            // It is no use to anybody; whether it has ended by itself does not matter.
            drop(program.signal(Signal::SIGKILL));
        });
        ready?;
        let took = program.started.elapsed();
        expected.check(&identity::ask(
            &portway,
            &self.dir.node(name).join("state"),
        )?)?;
        if role == Role::Gateway {
            self.cluster.admit(name)?;
        }
        Ok(took)
    }

    fn start_others(&self, name: &Name, commands: &[String]) -> anyhow::Result<()> {
        for command in commands {
            let folder = self.dir.node(name);
            fs::create_dir_all(&folder)?;
            let recipe = Recipe {
                program: "/bin/sh".into(),
                args: vec!["-c".to_owned(), format!("exec {command}")],
                env: vec![self.dir.mark()],
                folder,
                announces: false,
            };
            let program = self.spawn(name, &recipe)?;
            self.running()
                .entry(name.clone())
                .or_default()
                .with
                .push(program);
        }
        Ok(())
    }

    fn spawn(&self, name: &Name, recipe: &Recipe) -> anyhow::Result<Arc<Program>> {
        match &self.network {
            Some(network) => Program::start(recipe, Some(lock(network).namespace(name)?)),
            None => Program::start(recipe, None),
        }
    }

    /// The namespace of a host, to be used without holding up others.
    fn place(&self, name: &Name) -> anyhow::Result<Option<Namespace>> {
        let network = self.network.as_ref();
        let place = network.map(|network| lock(network).namespace(name)?.again());
        Ok(place.transpose()?)
    }

    fn portway(&self) -> (PathBuf, Identity) {
        lock(&self.portway).clone()
    }

    fn running(&self) -> MutexGuard<'_, BTreeMap<Name, Running>> {
        lock(&self.running)
    }

    /// Ends everything in order: gateways while signaling is still there.
    fn end(&self) {
        let running = std::mem::take(&mut *self.running());
        let role = |name: &Name| self.plan.spec.hosts.get(name).and_then(|host| host.run);
        for gateways in [true, false] {
            let parts = running
                .iter()
                .filter(|(name, _)| (role(name) == Some(Role::Gateway)) == gateways);
            let programs: Vec<&Arc<Program>> = parts
                .flat_map(|(_, running)| running.part.iter().chain(&running.with))
                .collect();
            for program in &programs {
                for signal in [Signal::SIGCONT, Signal::SIGTERM] {
                    // One that has ended by itself needs no signal.
                    drop(program.signal(signal));
                }
            }
            let until = Instant::now() + ENDING;
            for program in programs {
                if !program.wait_ended(until.saturating_duration_since(Instant::now())) {
                    drop(program.signal(Signal::SIGKILL));
                }
            }
        }
    }
}

fn build_network(plan: &Plan) -> anyhow::Result<Network> {
    let has_links = plan.spec.lans.values().any(|lan| !lan.link.is_none())
        || plan.spec.hosts.values().any(|host| !host.link.is_none());
    let emulation = if netem::is_available()? {
        Emulation::Netem
    } else {
        Emulation::User
    };
    let network = Network::build(plan.spec.clone(), emulation)?;
    let count = plan.spec.lans.len() + plan.spec.hosts.len();
    progress(match (has_links, emulation) {
        (true, Emulation::User) => {
            format!("{count} namespaces are made; links are emulated by portway-lab itself")
        }
        (true, Emulation::Netem) => {
            format!("{count} namespaces are made; links are emulated by the kernel")
        }
        (false, _) => format!("{count} namespaces are made"),
    });
    Ok(network)
}

fn addresses(network: &Network) -> anyhow::Result<HostAddresses> {
    let hosts = network.spec().hosts.keys();
    hosts
        .map(|name| Ok((name.clone(), network.addresses(name)?)))
        .collect()
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
