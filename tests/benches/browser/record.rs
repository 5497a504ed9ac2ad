//! Where figures of a bench are kept: `docs/bench`, with the commit and the machine.

use std::path::Path;
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::Context as _;
use serde_json::{Value, json};

/// Writes `docs/bench/FILE`.
pub(crate) fn record(file: &str, rows: Vec<Value>) -> anyhow::Result<()> {
    let output = Command::new("git")
        .args(["rev-parse", "--show-toplevel"])
        .output()
        .context("git")?;
    let root = String::from_utf8(output.stdout)?;
    let root = Path::new(root.trim());
    let commit = Command::new("git")
        .args(["describe", "--always", "--dirty"])
        .output()
        .context("git")?;
    let processor = std::fs::read_to_string("/proc/cpuinfo")?
        .lines()
        .find_map(|line| {
            line.strip_prefix("model name")?
                .split(": ")
                .nth(1)
                .map(str::to_owned)
        })
        .unwrap_or_default();
    let threads = std::fs::read_to_string("/proc/cpuinfo")?
        .lines()
        .filter(|line| line.starts_with("processor"))
        .count();
    let report = json!({
        "v": 1,
        "date": SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs(),
        "commit": String::from_utf8(commit.stdout)?.trim(),
        "machine": format!("{processor}, {threads} threads"),
        "rows": rows,
    });
    let folder = root.join("docs/bench");
    std::fs::create_dir_all(&folder)?;
    let text = format!("{}\n", serde_json::to_string_pretty(&report)?);
    std::fs::write(folder.join(file), text)?;
    Ok(())
}
