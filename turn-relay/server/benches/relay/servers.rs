//! What is measured: three servers, each a process of its own, and what they cost.

use std::io::{self, BufRead as _, BufReader};
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use rustix::process::{Pid, setpriority_process};
use rustix::thread::{CpuSet, sched_setaffinity};
use tempfile::TempDir;

use crate::turn_client::{Client, PASSWORD, REALM, USER};

/// Where the server runs, and where this process makes its load.
pub(crate) const SERVER_CORE: usize = 0;
pub(crate) const GENERATOR_CORE: usize = 1;

/// How long coturn may take to answer for the first time.
const START: Duration = Duration::from_secs(10);

/// After the last packet, until a thread's times are up to date: it sleeps by then.
const SETTLE: Duration = Duration::from_millis(5);

/// For who shares a core with the generator.
const LEAST_PRIORITY: i32 = 19;

/// Which server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Our relay.
    Ours,
    /// coturn's turnserver.
    Coturn,
    /// Moves packets and looks at nothing.
    Forwarder,
}

impl Kind {
    pub(crate) const ALL: [Self; 3] = [Self::Ours, Self::Coturn, Self::Forwarder];
}

/// A running server. Ends when dropped.
pub(crate) struct Server {
    pub(crate) kind: Kind,
    pub(crate) address: SocketAddr,
    process: Child,
    /// Files of coturn.
    _folder: Option<TempDir>,
}

impl Server {
    /// On its own core, with one thread for packets.
    pub(crate) fn start(kind: Kind) -> anyhow::Result<Self> {
        // A child stays where its parent was.
        pin(SERVER_CORE)?;
        let started = match kind {
            Kind::Ours => Self::own(kind, &["relay", "1"]),
            Kind::Forwarder => Self::own(kind, &["forwarder"]),
            Kind::Coturn => Self::coturn(),
        };
        pin(GENERATOR_CORE)?;
        started
    }

    /// Our relay and a peer in its process, on one core.
    pub(crate) fn with_local_peer() -> anyhow::Result<Self> {
        pin(SERVER_CORE)?;
        let started = Self::own(Kind::Ours, &["relay-and-peer"]);
        pin(GENERATOR_CORE)?;
        started
    }

    /// Our relay with two workers, each on a core.
    pub(crate) fn two_workers() -> anyhow::Result<Self> {
        let server = Self::own(Kind::Ours, &["relay", "2"])?;
        // A thread has its name soon after it has begun.
        let deadline = Instant::now() + START;
        let mut found = 0;
        while found < 2 && Instant::now() < deadline {
            found = 0;
            for task in std::fs::read_dir(format!("/proc/{}/task", server.process.id()))? {
                let task = task?;
                let core = match std::fs::read_to_string(task.path().join("comm"))?.trim() {
                    "relay-0" => SERVER_CORE,
                    "relay-1" => GENERATOR_CORE,
                    _ => continue,
                };
                let id = Pid::from_raw(task.file_name().to_string_lossy().parse()?);
                sched_setaffinity(id, &only(core))?;
                if core == GENERATOR_CORE {
                    // Else each packet that the generator sends there would interrupt it.
                    setpriority_process(id, LEAST_PRIORITY)?;
                }
                found += 1;
            }
        }
        ensure!(found == 2, "the relay has not started two workers");
        Ok(server)
    }

    /// This executable, which says where it listens and ends with its standard input.
    fn own(kind: Kind, args: &[&str]) -> anyhow::Result<Self> {
        let mut process = Command::new(std::env::current_exe()?)
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let output = process.stdout.take().context("a child without output")?;
        let mut line = String::new();
        BufReader::new(output).read_line(&mut line)?;
        let address = line.trim().parse().context("a server did not start")?;
        Ok(Self {
            kind,
            address,
            process,
            _folder: None,
        })
    }

    fn coturn() -> anyhow::Result<Self> {
        let folder = tempfile::tempdir()?;
        let path = |name: &str| folder.path().join(name).display().to_string();
        // Free a moment ago.
        let address = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?;
        let port = address.port().to_string();
        let user = format!("{USER}:{PASSWORD}");
        let process = Command::new("turnserver")
            .args(["-n", "--listening-ip", "127.0.0.1", "--listening-port"])
            .args([&port, "--relay-ip", "127.0.0.1", "--relay-threads", "1"])
            .args(["--min-port", "20000", "--max-port", "65000"])
            .args(["-u", &user, "-r", REALM, "--lt-cred-mech"])
            .args(["--allow-loopback-peers", "--no-multicast-peers"])
            .args(["--no-cli", "--no-tls", "--no-dtls", "--no-tcp"])
            .args(["--no-stdout-log", "--simple-log", "--log-file", "/dev/null"])
            .args(["--userdb", &path("turndb"), "--pidfile", &path("pid")])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("cannot run turnserver")?;
        let server = Self {
            kind: Kind::Coturn,
            address,
            process,
            _folder: Some(folder),
        };
        let deadline = Instant::now() + START;
        loop {
            let client = Client::new(Ipv4Addr::LOCALHOST, address)?;
            if client.binding().is_ok() {
                return Ok(server);
            }
            if Instant::now() > deadline {
                bail!("coturn does not start");
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// CPU time of all its threads, ns. It must have nothing to do.
    pub(crate) fn cpu(&self) -> anyhow::Result<f64> {
        std::thread::sleep(SETTLE);
        let mut sum = 0.0;
        for task in std::fs::read_dir(format!("/proc/{}/task", self.process.id()))? {
            let text = std::fs::read_to_string(task?.path().join("schedstat"))?;
            let on_cpu = text.split(' ').next().context("no schedstat")?;
            sum += on_cpu.parse::<f64>()?;
        }
        Ok(sum)
    }

    /// Resident memory, bytes.
    pub(crate) fn memory(&self) -> anyhow::Result<f64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.process.id()))?;
        let kibibytes = status
            .lines()
            .find_map(|line| line.strip_prefix("VmRSS:")?.strip_suffix("kB"))
            .context("no VmRSS")?;
        Ok(kibibytes.trim().parse::<f64>()? * 1024.0)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.process.stdin.take());
        if self.kind == Kind::Coturn
            && let Err(error) = self.process.kill()
        {
            eprintln!("coturn was not ended: {error}");
        }
        if let Err(error) = self.process.wait() {
            eprintln!("a server has not ended: {error}");
        }
    }
}

/// Goes before other work of the machine as long as it lives, as far as that is allowed.
pub(crate) struct First;

/// Priority of a whole session against others, where the kernel groups by session.
const SESSION: &str = "/proc/self/autogroup";

impl First {
    pub(crate) fn go() -> Self {
        // Servers inherit it.
        let own = setpriority_process(None, -20).map_err(io::Error::from);
        if let Err(error) = own.and_then(|()| std::fs::write(SESSION, "-20")) {
            eprintln!("other work may disturb the figures: {error}");
        }
        Self
    }
}

impl Drop for First {
    fn drop(&mut self) {
        if let Err(error) = std::fs::write(SESSION, "0") {
            eprintln!("the priority of this session is as it was: {error}");
        }
    }
}

/// Stays on this core.
pub(crate) fn pin(core: usize) -> anyhow::Result<()> {
    sched_setaffinity(None, &only(core)).context("this bench needs two cores")
}

fn only(core: usize) -> CpuSet {
    let mut set = CpuSet::new();
    set.set(core);
    set
}
