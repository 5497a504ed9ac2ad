//! dnsmasq: a name server, a service that speaks UDP.

use std::net::{SocketAddr, UdpSocket};
use std::process::Stdio;

use anyhow::Context as _;
use tokio::process::{Child, Command};
use tokio::task::JoinSet;

use crate::PATIENCE;
use crate::ready::until_it_says;

/// A running name server on loopback that knows one name. Ends when dropped.
pub struct NameServer {
    /// Where it listens.
    pub address: SocketAddr,
    _process: Child,
    /// Reads its log.
    _drain: JoinSet<()>,
}

impl NameServer {
    /// Starts it on a free port.
    ///
    /// # Errors
    /// If it is not installed or does not become ready; carries what it said.
    pub async fn start(name: &str, ip: &str) -> anyhow::Result<Self> {
        let address = UdpSocket::bind("127.0.0.1:0")?.local_addr()?;
        let mut process = Command::new("/usr/sbin/dnsmasq")
            .args(["--keep-in-foreground", "--log-facility=-", "--pid-file="])
            .args(["--conf-file=/dev/null", "--no-resolv", "--no-hosts"])
            .args(["--bind-interfaces", "--listen-address=127.0.0.1"])
            .arg(format!("--port={}", address.port()))
            .arg(format!("--address=/{name}/{ip}"))
            .stdin(Stdio::null())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .context("cannot run dnsmasq: run `cargo xtask test` once")?;
        let log = process.stderr.take().context("stderr is piped")?;
        let mut drain = JoinSet::new();
        let ready = until_it_says("started", "dnsmasq", log, &mut drain);
        tokio::time::timeout(PATIENCE, ready)
            .await
            .context("dnsmasq does not become ready")??;
        Ok(Self {
            address,
            _process: process,
            _drain: drain,
        })
    }
}
