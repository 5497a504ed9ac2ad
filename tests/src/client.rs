//! The native client: `portway ping` and `portway connect` as real processes.

use std::process::{ExitStatus, Output, Stdio};

use anyhow::Context as _;
use serde_json::Value;
use tempfile::{NamedTempFile, TempDir};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};

use crate::PATIENCE;
use crate::portway::{Program, State};
use crate::process::{Events, signal};

/// A file with a link, and the device that opens it.
pub struct LinkFile {
    link: NamedTempFile,
    device: TempDir,
}

impl LinkFile {
    /// Writes it.
    ///
    /// # Errors
    /// The system's.
    pub fn new(link: &str) -> anyhow::Result<Self> {
        let file = NamedTempFile::new()?;
        std::fs::write(file.path(), link)?;
        Ok(Self {
            link: file,
            device: tempfile::tempdir()?,
        })
    }

    /// The file of the link.
    #[must_use]
    pub fn path(&self) -> String {
        self.link.path().display().to_string()
    }

    /// For ssh's `ProxyCommand`.
    #[must_use]
    pub fn proxy_command(&self) -> String {
        let command = Program::default().command();
        format!(
            "{} connect --stdio --link-file {} --state {}",
            command.as_std().get_program().display(),
            self.link.path().display(),
            self.device.path().display()
        )
    }

    /// Runs `portway connect --stdio` to its end.
    ///
    /// # Errors
    /// If it does not end.
    pub async fn stdio(&self, input: &[u8]) -> anyhow::Result<Output> {
        let mut command = self.command(&Program::default(), "connect", &["--stdio"]);
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut process = command.spawn()?;
        let mut stdin = process.stdin.take().context("stdin is piped")?;
        let said = async {
            // It may end without reading all.
            drop(stdin.write_all(input).await);
            drop(stdin);
            process.wait_with_output().await
        };
        Ok(tokio::time::timeout(PATIENCE, said).await??)
    }

    /// Runs `portway connect` to its end.
    ///
    /// # Errors
    /// If it does not end.
    pub async fn connect(&self, args: &[&str]) -> anyhow::Result<Output> {
        let running = self.command(&Program::default(), "connect", args).output();
        Ok(tokio::time::timeout(PATIENCE, running).await??)
    }

    pub(crate) fn command(&self, program: &Program, name: &str, args: &[&str]) -> Command {
        let mut command = program.command();
        command
            .args([name, "--json", "--link-file"])
            .arg(self.link.path())
            .arg("--state")
            .arg(self.device.path())
            .args(args)
            .stdin(Stdio::null())
            .kill_on_drop(true);
        command
    }
}

/// What `portway ping` said, and how it ended.
pub struct Pinged {
    /// Lines of standard output.
    pub lines: Vec<Value>,
    /// The error, if there was one.
    pub error: Value,
    /// Its end.
    pub status: ExitStatus,
}

/// Runs `portway ping` to its end.
///
/// # Errors
/// If it does not end, or prints something else than JSON.
pub async fn ping(link: &LinkFile, args: &[&str]) -> anyhow::Result<Pinged> {
    ping_as(&Program::default(), link, args).await
}

/// The same of another build.
///
/// # Errors
/// If it does not end, or prints something else than JSON.
pub async fn ping_as(program: &Program, link: &LinkFile, args: &[&str]) -> anyhow::Result<Pinged> {
    let running = link.command(program, "ping", args).output();
    let output = tokio::time::timeout(PATIENCE, running).await??;
    let lines = String::from_utf8(output.stdout)?;
    let error = String::from_utf8(output.stderr)?;
    Ok(Pinged {
        lines: lines
            .lines()
            .map(serde_json::from_str)
            .collect::<Result<_, _>>()?,
        error: error
            .lines()
            .filter_map(|line| serde_json::from_str::<Value>(line).ok())
            .find(|line| line.get("error").is_some())
            .unwrap_or_default(),
        status: output.status,
    })
}

/// A running `portway connect`, or another command that tells of what comes. Killed when dropped.
pub struct Connected {
    process: Child,
    events: Events,
    /// The line that it printed when it was ready.
    pub ready: Value,
}

impl Connected {
    /// Starts it on a free port, until it is ready.
    ///
    /// # Errors
    /// If it does not become ready.
    pub async fn start(link: &LinkFile) -> anyhow::Result<Self> {
        Self::start_logging(link, &[], Stdio::inherit()).await
    }

    /// The same with more arguments; its log goes there.
    ///
    /// # Errors
    /// If it does not become ready.
    pub async fn start_logging(
        link: &LinkFile,
        args: &[&str],
        log: impl Into<Stdio>,
    ) -> anyhow::Result<Self> {
        let command = link.command(
            &Program::default(),
            "connect",
            &[&["-L", "0"], args].concat(),
        );
        Self::begin(command, "ready", log).await
    }

