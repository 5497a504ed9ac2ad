//! A lab: hosts on simulated networks, with real processes on them. Ends when dropped.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Command as Blocking, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context as _, bail};
use serde_json::Value;
use tempfile::TempDir;
use tokio::process::{Child, Command};
use tokio::task::JoinSet;

use crate::ready::until_it_says;

/// A lab that is up.
#[derive(Debug)]
pub struct Lab {
    name: String,
    root: PathBuf,
    /// Files that the lab's description names.
    _files: Option<TempDir>,
}

/// A way from a port of this machine to one of a host. Ends when dropped.
#[derive(Debug)]
pub struct Forward {
    /// Where it begins.
    pub address: SocketAddr,
    _process: Child,
    _drain: JoinSet<()>,
}

impl Lab {
    /// Starts one, with arguments of `portway-lab start`.
    ///
    /// # Errors
    /// What `portway-lab` says.
    pub async fn start(args: &[&str]) -> anyhow::Result<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let lab = Self {
            name: format!("t{}-{number}", std::process::id()),
            root: root(),
            _files: None,
        };
        lab.ask(&[&["start"], args].concat()).await?;
        Ok(lab)
    }

    /// Starts one from its description.
    ///
    /// # Errors
    /// What `portway-lab` says.
    pub async fn describe(spec: &str) -> anyhow::Result<Self> {
        let files = tempfile::tempdir()?;
        let path = files.path().join("lab.toml");
        std::fs::write(&path, spec)?;
        let mut lab = Self::start(&["--net", &path.display().to_string()]).await?;
        lab._files = Some(files);
        Ok(lab)
    }

    /// Its directory.
    #[must_use]
    pub fn dir(&self) -> PathBuf {
        self.root.join(&self.name)
    }

    /// The authority that its browsers must trust.
    #[must_use]
    pub fn authority(&self) -> PathBuf {
        self.dir().join("tls/authority.pem")
    }

    /// File of the link to a service, by way of its first signaling service.
    #[must_use]
    pub fn link_file(&self, service: &str) -> PathBuf {
        self.dir().join(format!("cluster/links/{service}.sig1"))
    }

    /// The link to a service.
    ///
    /// # Errors
    /// If there is none.
    pub fn link(&self, service: &str) -> anyhow::Result<String> {
        let file = self.link_file(service);
        let link = std::fs::read_to_string(&file).with_context(|| file.display().to_string())?;
        Ok(link.trim().to_owned())
    }

    /// `portway-lab ARGS… --json`, and what it prints; what it prints last, if there is more.
    ///
    /// # Errors
    /// What it says; its output is part of it.
    pub async fn ask(&self, args: &[&str]) -> anyhow::Result<Value> {
        let output = self
            .command()
            .arg("--json")
            .args(args)
            .stdin(Stdio::null())
            .output()
            .await
            .context("cannot run portway-lab")?;
        let text = String::from_utf8_lossy(&output.stdout);
        if !output.status.success() {
            bail!(
                "portway-lab {args:?}: {}\n{}{text}",
                output.status,
                String::from_utf8_lossy(&output.stderr)
            );
        }
        let last = text.lines().last().unwrap_or("null");
        Ok(serde_json::from_str(last)?)
    }

    /// What `portway-lab ARGS… --json` says when it refuses, or finds something wrong.
    ///
    /// # Errors
    /// If it does not.
    pub async fn refusal(&self, args: &[&str]) -> anyhow::Result<String> {
        match self.ask(args).await {
            Ok(answer) => bail!("portway-lab {args:?} should fail, but says {answer}"),
            Err(error) => Ok(error.to_string()),
        }
    }

    /// A program on a host; it ends when its process is dropped.
    #[must_use]
    pub fn on(&self, host: &str, program: &str) -> Command {
        let mut command = self.command();
        command
            .args(["exec", host, "--", program])
            .kill_on_drop(true);
        command
    }

    /// `portway COMMAND` on a host, with the link to a service.
    #[must_use]
    pub fn portway(&self, host: &str, command: &str, service: &str) -> Command {
        let program = crate::portway::binary();
        let mut portway = self.on(host, &program.display().to_string());
        portway
            .args([command, "--link-file"])
            .arg(self.link_file(service))
            .arg("--ca")
            .arg(self.authority());
        portway
    }

    /// Leads a port of a host's loopback interface to this machine.
    ///
    /// # Errors
    /// What `portway-lab` says.
    pub async fn forward(&self, host: &str, port: u16) -> anyhow::Result<Forward> {
        let mut process = self
            .command()
            .args(["--json", "forward", host, &port.to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let mut drain = JoinSet::new();
        let output = process.stdout.take().context("a pipe")?;
        let line = until_it_says("ready", "portway-lab forward", output, &mut drain).await?;
        let ready: Value = serde_json::from_str(&line)?;
        Ok(Forward {
            address: ready["listen"].as_str().unwrap_or_default().parse()?,
            _process: process,
            _drain: drain,
        })
    }

    fn command(&self) -> Command {
        let mut command = Command::new(binary());
        command
            .env("PORTWAY_LAB_ROOT", &self.root)
            .env("PORTWAY_LAB", &self.name);
        command
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        let cleaned = Blocking::new(binary())
            .arg("clean")
            .env("PORTWAY_LAB_ROOT", &self.root)
            .env("PORTWAY_LAB", &self.name)
            .stderr(Stdio::null())
            .status();
        if !cleaned.is_ok_and(|status| status.success()) {
            eprintln!("lab {} is left over in {}", self.name, self.root.display());
        }
    }
}

/// The built `portway-lab`, beside the built `portway`.
#[must_use]
pub fn binary() -> PathBuf {
    crate::portway::binary().with_file_name("portway-lab")
}

/// Below which the labs of tests are: a short path, for sockets have none else.
#[must_use]
pub fn root() -> PathBuf {
    std::env::temp_dir().join("portway-lab-tests")
}
