//! `portway cp` as a real process.

use std::ffi::OsStr;
use std::path::Path;
use std::process::{ExitStatus, Output, Stdio};

use anyhow::{Context as _, ensure};
use serde_json::Value;
use tokio::io::AsyncWriteExt as _;
use tokio::process::{Child, Command};

use crate::client::LinkFile;
use crate::portway::Program;
use crate::{LOOK_AGAIN, PATIENCE};

/// What `portway cp` said, and how it ended.
pub struct Copied {
    /// What it printed.
    pub events: Vec<Value>,
    /// What it copied to standard output.
    pub content: Vec<u8>,
    /// The error, if there was one.
    pub error: Value,
    /// Its end.
    pub status: ExitStatus,
}

/// A running `portway cp`. Killed when dropped.
pub struct Copying(Child);

impl LinkFile {
    /// Runs `portway cp` to its end.
    ///
    /// # Errors
    /// If it does not end, or prints something else than JSON.
    pub async fn cp(&self, args: &[&str]) -> anyhow::Result<Copied> {
        self.start_cp(args)?.ended().await
    }

    /// The same of a program in other surroundings.
    ///
    /// # Errors
    /// If it does not end, or prints something else than JSON.
    pub async fn cp_as(&self, program: &Program, args: &[&str]) -> anyhow::Result<Copied> {
        self.start_cp_as(program, args)?.ended().await
    }

    /// The same of what comes by standard input.
    ///
    /// # Errors
    /// If it does not end, or prints something else than JSON.
    pub async fn cp_from(&self, content: &[u8], args: &[&str]) -> anyhow::Result<Copied> {
        let mut copying = self.start_cp(args)?;
        let mut stdin = copying.0.stdin.take().context("stdin is piped")?;
        let pouring = async {
            // It may end without reading all.
            drop(stdin.write_all(content).await);
            drop(stdin);
        };
        let (copied, ()) = tokio::join!(copying.ended(), pouring);
        copied
    }

    /// Starts it.
    ///
    /// # Errors
    /// The system's.
    pub fn start_cp(&self, args: &[&str]) -> anyhow::Result<Copying> {
        self.start_cp_as(&Program::default(), args)
    }

    fn start_cp_as(&self, program: &Program, args: &[&str]) -> anyhow::Result<Copying> {
        let mut command = self.command(program, "cp", args);
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        Ok(Copying(command.spawn()?))
    }
}

impl Copying {
    /// Waits for its end.
    ///
    /// # Errors
    /// If it does not end, or prints something else than JSON.
    pub async fn ended(self) -> anyhow::Result<Copied> {
        let ended = tokio::time::timeout(PATIENCE, self.0.wait_with_output());
        let Output {
            status,
            stdout,
            stderr,
        } = ended.await.context("it does not end")??;
        let told = String::from_utf8(stderr)?;
        let told = told.lines().map(serde_json::from_str::<Value>);
        let (errors, mut events): (Vec<_>, Vec<_>) = told
            .filter_map(Result::ok)
            .partition(|line| line.get("error").is_some());
        let is_json = stdout.starts_with(b"{\"v\":1,");
        if is_json {
            let lines = std::str::from_utf8(&stdout)?.lines();
            events = lines.map(serde_json::from_str).collect::<Result<_, _>>()?;
        }
        Ok(Copied {
            events,
            content: if is_json { Vec::new() } else { stdout },
            error: errors.into_iter().next().unwrap_or_default(),
            status,
        })
    }

    /// `kill -9`, once a file that is not complete has come to this length in that directory.
    ///
    /// # Errors
    /// If none does, or it has ended before.
    pub async fn kill_at(mut self, folder: &Path, length: u64) -> anyhow::Result<()> {
        partial_of(folder, length).await?;
        ensure!(self.0.try_wait()?.is_none(), "it has ended before");
        self.0.kill().await?;
        Ok(())
    }
}

impl Copied {
    /// Its events of a kind.
    #[must_use]
    pub fn of(&self, kind: &str) -> Vec<&Value> {
        let all = self.events.iter();
        all.filter(|event| event["event"] == kind).collect()
    }

    /// The last one, if it has copied all.
    ///
    /// # Errors
    /// If it has not.
    pub fn done(&self) -> anyhow::Result<&Value> {
        ensure!(self.status.success(), "{}: {}", self.status, self.error);
        let last = self.events.last().context("it has said nothing")?;
        ensure!(last["event"] == "done", "{last}");
        Ok(last)
    }

    /// Why it has not copied all.
    #[must_use]
    pub fn reason(&self) -> &str {
        self.error["error"]["reason"].as_str().unwrap_or_default()
    }
}

/// Waits for a file that is not complete to come to this length, and returns its name.
///
/// # Errors
/// If none does.
pub async fn partial_of(folder: &Path, length: u64) -> anyhow::Result<std::path::PathBuf> {
    let waited = async {
        loop {
            if let Some(partial) = partials(folder)?.into_iter().next()
                && std::fs::metadata(&partial).is_ok_and(|partial| partial.len() >= length)
            {
                return Ok(partial);
            }
            tokio::time::sleep(LOOK_AGAIN / 10).await;
        }
    };
    tokio::time::timeout(PATIENCE, waited)
        .await
        .context("no transfer has begun")?
}

/// Files of a directory that are not complete.
///
/// # Errors
/// The system's.
pub fn partials(folder: &Path) -> anyhow::Result<Vec<std::path::PathBuf>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        if entry
            .file_name()
            .as_encoded_bytes()
            .starts_with(b".portway-partial-")
        {
            found.push(entry.path());
        }
    }
    Ok(found)
}

/// What `sha256sum` says of a file.
///
/// # Errors
/// If it cannot be read.
pub async fn sha256sum(file: impl AsRef<OsStr>) -> anyhow::Result<String> {
    let said = Command::new("sha256sum")
        .arg("-b")
        .arg(file)
        .output()
        .await?;
    ensure!(said.status.success(), "{said:?}");
    let said = String::from_utf8(said.stdout)?;
    Ok(said.trim_start_matches('\\').chars().take(64).collect())
}
