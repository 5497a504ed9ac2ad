//! Two people who pair: `portway share --pair` and `portway pair` as real processes, and what they type.

use std::process::{ExitStatus, Stdio};

use anyhow::{Context as _, bail};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

use crate::PATIENCE;
use crate::portway::{State, binary};

/// One of them. Killed when dropped.
pub struct Person {
    process: Child,
    types: ChildStdin,
    lines: Lines<BufReader<ChildStdout>>,
}

/// How it ended.
#[derive(Debug)]
pub struct Ended {
    /// The process's status.
    pub status: ExitStatus,
    /// The error, if there was one.
    pub error: Value,
    /// All of standard error.
    pub log: String,
}

impl Person {
    /// The owner of a service shares it, at the instance of that state directory.
    ///
    /// # Errors
    /// If it cannot be started.
    pub fn owner(state: &State, service: &str, args: &[&str]) -> anyhow::Result<Self> {
        let mut command = Command::new(binary());
        command.args(["share", service, "--pair", "--json", "--state"]);
        command.arg(state.path()).args(args);
        Self::start(command)
    }

    /// A guest, without a browser.
    ///
    /// # Errors
    /// If it cannot be started.
    pub fn guest(url: &str) -> anyhow::Result<Self> {
        Self::guest_with(url, &[])
    }

    /// The same with more arguments.
    ///
    /// # Errors
    /// If it cannot be started.
    pub fn guest_with(url: &str, args: &[&str]) -> anyhow::Result<Self> {
        let mut command = Command::new(binary());
        command.args(["pair", url, "--json"]).args(args);
        Self::start(command)
    }

    fn start(mut command: Command) -> anyhow::Result<Self> {
        let mut process = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let types = process.stdin.take().context("stdin is piped")?;
        let stdout = process.stdout.take().context("stdout is piped")?;
        Ok(Self {
            process,
            types,
            lines: BufReader::new(stdout).lines(),
        })
    }

    /// Waits for the next event, which has to be of this kind.
    ///
    /// # Errors
    /// If another one comes, or none.
    pub async fn hears(&mut self, kind: &str) -> anyhow::Result<Value> {
        let line = tokio::time::timeout(PATIENCE, self.lines.next_line()).await??;
        let Some(line) = line else {
            let mut error = String::new();
            if let Some(stderr) = &mut self.process.stderr {
                stderr.read_to_string(&mut error).await?;
            }
            bail!("it ended before `{kind}`: {error}");
        };
        let line: Value = serde_json::from_str(&line)?;
        if line["event"] != kind {
            bail!("expected `{kind}`, got {line}");
        }
        Ok(line)
    }

    /// A line.
    ///
    /// # Errors
    /// If it has ended.
    pub async fn types(&mut self, text: &str) -> anyhow::Result<()> {
        self.types.write_all(format!("{text}\n").as_bytes()).await?;
        Ok(())
    }

    /// Ctrl-C.
    ///
    /// # Errors
    /// If it has ended.
    pub async fn interrupts(&self) -> anyhow::Result<()> {
        let pid = self.process.id().context("it has ended")?;
        let kill = format!("kill -INT {pid}");
        let sent = Command::new("sh").args(["-c", &kill]).status().await?;
        anyhow::ensure!(sent.success(), "{kill}: {sent}");
        Ok(())
    }

    /// Waits for the end; says nothing more meanwhile.
    ///
    /// # Errors
    /// If it does not end.
    pub async fn ends(self) -> anyhow::Result<Ended> {
        let Self { process, types, .. } = self;
        let output = tokio::time::timeout(PATIENCE, process.wait_with_output()).await??;
        drop(types);
        let log = String::from_utf8(output.stderr)?;
        let lines = log.lines();
        let mut errors = lines
            .filter_map(|it| serde_json::from_str::<Value>(it).ok())
            .map(|line| line["error"].clone());
        Ok(Ended {
            status: output.status,
            error: errors.find(|it| !it.is_null()).unwrap_or_default(),
            log,
        })
    }
}

impl Ended {
    /// It failed for this reason, with this exit code.
    ///
    /// # Errors
    /// If it did not.
    pub fn because(&self, reason: &str, code: i32) -> anyhow::Result<()> {
        anyhow::ensure!(
            self.error["reason"] == reason && self.status.code() == Some(code),
            "expected {reason} ({code}), got {:?}: {}",
            self.status,
            self.error
        );
        Ok(())
    }
}