    /// Starts it with these arguments as the node of a state directory, until the first event of this kind.
    ///
    /// # Errors
    /// If that does not come.
    pub async fn of_node(state: &State, args: &[&str], first: &str) -> anyhow::Result<Self> {
        Self::as_node(state, "connect", args, first).await
    }

    /// The same for another command.
    ///
    /// # Errors
    /// If that does not come.
    pub async fn as_node(
        state: &State,
        name: &str,
        args: &[&str],
        first: &str,
    ) -> anyhow::Result<Self> {
        let mut command = Program::default().command();
        command
            .args([name, "--json", "--state"])
            .arg(state.path())
            .args(args)
            .stdin(Stdio::null())
            .kill_on_drop(true);
        Self::begin(command, first, Stdio::inherit()).await
    }

    /// The same by whatever command starts one.
    ///
    /// # Errors
    /// If that does not come.
    pub async fn by(command: Command, first: &str) -> anyhow::Result<Self> {
        Self::begin(command, first, Stdio::inherit()).await
    }

    async fn begin(
        mut command: Command,
        first: &str,
        log: impl Into<Stdio>,
    ) -> anyhow::Result<Self> {
        let mut process = command.stdout(Stdio::piped()).stderr(log).spawn()?;
        let mut events = Events::of(&mut process)?;
        let ready = events.next(first).await?;
        Ok(Self {
            process,
            events,
            ready,
        })
    }

    /// Waits for an event of this kind.
    ///
    /// # Errors
    /// If none comes.
    pub async fn event(&mut self, kind: &str) -> anyhow::Result<Value> {
        self.events.next(kind).await
    }

    /// The next event, whatever it is.
    ///
    /// # Errors
    /// If none comes.
    pub async fn any_event(&mut self) -> anyhow::Result<Value> {
        self.events.any().await
    }

    /// What every process of the machine may read of its command line.
    ///
    /// # Errors
    /// If it has ended.
    pub fn command_line(&self) -> anyhow::Result<String> {
        let path = format!("/proc/{}/cmdline", self.pid()?);
        Ok(std::fs::read_to_string(path)?)
    }

    /// Number of the process.
    ///
    /// # Errors
    /// If it has ended.
    pub fn pid(&self) -> anyhow::Result<u32> {
        self.process.id().context("it has ended")
    }

    /// `ADDR:PORT` where it listens.
    #[must_use]
    pub fn listen(&self) -> &str {
        self.ready["listen"].as_str().unwrap_or_default()
    }

    /// One request on a connection of its own; `head` without the `Host` and the empty line. Returns
    /// the response's head and body.
    ///
    /// # Errors
    /// If there is no whole response.
    pub async fn request(&self, head: &str, body: &[u8]) -> anyhow::Result<(String, Vec<u8>)> {
        self.request_as(self.listen(), head, body).await
    }

    /// The same under another `Host`.
    ///
    /// # Errors
    /// If there is no whole response.
    pub async fn request_as(
        &self,
        host: &str,
        head: &str,
        body: &[u8],
    ) -> anyhow::Result<(String, Vec<u8>)> {
        let stream = TcpStream::connect(self.listen()).await?;
        let (mut from, mut to) = stream.into_split();
        let head = format!("{head}\r\nhost: {host}\r\nconnection: close\r\n\r\n");
        let send = async {
            to.write_all(head.as_bytes()).await?;
            to.write_all(body).await
        };
        let mut response = Vec::new();
        let exchange = async { tokio::try_join!(send, from.read_to_end(&mut response)) };
        tokio::time::timeout(PATIENCE, exchange).await??;
        let end = response.windows(4).position(|four| four == b"\r\n\r\n");
        let end = end.context("the response has no end of head")?;
        let body = response.split_off(end + 4);
        Ok((String::from_utf8(response)?, body))
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// If it does not end.
    pub async fn ended(mut self) -> anyhow::Result<ExitStatus> {
        Ok(tokio::time::timeout(PATIENCE, self.process.wait()).await??)
    }

    /// Ctrl-C. What it says then is to be read.
    ///
    /// # Errors
    /// If it has ended.
    pub async fn interrupt(&self) -> anyhow::Result<()> {
        signal(&self.process, "INT").await
    }

    /// SIGTERM, then waits for its end.
    ///
    /// # Errors
    /// If it does not end.
    pub async fn terminate(mut self) -> anyhow::Result<ExitStatus> {
        signal(&self.process, "TERM").await?;
        Ok(tokio::time::timeout(PATIENCE, self.process.wait()).await??)
    }
}
