//! JupyterLab from PyPI, in an environment of its own under `target/`, with a token to log in.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::Context as _;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::process::{Child, Command};
use tokio::sync::OnceCell;
use tokio::task::JoinSet;

use crate::python;
use crate::ready::until_it_says;

/// What is installed.
const PACKAGE: &str = "jupyterlab==4.6.6";

/// The longest that a start may take, on a small machine with a cold disk.
const START_PATIENCE: Duration = Duration::from_secs(300);

/// What one must know to log in.
pub const TOKEN: &str = "a-token-of-the-tests";

/// The environment that it is installed in: stories that run side by side share one installation.
static ENVIRONMENT: OnceCell<PathBuf> = OnceCell::const_new();

/// Installs it, unless that is done.
///
/// # Errors
/// If it cannot be installed; carries what pip said.
pub async fn prepare() -> anyhow::Result<&'static Path> {
    let path = ENVIRONMENT
        .get_or_try_init(|| python::environment("jupyter", PACKAGE))
        .await?;
    Ok(path.as_path())
}

/// A running JupyterLab with a folder of its own. Ends when dropped.
pub struct Jupyter {
    /// Where it listens.
    pub address: SocketAddr,
    home: TempDir,
    _process: Child,
    /// Reads its log: one that nobody reads would stop it sooner or later.
    _drain: JoinSet<()>,
}

impl Jupyter {
    /// Installs it the first time, starts it on a free port with one notebook in its folder.
    ///
    /// # Errors
    /// If it cannot be installed or does not become ready; carries what it said.
    pub async fn start(notebook: &str, source: &str) -> anyhow::Result<Self> {
        let environment = prepare().await?;
        let home = tempfile::tempdir()?;
        let folder = home.path().join("work");
        std::fs::create_dir(&folder)?;
        std::fs::write(folder.join(notebook), notebook_of(source))?;
        let address = free_address().await?;
        let mut process = Command::new(environment.join("bin/jupyter"))
            .args(["lab", "--no-browser", "--allow-root", "--ip=127.0.0.1"])
            .arg(format!("--port={}", address.port()))
            .arg("--ServerApp.port_retries=0")
            .arg(format!("--IdentityProvider.token={TOKEN}"))
            .arg(format!("--ServerApp.root_dir={}", folder.display()))
            .env("HOME", home.path())
            .env("JUPYTER_CONFIG_DIR", home.path().join("config"))
            .env("JUPYTER_DATA_DIR", home.path().join("data"))
            .env("JUPYTER_RUNTIME_DIR", home.path().join("runtime"))
            .env("IPYTHONDIR", home.path().join("ipython"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .context("cannot start JupyterLab")?;
        let log = process.stderr.take().context("stderr is piped")?;
        let mut drain = JoinSet::new();
        let ready = until_it_says("is running at", "JupyterLab", log, &mut drain);
        tokio::time::timeout(START_PATIENCE, ready)
            .await
            .context("JupyterLab does not become ready")??;
        Ok(Self {
            address,
            home,
            _process: process,
            _drain: drain,
        })
    }

    /// `http://…` for `--expose`.
    #[must_use]
    pub fn target(&self) -> String {
        format!("http://{}", self.address)
    }

    /// A file of its folder.
    #[must_use]
    pub fn file(&self, name: &str) -> PathBuf {
        self.home.path().join("work").join(name)
    }
}

async fn free_address() -> anyhow::Result<SocketAddr> {
    Ok(TcpListener::bind("127.0.0.1:0").await?.local_addr()?)
}

/// A notebook with one cell of Python.
fn notebook_of(source: &str) -> String {
    serde_json::json!({
        "cells": [{
            "cell_type": "code", "id": "first", "execution_count": null,
            "metadata": {}, "outputs": [], "source": source,
        }],
        "metadata": {"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}},
        "nbformat": 4,
        "nbformat_minor": 5,
    })
    .to_string()
}
