//! The shipped client on a host of the lab, as people there would run it: `portway ping`,
//! `portway connect`.

use std::fs;
use std::io::Read as _;
use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use nix::sys::signal::Signal;
use serde::Deserialize;

use super::Keeper;
use crate::cluster::Cluster;
use crate::network::namespace::spawn;
use crate::process::{Program, Recipe, plain, wait_at_most};
use crate::spec::Name;
use crate::state::MARK;

/// Time for a pair to meet: after that there is no path.
const MEET: Duration = Duration::from_secs(15);

/// Time for a client to end in order.
const GRACE: Duration = Duration::from_secs(3);

/// Who opens a service of whom, and by way of which signaling service.
#[derive(Debug, Clone, Copy)]
pub(super) struct Opening<'a> {
    pub(super) from: &'a Name,
    pub(super) to: &'a Name,
    pub(super) signaling: &'a Name,
}

/// The last line of `portway ping --json`.
#[derive(Debug, Deserialize)]
pub(super) struct Pinged {
    /// `direct` or `relayed`.
    pub(super) path: String,
    pub(super) open_ms: f64,
    pub(super) rtt_ms: Option<Rtt>,
    pub(super) request: Option<Requested>,
}

/// Times of the round trips.
#[derive(Debug, Deserialize)]
pub(super) struct Rtt {
    pub(super) avg: f64,
}

/// One request.
#[derive(Debug, Deserialize)]
pub(super) struct Requested {
    pub(super) status: u16,
    pub(super) ms: f64,
}

/// The line with which `portway connect --json` says that it is ready.
#[derive(Debug, Deserialize)]
struct Ready {
    listen: SocketAddr,
    path: String,
}

/// A service of another host at a port of this one, until it is dropped.
pub(super) struct Connected {
    _program: Running,
    pub(super) listen: SocketAddr,
    /// `direct` or `relayed`.
    pub(super) path: String,
}

/// One round trip and one request in a session of their own.
pub(super) fn ping(keeper: &Keeper, opening: Opening<'_>) -> anyhow::Result<Pinged> {
    let (portway, _) = keeper.portway();
    let mut command = Command::new(portway);
    command
        .args(["ping", "--count", "1"])
        .args(opened(keeper, opening)?)
        .env(MARK, keeper.dir.path())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let place = keeper.place(opening.from)?;
    let mut child = spawn(place.as_ref(), &mut command)?;
    let Some(status) = wait_at_most(&mut child, MEET)? else {
        child.kill()?;
        child.wait()?;
        bail!("they did not meet within {MEET:?}");
    };
    // A few lines: they fit into what a pipe holds.
    let (mut output, mut told) = (String::new(), String::new());
    child
        .stdout
        .take()
        .context("a pipe")?
        .read_to_string(&mut output)?;
    child
        .stderr
        .take()
        .context("a pipe")?
        .read_to_string(&mut told)?;
    if !status.success() {
        let lines: Vec<String> = told.lines().flat_map(plain).collect();
        bail!("{}", lines.join("\n"));
    }
    let last = output.lines().last().context("it printed nothing")?;
    Ok(serde_json::from_str(last)?)
}

/// Makes the service local to the host that opens it.
pub(super) fn connect(keeper: &Keeper, opening: Opening<'_>) -> anyhow::Result<Connected> {
    let (portway, _) = keeper.portway();
    let mut args = vec!["connect".to_owned(), "--listen".to_owned(), "0".to_owned()];
    args.extend(opened(keeper, opening)?);
    let folder = keeper.dir.file(&format!("clients/{}", opening.from));
    fs::create_dir_all(&folder)?;
    let recipe = Recipe {
        program: portway,
        args,
        env: vec![keeper.dir.mark()],
        folder,
        announces: true,
    };
    let program = Running(keeper.spawn(opening.from, &recipe)?);
    let ready: Ready = serde_json::from_value(program.0.wait_ready(MEET)?)?;
    Ok(Connected {
        _program: program,
        listen: ready.listen,
        path: ready.path,
    })
}

/// Which service of which node, and whom to believe.
fn opened(keeper: &Keeper, opening: Opening<'_>) -> anyhow::Result<Vec<String>> {
    let host = keeper.plan.spec.hosts.get(opening.to);
    let services = Cluster::services(host.context("there is no such host")?);
    let service = services.first().context("it offers nothing")?;
    let link = keeper.cluster.link_file(service, opening.signaling);
    let device = keeper.dir.file(&format!("clients/{}/state", opening.from));
    let mut args = vec![
        "--json".to_owned(),
        "--state".to_owned(),
        device.display().to_string(),
        "--node".to_owned(),
        opening.to.to_string(),
        "--link-file".to_owned(),
        link.display().to_string(),
    ];
    let authority = Cluster::authority_file(&keeper.dir);
    if authority.exists() {
        args.extend(["--ca".to_owned(), authority.display().to_string()]);
    }
    Ok(args)
}

/// A program that ends when nobody needs it any more.
struct Running(Arc<Program>);

impl Drop for Running {
    fn drop(&mut self) {
        // One that has ended gets no signal, and needs none.
        if self.0.signal(Signal::SIGTERM).is_ok() && !self.0.wait_ended(GRACE) {
            drop(self.0.signal(Signal::SIGKILL));
        }
    }
}
