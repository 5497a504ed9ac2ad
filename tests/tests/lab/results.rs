//! What the scenarios measure, in the form that `portway-lab report` reads.

use std::path::PathBuf;
use std::process::Command;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::ensure;
use serde_json::{Value, json};

use crate::disturbance::Event;

/// Collects figures.
#[derive(Debug, Default)]
pub(crate) struct Results {
    matrix: Mutex<Vec<Value>>,
    recovery: Mutex<Vec<Value>>,
    throughput: Mutex<Vec<Value>>,
}

impl Results {
    /// A pair of networks.
    pub(crate) fn pair(&self, row: Value) {
        push(&self.matrix, row);
    }

    /// A download's rate, as `portway-lab bench` tells it.
    pub(crate) fn throughput(&self, row: Value) {
        eprintln!("    {row}");
        push(&self.throughput, row);
    }

    /// A recovery. It is good if nothing is lost and the silence is not longer than it may be.
    pub(crate) fn recovery(&self, recovery: &Recovery<'_>) {
        let is_good = recovery.is_whole && recovery.stall <= recovery.bar;
        let mut row = json!({
            "scenario": recovery.scenario,
            "client": recovery.client,
            "path": recovery.path,
            "stall_ms": millis(recovery.stall),
            "bar_ms": millis(recovery.bar),
            "lost": u8::from(!recovery.is_whole),
            "intact": recovery.is_whole,
            "verdict": if is_good { "good" } else { "red" },
        });
        if let Some(note) = &recovery.note {
            row["note"] = json!(note);
        }
        eprintln!("    {row}");
        push(&self.recovery, row);
    }

    /// What became of a download, as its reader tells: `bytes`, the longest silence `gap` in
    /// milliseconds, then `sha` or `error`; and of which `path` it was. Whether it is whole.
    ///
    /// # Errors
    /// It was reported complete, and is not.
    pub(crate) fn download(
        &self,
        event: &Event,
        client: &str,
        sha: &str,
        outcome: &Value,
    ) -> anyhow::Result<bool> {
        let is_whole = outcome["sha"] == sha;
        let bytes = outcome["bytes"].as_u64().unwrap_or_default();
        let gap = outcome["gap"].as_f64().unwrap_or_default().round();
        self.recovery(&Recovery {
            scenario: event.name,
            client,
            path: outcome["path"].as_str(),
            stall: Duration::from_secs_f64(gap / 1000.0),
            bar: event.bar,
            is_whole,
            note: (!is_whole).then(|| format!("{} after {bytes} bytes", outcome["error"])),
        });
        ensure!(
            is_whole || outcome["sha"].is_null(),
            "{}: reported complete, but it is not: {outcome}",
            event.name
        );
        Ok(is_whole)
    }

    /// Writes the file, unless nothing was measured.
    pub(crate) fn write(&self) -> anyhow::Result<()> {
        let (matrix, recovery) = (take(&self.matrix), take(&self.recovery));
        let throughput = take(&self.throughput);
        if matrix.is_empty() && recovery.is_empty() && throughput.is_empty() {
            return Ok(());
        }
        let results = json!({
            "v": 1,
            "date": told("date", &["-u", "+%Y-%m-%d"]),
            "commit": told("git", &["rev-parse", "--short=12", "HEAD"]),
            "machine": format!("{} cores, Linux {}", told("nproc", &[]), told("uname", &["-r"])),
            "matrix": matrix,
            "recovery": recovery,
            "throughput": throughput,
        });
        let path = path();
        std::fs::write(&path, serde_json::to_vec_pretty(&results)?)?;
        eprintln!("figures: {}", path.display());
        Ok(())
    }
}

/// What became of somebody when something happened.
pub(crate) struct Recovery<'a> {
    pub(crate) scenario: &'a str,
    /// `chromium`, `firefox` or `gateway`.
    pub(crate) client: &'a str,
    /// `direct` or `relayed`, before it happened; `None`: there was none.
    pub(crate) path: Option<&'a str>,
    /// The longest silence.
    pub(crate) stall: Duration,
    /// The longest that is allowed.
    pub(crate) bar: Duration,
    /// Whether all came, and as it was sent.
    pub(crate) is_whole: bool,
    pub(crate) note: Option<String>,
}

/// Whole milliseconds.
fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Where they go.
fn path() -> PathBuf {
    std::env::var_os("PORTWAY_LAB_RESULTS").map_or_else(
        || {
            PathBuf::from(concat!(
                env!("CARGO_MANIFEST_DIR"),
                "/../target/lab-results.json"
            ))
        },
        PathBuf::from,
    )
}

fn told(program: &str, args: &[&str]) -> String {
    let output = Command::new(program).args(args).output();
    let text = output.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned());
    text.unwrap_or_default()
}

fn push(rows: &Mutex<Vec<Value>>, row: Value) {
    rows.lock()
        .unwrap_or_else(PoisonError::into_inner)
        .push(row);
}

fn take(rows: &Mutex<Vec<Value>>) -> Vec<Value> {
    std::mem::take(&mut rows.lock().unwrap_or_else(PoisonError::into_inner))
}
