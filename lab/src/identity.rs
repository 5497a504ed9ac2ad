//! Which build of `portway` a lab runs, so that no node runs another one unnoticed.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use serde::Deserialize;
use sha2::{Digest as _, Sha256};

use crate::cluster::run_json;
use crate::state::LabDir;

/// The commit that this tool was built from.
pub(crate) const OWN_COMMIT: &str = env!("PORTWAY_COMMIT");

/// A build.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) commit: String,
    /// SHA-256 of the executable, hexadecimal.
    pub(crate) executable: String,
}

#[derive(Deserialize)]
struct Version {
    commit: String,
}

/// What a running part says of itself.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Status {
    pub(crate) version: String,
    pub(crate) commit: String,
    pub(crate) executable: String,
    /// Its clock, milliseconds since 1970.
    pub(crate) now_ms: i64,
    /// Of a gateway: to whom it is connected.
    #[serde(default)]
    pub(crate) signaling: Vec<Connection>,
}

/// A gateway's way to a signaling service.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Connection {
    pub(crate) url: String,
    pub(crate) connected: bool,
}

impl Identity {
    /// Reads an executable and asks it.
    pub(crate) fn of(portway: &Path) -> anyhow::Result<Self> {
        let bytes = fs::read(portway).with_context(|| {
            format!(
                "cannot read {} (build it: cargo xtask build)",
                portway.display()
            )
        })?;
        let version: Version = run_json(portway, &["version"], "")?;
        let identity = Self {
            commit: version.commit,
            executable: hex(&Sha256::digest(&bytes)),
        };
        if identity.commit != OWN_COMMIT {
            bail!(
                "{} was built from commit {}, this portway-lab from {OWN_COMMIT}: build both \
                 (cargo xtask lab does)",
                portway.display(),
                identity.commit
            );
        }
        Ok(identity)
    }

    /// Copies the executable into the lab, so that a later build does not change what runs.
    pub(crate) fn keep(&self, portway: &Path, dir: &LabDir) -> anyhow::Result<PathBuf> {
        let kept = dir.file(&format!("portway-{}", &self.executable[..12]));
        if !kept.exists() {
            fs::copy(portway, &kept)
                .with_context(|| format!("cannot copy {}", portway.display()))?;
        }
        Ok(kept)
    }

    /// Whether a part is of this build.
    pub(crate) fn check(&self, status: &Status) -> anyhow::Result<()> {
        if status.commit != self.commit || status.executable != self.executable {
            bail!(
                "stale code: it runs commit {} ({}), expected {} ({})",
                status.commit,
                &status.executable.get(..12).unwrap_or_default(),
                self.commit,
                &self.executable[..12]
            );
        }
        Ok(())
    }
}

/// What the part that uses a state directory says of itself.
pub(crate) fn ask(portway: &Path, state: &Path) -> anyhow::Result<Status> {
    run_json(
        portway,
        &["status", "--state", &state.display().to_string()],
        "",
    )
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
