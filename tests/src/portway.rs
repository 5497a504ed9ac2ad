//! The real binary: `portway up` with a state directory and ports of its own.

use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};

use anyhow::{Context as _, bail};
use serde_json::Value;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};

use crate::disk::Disk;
use crate::process::{Events, signal};
use crate::usage::Usage;
use crate::{LOOK_AGAIN, PATIENCE};

/// A running instance. Killed when dropped.
pub struct Portway {
    process: Child,
    _stdout: Lines<BufReader<ChildStdout>>,
    state: PathBuf,
    /// The line that it printed when it was ready.
    pub ready: Value,
}

/// A running `portway events --follow`. Killed when dropped.
pub struct Follower {
    process: Child,
    events: Events,
}

impl Follower {
    /// Waits for an event of this kind.
    ///
    /// # Errors
    /// If none comes.
    pub async fn next(&mut self, kind: &str) -> anyhow::Result<Value> {
        self.events.next(kind).await
    }

    /// Ctrl-C, then waits for its end.
    ///
    /// # Errors
    /// If it does not end.
    pub async fn interrupt(mut self) -> anyhow::Result<ExitStatus> {
        signal(&self.process, "INT").await?;
        Ok(tokio::time::timeout(PATIENCE, self.process.wait()).await??)
    }
}

/// A build of the executable.
#[derive(Debug, Clone, Default)]
pub struct Program {
    /// Checks that are switched off, if it is the build in which they can be.
    checks_off: Option<String>,
    /// What starts it in other surroundings.
    launcher: Vec<String>,
}

impl Program {
    /// The build in which checks can be switched off, without these.
    #[must_use]
    pub fn without(checks: &[&str]) -> Self {
        Self {
            checks_off: Some(checks.join(",")),
            ..Self::default()
        }
    }

    /// The one that is tested, with a small disk.
    ///
    /// # Errors
    /// If that is gone.
    pub fn with(disk: &Disk) -> anyhow::Result<Self> {
        Ok(Self {
            launcher: disk.enter()?,
            ..Self::default()
        })
    }

    /// A process of it.
    #[must_use]
    pub fn command(&self) -> Command {
        if let [launcher, args @ ..] = &self.launcher[..] {
            let mut command = Command::new(launcher);
            command.args(args).arg(binary());
            return command;
        }
        let Some(checks) = &self.checks_off else {
            return Command::new(binary());
        };
        let mut command = Command::new(binary().with_file_name("portway-weakened"));
        command.env("PORTWAY_CHECKS_OFF", checks);
        command
    }
}

/// A state directory for the instances of one test.
pub struct State(TempDir);

impl State {
    /// A fresh one.
    ///
    /// # Errors
    /// The system's.
    pub fn new() -> anyhow::Result<Self> {
        Ok(Self(tempfile::tempdir()?))
    }

    /// Its path.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        self.0.path().join("state")
    }

    /// A file beside it with this content, for configuration.
    ///
    /// # Errors
    /// The system's.
    pub fn file(&self, name: &str, content: &str) -> anyhow::Result<String> {
        let path = self.0.path().join(name);
        std::fs::write(&path, content)?;
        Ok(path.display().to_string())
    }

    /// Runs a command in it, with nothing running, and returns its JSON.
    ///
    /// # Errors
    /// If it fails; carries its message.
    pub async fn ask(&self, args: &[&str]) -> anyhow::Result<Value> {
        ask(&self.path(), args, "").await
    }
}

