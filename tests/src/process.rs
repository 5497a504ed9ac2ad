//! What tests do with the processes that they have started.

use anyhow::{Context as _, ensure};
use tokio::process::{Child, Command};

/// Sends a signal by its name, e.g. `TERM`.
///
/// # Errors
/// If the process has ended.
pub(crate) async fn signal(process: &Child, name: &str) -> anyhow::Result<()> {
    let pid = process.id().context("it has ended")?;
    let kill = format!("kill -{name} {pid}");
    let sent = Command::new("sh").args(["-c", &kill]).status().await?;
    ensure!(sent.success(), "{kill}: {sent}");
    Ok(())
}
