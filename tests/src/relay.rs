//! The relay alone: `portway relay`, as an operator runs it.

use std::path::PathBuf;
use std::process::Stdio;

use anyhow::Context as _;
use serde_json::Value;
use tempfile::TempDir;
use tokio::process::{Child, Command};
use tokio::task::JoinSet;

use crate::PATIENCE;
use crate::authority;
use crate::coturn::own_ip;
use crate::portway::binary;
use crate::ready::until_it_says;

/// Its only user.
const USERNAME: &str = "visitor";
const PASSWORD: &str = "a password of tests";

/// A running relay of this machine's own address. Ends when dropped.
pub struct Relay {
    ready: Value,
    home: TempDir,
    process: Child,
    _drain: JoinSet<()>,
}

impl Relay {
    /// Starts it on a free port, within TLS.
    ///
    /// # Errors
    /// If it does not become ready.
    pub async fn start() -> anyhow::Result<Self> {
        let home = tempfile::tempdir()?;
        std::fs::write(home.path().join("password"), PASSWORD)?;
        Self::launch(home, "127.0.0.1:0").await
    }

    /// `kill -9`, and another one in its place.
    ///
    /// # Errors
    /// If that does not become ready.
    pub async fn replace(mut self) -> anyhow::Result<Self> {
        let url = self.ready["relay"][0].as_str().unwrap_or_default();
        let address = url.trim_start_matches("turns:").split('?').next();
        let address = address.context("an address")?.to_owned();
        self.process.kill().await?;
        Self::launch(self.home, &address).await
    }

    async fn launch(home: TempDir, listen: &str) -> anyhow::Result<Self> {
        let ip = own_ip()?;
        let certificate = authority::issue(&["localhost"])?;
        let config = format!(
            "[relay]\nlisten = [\"tls://{listen}\"]\nrelay_ip = [\"{ip}\"]\n\
             allow_peers = [\"{ip}\"]\nusers = {{ {USERNAME} = \"{PASSWORD}\" }}\n\
             [relay.tls]\ncert = {:?}\nkey = {:?}\n",
            certificate.certificate, certificate.key
        );
        let file = home.path().join("portway.toml");
        std::fs::write(&file, config)?;
        let mut process = Command::new(binary())
            .args(["relay", "--json", "--config"])
            .arg(file)
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
        Ok(Self {
            ready: serde_json::from_str(&line)?,
            home,
            process,
            _drain: drain,
        })
    }

    /// For `--ice-server`. Names the host, for Firefox takes no address after `turns:`.
    #[must_use]
    pub fn url(&self) -> String {
        let url = self.ready["relay"][0].as_str().unwrap_or_default();
        url.replace("127.0.0.1", "localhost")
    }

    /// For `--turn-username`.
    #[must_use]
    pub const fn username(&self) -> &'static str {
        USERNAME
    }

    /// For `--turn-password-file`.
    #[must_use]
    pub fn password_file(&self) -> PathBuf {
        self.home.path().join("password")
    }
}