async fn ask(state: &Path, args: &[&str], input: &str) -> anyhow::Result<Value> {
    let mut process = Command::new(binary())
        .args(args)
        .args(["--json", "--state"])
        .arg(state)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    let mut stdin = process.stdin.take().context("stdin is piped")?;
    stdin.write_all(input.as_bytes()).await?;
    drop(stdin);
    let output = process.wait_with_output().await?;
    if !output.status.success() {
        bail!("{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(serde_json::from_slice(&output.stdout)?)
}

/// Path of the binary under test.
#[must_use]
pub fn binary() -> PathBuf {
    std::env::var_os("PORTWAY_BIN").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/release/portway"),
        PathBuf::from,
    )
}

impl Portway {
    /// Runs `portway up` on a free port (or the one given) with more arguments, until it is ready.
    ///
    /// # Errors
    /// If it does not become ready.
    pub async fn up(state: &State, listen: &str, args: &[&str]) -> anyhow::Result<Self> {
        let args = [&["up", "--listen", listen], args].concat();
        Self::start(state, &args).await
    }

    /// Runs a role, until it is ready.
    ///
    /// # Errors
    /// If it does not become ready.
    pub async fn start(state: &State, args: &[&str]) -> anyhow::Result<Self> {
        Self::start_as(&Program::default(), state, args).await
    }

    /// The same of another build.
    ///
    /// # Errors
    /// If it does not become ready.
    pub async fn start_as(program: &Program, state: &State, args: &[&str]) -> anyhow::Result<Self> {
        Self::launch(program, state, args, Stdio::inherit()).await
    }

    /// As [`Portway::start`]; its log goes there.
    ///
    /// # Errors
    /// If it does not become ready.
    pub async fn start_logging(
        state: &State,
        args: &[&str],
        log: impl Into<Stdio>,
    ) -> anyhow::Result<Self> {
        Self::launch(&Program::default(), state, args, log.into()).await
    }

    async fn launch(
        program: &Program,
        state: &State,
        args: &[&str],
        log: Stdio,
    ) -> anyhow::Result<Self> {
        let mut process = program
            .command()
            .args(args)
            .args(["--json", "--state"])
            .arg(state.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .context("cannot start portway: run `cargo xtask build`")?;
        let stdout = process.stdout.take().context("stdout is piped")?;
        let mut lines = BufReader::new(stdout).lines();
        let line = tokio::time::timeout(PATIENCE, lines.next_line()).await??;
        let ready: Value =
            serde_json::from_str(&line.context("portway ended before it was ready")?)?;
        if ready["event"] != "ready" {
            bail!("unexpected first line: {ready}");
        }
        Ok(Self {
            process,
            _stdout: lines,
            state: state.path(),
            ready,
        })
    }

    /// The link of a service.
    #[must_use]
    pub fn link(&self, service: &str) -> String {
        self.service(service)["link"]
            .as_str()
            .unwrap_or_default()
            .to_owned()
    }

    /// The address of a service, without the link's secret.
    #[must_use]
    pub fn url(&self, service: &str) -> String {
        self.service(service)["url"]
            .as_str()
            .unwrap_or_default()
            .to_owned()
    }

    /// What it uses.
    ///
    /// # Errors
    /// If it has ended.
    pub fn usage(&self) -> anyhow::Result<Usage> {
        Usage::of(&[self.pid()?])
    }

    /// Number of the process.
    ///
    /// # Errors
    /// If it has ended.
    pub fn pid(&self) -> anyhow::Result<u32> {
        self.process.id().context("it has ended")
    }

    /// The most memory that the process has held, in bytes.
    ///
    /// # Errors
    /// If it has ended.
    pub fn peak_memory(&self) -> anyhow::Result<usize> {
        const NAME: &str = "VmHWM:";
        let status = self.proc("status")?;
        let kibibytes: usize = status
            .lines()
            .find_map(|line| line.strip_prefix(NAME))
            .and_then(|rest| rest.trim().strip_suffix(" kB")?.parse().ok())
            .context(NAME)?;
        Ok(kibibytes * 1024)
    }

    /// What every process of the machine may read of its command line.
    ///
    /// # Errors
    /// If it has ended.
    pub fn command_line(&self) -> anyhow::Result<String> {
        self.proc("cmdline")
    }

    fn proc(&self, file: &str) -> anyhow::Result<String> {
        Ok(std::fs::read_to_string(format!(
            "/proc/{}/{file}",
            self.pid()?
        ))?)
    }

    /// `ADDR:PORT` that a restart must listen on so that addresses stay the same.
    ///
    /// # Errors
    /// If the portal's address has no port.
    pub fn listen(&self) -> anyhow::Result<String> {
        let portal = self.ready["portal"].as_str().unwrap_or_default();
        let port = portal
            .trim_end_matches('/')
            .rsplit(':')
            .next()
            .context("a port")?;
        Ok(format!("127.0.0.1:{port}"))
    }

    /// Runs a client command against this instance and returns its JSON.
    ///
    /// # Errors
    /// If it fails; carries its message.
    pub async fn ask(&self, args: &[&str]) -> anyhow::Result<Value> {
        ask(&self.state, args, "").await
    }

    /// `portway events --follow` of this instance.
    ///
    /// # Errors
    /// If it cannot be started.
    pub fn follow(&self) -> anyhow::Result<Follower> {
        self.follow_with(&[])
    }

    /// The same with more arguments.
    ///
    /// # Errors
    /// If it cannot be started.
    pub fn follow_with(&self, args: &[&str]) -> anyhow::Result<Follower> {
        let mut process = Command::new(binary())
            .args(["events", "--follow", "--json", "--state"])
            .arg(&self.state)
            .args(args)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let events = Events::of(&mut process)?;
        Ok(Follower { process, events })
    }

    /// The same for a command that reads standard input.
    ///
    /// # Errors
    /// If it fails; carries its message.
    pub async fn tell(&self, args: &[&str], input: &str) -> anyhow::Result<Value> {
        ask(&self.state, args, input).await
    }

    /// SIGTERM: asks it to end in order, and waits until it says that it does.
    ///
    /// # Errors
    /// If it has ended.
    pub async fn terminate(&self) -> anyhow::Result<()> {
        signal(&self.process, "TERM").await?;
        while self.ask(&["nodes"]).await?["nodes"][0]["status"] != "draining" {
            tokio::time::sleep(LOOK_AGAIN).await;
        }
        Ok(())
    }

    /// Ctrl-C: asks it to end in order.
    ///
    /// # Errors
    /// If it has ended.
    pub async fn interrupt(&self) -> anyhow::Result<()> {
        signal(&self.process, "INT").await
    }

    /// Stops it as it is, without an end: whoever waits for it hears nothing.
    ///
    /// # Errors
    /// If it has ended.
    pub async fn pause(&self) -> anyhow::Result<()> {
        signal(&self.process, "STOP").await
    }

    /// Lets it go on after [`Portway::pause`].
    ///
    /// # Errors
    /// If it has ended.
    pub async fn unpause(&self) -> anyhow::Result<()> {
        signal(&self.process, "CONT").await
    }

    /// Waits until it has ended by itself.
    ///
    /// # Errors
    /// If it does not.
    pub async fn ended(mut self) -> anyhow::Result<ExitStatus> {
        let ended = tokio::time::timeout(PATIENCE, self.process.wait()).await;
        Ok(ended.context("portway does not end")??)
    }

    /// `kill -9`.
    ///
    /// # Errors
    /// If it has ended by itself.
    pub async fn kill(mut self) -> anyhow::Result<()> {
        self.process.kill().await?;
        Ok(())
    }

    fn service(&self, name: &str) -> Value {
        self.ready["services"]
            .as_array()
            .and_then(|all| all.iter().find(|service| service["name"] == name))
            .cloned()
            .unwrap_or_default()
    }
}
