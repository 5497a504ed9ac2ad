//! OpenSSH: a service that is no web page, and its client.

use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::Stdio;

use anyhow::{Context as _, ensure};
use tempfile::TempDir;
use tokio::process::{Child, Command};
use tokio::task::JoinSet;

use crate::PATIENCE;
use crate::ready::until_it_says;

/// Where Debian's sshd keeps its privileges apart; systemd makes it elsewhere.
const PRIVILEGES: &str = "/run/sshd";

/// Keys of an sshd and of a client that it lets in, in a directory that is removed when this is dropped.
pub struct Keys(TempDir);

/// A running sshd on loopback, which lets one key in. Ends when dropped.
pub struct Sshd {
    /// Where it listens.
    pub address: SocketAddr,
    keys: Keys,
    process: Child,
    /// Reads its log.
    _drain: JoinSet<()>,
}

impl Keys {
    /// Makes them.
    ///
    /// # Errors
    /// If OpenSSH is not installed.
    pub async fn make() -> anyhow::Result<Self> {
        let keys = Self(tempfile::tempdir()?);
        for name in ["host", "user"] {
            let made = Command::new("ssh-keygen")
                .args(["-q", "-t", "ed25519", "-N", "", "-f", &keys.file(name)])
                .status()
                .await;
            ensure!(made.context(MISSING)?.success(), "no key was made");
        }
        let config = format!(
            "HostKey {}\nAuthorizedKeysFile {}\nStrictModes no\nUsePAM no\nPidFile none\n\
             Subsystem sftp internal-sftp\n",
            keys.file("host"),
            keys.file("user.pub")
        );
        std::fs::write(keys.file("config"), config)?;
        if !Path::new(PRIVILEGES).exists() {
            // Only root needs it, and only root can.
            drop(std::fs::create_dir(PRIVILEGES));
        }
        Ok(keys)
    }

    /// Command line of an sshd that listens there and logs to standard error; no part of it has a space.
    #[must_use]
    pub fn server(&self, address: &str) -> String {
        let config = self.file("config");
        format!("/usr/sbin/sshd -D -e -f {config} -o ListenAddress={address}")
    }

    /// Has a client, ssh or scp, use the key that is let in, and believe the host whatever it is called.
    pub fn believe(&self, command: &mut Command) {
        let options = [
            "StrictHostKeyChecking=no",
            "UserKnownHostsFile=/dev/null",
            "LogLevel=ERROR",
            "BatchMode=yes",
        ];
        command.args(["-F", "none", "-i", &self.file("user")]);
        for option in options {
            command.args(["-o", option]);
        }
    }

    fn file(&self, name: &str) -> String {
        self.0.path().join(name).display().to_string()
    }
}

impl Sshd {
    /// Starts it on a free port.
    ///
    /// # Errors
    /// If it is not installed or does not become ready; carries what it said.
    pub async fn start() -> anyhow::Result<Self> {
        let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        let keys = Keys::make().await?;
        let server = keys.server(&address.to_string());
        let mut words = server.split(' ');
        let mut process = Command::new(words.next().context("a program")?)
            .args(words)
            .stdin(Stdio::null())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .context(MISSING)?;
        let log = process.stderr.take().context("stderr is piped")?;
        let mut drain = JoinSet::new();
        let ready = until_it_says("Server listening", "sshd", log, &mut drain);
        tokio::time::timeout(PATIENCE, ready)
            .await
            .context("sshd does not become ready")??;
        Ok(Self {
            address,
            keys,
            process,
            _drain: drain,
        })
    }

    /// Number of the process that listens.
    ///
    /// # Errors
    /// If it has ended.
    pub fn pid(&self) -> anyhow::Result<u32> {
        self.process.id().context("sshd has ended")
    }

    /// A client with the key that is let in, ssh or scp; it believes the host whatever it is called.
    #[must_use]
    pub fn client(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        self.keys.believe(&mut command);
        command.kill_on_drop(true);
        command
    }
}

const MISSING: &str = "cannot run OpenSSH: run `cargo xtask test` once";
