//! What makes a service of elsewhere local: Portway, and others to compare with.

use std::any::Any;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use portway_tests::client::{Connected, LinkFile};
use portway_tests::portway::{Portway, State, binary};
use portway_tests::ready::until_it_says;
use portway_tests::sshd::Sshd;
use portway_tests::tcp_service::{TcpService, echoing};
use portway_tests::usage::Usage;
use portway_tests::{LOOK_AGAIN, PATIENCE};
use tokio::process::{Child, Command};
use tokio::task::JoinSet;

/// Folder of the tools that are not Debian's, see `xtask/src/tools.rs`.
const FOLDER: &str = "PORTWAY_BENCH_TOOLS";

/// A tool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tool {
    /// No tool: the local program connects to the service itself.
    Tcp,
    /// Ours: `portway up` and `portway connect -L`.
    Portway,
    /// OpenSSH: `sshd` and `ssh -L`.
    Ssh,
    /// rathole over TCP, encrypted by Noise; a TCP connection for each connection.
    Rathole,
    /// dumbpipe, over QUIC by iroh; a QUIC connection for each connection.
    Dumbpipe,
}

impl Tool {
    pub(crate) const ALL: [Self; 5] = [
        Self::Tcp,
        Self::Portway,
        Self::Ssh,
        Self::Rathole,
        Self::Dumbpipe,
    ];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Portway => "portway",
            Self::Ssh => "ssh",
            Self::Rathole => "rathole",
            Self::Dumbpipe => "dumbpipe",
        }
    }

    /// Whether it is on this machine.
    pub(crate) fn is_there(self) -> bool {
        match self {
            Self::Tcp | Self::Portway | Self::Ssh => true,
            Self::Rathole | Self::Dumbpipe => self.program().is_ok_and(|path| path.is_file()),
        }
    }

    /// What it says of its version.
    pub(crate) async fn version(self) -> anyhow::Result<String> {
        let (program, argument) = match self {
            Self::Tcp => ("uname".into(), "-sr"),
            Self::Portway => (binary(), "version"),
            Self::Ssh => ("ssh".into(), "-V"),
            Self::Rathole | Self::Dumbpipe => (self.program()?, "--version"),
        };
        let said = Command::new(program).arg(argument).output().await?;
        let said = [said.stdout, said.stderr].concat();
        let said = String::from_utf8_lossy(&said).into_owned();
        // rathole tells more than that.
        let line = said.lines().find(|line| line.starts_with("Build Version:"));
        let line = line.or_else(|| said.lines().next()).unwrap_or_default();
        Ok(line.trim().to_owned())
    }

    fn program(self) -> anyhow::Result<PathBuf> {
        let folder = std::env::var_os(FOLDER).with_context(|| format!("{FOLDER} is not set"))?;
        Ok(Path::new(&folder).join(self.name()))
    }
}

/// A service, and a tool that makes it local. Ends when dropped.
pub(crate) struct Tunnel {
    pub(crate) tool: Tool,
    pub(crate) service: TcpService,
    /// Where local programs connect.
    pub(crate) address: SocketAddr,
    /// Processes of the end where local programs are.
    near: Vec<u32>,
    /// Those of the end where the service is.
    far: Vec<u32>,
    /// What runs it.
    _running: Box<dyn Any>,
}

/// What both ends of a tunnel use.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ends {
    pub(crate) near: Usage,
    pub(crate) far: Usage,
}

impl Ends {
    /// Processor time of both so far.
    pub(crate) fn cpu(self) -> Duration {
        self.near.cpu + self.far.cpu
    }
}

impl Tunnel {
    /// Starts the tool, until a connection by it works.
    pub(crate) async fn start(tool: Tool) -> anyhow::Result<Self> {
        let started = async {
            let service = TcpService::start().await?;
            let tunnel = match tool {
                Tool::Tcp => Self {
                    tool,
                    address: service.address,
                    service,
                    near: Vec::new(),
                    far: Vec::new(),
                    _running: Box::new(()),
                },
                Tool::Portway => Self::portway(service).await?,
                Tool::Ssh => Self::ssh(service).await?,
                Tool::Rathole => Self::rathole(service)?,
                Tool::Dumbpipe => Self::dumbpipe(service).await?,
            };
            while echoing(tunnel.address).await.is_err() {
                tokio::time::sleep(LOOK_AGAIN).await;
            }
            anyhow::Ok(tunnel)
        };
        let started = tokio::time::timeout(PATIENCE, started).await;
        started
            .map_err(anyhow::Error::from)
            .flatten()
            .context(tool.name())
    }

    pub(crate) fn usage(&self) -> anyhow::Result<Ends> {
        Ok(Ends {
            near: Usage::of(&self.near)?,
            far: Usage::of(&self.far)?,
        })
    }

