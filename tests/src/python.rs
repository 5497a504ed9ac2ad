//! Programs in Python, each with a package from PyPI in an environment of its own under `target/`.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, bail};
use tokio::process::Command;

/// The longest that an installation may take: JupyterLab is about 100 packages.
const INSTALL_PATIENCE: Duration = Duration::from_secs(1800);

/// The environment `target/NAME` with `package` (`name==version`), which is installed unless that is
/// done; an unfinished installation is begun again.
///
/// # Errors
/// If it cannot be installed; carries what pip said.
pub async fn environment(name: &str, package: &str) -> anyhow::Result<PathBuf> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../target")
        .join(name);
    let complete = path.join("complete");
    if std::fs::read_to_string(&complete).is_ok_and(|installed| installed == package) {
        return Ok(path);
    }
    let mut make = Command::new("python3");
    make.args(["-m", "venv", "--clear"]).arg(&path);
    run(make).await?;
    let mut pip = Command::new(path.join("bin/pip"));
    // Most modules are never imported here: those that are get compiled when they are.
    pip.args(["install", "--quiet", "--no-compile", package]);
    run(pip).await?;
    std::fs::write(complete, package)?;
    Ok(path)
}

async fn run(mut command: Command) -> anyhow::Result<()> {
    let output = command.kill_on_drop(true).output();
    let output = tokio::time::timeout(INSTALL_PATIENCE, output)
        .await
        .with_context(|| format!("{command:?} takes too long"))??;
    if !output.status.success() {
        bail!("{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(())
}
