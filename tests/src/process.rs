//! What tests do with the processes that they have started.

use anyhow::{Context as _, ensure};
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
            loop {
                let line = self.line().await?;
                let line = line.with_context(|| format!("it ended before `{kind}`"))?;
                if line["event"] == kind {
                    return anyhow::Ok(line);
                }
            }
        };
        tokio::time::timeout(PATIENCE, wanted).await?
    }

    /// Waits for the next one, whatever it is.
    ///
    /// # Errors
    /// If none comes.
    pub(crate) async fn any(&mut self) -> anyhow::Result<Value> {
        let line = tokio::time::timeout(PATIENCE, self.line()).await??;
        line.context("it ended")
    }

    async fn line(&mut self) -> anyhow::Result<Option<Value>> {
        let line = self.0.next_line().await?;
        Ok(line.map(|line| serde_json::from_str(&line)).transpose()?)
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