    async fn portway(service: TcpService) -> anyhow::Result<Self> {
        let state = State::new()?;
        let expose = format!("app=tcp://{}", service.address);
        let node = Portway::up(&state, "127.0.0.1:0", &["--expose", &expose]).await?;
        let link = LinkFile::new(&node.link("app"))?;
        let client = Connected::start(&link).await?;
        let path = client.ready["path"].as_str().unwrap_or_default();
        ensure!(path == "direct", "a path that is {path}");
        Ok(Self {
            tool: Tool::Portway,
            service,
            address: client.listen().parse()?,
            near: vec![client.pid()?],
            far: vec![node.pid()?],
            _running: Box::new((node, client, link, state)),
        })
    }

    async fn ssh(service: TcpService) -> anyhow::Result<Self> {
        let sshd = Sshd::start().await?;
        let address = free_address()?;
        let mut ssh = sshd.client("ssh");
        ssh.args(["-N", "-L", &format!("{address}:{}", service.address)])
            .args(["-p", &sshd.address.port().to_string(), "127.0.0.1"]);
        let ssh = Process::spawn(ssh)?;
        Ok(Self {
            tool: Tool::Ssh,
            service,
            address,
            near: vec![ssh.pid],
            far: vec![sshd.pid()?],
            _running: Box::new((sshd, ssh)),
        })
    }

    fn rathole(service: TcpService) -> anyhow::Result<Self> {
        let program = Tool::Rathole.program()?;
        let keys = std::process::Command::new(&program)
            .arg("--genkey")
            .output()?;
        let keys = String::from_utf8(keys.stdout)?;
        let mut keys = keys
            .lines()
            .filter(|line| !line.is_empty() && !line.ends_with(':'));
        let (secret, public) = keys.next().zip(keys.next()).context("rathole's keys")?;
        let (meeting, address) = (free_address()?, free_address()?);
        let folder = tempfile::tempdir()?;
        let config = |side: &str, head: String, key: String, service: String| {
            let path = folder.path().join(side);
            let text = format!(
                "[{side}]\n{head}\ndefault_token = \"bench\"\n\
                 [{side}.transport]\ntype = \"noise\"\n\
                 [{side}.transport.noise]\n{key}\n\
                 [{side}.services.app]\n{service}\n"
            );
            std::fs::write(&path, text)?;
            let mut command = Command::new(&program);
            command.arg(format!("--{side}")).arg(path);
            Process::spawn(command)
        };
        // The machine with the service is rathole's client.
        let near = config(
            "server",
            format!("bind_addr = \"{meeting}\""),
            format!("local_private_key = \"{secret}\""),
            format!("bind_addr = \"{address}\""),
        )?;
        let far = config(
            "client",
            format!("remote_addr = \"{meeting}\""),
            format!("remote_public_key = \"{public}\""),
            format!("local_addr = \"{}\"", service.address),
        )?;
        Ok(Self {
            tool: Tool::Rathole,
            service,
            address,
            near: vec![near.pid],
            far: vec![far.pid],
            _running: Box::new((near, far, folder)),
        })
    }

    async fn dumbpipe(service: TcpService) -> anyhow::Result<Self> {
        let program = Tool::Dumbpipe.program()?;
        let mut listen = Command::new(&program);
        listen
            .args(["listen-tcp", "--host", &service.address.to_string()])
            .stderr(Stdio::piped());
        let mut far = Process::spawn(listen)?;
        let said = far.child.stderr.take().context("stderr is piped")?;
        let line = until_it_says("dumbpipe connect-tcp", "dumbpipe", said, &mut far.drain).await?;
        let ticket = line.split_whitespace().last().context("a ticket")?;
        let address = free_address()?;
        let mut connect = Command::new(&program);
        connect.args(["connect-tcp", "--addr", &address.to_string(), ticket]);
        let near = Process::spawn(connect)?;
        Ok(Self {
            tool: Tool::Dumbpipe,
            service,
            address,
            near: vec![near.pid],
            far: vec![far.pid],
            _running: Box::new((near, far)),
        })
    }
}

/// A process of a tool. Killed when dropped.
struct Process {
    pid: u32,
    child: Child,
    /// Reads what it says.
    drain: JoinSet<()>,
}

impl Process {
    fn spawn(mut command: Command) -> anyhow::Result<Self> {
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .kill_on_drop(true);
        let child = command.spawn()?;
        let Some(pid) = child.id() else {
            bail!("it has ended at once");
        };
        Ok(Self {
            pid,
            child,
            drain: JoinSet::new(),
        })
    }
}

/// An address of loopback where nobody listens.
fn free_address() -> anyhow::Result<SocketAddr> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?)
}
