//! Where a lab keeps its files, and who of the living belongs to it.
//!
//! ```text
//! ROOT/NAME/              ROOT: $PORTWAY_LAB_ROOT, $XDG_RUNTIME_DIR/portway-lab or /tmp/portway-lab-UID
//!   lock                  held by the keeper as long as the lab lives
//!   lab.json              what was asked for
//!   control.sock          the keeper listens here
//!   keeper.log
//!   portway-HASH          the binary that the nodes run
//!   hosts, resolv.conf    names, as everybody in the lab sees them
//!   tls/, cluster/        authority and certificates; the cluster key and a link
//!   nodes/NAME/           portway.toml, state/, log, ready.jsonl
//! ```
//! Every process of a lab carries [`MARK`] in its environment, so that it is found even if whoever
//! started it is gone.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use nix::fcntl::{Flock, FlockArg};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, Uid, getpid};
use serde::{Deserialize, Serialize};

use crate::spec::{Name, Spec};

/// Set in the environment of every process of a lab: its directory.
pub(crate) const MARK: &str = "PORTWAY_LAB_DIR";

/// How long the dying may take before a lab counts as stuck.
const PATIENCE: Duration = Duration::from_secs(10);

/// Between two looks at processes that have been told to end.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// Longest path of a Unix socket (unix(7)).
const MAX_SOCKET_PATH: usize = 107;

/// What a node's own control socket adds to the lab's directory.
const NODE_SOCKET: usize = "/nodes//state/control.sock".len();

/// The directory of one lab.
#[derive(Debug, Clone)]
pub(crate) struct LabDir(PathBuf);

/// What was asked for, in `lab.json`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Plan {
    pub(crate) v: u32,
    pub(crate) name: Name,
    /// Name or file of the network.
    pub(crate) net: String,
    pub(crate) spec: Spec,
    pub(crate) mode: Mode,
    /// The `portway` that nodes run.
    pub(crate) portway: PathBuf,
    /// Keep going if a part does not become ready.
    pub(crate) attempts: u32,
}

/// Version of `lab.json` and of everything that is printed with `--json`.
pub(crate) const VERSION: u32 = 1;

/// How hosts are kept apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Mode {
    /// Namespaces, as root.
    Root,
    /// Namespaces within a user namespace: no privileges needed.
    User,
    /// Not at all: everything on this machine's loopback.
    Loopback,
}

impl Mode {
    pub(crate) const fn describe(self) -> &'static str {
        match self {
            Self::Root => "network namespaces, as root",
            Self::User => "network namespaces in a user namespace",
            Self::Loopback => {
                "plain loopback: no NATs, no partitions, no roaming, no bad links can be simulated"
            }
        }
    }
}

impl LabDir {
    /// Below which all labs of this user are.
    pub(crate) fn root() -> PathBuf {
        let of = |name| std::env::var_os(name).filter(|value| !value.is_empty());
        if let Some(root) = of("PORTWAY_LAB_ROOT") {
            return root.into();
        }
        match of("XDG_RUNTIME_DIR") {
            Some(runtime) => Path::new(&runtime).join("portway-lab"),
            None => format!("/tmp/portway-lab-{}", Uid::current()).into(),
        }
    }

    /// That of a lab.
    pub(crate) fn of(name: &Name) -> Self {
        Self(Self::root().join(name.as_str()))
    }

    pub(crate) const fn at(path: PathBuf) -> Self {
        Self(path)
    }

