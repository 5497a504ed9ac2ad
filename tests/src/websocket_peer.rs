//! The server of the WebSocket cases (`peers/websocket_cases.py`): it reads frames with the Python
//! package `websockets`, which is no code of ours, and writes whatever a case asks for.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Stdio;

use anyhow::Context as _;
use tokio::process::{Child, Command};
use tokio::task::JoinSet;

use crate::ready::until_it_says;
use crate::{PATIENCE, python};

/// What is installed.
const PACKAGE: &str = "websockets==17.4";

/// A running server. Ends when dropped.
pub struct WebSocketPeer {
    /// Where it listens.
    pub address: SocketAddr,
    _process: Child,
    /// Reads what it prints: a process that nobody reads would stop sooner or later.
    _drain: JoinSet<()>,
}

impl WebSocketPeer {
    /// Installs what it needs the first time, and starts it on a free port.
    ///
    /// # Errors
    /// If it cannot be installed or does not become ready; carries what it said.
    pub async fn start() -> anyhow::Result<Self> {
        let environment = python::environment("websocket-peer", PACKAGE).await?;
        let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("peers/websocket_cases.py");
        let mut process = Command::new(environment.join("bin/python"))
            .arg(program)
            .arg("0")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .context("cannot start the server of the WebSocket cases")?;
        let output = process.stdout.take().context("stdout is piped")?;
        let mut drain = JoinSet::new();
        let ready = until_it_says("serving ", "the server of the cases", output, &mut drain);
        let line = tokio::time::timeout(PATIENCE, ready)
            .await
            .context("the server of the WebSocket cases does not become ready")??;
        let address = line.trim_start_matches("serving ").parse()?;
        Ok(Self {
            address,
            _process: process,
            _drain: drain,
        })
    }

    /// `http://…`: for `--expose`, and for a browser that goes there by itself.
    #[must_use]
    pub fn target(&self) -> String {
        format!("http://{}", self.address)
    }
}
