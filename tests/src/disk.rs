//! A small disk that some processes have: a file system in memory, in a mount namespace of its own. Needs root.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context as _, ensure};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, ChildStdin, Command};

use crate::PATIENCE;

/// Mounts it, says so, and holds it until its input ends.
const HOLD: &str = "mount -t tmpfs -o size=$1 portway-tests \"$2\" && echo held && exec cat";

/// Bytes written at a time.
const CHUNK: usize = 1024 * 1024;

/// A small disk. It goes with what is on it when this is dropped and nobody uses it any more.
pub struct Disk {
    holder: Child,
    _held: ChildStdin,
    mounted: TempDir,
}

impl Disk {
    /// Makes one of so many bytes.
    ///
    /// # Errors
    /// If the system does not let it.
    pub async fn new(size: usize) -> anyhow::Result<Self> {
        let mounted = tempfile::tempdir()?;
        let mut holder = Command::new("unshare")
            .args(["--mount", "sh", "-c", HOLD, "sh", &size.to_string()])
            .arg(mounted.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let held = holder.stdin.take().context("stdin is piped")?;
        let stdout = holder.stdout.take().context("stdout is piped")?;
        let mut told = BufReader::new(stdout).lines();
        let told = tokio::time::timeout(PATIENCE, told.next_line()).await??;
        ensure!(told.as_deref() == Some("held"), "nothing can be mounted");
        Ok(Self {
            holder,
            _held: held,
            mounted,
        })
    }

    /// Where it is for those who have it.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.mounted.path()
    }

    /// The same, as others can look into it.
    ///
    /// # Errors
    /// If it is gone.
    pub fn from_outside(&self) -> anyhow::Result<PathBuf> {
        let root = PathBuf::from(format!("/proc/{}/root", self.holder()?));
        Ok(root.join(self.path().strip_prefix("/")?))
    }

    /// Takes so many bytes of it.
    ///
    /// # Errors
    /// The system's.
    pub fn fill(&self, size: usize) -> anyhow::Result<()> {
        let mut file = std::fs::File::create(self.filler()?)?;
        for _ in 0..size / CHUNK {
            std::io::Write::write_all(&mut file, &[7; CHUNK])?;
        }
        Ok(())
    }

    /// Gives them back.
    ///
    /// # Errors
    /// The system's.
    pub fn make_room(&self) -> anyhow::Result<()> {
        Ok(std::fs::remove_file(self.filler()?)?)
    }

    /// What starts a process that has it: the program and its arguments follow.
    pub(crate) fn enter(&self) -> anyhow::Result<Vec<String>> {
        let holder = self.holder()?.to_string();
        Ok(["nsenter", "--mount", "--target", &holder, "--"]
            .map(String::from)
            .into())
    }

    fn filler(&self) -> anyhow::Result<PathBuf> {
        Ok(self.from_outside()?.join("filler"))
    }

    fn holder(&self) -> anyhow::Result<u32> {
        self.holder.id().context("the disk is gone")
    }
}