    /// All that are there.
    pub(crate) fn all() -> Vec<(Name, Self)> {
        let entries = fs::read_dir(Self::root()).into_iter().flatten().flatten();
        let mut all: Vec<_> = entries
            .filter_map(|entry| {
                let name: Name = entry.file_name().to_str()?.parse().ok()?;
                Some((name, Self(entry.path())))
            })
            .collect();
        all.sort_by(|(a, _), (b, _)| a.cmp(b));
        all
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    /// The mark of its processes, as a variable.
    pub(crate) fn mark(&self) -> (String, String) {
        (MARK.to_owned(), self.0.display().to_string())
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    pub(crate) fn node(&self, name: &Name) -> PathBuf {
        self.0.join("nodes").join(name.as_str())
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.file("control.sock")
    }

    /// Makes it, for this user alone.
    pub(crate) fn create(&self, longest: usize) -> anyhow::Result<()> {
        let length = self.0.as_os_str().len() + NODE_SOCKET + longest;
        if length > MAX_SOCKET_PATH {
            bail!(
                "{} is too long a path for the sockets of nodes ({length} bytes, at most \
                 {MAX_SOCKET_PATH}): set PORTWAY_LAB_ROOT to a shorter one",
                self.0.display()
            );
        }
        for folder in [Self::root(), self.0.clone()] {
            let made = DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(&folder);
            made.with_context(|| format!("cannot make {}", folder.display()))?;
            let owner = fs::metadata(&folder)?.uid();
            if owner != Uid::current().as_raw() {
                bail!("{} belongs to another user", folder.display());
            }
        }
        Ok(())
    }

    /// Takes the lock: the lab lives as long as it is held.
    pub(crate) fn lock(&self) -> anyhow::Result<Flock<File>> {
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(self.file("lock"))
            .with_context(|| format!("cannot open the lock of {}", self.0.display()))?;
        Flock::lock(file, FlockArg::LockExclusiveNonblock)
            .map_err(|_| anyhow::anyhow!("this lab runs already"))
    }

    /// Whether somebody holds the lock.
    pub(crate) fn is_alive(&self) -> bool {
        self.file("lock").exists() && self.lock().is_err()
    }

    pub(crate) fn plan(&self) -> anyhow::Result<Plan> {
        let file = self.file("lab.json");
        let json = fs::read(&file).with_context(|| format!("cannot read {}", file.display()))?;
        serde_json::from_slice(&json).with_context(|| format!("{} is damaged", file.display()))
    }

    pub(crate) fn write_plan(&self, plan: &Plan) -> anyhow::Result<()> {
        Ok(fs::write(
            self.file("lab.json"),
            serde_json::to_vec_pretty(plan)?,
        )?)
    }

    /// Ends whatever is left of it, and forgets it. Returns how many processes had to be killed.
    pub(crate) fn remove(&self) -> anyhow::Result<usize> {
        let killed = self.kill_all()?;
        match fs::remove_dir_all(&self.0) {
            Ok(()) => Ok(killed),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(killed),
            Err(error) => Err(error).with_context(|| format!("cannot remove {}", self.0.display())),
        }
    }

    /// Kills every process that carries the mark, and waits until all are gone.
    pub(crate) fn kill_all(&self) -> anyhow::Result<usize> {
        let end = Instant::now() + PATIENCE;
        let mut killed = 0;
        loop {
            let marked = self.marked();
            if marked.is_empty() {
                return Ok(killed);
            }
            if Instant::now() > end {
                bail!(
                    "processes {marked:?} of this lab do not end; look at them, then run `portway-lab clean` again"
                );
            }
            killed = killed.max(marked.len());
            for pid in marked {
                // One that has ended meanwhile is what we want.
                kill(pid, Signal::SIGKILL).unwrap_or_default();
            }
            std::thread::sleep(LOOK_AGAIN);
        }
    }

    /// Processes that carry the mark; zombies are gone already.
    pub(crate) fn marked(&self) -> Vec<Pid> {
        let mark = format!("{MARK}={}", self.0.display());
        let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
        let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        pids.map(Pid::from_raw)
            .filter(|pid| *pid != getpid())
            .filter(|pid| {
                let environ = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
                environ
                    .split(|byte| *byte == 0)
                    .any(|variable| variable == mark.as_bytes())
            })
            .collect()
    }
}

/// Writes a file that only this user reads.
pub(crate) fn write_private(path: &Path, content: &[u8]) -> io::Result<()> {
    use std::io::Write as _;
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)?;
    file.write_all(content)
}
