//! The relay alone: `portway relay`, as an operator runs it.

use std::path::PathBuf;
use std::process::Stdio;

use anyhow::Context as _;
use serde_json::Value;
use tempfile::TempDir;
use tokio::process::{Child, Command};
use tokio::task::JoinSet;

use crate::PATIENCE;
use crate::coturn::own_ip;
use crate::portway::binary;
use crate::ready::until_it_says;

/// A running relay on this machine's own address, with the user that it made up. Ends when dropped.
pub struct Relay {
    ready: Value,
    home: TempDir,
    _process: Child,
    _drain: JoinSet<()>,
}

impl Relay {
    /// Starts it on a free port, `scheme` being `udp`, `tcp` or `tls`.
    ///
    /// # Errors
    /// If it does not become ready.
    pub async fn start(scheme: &str) -> anyhow::Result<Self> {
        let ip = own_ip()?.to_string();
        let home = tempfile::tempdir()?;
        let mut process = Command::new(binary())
            .args(["relay", "--json", "--listen", &format!("{scheme}://{ip}:0")])
            .args(["--allow-peer", &ip])
            .env("XDG_CONFIG_HOME", home.path())
            .env("XDG_STATE_HOME", home.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .context("cannot start portway: run `cargo xtask build`")?;
        let output = process.stdout.take().context("stdout is piped")?;
        let mut drain = JoinSet::new();
        let ready = until_it_says("ready", "portway relay", output, &mut drain);
        let line = tokio::time::timeout(PATIENCE, ready)
            .await
            .context("the relay does not become ready")??;
        let ready: Value = serde_json::from_str(&line)?;
        let password = ready["trial"]["credential"].as_str();
        std::fs::write(
            home.path().join("password"),
            password.context("a credential")?,
        )?;
        Ok(Self {
            ready,
            home,
            _process: process,
            _drain: drain,
        })
    }

    /// For `--ice-server`.
    #[must_use]
    pub fn url(&self) -> String {
        self.ready["relay"][0]
            .as_str()
            .unwrap_or_default()
            .to_owned()
    }

    /// For `--turn-username`.
    #[must_use]
    pub fn username(&self) -> String {
        self.ready["trial"]["username"]
            .as_str()
            .unwrap_or_default()
            .to_owned()
    }

    /// For `--turn-password-file`.
    #[must_use]
    pub fn password_file(&self) -> PathBuf {
        self.home.path().join("password")
    }
}
