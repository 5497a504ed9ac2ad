//! What tests do with the processes that they have started.

use anyhow::{Context as _, bail, ensure};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};

use crate::PATIENCE;

/// What a process prints: a JSON object a line, with its `event`.
pub(crate) struct Events(Lines<BufReader<ChildStdout>>);

impl Events {
    /// Those of a process whose standard output is piped.
    ///
    /// # Errors
    /// If it is not.
    pub(crate) fn of(process: &mut Child) -> anyhow::Result<Self> {
        let stdout = process.stdout.take().context("stdout is piped")?;
        Ok(Self(BufReader::new(stdout).lines()))
    }

    /// Waits for an event of this kind.
    ///
    /// # Errors
    /// If none comes.
    pub(crate) async fn next(&mut self, kind: &str) -> anyhow::Result<Value> {
        let wanted = async {
            while let Some(line) = self.0.next_line().await? {
                let line: Value = serde_json::from_str(&line)?;
                if line["event"] == kind {
                    return Ok(line);
                }
            }
            bail!("it ended before `{kind}`")
        };
        tokio::time::timeout(PATIENCE, wanted).await?
    }
}

/// Sends a signal by its name, e.g. `TERM`.
///
/// # Errors
/// If the process has ended.
pub async fn signal(process: &Child, name: &str) -> anyhow::Result<()> {
    let pid = process.id().context("it has ended")?;
    let kill = format!("kill -{name} {pid}");
    let sent = Command::new("sh").args(["-c", &kill]).status().await?;
    ensure!(sent.success(), "{kill}: {sent}");
    Ok(())
}
