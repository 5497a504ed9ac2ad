//! Waiting until a process says that it is ready.

use anyhow::bail;
use tokio::io::{AsyncBufReadExt as _, AsyncRead, BufReader};
use tokio::task::JoinSet;

/// Reads what a process prints until a line contains `marker`, and returns that line. What follows is
/// read in `drain`: a process that nobody reads would stop sooner or later.
///
/// # Errors
/// If the process, `name`, ends before; carries what it said.
pub async fn until_it_says(
    marker: &str,
    name: &str,
    output: impl AsyncRead + Unpin + Send + 'static,
    drain: &mut JoinSet<()>,
) -> anyhow::Result<String> {
    let mut lines = BufReader::new(output).lines();
    let mut said = String::new();
    while let Some(line) = lines.next_line().await? {
        if line.contains(marker) {
            drain.spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
            return Ok(line);
        }
        said.push_str(&line);
        said.push('\n');
    }
    bail!("{name} ended before it was ready:\n{said}")
}
