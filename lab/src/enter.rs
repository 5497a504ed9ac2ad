//! Into the namespaces of a lab, from outside.

use std::ffi::OsString;
use std::fs::File;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::process::CommandExt as _;
use std::process::{Command, ExitCode, ExitStatus};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Context as _, bail};
use nix::sched::{CloneFlags, setns};
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::Signal;

use crate::control::{Door, Request, ask_with_pid};
use crate::spec::Name;
use crate::state::{LabDir, MARK, Mode};

/// Hidden word of the command line.
pub(crate) const CHILD: &str = "__child";

/// Connections of a forwarded port at a time.
const MAX_CONNECTIONS: usize = 256;

/// The files that stand for a lab's namespaces.
struct Namespaces {
    user: Option<File>,
    mount: File,
    pid: File,
    network: File,
}

/// Runs a program on a host of the lab, and waits for it.
pub(crate) fn exec(dir: &LabDir, host: &Name, command: &[String]) -> anyhow::Result<ExitStatus> {
    let (program, args) = command.split_first().context("no command was given")?;
    // Inside, this process is not in /proc: only what it starts is.
    let (own, folder) = (std::env::current_exe()?, std::env::current_dir());
    if let Some(namespaces) = open(dir, host)? {
        enter_user(&namespaces)?;
        for (file, kind) in [
            (&namespaces.pid, CloneFlags::CLONE_NEWPID),
            (&namespaces.network, CloneFlags::CLONE_NEWNET),
            (&namespaces.mount, CloneFlags::CLONE_NEWNS),
        ] {
            setns(file, kind).context("cannot enter the lab")?;
        }
        // Entering a mount namespace leads to its root.
        if let Ok(folder) = folder {
            std::env::set_current_dir(folder)?;
        }
    }
    let mut child = Command::new(own)
        .arg(CHILD)
        .arg(program)
        .args(args)
        .env(MARK, dir.path())
        .env("PORTWAY_LAB_HOST", host.as_str())
        .spawn()?;
    Ok(child.wait()?)
}

/// The other side of [`exec`]: becomes the program, which is to end with whoever asked for it. Nobody
/// could ask that of a program before it runs but itself.
pub(crate) fn child(command: &[OsString]) -> anyhow::Result<ExitCode> {
    let (program, args) = command.split_first().context("no command was given")?;
    set_pdeathsig(Signal::SIGKILL)?;
    let error = Command::new(program).args(args).exec();
    eprintln!("portway-lab: cannot run `{}`: {error}", program.display());
    // As shells tell it.
    Ok(ExitCode::from(127))
}

/// Becomes nothing but a way from a port of this machine to a port of a host's loopback interface, or
/// of another address there. Prints where it listens. Ends with the process.
pub(crate) fn forward(
    dir: &LabDir,
    host: &Name,
    target: SocketAddr,
    listen: SocketAddr,
    ready: impl FnOnce(SocketAddr) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let listener =
        TcpListener::bind(listen).with_context(|| format!("cannot listen at {listen}"))?;
    let network = match open(dir, host)? {
        Some(namespaces) => {
            enter_user(&namespaces)?;
            Some(Arc::new(namespaces.network))
        }
        None => None,
    };
    ready(listener.local_addr()?)?;
    let under_way = Arc::new(AtomicUsize::new(0));
    for client in listener.incoming() {
        let client = client?;
        if under_way.load(Ordering::Relaxed) >= MAX_CONNECTIONS {
            continue;
        }
        under_way.fetch_add(1, Ordering::Relaxed);
        let (network, counted) = (network.clone(), under_way.clone());
        std::thread::Builder::new().spawn(move || {
            if let Err(error) = carry(client, network.as_deref(), target) {
                eprintln!("portway-lab: {target}: {error:#}");
            }
            counted.fetch_sub(1, Ordering::Relaxed);
        })?;
    }
    Ok(())
}

/// Carries a connection; this thread enters the host's network.
fn carry(client: TcpStream, network: Option<&File>, target: SocketAddr) -> anyhow::Result<()> {
    if let Some(network) = network {
        setns(network, CloneFlags::CLONE_NEWNET).context("cannot enter the host's network")?;
    }
    let server = TcpStream::connect(target)?;
    let (mut from_client, mut to_client) = (client.try_clone()?, client);
    let (mut from_server, mut to_server) = (server.try_clone()?, server);
    std::thread::scope(|scope| {
        scope.spawn(move || {
            // Either end may break off at any time: then the other hears of it.
            drop(std::io::copy(&mut from_client, &mut to_server));
            drop(to_server.shutdown(std::net::Shutdown::Write));
        });
        drop(std::io::copy(&mut from_server, &mut to_client));
        drop(to_client.shutdown(std::net::Shutdown::Both));
    });
    Ok(())
}

/// `PORT`, or `ADDR:PORT`; a port alone is one of the loopback interface.
pub(crate) fn target(text: &str) -> anyhow::Result<SocketAddr> {
    if let Ok(port) = text.parse::<u16>() {
        return Ok((Ipv4Addr::LOCALHOST, port).into());
    }
    text.parse()
        .with_context(|| format!("`{text}`: expected PORT or ADDR:PORT"))
}

fn open(dir: &LabDir, host: &Name) -> anyhow::Result<Option<Namespaces>> {
    let plan = dir.plan()?;
    let request = Request::Door { host: host.clone() };
    let (door, keeper): (Door, i32) = ask_with_pid(dir, &request)?;
    let Some(descriptor) = door.descriptor else {
        return Ok(None);
    };
    if keeper == 0 {
        bail!("the lab is in namespaces that this process cannot see");
    }
    let file = |name: String| {
        let path = format!("/proc/{keeper}/{name}");
        File::open(&path).with_context(|| format!("cannot open {path}"))
    };
    Ok(Some(Namespaces {
        user: match plan.mode {
            Mode::User => Some(file("ns/user".to_owned())?),
            Mode::Root | Mode::Loopback => None,
        },
        mount: file("ns/mnt".to_owned())?,
        pid: file("ns/pid".to_owned())?,
        network: file(format!("fd/{descriptor}"))?,
    }))
}

/// Whoever is in the lab's user namespace is root there.
fn enter_user(namespaces: &Namespaces) -> anyhow::Result<()> {
    match &namespaces.user {
        Some(user) => {
            setns(user, CloneFlags::CLONE_NEWUSER).context("cannot enter the lab's user namespace")
        }
        None => Ok(()),
    }
}
