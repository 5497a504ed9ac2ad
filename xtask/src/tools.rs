//! What the machine must have; installed when it is missing, and said before.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, bail};

use crate::run::{command, root, step, target_dir};

/// Whether a program is on the PATH.
fn has(program: &str) -> bool {
    Command::new("sh")
        .args(["-c", &format!("command -v {program}")])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

/// The wasm target of the toolchain.
pub(crate) fn wasm_target() -> anyhow::Result<()> {
    const TARGET: &str = "wasm32-unknown-unknown";
    let sysroot = command("rustc", &["--print", "sysroot"])
        .output()
        .context("cannot run rustc")?;
    let sysroot = String::from_utf8_lossy(&sysroot.stdout).trim().to_owned();
    if Path::new(&sysroot)
        .join("lib/rustlib")
        .join(TARGET)
        .exists()
    {
        return Ok(());
    }
    step(
        "install the wasm target of the Rust toolchain",
        &mut command("rustup", &["target", "add", TARGET]),
    )
}

/// For the tests of the JavaScript: program and Debian package.
const NODE: &[(&str, &str)] = &[("node", "nodejs"), ("npm", "npm")];

/// The other relay.
const COTURN: (&str, &str) = ("turnserver", "coturn");

/// For the stories.
const BROWSERS: &[(&str, &str)] = &[
    COTURN,
    ("chromium", "chromium"),
    ("firefox-esr", "firefox-esr"),
    ("certutil", "libnss3-tools"),
    ("ip", "iproute2"),
    ("curl", "curl"),
    ("ssh", "openssh-client"),
    ("/usr/sbin/sshd", "openssh-server"),
    ("dig", "bind9-dnsutils"),
    ("/usr/sbin/dnsmasq", "dnsmasq-base"),
];

/// For tunnels to compare with.
const SSH: &[(&str, &str)] = &[
    ("ssh", "openssh-client"),
    ("/usr/sbin/sshd", "openssh-server"),
];

/// Tunnels to compare with that are not Debian's: name, and how cargo installs it. What rathole has locked
/// does not compile any more.
const TUNNELS: &[(&str, &[&str])] = &[
    (
        "rathole",
        &[
            "rathole@0.5.0",
            "--no-default-features",
            "--features",
            "server,client,noise",
        ],
    ),
    ("dumbpipe", &["dumbpipe@0.40.1", "--locked"]),
];

/// For labs, and for the scenarios in them.
const LAB: &[(&str, &str)] = &[
    ("ip", "iproute2"),
    ("nft", "nftables"),
    ("faketime", "faketime"),
    ("ping", "iputils-ping"),
    ("turnutils_natdiscovery", "coturn"),
    ("python3", "python3"),
];

/// For the relay's tests: clients that are not ours.
const CLIENTS: &[(&str, &str)] = &[("turnutils_uclient", "coturn"), ("python3", "python3-venv")];

/// Clients in Python.
const PYTHON_CLIENTS: &[&str] = &["aioice==0.13.0", "aiortc==1.16.0"];

/// Node.js, if it is missing.
pub(crate) fn node() -> anyhow::Result<()> {
    install_missing(NODE)
}

/// Browsers, if they are missing.
pub(crate) fn for_stories() -> anyhow::Result<()> {
    install_missing(BROWSERS)
}

/// What labs and the scenarios in them need, if it is missing.
pub(crate) fn for_labs() -> anyhow::Result<()> {
    install_missing(LAB)
}

/// coturn, if it is missing.
pub(crate) fn coturn() -> anyhow::Result<()> {
    install_missing(&[COTURN])
}

/// OpenSSH and other tunnels, if they are missing; returns the folder of those that cargo installs, under
/// `target/`.
pub(crate) fn tunnels() -> anyhow::Result<PathBuf> {
    install_missing(SSH)?;
    let path = target_dir().join("bench-tools");
    let folder = path.join("bin");
    for (name, arguments) in TUNNELS {
        if folder.join(name).exists() {
            continue;
        }
        let mut install = command("cargo", &["install", "--root"]);
        install.arg(&path).args(*arguments);
        step(&format!("install {name}"), &mut install)?;
    }
    Ok(folder)
}

/// Clients of the relay that are not ours, if they are missing; those in Python in an environment of
/// their own under `target/`. An unfinished installation is begun again.
pub(crate) fn clients() -> anyhow::Result<()> {
    install_missing(CLIENTS)?;
    let path = root().join("target/python-clients");
    let (complete, wanted) = (path.join("complete"), PYTHON_CLIENTS.join(" "));
    if fs::read_to_string(&complete).is_ok_and(|installed| installed == wanted) {
        return Ok(());
    }
    step(
        "make an environment for clients in Python",
        command("python3", &["-m", "venv", "--clear"]).arg(&path),
    )?;
    let mut install = Command::new(path.join("bin/pip"));
    install
        .args(["install", "--quiet", "--no-compile"])
        .args(PYTHON_CLIENTS);
    step(&format!("install {wanted}"), &mut install)?;
    fs::write(complete, wanted)?;
    Ok(())
}

/// Installs packages whose programs are missing, by apt.
fn install_missing(programs: &[(&str, &str)]) -> anyhow::Result<()> {
    let missing: Vec<&str> = programs
        .iter()
        .filter(|(program, _)| !has(program))
        .map(|(_, package)| *package)
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    if !has("apt-get") {
        bail!("please install: {}", missing.join(" "));
    }
    eprintln!(
        "==> missing: {}; installing with apt-get",
        missing.join(", ")
    );
    step(
        "apt-get update",
        &mut privileged("apt-get", &["update", "-qq"]),
    )?;
    let mut args = vec!["install", "-y", "-qq", "--no-install-recommends"];
    args.extend(&missing);
    let mut install = privileged("apt-get", &args);
    install
        .env("DEBIAN_FRONTEND", "noninteractive")
        .stdout(Stdio::null());
    step("apt-get install", &mut install)
}

/// As root, or through sudo.
pub(crate) fn privileged(program: &str, args: &[&str]) -> Command {
    let is_root = command("id", &["-u"])
        .output()
        .is_ok_and(|output| output.stdout.starts_with(b"0\n"));
    if is_root {
        command(program, args)
    } else {
        let mut all = vec![program];
        all.extend(args);
        command("sudo", &all)
    }
}

/// A network interface with an address, for machines that have none but loopback: browsers refuse
/// to connect to a peer that offers only 127.0.0.1. Removed when dropped, if it was made here.
pub(crate) struct TestInterface(Option<()>);

const INTERFACE: &str = "portway-test";
const ADDRESS: &str = "192.0.2.1/32";

impl TestInterface {
    /// Makes the interface if it is needed.
    pub(crate) fn ensure() -> anyhow::Result<Self> {
        let addresses = command("ip", &["-o", "-4", "addr", "show", "up", "scope", "global"])
            .output()
            .context("cannot run ip")?;
        if !addresses.stdout.is_empty() {
            return Ok(Self(None));
        }
        eprintln!(
            "==> this machine has no address but loopback: adding {ADDRESS} on a dummy interface for the tests"
        );
        for args in [
            &["link", "add", INTERFACE, "type", "dummy"][..],
            &["addr", "add", ADDRESS, "dev", INTERFACE],
            &["link", "set", INTERFACE, "up"],
        ] {
            step(
                &format!("ip {}", args.join(" ")),
                &mut privileged("ip", args),
            )?;
        }
        Ok(Self(Some(())))
    }
}

impl Drop for TestInterface {
    fn drop(&mut self) {
        if self.0.is_some()
            && let Err(error) = step(
                "remove the dummy interface",
                &mut privileged("ip", &["link", "del", INTERFACE]),
            )
        {
            eprintln!("xtask: {error:#}");
        }
    }
}
