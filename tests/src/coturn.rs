//! coturn: a TURN server that is not ours.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::path::PathBuf;
use std::process::Stdio;

use anyhow::Context as _;
use tempfile::TempDir;
use tokio::process::{Child, Command};
use tokio::task::JoinSet;

use crate::PATIENCE;
use crate::ready::until_it_says;

/// Who may allocate.
pub const USERNAME: &str = "ann";
const PASSWORD: &str = "a-password-of-the-tests";

/// A running coturn on this machine's own address. Ends when dropped.
pub struct Coturn {
    address: SocketAddr,
    home: TempDir,
    _process: Child,
    /// Reads its log: one that nobody reads would stop it sooner or later.
    _drain: JoinSet<()>,
}

impl Coturn {
    /// Starts it on a free port.
    ///
    /// # Errors
    /// If it is not installed or does not become ready; carries what it said.
    pub async fn start() -> anyhow::Result<Self> {
        let address = free_address()?;
        let home = tempfile::tempdir()?;
        let file = |name: &str| home.path().join(name).display().to_string();
        std::fs::write(home.path().join("password"), PASSWORD)?;
        let (ip, port) = (address.ip().to_string(), address.port().to_string());
        let mut process = Command::new("turnserver")
            .args(["-n", "--no-cli", "--no-tls", "--no-dtls", "--lt-cred-mech"])
            .args(["--listening-ip", &ip, "--listening-port", &port])
            .args(["--relay-ip", &ip, "--realm", "tests.example"])
            .args(["--user", &format!("{USERNAME}:{PASSWORD}")])
            .args(["--log-file", "stdout", "--pidfile", &file("pid")])
            .args(["--userdb", &file("users")])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .context("cannot start coturn: run `cargo xtask test` once")?;
        let log = process.stdout.take().context("stdout is piped")?;
        let mut drain = JoinSet::new();
        let ready = until_it_says("DB connection success", "coturn", log, &mut drain);
        tokio::time::timeout(PATIENCE, ready)
            .await
            .context("coturn does not become ready")??;
        Ok(Self {
            address,
            home,
            _process: process,
            _drain: drain,
        })
    }

    /// For `--ice-server`.
    #[must_use]
    pub fn url(&self) -> String {
        format!("turn:{}", self.address)
    }

    /// For `--turn-password-file`.
    #[must_use]
    pub fn password_file(&self) -> PathBuf {
        self.home.path().join("password")
    }
}

/// A free UDP port on this machine's own address.
fn free_address() -> anyhow::Result<SocketAddr> {
    Ok(UdpSocket::bind((own_ip()?, 0))?.local_addr()?)
}

/// The address that packets leave from. Nothing is sent.
///
/// # Errors
/// If this machine has no way to other networks.
pub fn own_ip() -> anyhow::Result<IpAddr> {
    let outward = UdpSocket::bind("0.0.0.0:0")?;
    outward.connect("192.0.2.1:9")?;
    Ok(outward.local_addr()?.ip())
}
