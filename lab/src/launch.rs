//! From a command to a keeper with namespaces of its own. Two short-lived or idle processes between:
//! - `launch` leaves the namespaces of whoever called and becomes root in a user namespace if it is
//!   not root already;
//! - `init` is the first process of the new PID namespace: the kernel ends all others with it.

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitCode, Stdio};

use anyhow::{Context as _, bail};
use nix::errno::Errno;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::wait::{WaitStatus, wait};
use nix::unistd::{Gid, Pid, Uid};

use crate::keeper::{KEEP, News};
use crate::state::{LabDir, MARK, Mode};

/// Hidden words of the command line.
pub(crate) const LAUNCH: &str = "__launch";
pub(crate) const INIT: &str = "__init";
pub(crate) const KEEPER: &str = "__keeper";

/// A lab that somebody waits for: it ends with this value, unless it is kept.
#[derive(Debug)]
pub(crate) struct Launched {
    child: Child,
    stdin: Option<ChildStdin>,
}

impl Launched {
    /// Starts a lab whose plan is written; `tell` gets what is done on the way. Returns once it is
    /// ready.
    pub(crate) fn start(
        dir: &LabDir,
        mode: Mode,
        tell: impl FnMut(&str),
    ) -> anyhow::Result<(Self, u64)> {
        let word = if mode == Mode::Loopback {
            KEEPER
        } else {
            LAUNCH
        };
        let log = fs::File::create(dir.file("keeper.log"))?;
        let mut child = itself(word, dir)?
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .context("cannot start the keeper of the lab")?;
        let stdin = child.stdin.take();
        let stdout = child.stdout.take().context("a pipe")?;
        let launched = Self { child, stdin };
        match until_ready(dir, stdout, tell) {
            Ok(took_ms) => Ok((launched, took_ms)),
            Err(error) => {
                // Nothing of it is left when the reason is told.
                launched.end()?;
                Err(error)
            }
        }
    }

    /// From now on it lives without us.
    pub(crate) fn keep(mut self) -> anyhow::Result<()> {
        if let Some(mut stdin) = self.stdin.take() {
            writeln!(stdin, "{KEEP}")?;
        }
        Ok(())
    }

    /// Ends it, and waits for that.
    pub(crate) fn end(mut self) -> anyhow::Result<()> {
        drop(self.stdin.take());
        self.child.wait()?;
        Ok(())
    }
}

/// Passes on what a keeper tells until its lab is ready; returns how long that took, milliseconds.
fn until_ready(
    dir: &LabDir,
    stdout: ChildStdout,
    mut tell: impl FnMut(&str),
) -> anyhow::Result<u64> {
    for line in BufReader::new(stdout).lines() {
        match serde_json::from_str(&line?)? {
            News::Progress(text) => tell(&text),
            News::Ready { took_ms } => return Ok(took_ms),
            News::Failed(error) => bail!(error),
        }
    }
    let log = fs::read_to_string(dir.file("keeper.log")).unwrap_or_default();
    bail!("the lab ended before it was ready\n{}", log.trim())
}

/// Becomes the keeper's ancestor; see above.
pub(crate) fn launch(dir: &LabDir) -> anyhow::Result<ExitCode> {
    let mode = dir.plan()?.mode;
    let (uid, gid) = (Uid::current(), Gid::current());
    let mut flags = CloneFlags::CLONE_NEWNS
        | CloneFlags::CLONE_NEWNET
        | CloneFlags::CLONE_NEWPID
        | CloneFlags::CLONE_NEWIPC;
    if mode == Mode::User {
        flags |= CloneFlags::CLONE_NEWUSER;
    }
    unshare(flags).context("the kernel gives no namespaces")?;
    if mode == Mode::User {
        become_root(uid, gid).context("cannot become root in a user namespace")?;
    }
    let mut init = itself(INIT, dir)?.spawn().context("cannot start init")?;
    let status = init.wait()?;
    Ok(ExitCode::from(
        u8::try_from(status.code().unwrap_or(1)).unwrap_or(1),
    ))
}

/// Maps the caller to root (user_namespaces(7)); groups can only be mapped once nobody can drop them.
pub(crate) fn become_root(uid: Uid, gid: Gid) -> anyhow::Result<()> {
    fs::write("/proc/self/setgroups", "deny")?;
    fs::write("/proc/self/uid_map", format!("0 {uid} 1"))?;
    fs::write("/proc/self/gid_map", format!("0 {gid} 1"))?;
    Ok(())
}

/// The first process: mounts what must differ inside, starts the keeper, and buries the dead.
pub(crate) fn init(dir: &LabDir) -> anyhow::Result<ExitCode> {
    for file in ["hosts", "resolv.conf"] {
        fs::write(dir.file(file), "")?;
    }
    let nothing: Option<&str> = None;
    mount(
        nothing,
        "/",
        nothing,
        MsFlags::MS_REC | MsFlags::MS_PRIVATE,
        nothing,
    )
    .context("cannot make mounts private")?;
    mount(
        Some("proc"),
        "/proc",
        Some("proc"),
        MsFlags::empty(),
        nothing,
    )
    .context("cannot mount /proc")?;
    for (file, over) in [("hosts", "/etc/hosts"), ("resolv.conf", "/etc/resolv.conf")] {
        // Names are resolved by these two; a machine without them has nothing to hide.
        let Ok(over) = Path::new(over).canonicalize() else {
            continue;
        };
        mount(
            Some(&dir.file(file)),
            &over,
            nothing,
            MsFlags::MS_BIND,
            nothing,
        )
        .with_context(|| format!("cannot bind {}", over.display()))?;
    }
    let keeper = itself(KEEPER, dir)?
        .spawn()
        .context("cannot start the keeper")?;
    let keeper = Pid::from_raw(i32::try_from(keeper.id())?);
    loop {
        match wait() {
            Ok(WaitStatus::Exited(pid, code)) if pid == keeper => {
                return Ok(ExitCode::from(u8::try_from(code).unwrap_or(1)));
            }
            Ok(WaitStatus::Signaled(pid, ..)) if pid == keeper => return Ok(ExitCode::FAILURE),
            Ok(_) | Err(Errno::EINTR) => {}
            Err(error) => return Err(error).context("cannot wait for the keeper"),
        }
    }
}

/// This executable again, with the mark of its lab, out of reach of a terminal's Ctrl-C: who started
/// the lab decides what that means.
fn itself(word: &str, dir: &LabDir) -> anyhow::Result<Command> {
    use std::os::unix::process::CommandExt as _;
    let mut command = Command::new(std::env::current_exe()?);
    command
        .arg(word)
        .arg(dir.path())
        .env(MARK, dir.path())
        .process_group(0);
    Ok(command)
}
