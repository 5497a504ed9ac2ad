//! Answers that somebody types, or a program writes to standard input: a line each.

use std::io::{self, BufRead as _, Read as _};

use anyhow::Context as _;

/// Longest answer, bytes.
const MAX_ANSWER: u64 = 256;

/// The next line; `None` at the end of the input. The thread that reads goes on waiting if this is dropped:
/// the runtime has to be shut down without it.
pub(crate) async fn answer() -> anyhow::Result<Option<String>> {
    tokio::task::spawn_blocking(read)
        .await?
        .context("cannot read from standard input")
}

fn read() -> io::Result<Option<String>> {
    let mut line = String::new();
    let mut input = io::stdin().lock().take(MAX_ANSWER);
    let is_end = input.read_line(&mut line)? == 0;
    Ok((!is_end).then_some(line))
}

/// Runs something that may wait for an answer when it ends.
pub(crate) fn run<T>(work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let outcome = runtime.block_on(work);
    runtime.shutdown_background();
    outcome
}
